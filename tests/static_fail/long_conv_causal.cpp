// SPDX-License-Identifier: Apache-2.0
// fails: tern: an option of long_conv is .*long_mode::causal
#include <tern/attention/mask.hpp>
#include <tern/conv/long_conv.hpp>

#ifdef TERN_MUST_FAIL
constexpr auto option = tern::causal{};
#else
constexpr auto option = tern::long_mode::causal;
#endif
void convolve(tern::tensor_view<float, 2> const& u, tern::tensor_view<float, 2> const& k, tern::tensor_view<float, 2> const& y) {
  tern::long_conv(tern::cpu, u, k, y, option);
}
