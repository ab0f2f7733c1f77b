// SPDX-License-Identifier: Apache-2.0
// fails: tern: the same option of matmul is given twice
#include <tern/matmul/matmul.hpp>

void product(tern::tensor_view<float, 2> const& x, tern::tensor_view<float, 2> const& w, tern::tensor_view<float, 2> const& y,
             tern::tensor_view<float, 2> const& h) {
#ifdef TERN_MUST_FAIL
  tern::matmul(tern::cpu, x, w, y, tern::residual{h}, tern::residual{h});
#else
  tern::matmul(tern::cpu, x, w, y, tern::residual{h});
#endif
}
