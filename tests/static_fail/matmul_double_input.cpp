// SPDX-License-Identifier: Apache-2.0
// fails: tern: matmul takes x of f32, f16 or bf16
#include <tern/matmul/matmul.hpp>

#ifdef TERN_MUST_FAIL
using number = double;
#else
using number = tern::f16;
#endif
void product(tern::tensor_view<number, 2> const& x, tern::tensor_view<float, 2> const& w, tern::tensor_view<float, 2> const& y) {
  tern::matmul(tern::cpu, x, w, y);
}
