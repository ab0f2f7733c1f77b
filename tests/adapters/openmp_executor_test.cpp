// SPDX-License-Identifier: Apache-2.0
#include <tern/core/openmp_executor.hpp>

#include "check_executor.hpp"

namespace tern::test {

TEST_CASE("OpenMP's threads run tern") {
  openmp_executor threads;
  check_executor(threads);
}

}  // namespace tern::test
