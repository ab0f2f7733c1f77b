// SPDX-License-Identifier: Apache-2.0
#include "matrix_case.hpp"

namespace tern::test::matrix {

TEST_CASE("attention matrix: rows 40 to 47, products in bf16") { run_rows<40, 8>(); }

}  // namespace tern::test::matrix
