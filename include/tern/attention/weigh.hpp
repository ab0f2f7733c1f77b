// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/weigh.hpp
/// Between the two products: scores of a tile of rows become weights, while maxima and sums of the rows are kept.

#include <tern/attention/problem.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Keys between two updates of the running softmax. Block boundaries are multiples of it, so that a row does not depend on
/// its neighbors.
inline constexpr index key_block = 128;

/// The keys of a block: indices `first`, `first + 1`, ... within the group.
struct block_keys {
  index first, count;
  std::int32_t const* ids;        // (key_block), where somebody asks for them
  std::int32_t const* positions;  // (key_block)
};

/// The running state of `rows` rows: the maximum m and the sum l of weights relative to it, 2^(s - m), so far.
struct weight_rows {
  float* m;      // (rows)
  float* l;      // (rows)
  float* alpha;  // (rows): by what earlier sums are to be multiplied
};

/// The `count` largest scores of each row so far, in descending order.
struct top_rows {
  float* score;      // (rows, count)
  std::int32_t* id;  // (rows, count)
  index count;
};

struct hide_nothing {
  static constexpr bool hides = false;
  TERN_INLINE simd::pack<float> operator()(index, index, simd::pack<float> s) const { return s; }
};

/// Hides what the mask does not show to query `query_of(r)` of keys `block`, `block + 1`, ...
template <class Mask, class QueryOf>
struct hide_by_mask {
  static constexpr bool hides = true;
  Mask const& mask;
  QueryOf query_of;
  index block;

  TERN_INLINE simd::pack<float> operator()(index r, index c, simd::pack<float> s) const {
    using packf = simd::pack<float>;
    constexpr index W = simd::lanes;
    packf const hidden(negative_infinity);
    index const first = block + c * W;
    if constexpr (requires { mask.row(index{}); }) {
      key_range const seen = mask.row(query_of(r));
      packf const lane = simd::iota<float>();
      packf const from(static_cast<float>(clamp(seen.begin - first))), to(static_cast<float>(clamp(seen.end - first)));
      return simd::select((lane >= from) & (lane < to), s, hidden);
    } else {
      float lane[W];
      simd::store(lane, s);
      for (index i = 0; i < W; ++i)
        if (!mask.visible(query_of(r), first + i)) lane[i] = negative_infinity;
      return simd::load(lane);
    }
  }

 private:
  TERN_INLINE static index clamp(index x) { return x < 0 ? 0 : (x > simd::lanes ? simd::lanes : x); }
};
template <class Mask, class QueryOf>
hide_by_mask(Mask const&, QueryOf, index) -> hide_by_mask<Mask, QueryOf>;

/// Moves the maxima of up to `lanes` rows up to `highest`; `base` is what their scores are taken relative to.
TERN_INLINE void raise_maxima(float const* highest, index rows, weight_rows const& state, float* base) {
  using packf = simd::pack<float>;
  packf const before = simd::load_n(state.m, rows), m = simd::max(before, simd::load(highest));
  // A row that has seen nothing yet keeps m = -inf; zero in its place makes its weights 2^-inf = 0.
  packf const finite = simd::select(m == packf(negative_infinity), packf(0.f), m);
  packf const alpha = exp2_of_nonpositive(before - finite);
  simd::store_n(state.m, m, rows);
  simd::store_n(state.alpha, alpha, rows);
  simd::store_n(state.l, simd::load_n(state.l, rows) * alpha, rows);
  simd::store(base, finite);
}

/// One row: modifiers and mask applied to packs [first, last), in place; returns the largest score.
template <class Spec, class Hide>
TERN_INLINE simd::pack<float> shape_row(Spec const& spec, score_at at, block_keys const& keys, float* row, index r, index first, index last,
                                        Hide const& hide) {
  using packf = simd::pack<float>;
  constexpr index W = simd::lanes;
  packf top(negative_infinity);
  for (index c = first; c < last; ++c) {
    packf x = simd::load(row + c * W);
    if constexpr (!decltype(spec.chain)::empty) {
      at.key_index = keys.ids + c * W;
      at.key_positions = keys.positions + c * W;
      x = spec.chain(x, at);
      if constexpr (Spec::softmax) x = x * packf(log2_e);
    }
    x = hide(r, c, x);
    if constexpr (!decltype(spec.chain)::empty || Hide::hides) simd::store(row + c * W, x);
    top = simd::max(top, x);
  }
  return top;
}

/// Puts the scores of one row that belong there among its largest.
TERN_INLINE void collect_top(float const* row, block_keys const& keys, index first, index last, float* score, std::int32_t* id, index count) {
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

/// 2^(s - base), in place; returns the sum.
TERN_INLINE float exponentiate(float* row, index first, index last, float base) {
  using packf = simd::pack<float>;
  constexpr index W = simd::lanes;
  packf const m(base);
  packf sum(0.f);
  for (index c = first; c < last; ++c) {
    packf const p = exp2_of_nonpositive(simd::load(row + c * W) - m);
    simd::store(row + c * W, p);
    sum += p;
  }
  return simd::reduce_add(sum);
}

/// f(s), or 0 where s is -inf, in place; returns the sum.
template <class F>
TERN_INLINE float apply_function(F const& f, float* row, index first, index last) {
  using packf = simd::pack<float>;
  constexpr index W = simd::lanes;
  packf sum(0.f);
  for (index c = first; c < last; ++c) {
    packf const s = simd::load(row + c * W);
    packf const p = simd::select(s == packf(negative_infinity), packf(0.f), packf(f(s)));
    simd::store(row + c * W, p);
    sum += p;
  }
  return simd::reduce_add(sum);
}

/// 1 for the first score that is larger than all before, 0 for the others, in place. NaN stays, and is the maximum from then on.
TERN_INLINE void take_largest(float* row, index first, index last, float highest, weight_rows const& state, index r) {
  constexpr index W = simd::lanes;
  bool const better = highest > state.m[r];
  state.alpha[r] = better ? 0.f : 1.f;
  bool found = !better;
  for (index j = first * W; j < last * W; ++j) {
    bool const here = !found && row[j] == highest;
    bool const odd = row[j] != row[j];
    found = found || here;
    if (odd) highest = row[j];
    row[j] = here ? 1.f : (odd ? row[j] : 0.f);
  }
  if (better) state.l[r] = 1;
  if (better || highest != highest) state.m[r] = highest;
}

/// Turns scores into weights, in place, for packs [first, last) of each row. `at_row(r)` says where row r stands, `hide(r, c, s)`
/// gives -inf for those lanes of pack c that row r does not see.
template <class Spec, class AtRow, class Hide>
TERN_INLINE void weigh_tile(Spec const& spec, float* TERN_RESTRICT s,  // (rows, key_block)
                            index rows, index first, index last, AtRow const& at_row, block_keys const& keys, Hide const& hide,
                            weight_rows const& state, top_rows const& top) {
  constexpr index W = simd::lanes;
  for (index r0 = 0; r0 < rows; r0 += W) {
    index const some = rows - r0 < W ? rows - r0 : W;
    float highest[W], base[W];
    for (index i = 0; i < W; ++i) highest[i] = negative_infinity;
    for (index i = 0; i < some; ++i) {
      float* const row = s + (r0 + i) * key_block;
      score_at at{};
      if constexpr (!decltype(spec.chain)::empty) at = at_row(r0 + i);
      highest[i] = simd::reduce_max(shape_row(spec, at, keys, row, r0 + i, first, last, hide));
      if constexpr (Spec::wants_top)
        collect_top(row, keys, first, last, top.score + (r0 + i) * top.count, top.id + (r0 + i) * top.count, top.count);
    }
    if constexpr (Spec::softmax) raise_maxima(highest, some, {state.m + r0, state.l + r0, state.alpha + r0}, base);
    for (index r = r0; r < r0 + some; ++r) {
      float* const row = s + r * key_block;
      if constexpr (Spec::softmax) {
        state.l[r] += exponentiate(row, first, last, base[r - r0]);
      } else if constexpr (Spec::hardest) {
        take_largest(row, first, last, highest[r - r0], state, r);
      } else {
        state.alpha[r] = 1;
        state.l[r] += apply_function(spec.normalizer, row, first, last);
      }
    }
  }
}

/// Rows that have seen nothing. A sink is a score that has been seen, with a value of zero.
template <class Spec, class Head>
TERN_INLINE void start_rows(Spec const& spec, index rows, Head const& head, weight_rows const& state) {
  for (index r = 0; r < rows; ++r) {
    state.m[r] = negative_infinity;
    state.l[r] = 0;
    if constexpr (std::same_as<std::remove_cvref_t<decltype(spec.normalizer)>, sinks>) {
      float const z = spec.normalizer.scores[head(r)] * log2_e;
      state.m[r] = z;
      state.l[r] = z == negative_infinity ? 0.f : 1.f;
    }
  }
}

}  // namespace TERN_ABI
}  // namespace tern::detail
