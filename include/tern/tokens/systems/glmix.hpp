// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/systems/glmix.hpp
/// GLMix: a grid of tokens is gathered into a few semantic slots, which attend to each other, and dispatched back.
///
///     pool_grid(policy, x, {H, W}, seeds, {8, 8})                where slots start, by default
///     glmix_gather(policy, x, seeds, scale, slots)
///     glmix_dispatch(policy, x, seeds, scale, slots, y)          once the slots have attended to each other
///
///     L_ji = scale seed_j . x_i / (|seed_j| |x_i|)
///     slots_j = sum_i (softmax over i of L_ji) x_i;     y_i = sum_j (softmax over j of L_ji) slots_j
///
/// Shapes    x (samples, tokens, channels) f32, f16 or bf16; seeds, slots (samples, slots, channels), y (samples, tokens, channels) f32.
/// Composition  two attention calls with cosine: in the first seeds ask tokens, in the second tokens ask seeds. The convolutions beside it
///           are depthwise_conv and matmul.
/// Cost      4 tokens slots channels flop each.
/// Source    Zhu et al. 2024, arXiv:2411.14429; models/glnet.py of its authors (GLMixBlock._forward_relation).

#include <tern/attention/attention.hpp>
#include <tern/attention/cosine.hpp>
#include <tern/core/steps.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// A tensor of one head.
template <class T>
TERN_INLINE tensor_view<T, 4> one_head(tensor_view<T, 3> const& x) {
  return {x.data(), shape<4>{{x.extent(0), 1, x.extent(1), x.extent(2)}}, shape<4>{{x.stride(0), 0, x.stride(1), x.stride(2)}}};
}
inline constexpr float unit_temperature[1] = {1.f};

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// glmix_gather(policy, x, seeds, scale, slots): see the top of this file.
inline constexpr struct glmix_gather_fn {
  template <tensor_like X>
  void operator()(cpu_policy const& policy, X&& x, tensor_view<float const, 3> const& seeds, float factor,
                  tensor_view<float, 3> const& slots) const {
    detail::run_steps steps(policy);
    gather_slots(steps, tern::view(x), seeds, factor, slots);
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like X>
  std::size_t workspace_size(cpu_policy const& policy, X&& x, tensor_view<float const, 3> const& seeds, float factor,
                             tensor_view<float, 3> const& slots) const {
    detail::count_steps steps(policy);
    gather_slots(steps, tern::view(x), seeds, factor, slots);
    return steps.bytes();
  }

 private:
  template <class Steps, class X>
  static void gather_slots(Steps& steps, X const& x, tensor_view<float const, 3> const& seeds, float factor,
                           tensor_view<float, 3> const& slots) {
    auto const tokens = detail::one_head(x);
    steps(attention, detail::one_head(seeds), tokens, tokens, detail::one_head(slots), cosine{detail::unit_temperature}, scale{factor});
  }
} glmix_gather{};

/// glmix_dispatch(policy, x, seeds, scale, slots, y): see the top of this file.
inline constexpr struct glmix_dispatch_fn {
  template <tensor_like X>
  void operator()(cpu_policy const& policy, X&& x, tensor_view<float const, 3> const& seeds, float factor,
                  tensor_view<float const, 3> const& slots, tensor_view<float, 3> const& y) const {
    detail::run_steps steps(policy);
    dispatch(steps, tern::view(x), seeds, factor, slots, y);
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like X>
  std::size_t workspace_size(cpu_policy const& policy, X&& x, tensor_view<float const, 3> const& seeds, float factor,
                             tensor_view<float const, 3> const& slots, tensor_view<float, 3> const& y) const {
    detail::count_steps steps(policy);
    dispatch(steps, tern::view(x), seeds, factor, slots, y);
    return steps.bytes();
  }

 private:
  template <class Steps, class X>
  static void dispatch(Steps& steps, X const& x, tensor_view<float const, 3> const& seeds, float factor,
                       tensor_view<float const, 3> const& slots, tensor_view<float, 3> const& y) {
    steps(attention, detail::one_head(x), detail::one_head(seeds), detail::one_head(slots), detail::one_head(y),
          cosine{detail::unit_temperature}, scale{factor});
  }
} glmix_dispatch{};

}  // namespace TERN_ABI
}  // namespace tern
