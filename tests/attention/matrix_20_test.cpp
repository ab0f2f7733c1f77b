// SPDX-License-Identifier: Apache-2.0
#include "matrix_case.hpp"

namespace tern::test::matrix {

TEST_CASE("attention matrix: rows 20 to 29") { run_rows<20, 10>(); }

}  // namespace tern::test::matrix
