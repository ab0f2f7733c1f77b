// SPDX-License-Identifier: Apache-2.0
// fails: tern: the same option of depthwise_conv is given twice
#include <tern/conv/depthwise_conv.hpp>

#ifdef TERN_MUST_FAIL
using option = tern::stride;
#else
using option = tern::dilation;
#endif
void product(tern::tensor_view<float, 4> const& x, tern::tensor_view<float, 3> const& w, tern::tensor_view<float, 4> const& y) {
  tern::depthwise_conv(tern::cpu, x, w, y, tern::stride{2}, option{2});
}
