// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/relative_table.hpp
/// Score modifiers that look up where a key stands relative to the query in an image or a volume.
///
///     relative_table{table, image, size}           s + table(head, offset), a learned bias: Swin (arXiv:2103.14030)
///     relative_products{terms, image, reach}       s + sum over the axes a of terms(head, query, offset along a): q.r, content-dependent
///     mirror_table(bias, size, table)              the table of a bias that depends on |offset| only
///
/// relative_table  offsets query - key in [-(size_a - 1), size_a - 1] along axis a, row-major: for two axes
///                 offset = (y_q - y_k + size_0 - 1) (2 size_1 - 1) + x_q - x_k + size_1 - 1, as Swin counts them.
///                 table (heads, (2 size_0 - 1) (2 size_1 - 1)). A step counts the offsets of a dilated grid in steps (MaxViT).
/// relative_products  offsets key - query in [-reach_a, reach_a]; terms (heads, tokens, sum of 2 reach_a + 1): one axis after the
///                 other. A query_stride says that queries stand at multiples of it only (halo.hpp).
///
/// f32, rows contiguous. Offsets out of range take some entry: the layout is what hides them. Images have at most 2^21 tokens.

#include <tern/attention/box.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// floor(i / n) for registers of 0 <= i <= 2^21: (i + 1/2) / n - 1/2 lies within 1/2 - 1/(2n) of it, and rounding errors below
/// 3/(8n) do not change the nearest integer.
struct lane_divisor {
  std::int32_t n = 1;
  float inverse = 1;
  TERN_INLINE lane_divisor() = default;
  TERN_INLINE explicit lane_divisor(index by)
      : n(static_cast<std::int32_t>(by > 1 ? by : 1)), inverse(1 / static_cast<float>(by > 1 ? by : 1)) {}
  TERN_INLINE ints quotient(ints i) const { return simd::to_int((simd::to_float(i) + floats(0.5f)) * floats(inverse) - floats(0.5f)); }
};
inline constexpr index most_table_tokens = index{1} << 21;

/// Places of tokens in an image.
template <int N>
struct token_places {
  lane_divisor extent[N];
  TERN_INLINE explicit token_places(shape<N> const& image) {
    for (int a = 0; a < N; ++a) extent[a] = lane_divisor(image.extents[a]);
  }
  TERN_INLINE void split(ints token, ints (&x)[N]) const {
    for (int a = N - 1; a > 0; --a) {
      ints const rest = extent[a].quotient(token);
      x[a] = token - rest * ints(extent[a].n);
      token = rest;
    }
    x[0] = token;
  }
};

/// s + row[at], lane by lane; `at` is held within [0, last].
TERN_INLINE floats add_entries(floats s, float const* row, ints at, std::int32_t last) {
  constexpr index W = simd::lanes;
  std::int32_t place[W];
  float entry[W];
  simd::store(place, simd::max(ints(0), simd::min(ints(last), at)));
  for (index i = 0; i < W; ++i) entry[i] = row[place[i]];
  return s + simd::load(entry);
}

TERN_INLINE void expect_table_tokens(attention_shape const& n) {
  expect(n.keys <= most_table_tokens && n.tokens <= most_table_tokens, "attention", "the tokens that a relative table tells apart", n.keys,
         "at most 2^21");
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// s + table(head, offset): see the top of this file.
template <int N>
class relative_table {
 public:
  template <tensor_like X>
  TERN_INLINE relative_table(X&& x, shape<N> const& image, shape<N> const& size, shape<N> const& step = detail::same_extents<N>(1))
      : table_(tern::view(x)), tokens_(detail::tokens_of(image)), places_(image) {
    for (int a = N - 1; a >= 0; --a) {
      step_[a] = detail::lane_divisor(step.extents[a]);
      across_[a] = static_cast<std::int32_t>(entries_);
      center_ += static_cast<std::int32_t>(entries_ * (size.extents[a] - 1));
      entries_ *= 2 * size.extents[a] - 1;
    }
  }
  TERN_INLINE floats operator()(floats s, score_at const& at) const {
    ints const offset = code(ints(static_cast<std::int32_t>(at.query))) - code(at.key()) + ints(center_);
    return detail::add_entries(s, table_.data() + at.head * table_.stride(0), offset, static_cast<std::int32_t>(entries_ - 1));
  }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_equal("attention", "the image of relative_table", tokens_, "the keys of k", n.keys);
    detail::expect_equal("attention", "the image of relative_table", tokens_, "the tokens of q", n.tokens);
    detail::expect_table_tokens(n);
    detail::expect_equal("attention", "the rows of relative_table", table_.extent(0), "the heads of q", n.heads);
    detail::expect_equal("attention", "the entries of relative_table", table_.extent(1), "those of its size", entries_);
    detail::expect(table_.extent(1) <= 1 || table_.stride(1) == 1, "attention", "the last stride of relative_table", table_.stride(1),
                   "contiguous rows");
  }

 private:
  /// What the offset of two tokens is the difference of.
  TERN_INLINE ints code(ints token) const {
    ints x[N] = {}, sum(0);
    places_.split(token, x);
    for (int a = 0; a < N; ++a) sum = sum + (step_[a].n > 1 ? step_[a].quotient(x[a]) : x[a]) * ints(across_[a]);
    return sum;
  }
  tensor_view<float const, 2> table_;
  index tokens_;
  detail::token_places<N> places_;
  detail::lane_divisor step_[N];
  std::int32_t across_[N] = {};
  std::int32_t center_ = 0;
  index entries_ = 1;
};
template <class X, int N>
relative_table(X&&, shape<N>, shape<N>) -> relative_table<N>;
template <class X, int N>
relative_table(X&&, shape<N>, shape<N>, shape<N>) -> relative_table<N>;

/// Writes table(head, offset) = bias(head, |offset|) for relative_table. bias (heads, size_0 size_1 ...), row-major as an image is.
inline constexpr struct mirror_table_fn {
  template <tensor_like B, tensor_like T, int N>
  void operator()(B&& bias, shape<N> const& size, T&& table) const {
    auto const from = tern::view(bias);
    auto const to = tern::view(table);
    index entries = 1;
    for (int a = 0; a < N; ++a) entries *= 2 * size.extents[a] - 1;
    detail::expect_equal("mirror_table", "bias.extent(1)", from.extent(1), "the tokens of size", detail::tokens_of(size));
    detail::expect_equal("mirror_table", "table.extent(0)", to.extent(0), "the heads of bias", from.extent(0));
    detail::expect_equal("mirror_table", "table.extent(1)", to.extent(1), "the entries of size", entries);
    for (index h = 0; h < to.extent(0); ++h)
      for (index e = 0; e < entries; ++e) {
        detail::digits rest{e};
        index place = 0, across = 1;
        for (int a = N - 1; a >= 0; --a) {
          index const offset = rest.next(2 * size.extents[a] - 1) - size.extents[a] + 1;
          place += across * (offset < 0 ? -offset : offset);
          across *= size.extents[a];
        }
        to(h, e) = static_cast<float>(from(h, place));
      }
  }
} mirror_table{};

/// s + sum over the axes of terms(head, query, offset along it): see the top of this file.
template <int N>
class relative_products {
 public:
  template <tensor_like X>
  TERN_INLINE relative_products(X&& x, shape<N> const& image, shape<N> const& reach,
                                shape<N> const& query_stride = detail::same_extents<N>(1))
      : terms_(tern::view(x)), places_(image), query_places_(image), tokens_(detail::tokens_of(image)) {
    shape<N> queries{};
    for (int a = 0; a < N; ++a) {
      queries.extents[a] = (image.extents[a] + query_stride.extents[a] - 1) / query_stride.extents[a];
      stride_[a] = static_cast<std::int32_t>(query_stride.extents[a]);
      reach_[a] = static_cast<std::int32_t>(reach.extents[a]);
      entries_ += 2 * reach.extents[a] + 1;
    }
    query_places_ = detail::token_places<N>(queries);
  }
  TERN_INLINE floats operator()(floats s, score_at const& at) const {
    ints of[N] = {}, x[N] = {};
    query_places_.split(ints(static_cast<std::int32_t>(at.query)), of);
    places_.split(at.key(), x);
    float const* row = terms_.data() + at.head * terms_.stride(0) + at.query * terms_.stride(1);
    for (int a = 0; a < N; ++a) {
      s = detail::add_entries(s, row, x[a] - of[a] * ints(stride_[a]) + ints(reach_[a]), 2 * reach_[a]);
      row += 2 * reach_[a] + 1;
    }
    return s;
  }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_equal("attention", "the image of relative_products", tokens_, "the keys of k", n.keys);
    detail::expect_table_tokens(n);
    detail::expect(n.batch == 1, "attention", "the batch of q", n.batch, "1 with relative_products");
    detail::expect_equal("attention", "the first extent of relative_products", terms_.extent(0), "the heads of q", n.heads);
    detail::expect_equal("attention", "the second extent of relative_products", terms_.extent(1), "the tokens of q", n.tokens);
    detail::expect_equal("attention", "the entries of relative_products", terms_.extent(2), "those of its reach", entries_);
    detail::expect(terms_.extent(2) <= 1 || terms_.stride(2) == 1, "attention", "the last stride of relative_products", terms_.stride(2),
                   "contiguous rows");
  }

 private:
  tensor_view<float const, 3> terms_;
  detail::token_places<N> places_, query_places_;
  index tokens_;
  std::int32_t stride_[N] = {}, reach_[N] = {};
  index entries_ = 0;
};
template <class X, int N>
relative_products(X&&, shape<N>, shape<N>) -> relative_products<N>;
template <class X, int N>
relative_products(X&&, shape<N>, shape<N>, shape<N>) -> relative_products<N>;

}  // namespace TERN_ABI
}  // namespace tern
