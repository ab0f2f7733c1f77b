// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/byte_stream.hpp
/// Integer sums of a few rows of x and weights that are signed bytes, read once from memory, as they lie: what float_stream.hpp is to
/// numbers. Lanes run over k, four columns each.
///
///     sums(r, n) = sum over k of (w(n, k) + 128) x(r, k)
///
/// Cost  n k bytes of memory, once; rows n k / (4 lanes) products.

#include <tern/matmul/float_stream.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Weight rows that are read side by side, and columns that are summed in registers: of four rows of x they stay in the first cache.
inline constexpr int byte_stream_rows = 6;
inline constexpr index byte_stream_chunk = 4096;

/// Rows of x that are multiplied so: more than one, and as long as packing does not pay (measured on Zen 4, which multiplies bytes in one
/// instruction; matrix registers take bytes in their own way).
inline constexpr index most_byte_stream_rows = 64;
TERN_INLINE bool streams_bytes(any_weights const& w, index rows) {
  return streams_six && simd::dot7_takes_bytes && w.signed_bytes && w.columns % (4 * simd::lanes) == 0 && w.rows >= byte_stream_rows &&
         rows > 1 && rows <= most_byte_stream_rows;
}
/// to[i] = the sum of a[i], in whole registers.
template <int n>
TERN_INLINE void add_words_each(simd::pack<std::int32_t> const (&a)[n], std::int32_t* to) {
  constexpr int L = simd::lanes;
  TERN_UNROLL
  for (int first = 0; first < n; first += L) {
    simd::pack<float> t[L];
    TERN_UNROLL
    for (int i = 0; i < L; ++i) t[i] = simd::bit_cast<float>(a[first + i < n ? first + i : 0]);
    simd::transpose(t);
    auto sum = simd::bit_cast<std::int32_t>(t[0]);
    TERN_UNROLL
    for (int i = 1; i < L; ++i) sum = sum + simd::bit_cast<std::int32_t>(t[i]);
    simd::store(to + first, sum);
  }
}

/// Products of R rows of x with byte_stream_rows rows of weights over `columns` columns, a multiple of 4 lanes: to[r][n].
template <int R>
[[gnu::noinline]] inline void stream_byte_dots(std::int8_t const* x, index x_stride, std::uint8_t const* w, index w_stride, index columns,
                                               stream_ask ask, std::int32_t* to) noexcept {
  using packi = simd::pack<std::int32_t>;
  constexpr int N = byte_stream_rows;
  constexpr index W = 4 * simd::lanes;
  simd::pack<std::uint8_t> const top = simd::in_register(simd::pack<std::uint8_t>(std::uint8_t{0x80}));
  packi sum[R * N];
  TERN_UNROLL
  for (packi& s : sum) s = packi(0);
  row_walk<R, std::int8_t> of_x(x, x_stride);
  row_walk<N, std::uint8_t> of_w(w, w_stride);
  for (index k = 0; k < columns; k += W) {
    bool const asks = (k & (ask.columns - 1)) == 0;
    simd::pack<std::int8_t> a[R];
    TERN_UNROLL
    for (int r = 0; r < R; ++r) a[r] = simd::in_register(simd::load(of_x.at(r)));
    TERN_UNROLL
    for (int n = 0; n < N; ++n) {
      if (asks) __builtin_prefetch(of_w.at(n) + ask.ahead, 0, 2);
      auto const b = simd::in_register(simd::load(of_w.at(n)) ^ top);
      TERN_UNROLL
      for (int r = 0; r < R; ++r) sum[r * N + n] = simd::dot(sum[r * N + n], b, a[r]);
    }
    of_x.step(W);
    of_w.step(W);
  }
  add_words_each(sum, to);
}

/// Weight rows [n0, n1) times `rows` rows of x, whose rows are x_stride bytes apart. sums: for each panel (rows, panel_rows).
inline void stream_bytes(row_memory const& w, index n0, index n1, std::int8_t const* x, index x_stride, index rows,
                         std::int32_t* sums) noexcept {
  constexpr int N = byte_stream_rows;
  stream_way const way = stream_way_of(rows);
  for (index begin = n0; begin < n1; begin += N) {
    index const n = begin + N <= n1 ? begin : n1 - N;  // the last ones may meet x twice
    for (index k0 = 0; k0 < w.bytes || k0 == 0; k0 += byte_stream_chunk) {
      index const k1 = least(k0 + byte_stream_chunk, w.bytes);
      stream_ask const ask{64 * way.lines, k1 < w.bytes ? byte_stream_chunk : N * w.stride - k0};
      auto const take = [&]<int R>(index r) TERN_LAMBDA {
        std::int32_t dots[round_to_multiple(R * N, simd::lanes)];
        stream_byte_dots<R>(x + r * x_stride + k0, x_stride, w.data + n * w.stride + k0, w.stride, k1 - k0, ask, dots);
        for (index i = begin - n; i < N; ++i) {
          index const at = n + i - n0, panel = at / panel_rows * panel_rows;
          std::int32_t* const to = sums + panel * rows + r * panel_rows + (at - panel);
          for (int j = 0; j < R; ++j) {
            std::int32_t& s = to[j * panel_rows];
            s = (k0 > 0 ? s : 0) + dots[j * N + i];
          }
        }
      };
      for_row_tiles<4>(rows, take);
    }
  }
}

}  // namespace TERN_ABI
}  // namespace tern::detail
