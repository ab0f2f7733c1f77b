// SPDX-License-Identifier: Apache-2.0
#include "matrix_case.hpp"

namespace tern::test::matrix {

TEST_CASE("attention matrix: rows 30 to 39") { run_rows<30, 10>(); }

}  // namespace tern::test::matrix
