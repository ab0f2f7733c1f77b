// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/tile.hpp
/// The two inner loops that both paths of the engine share: a register tile of a matrix product, and the softmax of a tile's rows.

#include <tern/attention/mask.hpp>
#include <tern/attention/score.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Rows of a register tile, whose accumulators, operands and one broadcast fit the registers: 12 x 2 of 32, 6 x 2 of 16.
#if defined(TERN_SIMD_AVX512) || defined(TERN_SIMD_NEON)
inline constexpr index query_tile_rows = 12;
#else
inline constexpr index query_tile_rows = 6;
#endif
/// Lanes over keys (scores) or over dim_v (values) in a tile: two packs.
inline constexpr index panel_width = 2 * simd::lanes;
/// Keys between two updates of the running softmax. Block boundaries are multiples of it, so that a row does not depend on
/// its neighbors.
inline constexpr index key_block = 128;
static_assert(key_block % panel_width == 0);

inline constexpr float negative_infinity = -__builtin_inff();

/// c = diag(alpha) c + a b, or a b where alpha is null. `a(r, t)` is at a[r * row_stride + t * step_stride].
/// Not inlined: gcc spills accumulators where it knows too much about the arguments.
template <int packs, index row_stride, index step_stride>
[[gnu::noinline]] inline void tile_product(float const* TERN_RESTRICT a,      // (query_tile_rows, steps)
                                           float const* TERN_RESTRICT b,      // (steps, packs * lanes), rows panel_stride apart
                                           index panel_stride, index steps,   //
                                           float const* TERN_RESTRICT alpha,  // (query_tile_rows) or null
                                           float* TERN_RESTRICT c, index c_stride) noexcept {
  using packf = simd::pack<float>;
  packf acc[query_tile_rows][packs];
  if (alpha == nullptr) {
    TERN_UNROLL
    for (index r = 0; r < query_tile_rows; ++r) TERN_UNROLL
    for (index n = 0; n < packs; ++n) acc[r][n] = packf(0.f);
  } else {
    TERN_UNROLL
    for (index r = 0; r < query_tile_rows; ++r) TERN_UNROLL
    for (index n = 0; n < packs; ++n) acc[r][n] = simd::load(c + r * c_stride + n * simd::lanes) * packf(alpha[r]);
  }
  for (index t = 0; t < steps; ++t) {
    packf x[packs];
    TERN_UNROLL
    for (index n = 0; n < packs; ++n) x[n] = simd::load(b + n * simd::lanes);
    TERN_UNROLL
    for (index r = 0; r < query_tile_rows; ++r) {
      packf const y(a[r * row_stride]);
      TERN_UNROLL
      for (index n = 0; n < packs; ++n) acc[r][n] = simd::fma(y, x[n], acc[r][n]);
    }
    a += step_stride;
    b += panel_stride;
  }
  TERN_UNROLL
  for (index r = 0; r < query_tile_rows; ++r) TERN_UNROLL
  for (index n = 0; n < packs; ++n) simd::store(c + r * c_stride + n * simd::lanes, acc[r][n]);
}

/// The running state of `rows` rows: the maximum m and the sum l = sum 2^(s - m) so far.
struct softmax_rows {
  float* m;      // (rows)
  float* l;      // (rows)
  float* alpha;  // (rows): by what earlier sums are to be multiplied
};

/// Moves the maxima of up to `lanes` rows up to `highest`; `base` is what their scores are taken relative to.
TERN_INLINE void raise_maxima(float const* highest, index rows, softmax_rows const& state, float* base) {
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

/// Turns scores into weights 2^(s - m), in place, for packs [first, last) of each row. `hide(r, c, s)` gives -inf for those
/// lanes of pack c that row r does not see.
template <class Score, class Hide>
TERN_INLINE void softmax_tile(float* TERN_RESTRICT s,  // (rows, key_block)
                              index rows, index first, index last, Score const& score, Hide const& hide, softmax_rows const& state) {
  using packf = simd::pack<float>;
  constexpr index W = simd::lanes;
  for (index r0 = 0; r0 < rows; r0 += W) {
    index const some = rows - r0 < W ? rows - r0 : W;
    float highest[W], base[W];
    for (index i = 0; i < W; ++i) highest[i] = negative_infinity;
    for (index i = 0; i < some; ++i) {
      float* const row = s + (r0 + i) * key_block;
      packf top(negative_infinity);
      for (index c = first; c < last; ++c) {
        packf x = simd::load(row + c * W);
        if constexpr (!Score::is_identity || Hide::hides) {
          x = hide(r0 + i, c, score(x));
          simd::store(row + c * W, x);
        }
        top = simd::max(top, x);
      }
      highest[i] = simd::reduce_max(top);
    }
    raise_maxima(highest, some, {state.m + r0, state.l + r0, state.alpha + r0}, base);
    for (index i = 0; i < some; ++i) {
      float* const row = s + (r0 + i) * key_block;
      packf const m(base[i]);
      packf sum(0.f);
      for (index c = first; c < last; ++c) {
        packf const p = exp2_of_nonpositive(simd::load(row + c * W) - m);
        simd::store(row + c * W, p);
        sum += p;
      }
      state.l[r0 + i] += simd::reduce_add(sum);
    }
  }
}

struct hide_nothing {
  static constexpr bool hides = false;
  TERN_INLINE simd::pack<float> operator()(index, index, simd::pack<float> s) const { return s; }
};

/// Hides what the mask does not show to query `token_of(r)` of keys `block`, `block + 1`, ... of which `count` exist.
template <class Mask, class TokenOf>
struct hide_by_mask {
  static constexpr bool hides = true;
  Mask const& mask;
  TokenOf token_of;
  index block;

  TERN_INLINE simd::pack<float> operator()(index r, index c, simd::pack<float> s) const {
    using packf = simd::pack<float>;
    constexpr index W = simd::lanes;
    packf const hidden(negative_infinity);
    if constexpr (requires { mask.row(index{}); }) {
      key_range const seen = mask.row(token_of(r));
      index const first = block + c * W;
      packf const lane = simd::iota<float>();
      packf const from(static_cast<float>(clamp(seen.begin - first))), to(static_cast<float>(clamp(seen.end - first)));
      return simd::select((lane >= from) & (lane < to), s, hidden);
    } else {
      float lane[W];
      simd::store(lane, s);
      for (index i = 0; i < W; ++i)
        if (!mask.visible(token_of(r), block + c * W + i)) lane[i] = negative_infinity;
      return simd::load(lane);
    }
  }

 private:
  TERN_INLINE static index clamp(index x) { return x < 0 ? 0 : (x > simd::lanes ? simd::lanes : x); }
};
template <class Mask, class TokenOf>
hide_by_mask(Mask const&, TokenOf, index) -> hide_by_mask<Mask, TokenOf>;

}  // namespace TERN_ABI
}  // namespace tern::detail
