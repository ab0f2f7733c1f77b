// SPDX-License-Identifier: Apache-2.0
#include "matrix_case.hpp"

namespace tern::test::matrix {

TEST_CASE("attention matrix: rows 10 to 19") { run_rows<10, 10>(); }

}  // namespace tern::test::matrix
