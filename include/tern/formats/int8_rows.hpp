// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/int8_rows.hpp
/// Weights of eight bits with a scale for each row of w (n, k), for each column, or for both; symmetric, q in [-127, 127].
///
///     int8_rows       r(n) q(n, k)              integer products
///     int8_columns    (r(n) q(n, k)) c(k)       decoded; r is 1 where it is not given
///
///     q (n, k) bytes with their sign    r (n), c (k) f32
///
/// A scale for each row is what is called "per channel" or "per output channel": the vector-wise weights of LLM.int8() (Dettmers et al.
/// 2022). A scale for each column cannot leave a sum of integers over k; it can be
/// folded into x, x'(k) = x(k) c(k), which SmoothQuant and AWQ do: then int8_rows of q and r is the same product. int8_columns is for
/// where x must stay as it is.
///
/// `encode` takes the largest magnitude: r = max |w(n, .)| / 127, q = w / r to the nearest, halves away from zero; |decoded - w| is at
/// most r / 2 and a rounding. f32, f16 or bf16 weights of any strides; NaN becomes 0. Source: the formulas are as commonly known.

#include <tern/formats/float_rows.hpp>
#include <tern/formats/weights.hpp>
#include <tern/simd/convert.hpp>
#include <tern/simd/rows.hpp>

namespace tern {

namespace detail {
inline namespace TERN_ABI {

/// x / scale to the nearest integer of [-127, 127], halves away from zero.
TERN_INLINE std::int8_t nearest_int8(float x, float scale) {
  float const y = scale > 0.f ? x / scale : 0.f, n = y + (y < 0.f ? -0.5f : 0.5f);
  return static_cast<std::int8_t>(n >= 127.f ? 127 : n <= -127.f ? -127 : static_cast<int>(n));
}
template <class Q>
void expect_int8_codes(char const* op, tensor_view<Q, 2> const& q) {
  expect(q.extent(1) <= 1 || q.stride(1) == 1, op, "q.stride(1)", q.stride(1), "1");
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// Eight bits with a scale for each row: see the top of formats/int8_rows.hpp.
struct int8_rows {
  static constexpr index granule = 32;
  static constexpr int offset = 128;
  static constexpr bool has_min = false;
  static constexpr bool row_scale = true;
  static constexpr bool signed_bytes = true;

  index rows, columns;
  tensor_view<std::int8_t const, 2> q;
  tensor_view<float const, 1> row_scales;

  /// q (n, k), with k a multiple of 32; row_scales (n).
  int8_rows(tensor_view<std::int8_t const, 2> const& q_in, tensor_view<float const, 1> const& row_scales_in)
      : rows(q_in.extent(0)), columns(q_in.extent(1)), q(q_in), row_scales(row_scales_in) {
    detail::expect(columns % 32 == 0, "int8_rows", "q.extent(1)", columns, "a multiple of 32");
    detail::expect_int8_codes("int8_rows", q);
    detail::expect_equal("int8_rows", "row_scales.extent(0)", row_scales.extent(0), "q.extent(0)", rows);
    detail::expect(rows <= 1 || row_scales.stride(0) == 1, "int8_rows", "row_scales.stride(0)", row_scales.stride(0), "1");
  }

  /// The 32 integers of columns 32 g to 32 g + 31: an element is scale (u - offset).
  TERN_INLINE void unpack(index row, index g, std::uint8_t* u) const {
    std::uint8_t const* const from = memory(row).data + 32 * g;
    for (int j = 0; j < 32; j += 8) formats::detail::store8(u + j, formats::detail::load8(from + j) ^ 128 * formats::detail::each_byte);
  }
  TERN_INLINE void scales(index row, index, float* s, float*) const { s[0] = row_scales[row]; }
  TERN_INLINE row_memory memory(index row) const {
    return {reinterpret_cast<std::uint8_t const*>(q.data() + row * q.stride(0)), columns, q.stride(0)};
  }
  /// For matmul: `lanes` rows in registers.
  template <class Group>
  TERN_INLINE void load(index n, index g, Group& out) const {
    simd::pack<std::uint8_t> const top(std::uint8_t{0x80});
    std::uint8_t const* const from = memory(n).data + 32 * g;
    TERN_UNROLL
    for (index h = 0; h < 2; ++h) {
      simd::load_rows16(from + 16 * h, q.stride(0), out.u[h]);
      TERN_UNROLL
      for (index r = 0; r < 4; ++r) out.u[h][r] = out.u[h][r] ^ top;
    }
    out.scale[0] = simd::load(row_scales.data() + n);
  }

  /// Rounds w (n, k) into q (n, k) and row_scales (n).
  template <tensor_like W>
  static void encode(cpu_policy const& policy, W&& w, tensor_view<std::int8_t, 2> const& q, tensor_view<float, 1> const& row_scales) {
    constexpr char const* op = "int8_rows::encode";
    auto const from = tern::view(w);
    detail::expect_equal(op, "q.extent(0)", q.extent(0), "w.extent(0)", from.extent(0));
    detail::expect_equal(op, "q.extent(1)", q.extent(1), "w.extent(1)", from.extent(1));
    detail::expect_equal(op, "row_scales.extent(0)", row_scales.extent(0), "w.extent(0)", from.extent(0));
    detail::for_each_float_row(policy, from, __FLT_MAX__, [&](index row, float const* x, std::uint8_t*) {
      float const scale = detail::absmax_of(x, q.extent(1)) / 127.f;
      row_scales[row] = scale;
      for (index k = 0; k < q.extent(1); ++k) q(row, k) = detail::nearest_int8(x[k], scale);
    });
  }
};

/// Eight bits with a scale for each column, and for each row if there are any: see the top of formats/int8_rows.hpp.
struct int8_columns {
  index rows, columns;
  tensor_view<std::int8_t const, 2> q;
  tensor_view<float const, 1> column_scales, row_scales;

  /// q (n, k), column_scales (k).
  int8_columns(tensor_view<std::int8_t const, 2> const& q_in, tensor_view<float const, 1> const& column_scales_in)
      : rows(q_in.extent(0)), columns(q_in.extent(1)), q(q_in), column_scales(column_scales_in) {
    detail::expect_int8_codes("int8_columns", q);
    detail::expect_equal("int8_columns", "column_scales.extent(0)", column_scales.extent(0), "q.extent(1)", columns);
    detail::expect(columns <= 1 || column_scales.stride(0) == 1, "int8_columns", "column_scales.stride(0)", column_scales.stride(0), "1");
  }
  /// And row_scales (n).
  int8_columns(tensor_view<std::int8_t const, 2> const& q_in, tensor_view<float const, 1> const& column_scales_in,
               tensor_view<float const, 1> const& row_scales_in)
      : int8_columns(q_in, column_scales_in) {
    row_scales = row_scales_in;
    detail::expect_equal("int8_columns", "row_scales.extent(0)", row_scales.extent(0), "q.extent(0)", rows);
  }

  TERN_INLINE row_memory memory(index row) const {
    return {reinterpret_cast<std::uint8_t const*>(q.data() + row * q.stride(0)), columns, q.stride(0)};
  }
  /// For matmul: columns k0 + k to k0 + k + lanes - 1 of a row in a register.
  class row_cursor {
   public:
    row_cursor() = default;
    TERN_INLINE row_cursor(int8_columns const& w, index row, index k0)
        : q_(w.q.data() + row * w.q.stride(0) + k0), column_(w.column_scales.data() + k0), scale_(w.row_scale(row)) {}
    TERN_INLINE simd::pack<float> at(index k) const {
      return simd::to_float(simd::load_widened(q_ + k)) * scale_ * simd::load(column_ + k);
    }

   private:
    std::int8_t const* q_ = nullptr;
    float const* column_ = nullptr;
    float scale_ = 1.f;
  };
  TERN_INLINE row_cursor cursor(index row, index k0) const { return {*this, row, k0}; }
  TERN_INLINE float row_scale(index row) const { return row_scales.data() != nullptr ? row_scales[row] : 1.f; }
  /// Columns [k0, k1).
  TERN_INLINE void decode(index row, index k0, index k1, float* out) const {
    float const scale = row_scale(row);
    std::int8_t const* const from = q.data() + row * q.stride(0);
    index k = k0;
    for (; k + simd::lanes <= k1; k += simd::lanes, out += simd::lanes)
      simd::store(out, simd::to_float(simd::load_widened(from + k)) * scale * simd::load(column_scales.data() + k));
    for (; k < k1; ++k) *out++ = static_cast<float>(from[k]) * scale * column_scales[k];
  }

  /// Rounds w (n, k) into q (n, k) and column_scales (k), the largest magnitudes of columns / 127.
  template <tensor_like W>
  static void encode(cpu_policy const& policy, W&& w, tensor_view<std::int8_t, 2> const& q, tensor_view<float, 1> const& column_scales) {
    auto const from = tern::view(w);
    expect_shapes(from.extent(0), from.extent(1), q, column_scales.extent(0));
    detail::for_each_float_row(policy, from.transposed(0, 1), __FLT_MAX__, [&](index k, float const* x, std::uint8_t*) {
      float const scale = detail::absmax_of(x, q.extent(0)) / 127.f;
      column_scales[k] = scale;
      for (index n = 0; n < q.extent(0); ++n) q(n, k) = detail::nearest_int8(x[n], scale);
    });
  }
  /// Rounds w under column_scales (k) that the caller chose (SmoothQuant's, AWQ's) into q (n, k) and row_scales (n).
  template <tensor_like W>
  static void encode(cpu_policy const& policy, W&& w, tensor_view<float const, 1> const& column_scales,
                     tensor_view<std::int8_t, 2> const& q, tensor_view<float, 1> const& row_scales) {
    auto const from = tern::view(w);
    expect_shapes(from.extent(0), from.extent(1), q, column_scales.extent(0));
    detail::expect_equal("int8_columns::encode", "row_scales.extent(0)", row_scales.extent(0), "w.extent(0)", from.extent(0));
    for (index k = 0; k < q.extent(1); ++k)
      detail::expect(column_scales[k] > 0.f, "int8_columns::encode", "the number of a column whose scale is not positive", k, "none");
    detail::for_each_float_row(policy, from, __FLT_MAX__, [&](index row, float* x, std::uint8_t*) {
      for (index k = 0; k < q.extent(1); ++k) x[k] /= column_scales[k];
      formats::detail::take_finite(x, q.extent(1), __FLT_MAX__, x);
      float const scale = detail::absmax_of(x, q.extent(1)) / 127.f;
      row_scales[row] = scale;
      for (index k = 0; k < q.extent(1); ++k) q(row, k) = detail::nearest_int8(x[k], scale);
    });
  }

 private:
  TERN_INLINE static void expect_shapes(index rows, index columns, tensor_view<std::int8_t, 2> const& q, index column_scales) {
    constexpr char const* op = "int8_columns::encode";
    detail::expect_equal(op, "q.extent(0)", q.extent(0), "w.extent(0)", rows);
    detail::expect_equal(op, "q.extent(1)", q.extent(1), "w.extent(1)", columns);
    detail::expect_equal(op, "column_scales.extent(0)", column_scales, "w.extent(1)", columns);
  }
};

}  // namespace TERN_ABI
}  // namespace tern
