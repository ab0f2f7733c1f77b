// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/stream_kernels.hpp
/// The two products of a few rows of queries with keys and values where they lie.

#include <tern/attention/weigh.hpp>
#include <tern/simd/reduce.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Rows that are taken at once: their sums stay in registers.
inline constexpr index stream_step = 4;
/// Fetches nothing ahead.
inline constexpr auto fetch_nothing = [](index) TERN_LAMBDA {};

/// s[r][j] = q[r] . k[j] for keys [0, count), `R` rows and several keys at once: 8 to 16 sums, 4 to 8 with few registers.
template <int R, class K, class Ahead>
inline void stream_scores(float const* q, index q_stride, K const* const* row, index count, index dim, Ahead const& ahead,
                          float* s) noexcept {
  using packf = simd::pack<float>;
  constexpr index W = simd::lanes;
  constexpr index keys = (R == 1 ? 8 : 4) / (many_registers ? 1 : 2);
  for (index j = 0; j < count; j += keys) {
    K const* key[keys];
    for (index i = 0; i < keys; ++i) key[i] = row[j + i < count ? j + i : count - 1];
    for (index i = 0; i < keys && j + i < count; ++i) ahead(j + i);
    packf acc[R * keys];
    TERN_UNROLL
    for (index a = 0; a < R * keys; ++a) acc[a] = packf(0.f);
    auto step = [&](index d, auto&& load) TERN_LAMBDA {
      packf x[R];
      TERN_UNROLL
      for (index r = 0; r < R; ++r) x[r] = simd::load(q + r * q_stride + d);
      TERN_UNROLL
      for (index i = 0; i < keys; ++i) {
        packf const y = load(key[i] + d);
        TERN_UNROLL
        for (index r = 0; r < R; ++r) acc[r * keys + i] = simd::fma(x[r], y, acc[r * keys + i]);
      }
    };
    index d = 0;
    for (; d + W <= dim; d += W) step(d, [](K const* at) TERN_LAMBDA { return simd::load(at); });
    if (d < dim) step(d, [&](K const* at) TERN_LAMBDA { return simd::load_n(at, dim - d); });
    float sum[R * keys];
    simd::reduce_add_each(acc, sum);
    for (index r = 0; r < R; ++r) __builtin_memcpy(s + r * key_block + j, sum + r * keys, keys * sizeof(float));
  }
}

/// o[r] = alpha[r] o[r] + sum_j p[r][j] v[j] for `C` packs of columns from d.
template <int R, int C, bool whole, class V, class Ahead>
TERN_INLINE void stream_columns(float const* p, V const* const* row, index d, index count, index width, float const* alpha,
                                Ahead const& ahead, float* o, index o_stride) {
  using packf = simd::pack<float>;
  constexpr index W = simd::lanes;
  packf acc[R][C];
  TERN_UNROLL
  for (index r = 0; r < R; ++r) TERN_UNROLL
  for (index c = 0; c < C; ++c) acc[r][c] = simd::load(o + r * o_stride + c * W) * packf(alpha[r]);
  for (index j = 0; j < count; ++j) {
    ahead(j);
    V const* const v = row[j] + d;
    packf x[C];
    TERN_UNROLL
    for (index c = 0; c < C; ++c) x[c] = whole ? simd::load(v + c * W) : simd::load_n(v, width);
    TERN_UNROLL
    for (index r = 0; r < R; ++r) {
      packf const y(p[r * key_block + j]);
      TERN_UNROLL
      for (index c = 0; c < C; ++c) acc[r][c] = simd::fma(y, x[c], acc[r][c]);
    }
  }
  TERN_UNROLL
  for (index r = 0; r < R; ++r) TERN_UNROLL
  for (index c = 0; c < C; ++c) simd::store(o + r * o_stride + c * W, acc[r][c]);
}
/// o[r] = alpha[r] o[r] + sum_j p[r][j] v[j]
template <int R, class V, class Ahead>
inline void stream_values(float const* p, V const* const* row, index count, index dim_v, float const* alpha, Ahead const& ahead, float* o,
                          index o_stride) noexcept {
  constexpr index W = simd::lanes;
  constexpr int columns = (R <= 2 ? 8 : 4) / (many_registers ? 1 : 2);
  index d = 0;
  auto take = [&](auto C, auto whole, index width) TERN_LAMBDA {
    if (d == 0)
      stream_columns<R, C.value, whole.value>(p, row, d, count, width, alpha, ahead, o + d, o_stride);
    else
      stream_columns<R, C.value, whole.value>(p, row, d, count, width, alpha, fetch_nothing, o + d, o_stride);
    d += C.value * W;
  };
  using yes = std::true_type;
  while (d + columns * W <= dim_v) take(std::integral_constant<int, columns>{}, yes{}, 0);
  if (d + columns / 2 * W <= dim_v) take(std::integral_constant<int, columns / 2>{}, yes{}, 0);
  while (d + W <= dim_v) take(std::integral_constant<int, 1>{}, yes{}, 0);
  if (d < dim_v) take(std::integral_constant<int, 1>{}, std::false_type{}, dim_v - d);
}

/// Calls f(number of rows as a constant, first row) until all rows are taken.
template <class F>
TERN_INLINE void each_rows(index rows, F&& f) {
  index r = 0;
  for (; r + stream_step <= rows; r += stream_step) f(std::integral_constant<int, 4>{}, r);
  if (rows - r == 3) f(std::integral_constant<int, 3>{}, r);
  if (rows - r == 2) f(std::integral_constant<int, 2>{}, r);
  if (rows - r == 1) f(std::integral_constant<int, 1>{}, r);
}

}  // namespace TERN_ABI
}  // namespace tern::detail
