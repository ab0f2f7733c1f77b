// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/systems/separable.hpp
/// Depthwise kernels replaced by one-way filters, as a-priori compressed convolutions are: a column filter behind a row filter, or the
/// sum of a few such pairs; and the pairs nearest to given kernels.
///
///     y = bias + sum over r of tall_r * (wide_r * x),    w(i, j, c) ~ sum over r of tall(r, i, c) wide(r, j, c)
///
///     separable(policy, x, tall, wide, y)
///     separable(policy, x, tall, wide, y, b)
///     double const error = separate(w, tall, wide);      off line: what is lost, relative to w (root of the sums of squares)
///
/// Shapes  x, y (batch, height, width, C), w (kh, kw, C), tall (rank, kh, C), wide (rank, kw, C), b (C). f32; y is not x. For each channel
///         `separate` takes the leading singular vectors, by power iteration: no other pairs of this rank come closer, but where singular
///         values nearly tie.
/// Memory  separable: scratch from the policy for a tensor like x.
/// Cost    2 rank (kh + kw) flop an element instead of 2 kh kw.
/// Source  Rigamonti et al., "Learning Separable Filters", CVPR 2013; "A priori compression of convolutional neural networks for wave
///         simulators" has these chains in place of two- and three-way filters (from its abstract).

#include <tern/conv/depthwise_conv.hpp>
#include <tern/conv/pixels.hpp>

namespace tern {
inline namespace TERN_ABI {

/// separable(policy, x, tall, wide, y, b): see the top of this file.
inline constexpr struct separable_fn {
  void operator()(cpu_policy const& policy, tensor_view<float const, 4> const& x, tensor_view<float const, 3> const& tall,
                  tensor_view<float const, 3> const& wide, tensor_view<float, 4> const& y,
                  tensor_view<float const, 1> const& b = {}) const {
    detail::expect(tall.extent(0) >= 1, "separable", "tall.extent(0)", tall.extent(0), "at least 1");
    detail::expect_extent("separable", "wide", wide, 0, "tall", tall, 0);
    detail::expect_own_memory("separable", "y", y, "x", x);
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(x.size()) * sizeof(float));
    auto const rows = detail::image_like(reinterpret_cast<float*>(memory.data()), x);
    for (index r = 0; r < tall.extent(0); ++r) {
      auto const column = column_of(tall[r]);
      depthwise_conv(policy, x, wide[r].expanded(), rows, same_padding{});
      if (r == 0)
        depthwise_conv(policy, rows, column, y, same_padding{}, detail::bias_if_any{b});
      else
        depthwise_conv(policy, rows, column, y, same_padding{}, residual{y});
    }
  }

  /// For tern::workspace_size: bytes of scratch of the same call.
  std::size_t workspace_size(cpu_policy const& policy, tensor_view<float const, 4> const& x, tensor_view<float const, 3> const& tall,
                             tensor_view<float const, 3> const& wide, tensor_view<float, 4> const& y,
                             tensor_view<float const, 1> const& b = {}) const {
    auto const rows = detail::image_like(nullptr, x);
    auto const column = column_of(tall[0]);
    std::size_t most = depthwise_conv.workspace_size(policy, x, wide[0].expanded(), rows, same_padding{});
    std::size_t const others[] = {depthwise_conv.workspace_size(policy, rows, column, y, same_padding{}, detail::bias_if_any{b}),
                                  depthwise_conv.workspace_size(policy, rows, column, y, same_padding{}, residual{y})};
    for (std::size_t const next : others)
      if (next > most) most = next;
    return workspace::rounded(static_cast<std::size_t>(x.size()) * sizeof(float)) + most;
  }

 private:
  /// (kh, C) as a kernel (kh, 1, C).
  static tensor_view<float const, 3> column_of(tensor_view<float const, 2> const& t) {
    return {t.data(), shape<3>{{t.extent(0), 1, t.extent(1)}}, shape<3>{{t.stride(0), 0, t.stride(1)}}};
  }
} separable{};

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {

/// One pair for one channel of what is left of w, by power iteration; the rest goes back to `left` (kh, kw).
TERN_INLINE void separate_pair(double* left, double* u, double* v, index kh, index kw) {
  for (index j = 0; j < kw; ++j) v[j] = 0;
  for (index i = 0; i < kh; ++i) {  // a mixture of the rows, which cannot miss what they share, in irregular parts
    double const turns = 0.6180339887498949 * static_cast<double>(i + 1), part = 0.5 + turns - __builtin_floor(turns);
    for (index j = 0; j < kw; ++j) v[j] += part * left[i * kw + j];
  }
  for (int turn = 0; turn < 200; ++turn) {
    double size = 0;
    for (index i = 0; i < kh; ++i) {
      u[i] = 0;
      for (index j = 0; j < kw; ++j) u[i] += left[i * kw + j] * v[j];
      size += u[i] * u[i];
    }
    if (!(size > 0)) break;
    for (index i = 0; i < kh; ++i) u[i] /= __builtin_sqrt(size);
    for (index j = 0; j < kw; ++j) {
      v[j] = 0;
      for (index i = 0; i < kh; ++i) v[j] += left[i * kw + j] * u[i];
    }
  }
  for (index i = 0; i < kh; ++i)
    for (index j = 0; j < kw; ++j) left[i * kw + j] -= u[i] * v[j];
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// The pairs of filters nearest to w, and how far they are: see the top of this file. Kernels have at most 51 x 51 taps.
TERN_INLINE double separate(tensor_view<float const, 3> const& w, tensor_view<float, 3> const& tall, tensor_view<float, 3> const& wide) {
  constexpr index most = 51;
  index const kh = w.extent(0), kw = w.extent(1);
  detail::expect(kh <= most, "separate", "w.extent(0)", kh, "at most 51");
  detail::expect(kw <= most, "separate", "w.extent(1)", kw, "at most 51");
  detail::expect_extent("separate", "wide", wide, 0, "tall", tall, 0);
  detail::expect_extent("separate", "tall", tall, 1, "w", w, 0);
  detail::expect_extent("separate", "wide", wide, 1, "w", w, 1);
  detail::expect_extent("separate", "tall", tall, 2, "w", w, 2);
  detail::expect_extent("separate", "wide", wide, 2, "w", w, 2);
  double lost = 0, all = 0, left[most * most], u[most], v[most];
  for (index c = 0; c < w.extent(2); ++c) {
    for (index i = 0; i < kh * kw; ++i) {
      left[i] = static_cast<double>(w(i / kw, i % kw, c));
      all += left[i] * left[i];
    }
    for (index r = 0; r < tall.extent(0); ++r) {
      detail::separate_pair(left, u, v, kh, kw);
      for (index i = 0; i < kh; ++i) tall(r, i, c) = static_cast<float>(u[i]);
      for (index j = 0; j < kw; ++j) wide(r, j, c) = static_cast<float>(v[j]);
    }
    for (index i = 0; i < kh * kw; ++i) lost += left[i] * left[i];
  }
  return all > 0 ? __builtin_sqrt(lost / all) : 0;
}

}  // namespace TERN_ABI
}  // namespace tern
