// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/grid_components.hpp
/// Regions of an image whose neighbors are alike: connected components of the grid in which two neighbors, beside or above each other,
/// are joined if their features are nearer than a threshold.
///
///     index const regions = grid_components(features, {h, w}, delta, labels)      |f_i - f_j| < delta joins; returns how many there are
///
/// Shapes    features (h w, channels) f32, f16 or bf16, rows contiguous; labels (h w) int32. Components are numbered from 0 in the order of
///           their first token, row by row. A NaN joins nothing.
/// Cost      2 h w channels multiply-adds, and a union-find with halved paths, of next to linear time. No memory: the labels are the
///           forest.
/// Source    ShowUI (arXiv:2411.17465).

#include <tern/core/error.hpp>
#include <tern/pointwise/rows.hpp>

#include <cstdint>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// The root of a tree; every other node on the way is hung one higher.
TERN_INLINE std::int32_t root_of(tensor_view<std::int32_t, 1> const& parent, std::int32_t i) {
  while (parent[i] != i) {
    parent[i] = parent[parent[i]];
    i = parent[i];
  }
  return i;
}
/// The smaller root becomes that of both.
TERN_INLINE void join(tensor_view<std::int32_t, 1> const& parent, std::int32_t a, std::int32_t b) {
  a = root_of(parent, a);
  b = root_of(parent, b);
  if (a < b) parent[b] = a;
  if (b < a) parent[a] = b;
}
template <class T>
TERN_INLINE bool nearer_than(T const* a, T const* b, index channels, float delta) {
  float const squares = sum_packs(channels, [&](index i, auto part) TERN_LAMBDA {
    simd::pack<float> const d = load(a + i, part) - load(b + i, part);
    return d * d;
  });
  return __builtin_sqrtf(squares) < delta;
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// grid_components(features, grid, delta, labels): see the top of this file.
inline constexpr struct grid_components_fn {
  template <tensor_like X>
  index operator()(X&& tokens, shape<2> const& grid, float delta, tensor_view<std::int32_t, 1> const& labels) const {
    static_assert(view_of<X>::rank == 2, "tern: grid_components takes features (tokens, channels)");
    constexpr char const* op = "grid_components";
    auto const features = tern::view(tokens);
    index const height = grid.extents[0], width = grid.extents[1], n = height * width;
    detail::expect_equal(op, "features.extent(0)", features.extent(0), "the tokens of the grid", n);
    detail::expect_equal(op, "labels.extent(0)", labels.extent(0), "the tokens of the grid", n);
    detail::expect_rows(op, "features", features);
    for (index i = 0; i < n; ++i) labels[i] = static_cast<std::int32_t>(i);
    auto const visit = [&](index i, index j) TERN_LAMBDA {
      auto const* const a = features.data() + i * features.stride(0);
      if (detail::nearer_than(a, features.data() + j * features.stride(0), features.extent(1), delta))
        detail::join(labels, static_cast<std::int32_t>(i), static_cast<std::int32_t>(j));
    };
    for (index y = 0; y < height; ++y)
      for (index x = 0; x < width; ++x) {
        index const i = y * width + x;
        if (x + 1 < width) visit(i, i + 1);
        if (y + 1 < height) visit(i, i + width);
      }
    // A root comes before what hangs on it: it has its number by then, as -1 - number, so that it is known from a parent.
    std::int32_t count = 0;
    for (index i = 0; i < n; ++i) {
      std::int32_t const parent = labels[i];
      labels[i] = parent == static_cast<std::int32_t>(i) ? -1 - count++ : labels[parent];
    }
    for (index i = 0; i < n; ++i) labels[i] = -1 - labels[i];
    return count;
  }
} grid_components{};

}  // namespace TERN_ABI
}  // namespace tern
