// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/neighborhood.hpp
/// Every token sees its own neighborhood of `kernel` tokens along each axis of a text, an image or a volume, `dilation` apart.
///
///     neighborhood{shape{height, width}, shape{7, 7}}
///     neighborhood<3>{.image = shape{frames, height, width}, .kernel = shape{3, 7, 7}, .dilation = shape{1, 2, 2}, .causal = {true, false,
///     false}}
///
/// Along an axis, the token at x sees those of its own remainder modulo the dilation, at u' = s, ..., s + kernel - 1 where x = r +
/// dilation u and n is how many such tokens there are:
///
///     s = min(max(u - kernel / 2, 0), n - kernel)         a window that is moved inside at the borders: always `kernel` tokens
///     s = u - kernel + 1, ending at u itself              along a causal axis; what lies before the border is left out
///
/// as in NATTEN: neighborhood attention (Hassani et al. 2022, arXiv:2204.07143), dilated (arXiv:2209.15001), causal and in three
/// dimensions (arXiv:2403.04690), its get_window_start. Where n < kernel, which NATTEN refuses, a token sees all n.
///
/// `block` tokens along each axis share a group, which sees the union of their neighborhoods, less what each does not.
///
/// Shapes  q and k hold the tokens of `image`, row-major. Masks and distances count tokens.
/// Errors  extents below 1, and an image that q and k do not have.
/// Cost    (block + kernel - 1)^N instead of kernel^N scores for each query.

#include <tern/attention/box.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// One axis of a group: queries from `query` and keys from `key` on, counted among the `length` tokens of the same remainder.
struct neighborhood_axis {
  index length, kernel, query, key;
  bool causal;
  TERN_INLINE constexpr index begin(index u) const {
    if (causal) return larger(u - kernel + 1, 0);
    return larger(smaller(u - kernel / 2, length - kernel), 0);
  }
  TERN_INLINE constexpr index end(index u) const { return causal ? u + 1 : smaller(begin(u) + kernel, length); }
};

template <int N>
struct neighborhood_group {
  static constexpr bool local = false;
  index queries = 0, keys = 0;
  token_box<N> q, k;
  neighborhood_axis axis[N];

  TERN_INLINE constexpr index query(index i) const { return q.token(i); }
  TERN_INLINE constexpr index key(index j) const { return k.token(j); }
  TERN_INLINE constexpr bool visible(index i, index j) const {
    index u[N] = {}, x[N] = {};
    q.split(i, u);
    k.split(j, x);
    bool seen = true;
    for (int a = 0; a < N; ++a) {
      index const of = axis[a].query + u[a], at = axis[a].key + x[a];
      seen &= axis[a].begin(of) <= at && at < axis[a].end(of);
    }
    return seen;
  }
  /// Begin and end of a neighborhood grow along an axis, so first and last query and key decide, as long as all of a tile share
  /// their places along the axes before.
  TERN_INLINE constexpr coverage covers(index i0, index i1, index j0, index j1) const {
    index u0[N] = {}, u1[N] = {}, x0[N] = {}, x1[N] = {};
    q.split(i0, u0);
    q.split(i1 - 1, u1);
    k.split(j0, x0);
    k.split(j1 - 1, x1);
    bool all = true, same_query = true, same_key = true;
    for (int a = 0; a < N; ++a) {
      neighborhood_axis const& n = axis[a];
      index const first = n.query + (same_query ? u0[a] : 0), last = n.query + (same_query ? u1[a] : q.count[a] - 1);
      index const from = n.key + (same_key ? x0[a] : 0), to = n.key + (same_key ? x1[a] : k.count[a] - 1);
      if (to < n.begin(first) || from >= n.end(last)) return coverage::none;
      all &= n.begin(last) <= from && to < n.end(first);
      same_query &= u0[a] == u1[a];
      same_key &= x0[a] == x1[a];
    }
    return all ? coverage::all : coverage::some;
  }
};

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// A layout: see the top of this file.
template <int N>
struct neighborhood {
  static constexpr bool per_head = false;
  shape<N> image, kernel;
  shape<N> dilation = detail::same_extents<N>(1);
  bool causal[N] = {};
  shape<N> block = detail::same_extents<N>(N == 1 ? 64 : N == 2 ? 8 : 4);

  TERN_INLINE constexpr index groups(index, index) const {
    index all = 1;
    for (int a = 0; a < N; ++a) all *= axis_blocks(a).all();
    return all;
  }
  TERN_INLINE constexpr detail::neighborhood_group<N> group(index, index, index g) const {
    detail::neighborhood_group<N> to;
    shape<N> begin{}, end{}, from{}, behind{};
    detail::digits which{g};
    for (int a = N - 1; a >= 0; --a) {
      blocks const b = axis_blocks(a);
      place const at = b.at(which.next(b.all()));
      index const d = dilation.extents[a], last = detail::smaller((at.block + 1) * block.extents[a], at.length) - 1;
      detail::neighborhood_axis& x = to.axis[a];
      x = {at.length, kernel.extents[a], at.block * block.extents[a], 0, causal[a]};
      x.key = x.begin(x.query);
      begin.extents[a] = at.remainder + d * x.query;
      end.extents[a] = at.remainder + d * last + 1;
      from.extents[a] = at.remainder + d * x.key;
      behind.extents[a] = at.remainder + d * (x.end(last) - 1) + 1;
    }
    to.q = detail::box_of(image, begin, end, dilation);
    to.k = detail::box_of(image, from, behind, dilation);
    to.queries = to.q.size();
    to.keys = to.k.size();
    return to;
  }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_image("the image of neighborhood", image, n);
    detail::expect_at_least("a kernel of neighborhood", kernel, 1);
    detail::expect_at_least("a dilation of neighborhood", dilation, 1);
    detail::expect_at_least("a block of neighborhood", block, 1);
  }

 private:
  struct place {
    index remainder, block, length;
  };
  /// The blocks of one axis: first those of the remainders that have a token more.
  struct blocks {
    index longer, shorter;        // remainders
    index longer_in, shorter_in;  // blocks of each
    index length;                 // of the shorter ones
    TERN_INLINE constexpr index all() const { return longer * longer_in + shorter * shorter_in; }
    TERN_INLINE constexpr place at(index g) const {
      if (g < longer * longer_in) return {g / longer_in, g % longer_in, length + 1};
      g -= longer * longer_in;
      return {longer + g / shorter_in, g % shorter_in, length};
    }
  };
  TERN_INLINE constexpr blocks axis_blocks(int a) const {
    index const n = image.extents[a], d = dilation.extents[a], b = block.extents[a], length = n / d;
    return {n % d, d - n % d, (length + b) / b, (length + b - 1) / b, length};
  }
};
template <int N>
neighborhood(shape<N>, shape<N>) -> neighborhood<N>;
template <int N>
neighborhood(shape<N>, shape<N>, shape<N>) -> neighborhood<N>;

}  // namespace TERN_ABI
}  // namespace tern
