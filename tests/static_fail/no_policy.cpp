// SPDX-License-Identifier: Apache-2.0
// fails: tern: the first argument of a call is where it runs: tern::cpu
#include <tern/matmul/matmul.hpp>

void product(tern::tensor_view<float, 2> const& x, tern::tensor_view<float, 2> const& w, tern::tensor_view<float, 2> const& y) {
#ifdef TERN_MUST_FAIL
  tern::matmul(x, w, y);
#else
  tern::matmul(tern::cpu, x, w, y);
#endif
}
