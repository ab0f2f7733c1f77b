// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/low_rank.hpp
/// A low-rank path beside a product, in the same call:
///
///     matmul(policy, x, w, y, low_rank{a, b, scale})      y = x w^T + scale (x a^T) b^T
///
///     a (rank, k), b (n, rank): views of f32, f16 or bf16, block matrices, or weights of any other format (formats/weights.hpp)
///
/// x is what prologues made of it. x a^T is computed first (rows rank floats of scratch); its product with b is added piece by piece
/// while y is in cache. Both in f32, whatever the compute type. One such path in a call.
/// Source: Hu et al., "LoRA", 2021; Zhang et al., "Quantized Side Tuning" (QST), 2024; Yang et al., "CorDA", 2024; 1-bit adapters: Jie et
/// al., "Revisiting the Parameter Efficiency of Adapters from the Perspective of Precision Redundancy", 2023 (formulas from knowledge).

#include <tern/matmul/operations.hpp>

namespace tern {
inline namespace TERN_ABI {

/// y += scale (x a^T) b^T.
template <class A, class B>
struct low_rank {
  A a;  // (rank, k)
  B b;  // (n, rank)
  float scale;
  template <class Down, class Up>
  TERN_INLINE low_rank(Down const& down, Up const& up, float s = 1.f)
      : a(detail::hold_weights(down)), b(detail::hold_weights(up)), scale(s) {}
};
template <class Down, class Up>
low_rank(Down const&, Up const&, float = 1.f) -> low_rank<detail::held_weights<Down>, detail::held_weights<Up>>;

}  // namespace TERN_ABI
}  // namespace tern
