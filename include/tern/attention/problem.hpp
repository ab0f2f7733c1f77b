// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/problem.hpp
/// An attention call after its arguments were checked. Heads that share keys and values make a unit; their queries are stacked,
/// token by token: row = query of the group * unit_heads + head of the unit. Rows, not heads, are tiled.

#include <tern/attention/options.hpp>
#include <tern/attention/source.hpp>
#include <tern/core/policy.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

struct attention_extents {
  index batch, heads, k_heads, v_heads, tokens, keys, dim, dim_v;
  index unit_heads;  // heads that share keys and values and see the same
  TERN_INLINE index units() const { return heads / unit_heads; }
};

/// What a call returns besides out: pointers and strides, or null.
struct row_output {
  float* data = nullptr;  // (batch, heads, tokens)
  index batch_stride = 0, head_stride = 0, row_stride = 0;
  TERN_INLINE void write(index b, index h, index token, float x) const {
    if (data != nullptr) data[b * batch_stride + h * head_stride + token * row_stride] = x;
  }
};
struct attention_returns {
  row_output lse, max, sum;
  tensor_view<std::int32_t, 4> top_ids;  // (batch, heads, tokens, count)
  tensor_view<float, 4> top_scores;
  tensor_view<float, 3> key_weights;  // (batch, heads, keys)
};

/// What the options of a call say.
template <class Layout, class Mask, class Chain, class Normalizer, class Transforms, bool top, bool columns>
struct attention_spec {
  static constexpr bool elementwise = elementwise_normalizer<Normalizer>;
  static constexpr bool hardest = std::same_as<Normalizer, hard>;
  static constexpr bool softmax = !elementwise && !hardest;
  static constexpr bool wants_top = top;
  static constexpr bool wants_key_weights = columns;
  static constexpr bool transforms = !Transforms::empty;
  /// Whether scores come out of the product as exponents of two: log2 e is in the query.
  static constexpr bool log2_scores = softmax && Chain::empty;

  [[no_unique_address]] Layout layout;  // or no_option: dense
  [[no_unique_address]] Mask mask;      // or no_mask
  [[no_unique_address]] Chain chain;
  [[no_unique_address]] Normalizer normalizer;  // or no_option: softmax
  [[no_unique_address]] Transforms transform;
  float scale;
  TERN_INLINE float query_factor() const { return log2_scores ? scale * log2_e : scale; }
};

template <class Q, class K, class V, class O, class Spec>
struct attention_problem {
  using spec_type = Spec;
  using key_element = typename K::element;
  using value_element = typename V::element;

  Q q;            // (batch, heads, tokens, dim)
  K k;            // (batch, k_heads, keys, dim)
  V v;            // (batch, v_heads, keys, dim_v)
  planes<O> out;  // (batch, heads, tokens, dim_v)
  attention_returns returns;
  attention_extents n;
  Spec spec;

  TERN_INLINE index k_head(index unit) const { return unit * n.unit_heads / (n.heads / n.k_heads); }
  TERN_INLINE index v_head(index unit) const { return unit * n.unit_heads / (n.heads / n.v_heads); }
  /// Of which both k and v have a row.
  TERN_INLINE index keys_of(index b, index unit) const {
    index const keys = keys_of_head(k, b, k_head(unit), n.keys), values = keys_of_head(v, b, v_head(unit), n.keys);
    return values < keys ? values : keys;
  }
  TERN_INLINE index top_count() const { return Spec::wants_top ? returns.top_ids.extent(3) : 0; }

  TERN_INLINE index groups(index b, index unit) const {
    if constexpr (is_given<decltype(spec.layout)>)
      return spec.layout.groups(b, unit * n.unit_heads);
    else
      return 1;
  }
  TERN_INLINE auto group(index b, index unit, index g) const {
    if constexpr (is_given<decltype(spec.layout)>)
      return spec.layout.group(b, unit * n.unit_heads, g);
    else
      return dense_group{n.tokens, keys_of(b, unit)};
  }
};

/// A group of a unit: whom its rows are, where they stand, what they see.
template <class Problem, class Group>
struct unit_group {
  Problem const& p;
  Group const& group;
  index b, unit;
  index offset;  // position of query i: i + offset, or its token + offset

  TERN_INLINE unit_group(Problem const& problem, Group const& of, index batch, index which)
      : p(problem), group(of), b(batch), unit(which), offset(stated_offset(head_mask())) {
    if (offset == bottom_right) offset = Group::local ? group.keys - group.queries : p.keys_of(b, unit) - p.n.tokens;
  }
  TERN_INLINE auto head_mask() const { return mask_of_head(p.spec.mask, b, unit * p.n.unit_heads); }
  TERN_INLINE auto mask() const { return mask_of_group(group, head_mask(), p.keys_of(b, unit), offset); }
  TERN_INLINE index rows() const { return group.queries * p.n.unit_heads; }
  TERN_INLINE index query(index row) const { return row / p.n.unit_heads; }
  TERN_INLINE index token(index row) const { return group.query(query(row)); }
  TERN_INLINE index head(index row) const { return unit * p.n.unit_heads + row % p.n.unit_heads; }
  TERN_INLINE std::int32_t position(index row) const {
    return static_cast<std::int32_t>((Group::local ? query(row) : token(row)) + offset);
  }
  TERN_INLINE row_at query_at(index row) const { return {b, head(row), p.k_head(unit), token(row), position(row)}; }
  /// Rows [first, ...) of q, in f32, scaled, transformed.
  TERN_INLINE void widen_query(index row, float* to) const {
    auto const read = [&](float factor) TERN_LAMBDA { read_row(p.q, b, head(row), token(row), p.n.dim, factor, to); };
    if constexpr (Problem::spec_type::transforms) {
      read(1.f);
      p.spec.transform.query(to, p.n.dim, query_at(row));
      widen_row(to, p.n.dim, p.spec.query_factor(), to);
    } else {
      read(p.spec.query_factor());
    }
  }
  TERN_INLINE void fetch_query(index row) const { fetch_row_of(p.q, b, head(row), token(row), p.n.dim); }
  /// Writes row `row`: o / l, or o as it is.
  TERN_INLINE void finish(index row, float const* o, float m, float l) const {
    using spec = typename Problem::spec_type;
    index const h = head(row), at = token(row);
    bool const empty = l == 0;
    float const factor = spec::elementwise ? 1 : (empty ? 0.f : 1 / l);
    narrow_row(o, p.n.dim_v, factor, p.out.at(b, h, at));
    float const unit_of_score = spec::softmax ? ln_2 : 1.f;
    if constexpr (spec::softmax) p.returns.lse.write(b, h, at, empty ? negative_infinity : (m + __builtin_log2f(l)) * ln_2);
    bool const odd = spec::softmax && l != l && m < -negative_infinity;  // NaN among the scores, of which m knows nothing
    if constexpr (!spec::elementwise) p.returns.max.write(b, h, at, odd ? l : m == negative_infinity ? m : m * unit_of_score);
    if constexpr (spec::elementwise) p.returns.sum.write(b, h, at, l);
  }
};

/// Memory handed out piece by piece; from null, only counted.
struct arena {
  std::byte* base;
  index used = 0;
  template <class T>
  TERN_INLINE T* take(index count) {
    T* const piece = base == nullptr ? nullptr : reinterpret_cast<T*>(base + used);
    used += round_to_multiple(count * static_cast<index>(sizeof(T)), 64);
    return piece;
  }
};

}  // namespace TERN_ABI
}  // namespace tern::detail
