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
/// Elements are widened to f32 exactly, and all sums are of f32.
///
/// Cost  for four rows, where a core starts one FMA of 16 lanes a cycle: 4 cycles for 16 elements, since widening runs in other units.
///       A key and its value of 128 elements take 64 FMA; measured on Zen 4: 77 to 82 cycles for 16-bit numbers, softmax included.

#include <tern/attention/tile_rows.hpp>
#include <tern/simd/pairs.hpp>
#include <tern/simd/reduce.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Rows (or tiles) that are asked for while others are worked on, so that memory is never idle: the values of this block during the
/// products with its keys, the keys of the next one during the sum of the values. They go to the second-level cache, which holds
/// a block of each. Requests are spread evenly over the work: a core has few of them under way at a time, and what it needs at
/// once, from the second-level cache, would have to wait behind a burst of them.
struct fetch_ahead {
  void const* const* row;  // (count)
  index count;
  index bytes;  // of a row

  /// Row i, or `otherwise` behind the last: what the caller works on costs nothing to ask for again, and null is not asked for.
  TERN_INLINE char const* at(index i, void const* otherwise) const { return static_cast<char const*>(i < count ? row[i] : otherwise); }
};
TERN_INLINE void fetch_line(char const* at) { __builtin_prefetch(at, 0, 2); }
/// To the first-level cache, what is soon worked on.
TERN_INLINE void fetch_near(char const* at) { __builtin_prefetch(at, 0, 3); }

/// Walks through the rows ahead, two side by side and a line of each at a time: what asks for the lines one after the other meets those
/// that the hardware's own prefetchers have under way, and waits with them. Measured on a Xeon with AMX, one thread over 16k keys, with
/// the bandwidth that a plain read has in turns: f16 0.74 of it line by line and each twice, 0.79 so; f32 0.86 and 0.89.
/// Apart, the second of the two is from the other half of the rows, and half a page of 4 KiB on: those prefetchers stop behind a page, and
/// so in one of two at a time. 16 bits: 3 to 7 percent faster than neighbors; f32, which waits for memory alone: 2 to 4 slower.
template <bool apart>
class fetch_cursor {
 public:
  /// In `turns` turns the caller takes `rows` rows of its own.
  TERN_INLINE fetch_cursor(fetch_ahead const& ahead, index rows, index turns)
      : ahead_(ahead),
        lines_((ahead.bytes + 63) / 64),
        step_(rows * lines_),
        request_(2 * (turns > 0 ? turns : 1)),
        end_(apart ? (ahead.count + 1) / 2 : ahead.count),
        second_(apart ? end_ + 2048 / (64 * (lines_ > 0 ? lines_ : 1)) : 1) {
    start();
  }
  TERN_INLINE void turn() {
    for (due_ += step_; due_ >= request_; due_ -= request_) {
      for (char const* row : at_) fetch_line(row + 64 * line_);
      if (++line_ < lines_) continue;
      row_ += apart ? 1 : 2;
      line_ = 0;
      start();
    }
  }

 private:
  /// Behind the last row nothing more is due.
  TERN_INLINE void start() {
    if (row_ >= end_) {
      step_ = 0;
      return;
    }
    index const second = row_ + second_;
    at_[0] = ahead_.at(row_, nullptr);
    at_[1] = ahead_.at(apart && second >= 2 * end_ ? second - end_ : second, at_[0]);
  }

  fetch_ahead const ahead_;
  index const lines_;
  index step_;
  index const request_;
  index const end_, second_;  // behind the last row that is the first of two; from that to the other
  index row_ = 0, line_ = 0, due_ = 0;
  char const* at_[2] = {nullptr, nullptr};
};

/// So many rows before they are worked on, some KiB, rows are asked for once more, by the first-level cache: a core drops requests that
/// find its buffers full. Measured as above: f16 12.1 GB/s without, 12.5 with. Zen 4, where the cache asked was the second, over 64k keys:
/// f32 19.6 and 23.5 GB/s, 16 bits on two threads 0.86 and 0.94 of what can be read.
inline constexpr index fetch_rows = 4;
/// Asks for the line that starts at element d of a row, if one does.
template <class T>
TERN_INLINE void fetch_again(T const* row, index d) {
  if constexpr (float_storage<T>)
    if (d * static_cast<index>(sizeof(T)) % 64 == 0) fetch_near(reinterpret_cast<char const*>(row + d));
}

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

/// Products of R rows of q with the `keys` rows of `key`, a pack of sums for each: to[(r * keys + i) * lanes].
template <int R, int keys, class K, class Ahead>
TERN_INLINE void stream_products(float const* q, index q_stride, K const* const (&key)[keys], K const* const (&later)[keys], index dim,
                                 Ahead& ahead, float* to) {
  using packf = simd::pack<float>;
  constexpr index W = simd::lanes;
  packf acc[R * keys];
  TERN_UNROLL
  for (index a = 0; a < R * keys; ++a) acc[a] = packf(0.f);
  constexpr int side = keys_side_by_side<R, K>(keys);
  auto add = [&](index first, auto const& q_pack, auto const& key_pack) TERN_LAMBDA {
    packf x[R];
    TERN_UNROLL
    for (index r = 0; r < R; ++r) x[r] = simd::in_register(q_pack(q + r * q_stride));
    TERN_UNROLL
    for (index i = first; i < first + side; ++i) {
      packf const y = simd::in_register(key_pack(key[i]));
      TERN_UNROLL
      for (index r = 0; r < R; ++r) acc[r * keys + i] = simd::fma(x[r], y, acc[r * keys + i]);
    }
  };
  TERN_UNROLL
  for (index first = 0; first < keys; first += side) {
    index d = 0;
    auto ask = [&](index at) TERN_LAMBDA {
      ahead.turn();
      TERN_UNROLL
      for (index i = first; i < first + side; ++i) fetch_again(later[i], at);
    };
    if constexpr (read_in_pairs<K>)
      for (; d + 2 * W <= dim; d += 2 * W) {
        ask(d);
        add(first, [&](float const* x) TERN_LAMBDA { return simd::load(x + d); }, [&](K const* y) TERN_LAMBDA { return read_even(y, d); });
        ask(d + W);
        add(
            first, [&](float const* x) TERN_LAMBDA { return simd::load(x + d + W); },
            [&](K const* y) TERN_LAMBDA { return read_odd(y, d); });
      }
    for (; d + W <= dim; d += W) {
      ask(d);
      add(first, [&](float const* x) TERN_LAMBDA { return simd::load(x + d); }, [&](K const* y) TERN_LAMBDA { return read_pack(y, d); });
    }
    if (d < dim)
      add(
          first, [&](float const* x) TERN_LAMBDA { return simd::load_n(x + d, dim - d); },
          [&](K const* y) TERN_LAMBDA { return read_pack_n(y, d, dim - d); });
  }
  TERN_UNROLL
  for (index a = 0; a < R * keys; ++a) simd::store(to + a * W, acc[a]);
}

/// s[r * key_block + i] = the sum of the lanes of sum (r, i).
template <int R, int keys>
TERN_INLINE void stream_reduce(float const* from, float* s) {
  simd::pack<float> acc[R * keys];
  TERN_UNROLL
  for (index a = 0; a < R * keys; ++a) acc[a] = simd::load(from + a * simd::lanes);
  float sum[R * keys];
  simd::reduce_add_each(acc, sum);
  for (index r = 0; r < R; ++r) __builtin_memcpy(s + r * key_block, sum + r * keys, keys * sizeof(float));
}

/// s[r * key_block + j] = q[r] . k[j] for j < count. s may be written up to the next multiple of 8.
template <int R, class K>
[[gnu::noinline]] inline void stream_scores(float const* q, index q_stride,                 // (R, dim), of order_query
                                            K const* const* row, index count, index dim,    // (count <= key_block) rows of dim elements
                                            fetch_ahead const& ahead, float* s) noexcept {  // (R, key_block)
  constexpr int keys = R == 1 ? stream_sums / 2 : stream_sums / 4;
  constexpr index size = R * keys * simd::lanes;
  // Lanes are added up one step late: what adds them then need not wait for the last products, and runs beside the next ones.
  alignas(64) float sums[2 * size];
  fetch_cursor<!std::is_same_v<K, float>> next(ahead, keys_side_by_side<R, K>(keys), dim / simd::lanes);
  index j = 0;
  for (index at = 0; j < count; j += keys, at = size - at) {
    K const *key[keys], *later[keys];
    for (index i = 0; i < keys; ++i) {
      key[i] = row[j + i < count ? j + i : count - 1];
      later[i] = row[j + i + fetch_rows < count ? j + i + fetch_rows : count - 1];
    }
    stream_products<R, keys>(q, q_stride, key, later, dim, next, sums + at);
    if (j > 0) stream_reduce<R, keys>(sums + (size - at), s + j - keys);
  }
  if (j > 0) stream_reduce<R, keys>(sums + (j / keys - 1) % 2 * size, s + j - keys);
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
      x[c] = c % 2 == 0 ? read_even(row, d + c * W) : read_odd(row, d + (c - 1) * W);
    else
      x[c] = read_pack(row, d + c * W);
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
    ahead.turn();
    V const* const later = row[j + fetch_rows < count ? j + fetch_rows : count - 1];
    TERN_UNROLL
    for (index c = 0; c < C; ++c) fetch_again(later, d + c * W);
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

/// o[r] = alpha[r] o[r] + sum_j p[r * key_block + j] v[j]
template <int R, class V>
[[gnu::noinline]] inline void stream_values(float const* p,                                 // (R, key_block)
                                            V const* const* row, index count, index dim_v,  // (count <= key_block) rows of dim_v elements
                                            float const* alpha,                             // (R)
                                            fetch_ahead const& ahead, float* o, index o_stride) noexcept {  // (R, dim_v)
  constexpr index columns = stream_columns_of<R> * simd::lanes;
  fetch_cursor<!std::is_same_v<V, float>> next(ahead, 1, dim_v / columns);
  // f32 waits for memory rather than for arithmetic: few rows at a time, some 4 KiB, so that memory is read in its order. The sums
  // are loaded and stored more often, which the other types would feel.
  constexpr index some = std::is_same_v<V, float> ? 8 : key_block;
  float one[R];
  for (float& x : one) x = 1;
  for (index j = 0; j < count || j == 0; j += some)
    stream_add_rows<R>(p + j, row + j, count - j < some ? count - j : some, dim_v, j == 0 ? alpha : one, next, o, o_stride);
}

}  // namespace TERN_ABI
}  // namespace tern::detail
