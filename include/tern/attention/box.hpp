// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/box.hpp
/// Boxes of tokens within an image or a volume, of which the layouts over images are made. Tokens count row-major: token =
/// (x_0 * extent_1 + x_1) * extent_2 + x_2 for three axes. A box takes `count` of them along each axis, evenly spaced.

#include <tern/attention/layout.hpp>
#include <tern/attention/score.hpp>
#include <tern/core/tensor_view.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// The same extent for every axis.
template <int N>
TERN_INLINE constexpr shape<N> same_extents(index n) {
  shape<N> all{};
  for (int a = 0; a < N; ++a) all.extents[a] = n;
  return all;
}

/// Quotients of 0 <= j < 2^31 by a number of at least 1, without a division: j m / 2^32 with m just above 2^32 / n is at most one
/// too large.
struct divisor {
  std::uint64_t n = 1, m = (std::uint64_t{1} << 32) + 1;
  TERN_INLINE constexpr divisor() = default;
  TERN_INLINE constexpr explicit divisor(index by) : n(static_cast<std::uint64_t>(by > 1 ? by : 1)), m((std::uint64_t{1} << 32) / n + 1) {}
  TERN_INLINE constexpr index quotient(index j) const {
    std::uint64_t const u = static_cast<std::uint64_t>(j), q = (u * m) >> 32;
    return static_cast<index>(q - (q * n > u ? 1 : 0));
  }
};

/// `count` tokens along each axis, the first at `first`, neighbors `stride` tokens apart.
template <int N>
struct token_box {
  index first = 0;
  index count[N] = {};
  index stride[N] = {};
  divisor by[N] = {};  // count of each axis but the first

  TERN_INLINE constexpr index size() const {
    index all = 1;
    for (int a = 0; a < N; ++a) all *= count[a];
    return all;
  }
  /// Where the i-th token of the box stands in it.
  TERN_INLINE constexpr void split(index i, index (&x)[N]) const {
    for (int a = N - 1; a > 0; --a) {
      index const rest = by[a].quotient(i);
      x[a] = i - rest * count[a];
      i = rest;
    }
    x[0] = i;
  }
  TERN_INLINE constexpr index token(index i) const {
    index x[N] = {}, at = first;
    split(i, x);
    for (int a = 0; a < N; ++a) at += x[a] * stride[a];
    return at;
  }
};

/// The box [begin, end) of an image, every `step`-th token of each axis; empty where end <= begin.
template <int N>
TERN_INLINE constexpr token_box<N> box_of(shape<N> const& image, shape<N> const& begin, shape<N> const& end, shape<N> const& step) {
  token_box<N> b;
  index across = 1;
  for (int a = N - 1; a >= 0; --a) {
    index const from = begin.extents[a], to = end.extents[a], by = step.extents[a];
    b.count[a] = to > from ? (to - from + by - 1) / by : 0;
    b.stride[a] = across * by;
    b.by[a] = divisor(b.count[a]);
    b.first += across * from;
    across *= image.extents[a];
  }
  return b;
}
template <int N>
TERN_INLINE constexpr token_box<N> box_of(shape<N> const& image, shape<N> const& begin, shape<N> const& end) {
  return box_of(image, begin, end, same_extents<N>(1));
}

/// A box of queries that sees a box of keys.
template <int N>
struct box_group {
  static constexpr bool local = false;  // masks count tokens, which ascend within a box
  index queries, keys;
  token_box<N> q, k;
  TERN_INLINE constexpr box_group(token_box<N> const& of, token_box<N> const& sees)
      : queries(of.size()), keys(sees.size()), q(of), k(sees) {}
  TERN_INLINE constexpr index query(index i) const { return q.token(i); }
  TERN_INLINE constexpr index key(index j) const { return k.token(j); }
};

/// A number in a mixed base, its last digit first.
struct digits {
  index rest;
  TERN_INLINE constexpr index next(index base) {
    index const digit = base > 0 ? rest % base : 0;
    rest = base > 0 ? rest / base : 0;
    return digit;
  }
};

TERN_INLINE constexpr index smaller(index a, index b) { return a < b ? a : b; }
TERN_INLINE constexpr index larger(index a, index b) { return a < b ? b : a; }

template <int N>
TERN_INLINE constexpr index tokens_of(shape<N> const& image) {
  index all = 1;
  for (int a = 0; a < N; ++a) all *= image.extents[a];
  return all;
}
template <int N>
TERN_INLINE void expect_at_least(char const* what, shape<N> const& x, index least) {
  for (int a = 0; a < N; ++a) expect(x.extents[a] >= least, "attention", what, x.extents[a], least > 0 ? "at least 1" : "at least 0");
}
/// Compares an image with the queries and keys of a call.
template <int N>
TERN_INLINE void expect_image(char const* what, shape<N> const& image, attention_shape const& n) {
  expect_at_least(what, image, 0);
  expect_equal("attention", what, tokens_of(image), "the tokens of q", n.tokens);
  expect_equal("attention", what, tokens_of(image), "the keys of k", n.keys);
}

}  // namespace TERN_ABI
}  // namespace tern::detail
