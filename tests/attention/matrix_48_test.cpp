// SPDX-License-Identifier: Apache-2.0
#include "matrix_case.hpp"

namespace tern::test::matrix {

TEST_CASE("attention matrix: rows 48 to 54, tiles") { run_rows<48, 7>(); }

}  // namespace tern::test::matrix
