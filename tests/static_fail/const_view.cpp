// SPDX-License-Identifier: Apache-2.0
// fails: read-only|not assignable|cannot assign
#include <tern/core/tensor_view.hpp>

void write(tern::tensor_view<float, 1> out, tern::tensor_view<float const, 1> in) {
#ifdef TERN_MUST_FAIL
  in[0] = out[0];
#else
  out[0] = in[0];
#endif
}
