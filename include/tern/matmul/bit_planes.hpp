// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/bit_planes.hpp
/// The product of two matrices in planes of bits (formats/bit_planes.hpp), of any numbers of bits p and q:
///
///     bit_plane_matmul(policy, a, b, y)       a (rows, k) of q planes, b (n, k) of p planes, y (rows, n)
///
///     bipolar             Y = sum over i, j of 2^(i+j) (k - 2 popcount(A_i xor B_j)) = k (2^q - 1) (2^p - 1) - 2 sum 2^(i+j) popcount
///     two's complement    Y = sum over i, j of +-2^(i+j) popcount(A_i and B_j), minus where one of i, j is the highest plane
///
///     y int32    Y, exact
///     y f32      Y (ra rb), with the scales of the rows of a and b: three roundings, 3 * 2^-24 |y| and Y itself exact
///
/// All of Y fits int32: k (2^q - 1) (2^p - 1) < 2^31 (as large for two's complement, which needs less) is checked. Cost:
/// p q k / 64 words, counted in a register tile of rows of both, once summed over lanes. Memory: none.
///
/// System: Bipolar-INT ("Efficient Arbitrary Precision Acceleration for Large Language Models on GPU Tensor Cores", Ma et al. 2024), there
/// on 1-bit tensor cores. The formula: from knowledge, checked against integers.

#include <tern/core/rounding.hpp>
#include <tern/formats/bit_planes.hpp>
#include <tern/simd/popcount.hpp>

namespace tern {

namespace detail {
inline namespace TERN_ABI {

/// Rows of a, and of b, in a register tile.
inline constexpr int bit_tile = simd::many_registers ? 4 : 2;

/// What a count of ones in planes i of p and j of q weighs.
template <bit_code code>
TERN_INLINE std::int32_t plane_weight(int i, int p, int j, int q) {
  bool const negative = code == bit_code::binary && (i == p - 1) != (j == q - 1);
  return negative ? -(1 << (i + j)) : 1 << (i + j);
}
/// Ones of A xor B, or of A and B, in the words of a tile of rows, added to `count`; `bytes` at a time, at most a register.
template <bit_code code, int M, int N, class Load>
TERN_INLINE void count_tile(std::uint64_t const* const (&a)[M], std::uint64_t const* const (&b)[N], index word, Load&& load,
                            simd::pack<std::int32_t> (&count)[M][N]) {
  simd::pack<std::uint8_t> x[N];
  TERN_UNROLL
  for (int n = 0; n < N; ++n) x[n] = load(reinterpret_cast<std::uint8_t const*>(b[n] + word));
  TERN_UNROLL
  for (int m = 0; m < M; ++m) {
    auto const y = load(reinterpret_cast<std::uint8_t const*>(a[m] + word));
    TERN_UNROLL
    for (int n = 0; n < N; ++n) count[m][n] = simd::count_bits(count[m][n], code == bit_code::bipolar ? x[n] ^ y : x[n] & y);
  }
}
/// Rows [r, r + M) of a times rows [n, n + N) of b: Y.
template <bit_code code, int M, int N>
inline void multiply_bits(bit_planes<code> const& a, index r, bit_planes<code> const& b, index n, std::int32_t (&out)[M][N]) {
  using simd::pack;
  constexpr index step = pack<std::uint8_t>::size / 8;
  index const words = a.words.extent(2), whole = words / step * step;
  pack<std::int32_t> total[M][N];
  for (auto& row : total)
    for (auto& sum : row) sum = pack<std::int32_t>(0);
  for (int i = 0; i < a.planes; ++i)
    for (int j = 0; j < b.planes; ++j) {
      std::uint64_t const* x[M];
      std::uint64_t const* w[N];
      for (int m = 0; m < M; ++m) x[m] = a.row(i, r + m);
      for (int l = 0; l < N; ++l) w[l] = b.row(j, n + l);
      pack<std::int32_t> count[M][N];
      for (auto& row : count)
        for (auto& ones : row) ones = pack<std::int32_t>(0);
      for (index k = 0; k < whole; k += step)
        count_tile<code>(x, w, k, [](std::uint8_t const* p) TERN_LAMBDA { return simd::load(p); }, count);
      if (whole < words)
        count_tile<code>(x, w, whole, [&](std::uint8_t const* p) TERN_LAMBDA { return simd::load_n(p, 8 * (words - whole)); }, count);
      pack<std::int32_t> const weight(plane_weight<code>(i, a.planes, j, b.planes));
      for (int m = 0; m < M; ++m)
        for (int l = 0; l < N; ++l) total[m][l] = total[m][l] + count[m][l] * weight;
    }
  // Sums wrap on the way; what comes out fits.
  auto const all = static_cast<std::uint32_t>(a.columns * ((1 << a.planes) - 1) * ((1 << b.planes) - 1));
  for (int m = 0; m < M; ++m)
    for (int l = 0; l < N; ++l) {
      auto const sum = static_cast<std::uint32_t>(simd::reduce_add(total[m][l]));
      out[m][l] = static_cast<std::int32_t>(code == bit_code::bipolar ? all - 2 * sum : sum);
    }
}

/// Calls store(r, n, Y) for rows [r0, r1) of a and [n0, n1) of b.
template <bit_code code, class Store>
inline void multiply_bit_stripe(bit_planes<code> const& a, index r0, index r1, bit_planes<code> const& b, index n0, index n1,
                                Store&& store) {
  auto const tile = [&]<int M, int N>(index r, index n) TERN_LAMBDA {
    std::int32_t out[M][N];
    multiply_bits<code, M, N>(a, r, b, n, out);
    for (int m = 0; m < M; ++m)
      for (int l = 0; l < N; ++l) store(r + m, n + l, out[m][l]);
  };
  index n = n0;
  for (; n + bit_tile <= n1; n += bit_tile) {
    index r = r0;
    for (; r + bit_tile <= r1; r += bit_tile) tile.template operator()<bit_tile, bit_tile>(r, n);
    for (; r < r1; ++r) tile.template operator()<1, bit_tile>(r, n);
  }
  for (; n < n1; ++n)
    for (index r = r0; r < r1; ++r) tile.template operator()<1, 1>(r, n);
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

inline constexpr struct bit_plane_matmul_fn {
  /// y = a b^T: see the top of matmul/bit_planes.hpp. y holds int32 or f32.
  template <bit_code code, tensor_like Y>
  void operator()(cpu_policy const& policy, bit_planes<code> const& a, bit_planes<code> const& b, Y&& y) const {
    using element = typename view_of<Y>::element_type;
    static_assert(view_of<Y>::rank == 2 && (std::is_same_v<element, float> || std::is_same_v<element, std::int32_t>),
                  "tern: bit_plane_matmul writes y (rows, n), which is f32 or int32 and not const");
    tensor_view<element, 2> const out = tern::view(y);
    check(a.columns, (1 << a.planes) - 1, a.rows, b.columns, (1 << b.planes) - 1, b.rows, out.extent(0), out.extent(1));
    constexpr index stripe = 8 * detail::bit_tile, chunk = 64;
    index const stripes = detail::divide_up(b.rows, stripe), chunks = detail::divide_up(a.rows, chunk);
    detail::parallel_for(policy, stripes * chunks, [&](index item, index) TERN_LAMBDA {
      index const n0 = item / chunks * stripe, r0 = item % chunks * chunk;
      index const n1 = n0 + stripe < b.rows ? n0 + stripe : b.rows, r1 = r0 + chunk < a.rows ? r0 + chunk : a.rows;
      detail::multiply_bit_stripe<code>(a, r0, r1, b, n0, n1, [&](index r, index n, std::int32_t sum) TERN_LAMBDA {
        if constexpr (std::is_same_v<element, float>)
          out(r, n) = static_cast<float>(sum) * (a.row_scales[r] * b.row_scales[n]);
        else
          out(r, n) = sum;
      });
    });
  }

 private:
  TERN_INLINE static void check(index k, index a_most, index rows, index b_k, index b_most, index n, index y_rows, index y_columns) {
    constexpr char const* op = "bit_plane_matmul";
    detail::expect_equal(op, "b's columns", b_k, "a's columns", k);
    detail::expect_equal(op, "y.extent(0)", y_rows, "a's rows", rows);
    detail::expect_equal(op, "y.extent(1)", y_columns, "b's rows", n);
    detail::expect(k <= 0x7fffffff / (a_most * b_most), op, "the number of columns", k,
                   "few enough for sums to fit 32 bits: k (2^p - 1) (2^q - 1) < 2^31");
  }
} bit_plane_matmul{};

}  // namespace TERN_ABI
}  // namespace tern
