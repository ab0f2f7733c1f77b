// SPDX-License-Identifier: Apache-2.0
#include "matrix_case.hpp"

namespace tern::test::matrix {

TEST_CASE("attention matrix: rows 0 to 9") { run_rows<0, 10>(); }

}  // namespace tern::test::matrix
