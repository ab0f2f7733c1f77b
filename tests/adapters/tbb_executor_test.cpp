// SPDX-License-Identifier: Apache-2.0
#include <tern/core/tbb_executor.hpp>

#include "check_executor.hpp"

namespace tern::test {

TEST_CASE("oneTBB's threads run tern") {
  tbb_executor threads;
  check_executor(threads);
}

}  // namespace tern::test
