// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/stream_kernels.hpp
/// The two inner loops for few queries: products of up to four rows of q with a block of keys, and the weighted sum of a block of
/// values. Keys and values are reached through an array of pointers to their rows (dense tensors, pages, gathered tokens) and are
/// read once for all the rows of q, in the type that they are stored in:
///
///     float, f16, bf16                            any dim
///     blocks of formats::q8_0, q4_0 and e8p       dim a multiple of 32
///
/// Elements are widened to f32 exactly, and all sums are of f32. Where q (the weights) are bf16 as keys (values) are, dot products of pairs
/// multiply them: pairs of dims for scores, of keys for values.
///
/// Cost  for four rows, where a core starts one FMA of 16 lanes a cycle: 4 cycles for 16 elements, since widening runs in other units.
///       A key and its value of 128 elements take 64 FMA; measured on Zen 4: 77 to 82 cycles for 16-bit numbers, softmax included. Of
///       dot products of bf16 they take 32.

#include <tern/attention/stream_fetch.hpp>
#include <tern/attention/tile_rows.hpp>
#include <tern/simd/core.hpp>
#include <tern/simd/narrow.hpp>
#include <tern/simd/pairs.hpp>
#include <tern/simd/reduce.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Whether rows are read two packs at a time, elements with even places before those with odd ones: of bf16 a shift and a mask widen them,
/// where neighbors would have to be moved apart first. What they are multiplied by, or added to, lies in that order, too. Measured on
/// a Xeon with AMX: 4 to 7 percent faster from the second-level cache, 1 to 3 from memory.
template <class T>
inline constexpr bool read_in_pairs = std::is_same_v<T, bf16>;
TERN_INLINE simd::pack<float> read_even(bf16 const* row, index d) { return simd::even(simd::load_narrow(row + d)); }
TERN_INLINE simd::pack<float> read_odd(bf16 const* row, index d) { return simd::odd(simd::load_narrow(row + d)); }

// ---- scores -------------------------------------------------------------------------------------------------------------

/// Accumulators that fit the registers beside their operands.
inline constexpr int stream_sums = query_tile_rows == 12 ? 16 : 8;

/// Of `keys` keys that are taken together, those whose elements are read side by side. One row of q and keys of f32 wait for memory alone,
/// which is read fastest in its order: one key after the other. Measured on Zen 4: 20.5 GB/s, 18 with eight keys at a time; of 16 bits 23
/// and 25.
template <int R, class K>
TERN_INLINE constexpr int keys_side_by_side(int keys) {
  return R == 1 && std::is_same_v<K, float> ? 1 : keys;
}

/// Puts a row of q in the order in which rows of K are read.
template <class K>
TERN_INLINE void order_query(float* q, index dim) {
  constexpr index W = simd::lanes;
  for (index d = 0; read_in_pairs<K> && d + 2 * W <= dim; d += 2 * W) {
    simd::pack<float> even, odd;
    simd::load_interleaved(q + d, even, odd);
    simd::store(q + d, even);
    simd::store(q + d + W, odd);
  }
}

/// Elements of a row that one step of its products takes: of bf16 with bf16, pairs.
template <class Q>
inline constexpr index score_step = std::is_same_v<Q, bf16> ? 2 * simd::lanes : simd::lanes;

/// Elements that are taken without a branch between their steps: of fewer instructions a core sees farther ahead. Measured on Zen 4, of
/// what a plain read has in turns, 16k and 64k keys: f32 0.83 and 0.84 became 0.85 and 0.86, products of bf16 0.74 and 0.71 became 0.77 and
/// 0.75; one row of f16 0.70 became 0.75.
template <class K, index step>
inline constexpr index elements_together = simd::on_sapphire_rapids || elements_of<K>() > 1 ? step : 8 * simd::lanes;

/// acc + x y, lane by lane, or pair by pair.
TERN_INLINE simd::pack<float> multiply_add(simd::pack<float> x, simd::pack<float> y, simd::pack<float> acc) { return simd::fma(x, y, acc); }
TERN_INLINE simd::pack<float> multiply_add(simd::pack<bf16> x, simd::pack<bf16> y, simd::pack<float> acc) { return simd::dot(acc, x, y); }

/// Products of R rows of q with rows row[0, keys), a pack of sums for each: acc[r * keys + i].
template <int R, int keys, class Q, class K, class Ahead>
TERN_INLINE void stream_products(Q const* q, index q_stride, K const* const* row, index dim, Ahead& ahead,
                                 simd::pack<float> (&acc)[R * keys]) {
  constexpr index W = simd::lanes, step = score_step<Q>;
  constexpr bool in_pairs = std::is_same_v<Q, bf16>;
  TERN_UNROLL
  for (index a = 0; a < R * keys; ++a) acc[a] = simd::pack<float>(0.f);
  constexpr int side = keys_side_by_side<R, K>(keys);
  auto add = [&](K const* const* key, index first, auto const& q_pack, auto const& key_pack) TERN_LAMBDA {
    decltype(q_pack(q)) x[R];
    TERN_UNROLL
    for (index r = 0; r < R; ++r) x[r] = simd::in_register(q_pack(q + r * q_stride));
    TERN_UNROLL
    for (index i = first; i < first + side; ++i) {
      auto const y = simd::in_register(key_pack(key[i]));
      TERN_UNROLL
      for (index r = 0; r < R; ++r) acc[r * keys + i] = multiply_add(x[r], y, acc[r * keys + i]);
    }
  };
  TERN_UNROLL
  for (index first = 0; first < keys; first += side) {
    index d = 0;
    // Addresses of rows are read from memory where they are used: they are more than there are registers.
    auto rows_at = [&](index at) TERN_LAMBDA {
      K const* const* key = row;
      asm("" : "+r"(key));
      ahead.template turn<side * step* static_cast<index>(sizeof(K)) / elements_of<K>()>(at / step);
      TERN_UNROLL
      for (index i = first; i < first + side; ++i) fetch_again(key[i + fetch_rows<R, K>], at);
      return key;
    };
    if constexpr (read_in_pairs<K> && !in_pairs)
      for (; d + 2 * W <= dim; d += 2 * W) {
        add(
            rows_at(d), first, [&](Q const* x) TERN_LAMBDA { return simd::load(x + d); },
            [&](K const* y) TERN_LAMBDA { return read_even(y, d); });
        add(
            rows_at(d + W), first, [&](Q const* x) TERN_LAMBDA { return simd::load(x + d + W); },
            [&](K const* y) TERN_LAMBDA { return read_odd(y, d); });
      }
    auto take = [&](index from) TERN_LAMBDA {
      auto const key = rows_at(from);
      if constexpr (in_pairs)
        add(
            key, first, [&](Q const* x) TERN_LAMBDA { return simd::load_narrow(x + from); },
            [&](K const* y) TERN_LAMBDA { return simd::load_narrow(y + from); });
      else
        add(
            key, first, [&](Q const* x) TERN_LAMBDA { return simd::load(x + from); },
            [&](K const* y) TERN_LAMBDA { return read_pack(y, from); });
    };
    constexpr index together = elements_together<K, step>;
    for (; together > step && d + together <= dim; d += together) {
      TERN_UNROLL
      for (index u = 0; u < together; u += step) take(d + u);
    }
    for (; d + step <= dim; d += step) take(d);
    if (d >= dim) continue;
    index const left = dim - d;
    if constexpr (in_pairs)
      add(
          row, first, [&](Q const* x) TERN_LAMBDA { return simd::load_narrow_n(x + d, left); },
          [&](K const* y) TERN_LAMBDA { return simd::load_narrow_n(y + d, left); });
    else
      add(
          row, first, [&](Q const* x) TERN_LAMBDA { return simd::load_n(x + d, left); },
          [&](K const* y) TERN_LAMBDA { return read_pack_n(y, d, left); });
  }
}

/// The rows of a block, and behind the last some that stand for it.
template <class T>
struct padded_rows {
  static constexpr index behind = stream_sums / 2 + fetch_rows<1, T>;
  T const* row[key_block + behind];
  TERN_INLINE padded_rows(T const* const* from, index count) {
    __builtin_memcpy(row, from, static_cast<std::size_t>(count) * sizeof(T const*));
    for (index i = count; i < count + behind; ++i) row[i] = count > 0 ? from[count - 1] : nullptr;
  }
};

/// s[r * key_block + j] = q[r] . k[j] for j < count. s may be written up to the next multiple of 8. q is f32, in the order of
/// order_query, or bf16, where keys are.
template <int R, class Q, class K>
[[gnu::noinline]] inline void stream_scores(Q const* q, index q_stride,                     // (R, dim)
                                            K const* const* row, index count, index dim,    // (count <= key_block) rows of dim elements
                                            fetch_ahead const& ahead, float* s) noexcept {  // (R, key_block)
  constexpr int keys = R == 1 ? stream_sums / 2 : stream_sums / 4;
  padded_rows<K> const rows(row, count);
  fetch_cursor<fetches_apart<R, K>> next(ahead);
  for (index j = 0; j < count; j += keys) {
    simd::pack<float> acc[R * keys];
    stream_products<R, keys>(q, q_stride, rows.row + j, dim, next, acc);
    float sum[R * keys];
    simd::reduce_add_each(acc, sum);
    for (index r = 0; r < R; ++r) __builtin_memcpy(s + r * key_block + j, sum + r * keys, keys * sizeof(float));
  }
}

// ---- values -------------------------------------------------------------------------------------------------------------

/// Packs of columns whose sums for R rows fit the registers.
template <int R>
inline constexpr int stream_columns_of = R <= 2 ? stream_sums / 2 : stream_sums / 4;

/// C packs of columns of a row, from column d on.
template <int C, class V>
TERN_INLINE void read_columns(V const* row, index d, simd::pack<float> (&x)[C]) {
  constexpr index W = simd::lanes;
  TERN_UNROLL
  for (index c = 0; c < C; ++c) {
    if constexpr (read_in_pairs<V> && C % 2 == 0)
      x[c] = simd::in_register(c % 2 == 0 ? read_even(row, d + c * W) : read_odd(row, d + (c - 1) * W));
    else
      x[c] = simd::in_register(read_pack(row, d + c * W));
  }
}

/// C packs of columns from column d on; `width` of them where that is less than a pack.
template <int R, int C, bool whole, class V, class Ahead>
TERN_INLINE void stream_columns(float const* p, V const* const* row, index count, index d, index width, float const* alpha, Ahead& ahead,
                                float* o, index o_stride) {
  using packf = simd::pack<float>;
  constexpr index W = simd::lanes;
  packf acc[R][C];
  TERN_UNROLL
  for (index r = 0; r < R; ++r) TERN_UNROLL
  for (index c = 0; c < C; ++c)
    acc[r][c] = (whole ? simd::load(o + r * o_stride + c * W) : simd::load_n(o + r * o_stride, width)) * packf(alpha[r]);
  constexpr bool pairs = read_in_pairs<V> && C % 2 == 0;
  TERN_UNROLL
  for (index r = 0; r < R; ++r) TERN_UNROLL
  for (index c = 0; pairs && c + 1 < C; c += 2) simd::unzip(acc[r][c], acc[r][c + 1]);
  for (index j = 0; j < count; ++j) {
    ahead.template turn<C * W* static_cast<index>(sizeof(V)) / elements_of<V>()>(j);
    TERN_UNROLL
    for (index c = 0; c < C; ++c) fetch_again(row[j + fetch_rows<R, V>], d + c * W);
    packf x[C];
    if constexpr (whole)
      read_columns(row[j], d, x);
    else
      x[0] = read_pack_n(row[j], d, width);
    TERN_UNROLL
    for (index r = 0; r < R; ++r) {
      packf const y(p[r * key_block + j]);
      TERN_UNROLL
      for (index c = 0; c < C; ++c) acc[r][c] = simd::fma(y, x[c], acc[r][c]);
    }
  }
  TERN_UNROLL
  for (index r = 0; r < R; ++r) TERN_UNROLL
  for (index c = 0; pairs && c + 1 < C; c += 2) simd::zip(acc[r][c], acc[r][c + 1]);
  TERN_UNROLL
  for (index r = 0; r < R; ++r) TERN_UNROLL
  for (index c = 0; c < C; ++c) {
    if constexpr (whole)
      simd::store(o + r * o_stride + c * W, acc[r][c]);
    else
      simd::store_n(o + r * o_stride, acc[r][c], width);
  }
}

/// The same on dot products of pairs of keys, for 2 C packs of columns: `p` in bf16, even columns before odd ones.
template <int R, int C, bool whole, class Ahead>
TERN_INLINE void stream_columns(bf16 const* p, bf16 const* const* row, index count, index d, index width, float const* alpha, Ahead& ahead,
                                float* o, index o_stride) {
  using packf = simd::pack<float>;
  using packi = simd::pack<std::int32_t>;
  constexpr index W = simd::lanes;
  packf acc[R][C][2];
  TERN_UNROLL
  for (index r = 0; r < R; ++r) TERN_UNROLL
  for (index c = 0; c < C; ++c) {
    float const* const from = o + r * o_stride + 2 * W * c;
    acc[r][c][0] = (whole || width >= W ? simd::load(from) : simd::load_n(from, width)) * packf(alpha[r]);
    acc[r][c][1] = (whole ? simd::load(from + W) : width > W ? simd::load_n(from + W, width - W) : packf(0.f)) * packf(alpha[r]);
    simd::unzip(acc[r][c][0], acc[r][c][1]);
  }
  auto read = [&](index j, index c) TERN_LAMBDA {
    bf16 const* const from = row[j] + d + 2 * W * c;
    return simd::bit_cast<std::int32_t>(whole ? simd::load_narrow(from) : simd::load_narrow_n(from, width));
  };
  // The weights are of two keys, or of one.
  auto add = [&](index j, auto keys, auto const& second) TERN_LAMBDA {
    simd::pack<bf16> weight[R];
    TERN_UNROLL
    for (index r = 0; r < R; ++r) {
      std::int32_t two = 0;
      __builtin_memcpy(&two, p + 2 * r * key_block + j, keys * sizeof(bf16));
      weight[r] = simd::in_register(simd::bit_cast<bf16>(packi(two)));
    }
    packi const low(0xffff);
    TERN_UNROLL
    for (index c = 0; c < C; ++c) {
      packi const a = read(j, c), b = second(c);
      auto const even = simd::in_register(simd::bit_cast<bf16>(simd::select_bits(low, a, simd::shift_left<16>(b))));
      auto const odd = simd::in_register(simd::bit_cast<bf16>(simd::select_bits(low, simd::shift_right<16>(a), b)));
      TERN_UNROLL
      for (index r = 0; r < R; ++r) {
        acc[r][c][0] = simd::dot(acc[r][c][0], weight[r], even);
        acc[r][c][1] = simd::dot(acc[r][c][1], weight[r], odd);
      }
    }
  };
  index j = 0;
  for (; j + 2 <= count; j += 2) {
    TERN_UNROLL
    for (index i = j; i < j + 2; ++i) {
      ahead.template turn<2 * C * W* static_cast<index>(sizeof(bf16))>(i);
      TERN_UNROLL
      for (index c = 0; c < C; ++c) fetch_again(row[i + fetch_rows<R, bf16>], d + 2 * W * c);
    }
    add(j, std::integral_constant<int, 2>{}, [&](index c) TERN_LAMBDA { return read(j + 1, c); });
  }
  if (j < count) add(j, std::integral_constant<int, 1>{}, [&](index) TERN_LAMBDA { return packi(0); });
  TERN_UNROLL
  for (index r = 0; r < R; ++r) TERN_UNROLL
  for (index c = 0; c < C; ++c) {
    float* const to = o + r * o_stride + 2 * W * c;
    simd::zip(acc[r][c][0], acc[r][c][1]);
    if (whole || width >= W)
      simd::store(to, acc[r][c][0]);
    else
      simd::store_n(to, acc[r][c][0], width);
    if (whole)
      simd::store(to + W, acc[r][c][1]);
    else if (width > W)
      simd::store_n(to + W, acc[r][c][1], width - W);
  }
}

/// All columns of a few rows.
template <int R, class V, class Ahead>
TERN_INLINE void stream_add_rows(float const* p, V const* const* row, index count, index dim_v, float const* alpha, Ahead& ahead, float* o,
                                 index o_stride) {
  constexpr index W = simd::lanes;
  constexpr int columns = stream_columns_of<R>;
  index d = 0;
  auto take = [&](auto C, auto whole, index width) TERN_LAMBDA {
    stream_columns<R, C.value, whole.value>(p, row, count, d, width, alpha, ahead, o + d, o_stride);
    d += C.value * W;
  };
  using yes = std::true_type;
  while (d + columns * W <= dim_v) take(std::integral_constant<int, columns>{}, yes{}, 0);
  if (d + columns / 2 * W <= dim_v) take(std::integral_constant<int, columns / 2>{}, yes{}, 0);
  while (d + W <= dim_v) take(std::integral_constant<int, 1>{}, yes{}, 0);
  if (d < dim_v) take(std::integral_constant<int, 1>{}, std::false_type{}, dim_v - d);
}

template <int R, class Ahead>
TERN_INLINE void stream_add_rows(bf16 const* p, bf16 const* const* row, index count, index dim_v, float const* alpha, Ahead& ahead,
                                 float* o, index o_stride) {
  constexpr int columns = stream_columns_of<R> / 2;
  constexpr index step = 2 * simd::lanes;
  index d = 0;
  for (; d + columns * step <= dim_v; d += columns * step)
    stream_columns<R, columns, true>(p, row, count, d, 0, alpha, ahead, o + d, o_stride);
  for (; d + step <= dim_v; d += step) stream_columns<R, 1, true>(p, row, count, d, 0, alpha, ahead, o + d, o_stride);
  if (d < dim_v) stream_columns<R, 1, false>(p, row, count, d, dim_v - d, alpha, ahead, o + d, o_stride);
}

/// o[r] = alpha[r] o[r] + sum_j p[r * key_block + j] v[j]. Weights that are bf16, where values are, begin where those of f32 would.
template <int R, class P, class V>
[[gnu::noinline]] inline void stream_values(P const* p,                                     // (R, key_block)
                                            V const* const* row, index count, index dim_v,  // (count <= key_block) rows of dim_v elements
                                            float const* alpha,                             // (R)
                                            fetch_ahead const& ahead, float* o, index o_stride) noexcept {  // (R, dim_v)
  fetch_cursor<fetches_apart<R, V>> next(ahead);
  // f32 waits for memory rather than for arithmetic: few rows at a time, some 4 KiB, so that memory is read in its order. The sums
  // are loaded and stored more often, which the other types would feel.
  constexpr index some = std::is_same_v<V, float> ? 8 : key_block;
  float one[R];
  for (float& x : one) x = 1;
  padded_rows<V> const rows(row, count);
  for (index j = 0; j < count || j == 0; j += some)
    stream_add_rows<R>(p + j, rows.row + j, count - j < some ? count - j : some, dim_v, j == 0 ? alpha : one, next, o, o_stride);
}

}  // namespace TERN_ABI
}  // namespace tern::detail
