// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/weigh.hpp
/// Between the two products: scores of a tile of rows become weights, while maxima and sums of the rows are kept.

#include <tern/attention/problem.hpp>
#include <tern/attention/tile_softmax.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// The keys of a block: indices `first`, `first + 1`, ... within the group.
struct block_keys {
  index first, count;
  std::int32_t const* ids;        // (key_block), where somebody asks for them
  std::int32_t const* positions;  // (key_block)
};

/// The `count` largest scores of each row so far, in descending order.
struct top_rows {
  float* score;      // (rows, count)
  std::int32_t* id;  // (rows, count)
  index count;
};

/// What is hidden of a row of scores: row(r)(c, s) is pack c of row r with -inf where the row sees nothing.
struct hide_nothing {
  static constexpr bool hides = false;
  TERN_INLINE hide_nothing row(index) const { return {}; }
  TERN_INLINE simd::pack<float> operator()(index, simd::pack<float> s) const { return s; }
};

/// Hides what the mask does not show to query `query_of(r)` of keys `block`, `block + 1`, ...
template <class Mask, class QueryOf>
struct hide_by_mask {
  static constexpr bool hides = true;
  Mask const& mask;
  QueryOf query_of;
  index block;

  TERN_INLINE auto row(index r) const {
    index const query = query_of(r);
    if constexpr (row_mask<Mask>) {
      key_range const seen = mask.row(query);
      return [begin = clamp(seen.begin - block, key_block), end = clamp(seen.end - block, key_block)](index c, simd::pack<float> s)
                 TERN_LAMBDA { return hide_outside(begin - c * simd::lanes, end - c * simd::lanes, s); };
    } else {
      return [query, this](index c, simd::pack<float> s) TERN_LAMBDA {
        float lane[simd::lanes];
        simd::store(lane, s);
        for (index i = 0; i < simd::lanes; ++i)
          if (!mask.visible(query, block + c * simd::lanes + i)) lane[i] = negative_infinity;
        return simd::load(lane);
      };
    }
  }

 private:
  TERN_INLINE static index clamp(index x, index most) { return x < 0 ? 0 : (x > most ? most : x); }
  /// Keeps lanes [begin, end).
  TERN_INLINE static simd::pack<float> hide_outside(index begin, index end, simd::pack<float> s) {
    using packf = simd::pack<float>;
    if (begin <= 0 && end >= simd::lanes) return s;
    packf const lane = simd::iota<float>();
    packf const from(static_cast<float>(clamp(begin, simd::lanes))), to(static_cast<float>(clamp(end, simd::lanes)));
    return simd::select((lane >= from) & (lane < to), s, packf(negative_infinity));
  }
};
template <class Mask, class QueryOf>
hide_by_mask(Mask const&, QueryOf, index) -> hide_by_mask<Mask, QueryOf>;

/// One row: modifiers and mask applied to packs [first, last), in place; returns the largest score.
template <class Spec, class Hide>
TERN_INLINE simd::pack<float> shape_row(Spec const& spec, score_at at, block_keys const& keys, float* row, index r, index first, index last,
                                        Hide const& hide) {
  using packf = simd::pack<float>;
  constexpr index W = simd::lanes;
  packf top(negative_infinity);
  auto const hide_row = hide.row(r);
  for (index c = first; c < last; ++c) {
    packf x = simd::load(row + c * W);
    if constexpr (!decltype(spec.chain)::empty) {
      at.key_index = keys.ids + c * W;
      at.key_positions = keys.positions + c * W;
      x = spec.chain(x, at);
      if constexpr (Spec::softmax) x = x * packf(log2_e);
    }
    x = hide_row(c, x);
    if constexpr (!decltype(spec.chain)::empty || Hide::hides) simd::store(row + c * W, x);
    top = simd::max(top, x);
  }
  return top;
}

/// Puts the scores of one row that belong there among its largest.
TERN_INLINE void collect_top(float const* row, block_keys const& keys, index first, index last, float* score, std::int32_t* id,
                             index count) {
  constexpr index W = simd::lanes;
  for (index c = first; c < last; ++c) {
    if (!simd::any(simd::load(row + c * W) > simd::pack<float>(score[count - 1]))) continue;
    for (index j = c * W; j < (c + 1) * W && j < keys.count; ++j) {
      float const x = row[j];
      if (!(x > score[count - 1])) continue;
      index at = count - 1;
      for (; at > 0 && x > score[at - 1]; --at) {
        score[at] = score[at - 1];
        id[at] = id[at - 1];
      }
      score[at] = x;
      id[at] = keys.ids[j];
    }
  }
}

/// f(s), or 0 where s is -inf, for packs of one row, to where its weights go; returns the sum.
template <class WeightRow, class F>
TERN_INLINE float apply_function(F const& f, float const* row, index first, index last, WeightRow weights) {
  using packf = simd::pack<float>;
  auto weight = [&](packf s) TERN_LAMBDA { return simd::select(s == packf(negative_infinity), packf(0.f), packf(f(s))); };
  packf sum(0.f);
  for (index n = first; n < last; ++n) {
    packf const a = weight(simd::load(row + n * panel_width)), b = weight(simd::load(row + n * panel_width + simd::lanes));
    weights.put(n, a, b);
    sum += a + b;
  }
  return simd::reduce_add(sum);
}

/// 1 for the first score that is larger than all before, 0 for the others. NaN stays, and is the maximum from then on.
template <class WeightRow>
TERN_INLINE void take_largest(float* row, index first, index last, float highest, softmax_rows const& state, index r, WeightRow weights) {
  bool const better = highest > state.m[r];
  bool found = !better;
  for (index j = first * panel_width; j < last * panel_width; ++j) {
    bool const here = !found && row[j] == highest;
    bool const odd = row[j] != row[j];
    found = found || here;
    if (odd) highest = row[j];
    row[j] = here ? 1.f : (odd ? row[j] : 0.f);
  }
  for (index n = first; n < last; ++n) weights.put(n, simd::load(row + n * panel_width), simd::load(row + n * panel_width + simd::lanes));
  state.alpha[r] = better ? 0.f : 1.f;
  if (better) state.l[r] = 1;
  if (better || highest != highest) state.m[r] = highest;
}

/// Turns scores into weights, for key panels [first, last) of `rows` rows; they go to p, by Tile::weight_row, which may be where the
/// scores are. `at_row(r)` says where row r stands, `hide` says what row r does not see. `keep` as in softmax_weights.
template <class Tile, bool keep, class Spec, class AtRow, class Hide>
TERN_INLINE void weigh_tile(Spec const& spec, float* s,  // (rows, key_block)
                            index rows, index first, index last, AtRow const& at_row, block_keys const& keys, Hide const& hide,
                            softmax_rows const& state, top_rows const& top, std::byte* p) {
  constexpr index W = simd::lanes;
  float highest[round_to_multiple(Tile::rows, W)];
  for (index g = 0; g < rows; g += W) {
    simd::pack<float> most[W];
    index const some = rows - g < W ? rows - g : W;
    for (index i = some; i < W; ++i) most[i] = simd::pack<float>(0.f);
    for (index i = 0; i < some; ++i) {
      index const r = g + i;
      float* const row = s + r * key_block;
      score_at at{};
      if constexpr (!decltype(spec.chain)::empty) at = at_row(r);
      most[i] = shape_row(spec, at, keys, row, r, 2 * first, 2 * last, hide);
      if constexpr (Spec::wants_top)
        collect_top(row, keys, 2 * first, 2 * last, top.score + r * top.count, top.id + r * top.count, top.count);
    }
    simd::max_each(most, highest + g);
  }
  if constexpr (Spec::softmax) return softmax_weights<Tile, keep>(s, rows, first, last, highest, state, p);
  for (index r = 0; r < rows; ++r) {
    float* const row = s + r * key_block;
    if constexpr (Spec::hardest) {
      take_largest(row, first, last, highest[r], state, r, typename Tile::weight_row(p, r));
    } else if constexpr (Spec::elementwise) {
      state.alpha[r] = 1;
      state.l[r] += apply_function(spec.normalizer, row, first, last, typename Tile::weight_row(p, r));
    }
  }
}

}  // namespace TERN_ABI
}  // namespace tern::detail
