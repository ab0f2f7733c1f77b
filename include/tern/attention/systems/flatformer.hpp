// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/flatformer.hpp
/// Flattened window attention over points: they are sorted window by window, and cut into groups of equal size.
///
///     flatformer_order(coordinates, extent, window, axis, shifted, keys, order)       where each point stands
///     flatformer(policy, q, k, v, out, order, group_size)                             softmax attention within each group
///
/// A window of the point (x, y), shifted by half a window where asked, has number (X, Y) = (x / w, y / h), and the point stands at
/// (u, t) = (x % w, y % h) in it. Sorting by x orders windows, and points within them, as an ox ploughs:
///
///     key = (2 n Y + (-1)^Y X) 4 w h + (-1)^Y (2 h u + (-1)^u t),   n = ceil(extent_x / w) + 1
///
/// and by y with both axes exchanged. A layer sorts by x, the next by x shifted, then y, then y shifted (flatformer_axis).
///
/// The last group, where the size does not divide the number of points, has the queries that are left, which see the last
/// `group_size` points: the authors fill it with points of the group before.
///
/// Shapes  coordinates (points, 2), int32, (x, y) from 0 on; keys (points), int64: memory; order (points), int32; q, k, v, out as in
///         attention, one point a token. Of equal keys the first point comes first.
/// Cost    points log(points) for an order, which serves all layers that sort alike; points group_size heads dim multiply-adds, twice.
/// Source  Liu et al. 2023, arXiv:2301.08739; github.com/mit-han-lab/flatformer, mmdet3d/models/middle_encoders/flatformer.py.

#include <tern/attention/attention.hpp>
#include <tern/attention/point_groups.hpp>
#include <tern/core/heap_sort.hpp>

namespace tern {
inline namespace TERN_ABI {

/// What the points of a layer are sorted by.
enum class flatformer_axis { x, y };

/// A layout: `size` points of an order to a group. The last group's queries, if fewer, see the last `size` points.
struct equal_groups {
  static constexpr bool per_head = false;
  tensor_view<std::int32_t const, 1> order;
  index size;
  template <tensor_like X>
  TERN_INLINE constexpr equal_groups(X&& points, index group_size) : order(tern::view(points)), size(group_size) {}

  TERN_INLINE index groups(index, index) const { return (order.extent(0) + size - 1) / size; }
  TERN_INLINE detail::listed_group group(index, index, index g) const {
    index const n = order.extent(0), first = g * size, count = n - first < size ? n - first : size;
    index const seen = count < size && n >= size ? n - size : first;
    return {count, n < size ? n : size, order.data() + first, order.data() + seen};
  }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_order("the order of equal_groups", order, n);
    detail::expect(size >= 1, "attention", "the size of equal_groups", size, "at least 1");
  }
};

}  // namespace TERN_ABI
namespace detail {
inline namespace TERN_ABI {

/// order = 0, ..., n - 1 by ascending key; of equal keys the first number.
TERN_INLINE void sort_by_key(std::int64_t const* key, std::int32_t* order, index n) {
  for (index i = 0; i < n; ++i) order[i] = static_cast<std::int32_t>(i);
  heap_sort(order, n, [&](std::int32_t a, std::int32_t b) TERN_LAMBDA { return key[a] < key[b] || (key[a] == key[b] && a < b); });
}

}  // namespace TERN_ABI
}  // namespace detail
inline namespace TERN_ABI {

/// flatformer_order(coordinates, extent, window, axis, shifted, keys, order): see the top of this file.
inline constexpr struct flatformer_order_fn {
  void operator()(tensor_view<std::int32_t const, 2> const& coordinates, shape<2> const& extent, shape<2> const& window,
                  flatformer_axis axis, bool shifted, tensor_view<std::int64_t, 1> const& keys,
                  tensor_view<std::int32_t, 1> const& order) const {
    index const points = coordinates.extent(0);
    constexpr char const* op = "flatformer_order";
    detail::expect(coordinates.extent(1) == 2, op, "coordinates.extent(1)", coordinates.extent(1), "2: x and y");
    detail::expect_equal(op, "keys.extent(0)", keys.extent(0), "the points", points);
    detail::expect_equal(op, "order.extent(0)", order.extent(0), "the points", points);
    detail::expect(points <= 1 || (keys.stride(0) == 1 && order.stride(0) == 1), op, "the stride of keys or order",
                   keys.stride(0) != 1 ? keys.stride(0) : order.stride(0), "1");
    int const u = axis == flatformer_axis::x ? 0 : 1, t = 1 - u;  // along a row of windows, and from row to row
    for (int a = 0; a < 2; ++a) detail::expect(window.extents[a] >= 1, op, "a window", window.extents[a], "at least 1");
    std::int64_t const w = window.extents[u], h = window.extents[t], row = 2 * ((extent.extents[u] + w - 1) / w + 1);
    for (index i = 0; i < points; ++i) {
      std::int64_t const x = coordinates(i, u) + (shifted ? w / 2 : 0), y = coordinates(i, t) + (shifted ? h / 2 : 0);
      std::int64_t const turn = y / h % 2 == 0 ? 1 : -1, inner = x % w % 2 == 0 ? 1 : -1;
      keys[i] = (row * (y / h) + turn * (x / w)) * 4 * w * h + turn * (2 * h * (x % w) + inner * (y % h));
    }
    detail::sort_by_key(keys.data(), order.data(), points);
  }
} flatformer_order{};

/// flatformer(policy, q, k, v, out, order, group_size, options...): see the top of this file.
inline constexpr struct flatformer_fn {
  template <tensor_like Q, detail::key_source K, detail::key_source V, tensor_like O, tensor_like P, detail::attention_option... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, P&& order, index group_size, Options const&... options) const {
    attention(policy, q, k, v, out, equal_groups{order, group_size}, options...);
  }
} flatformer{};

}  // namespace TERN_ABI
}  // namespace tern
