// SPDX-License-Identifier: Apache-2.0
#include <tern/core/eigen_executor.hpp>

#include "check_executor.hpp"

namespace tern::test {

TEST_CASE("Eigen's threads run tern") {
  Eigen::ThreadPool pool(3);
  eigen_executor threads(pool);
  CHECK(threads.concurrency() == 3);
  check_executor(threads);
}

}  // namespace tern::test
