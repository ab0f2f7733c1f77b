// SPDX-License-Identifier: Apache-2.0
// fails: tern: an option of attention is a mask
#include <tern/attention/attention.hpp>

void attend(tern::tensor_view<float, 3> const& q, tern::tensor_view<float, 3> const& out) {
#ifdef TERN_MUST_FAIL
  tern::attention(tern::cpu, q, q, q, out, 0.125f);
#else
  tern::attention(tern::cpu, q, q, q, out);
#endif
}
