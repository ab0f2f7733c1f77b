// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/mid_rise.hpp
/// StatsQ: 1 to 8 bits an element on a grid without zero, and one scale a row, that the row's mean magnitude gives:
///
///     s = 2 mean |w|,  n = 2^(bits - 1)
///     code = round(clip(w / s, -1, 1) n - 1/2) + n, in [0, 2 n - 1]      ties to even, before n is added
///     w' = s (code - n + 1/2) / n = s / (2 n) (2 code + 1 - 2 n)         odd integers, rounded once to f32
///
/// Codes lie side by side (formats/packed_bits.hpp). Up to 7 bits, weights are integers with scales, u = 2 code + 1 - 2 n + offset;
/// 8 bits, whose odd integers reach 255, are decoded. Error: s / (2 n) where |w| <= s, |w| - s (1 - 1 / (2 n)) beyond.
///
/// With one bit and w / s <= -1 the authors' rounding gives -3/2 s, a tie that the clipping of codes takes to -1/2 s here.
/// Source: "Oscillation-free Quantization for Low-bit Vision Transformers" (OFQ; the formula was read in public code after it).

#include <tern/formats/packed_bits.hpp>
#include <tern/formats/q4.hpp>
#include <tern/formats/scale_grid.hpp>

namespace tern::formats {
inline namespace TERN_ABI {

/// Weights (rows, columns) on a mid-rise grid, with a scale s for each row, owned by somebody else.
template <int bits>
class mid_rise_weights {
  static_assert(bits >= 1 && bits <= 8, "tern: mid-rise codes have 1 to 8 bits");

 public:
  index rows, columns;
  static constexpr index granule = 32;
  static constexpr int offset = bits <= 6 ? (1 << bits) - 1 : 128;
  static constexpr bool has_min = false;
  static constexpr bool row_scale = true;

  TERN_INLINE mid_rise_weights(tensor_view<std::uint8_t const, 2> const& codes, tensor_view<float const, 1> const& scales)
      : rows(codes.extent(0)), columns(detail::packed_rows<bits>::columns(codes)), codes_("mid_rise_weights", codes), scales_(scales) {
    tern::detail::expect_equal("mid_rise_weights", "scales.extent(0)", scales.extent(0), "codes.extent(0)", rows);
    tern::detail::expect(scales.data() != nullptr || rows == 0, "mid_rise_weights", "scales.data()", 0, "not null");
  }

  /// Columns 32 g to 32 g + 31 as integers.
  TERN_INLINE void unpack(index row, index g, std::uint8_t* u) const
    requires(bits <= 7)
  {
    codes_.unpack(row, g, u);
    for (int j = 0; j < 32; j += 8) detail::store8(u + j, 2 * detail::load8(u + j) + shift_of_bytes);
  }
  TERN_INLINE void scales(index row, index, float* scale, float*) const
    requires(bits <= 7)
  {
    scale[0] = scales_[row] * unit;
  }
  /// For matmul: `lanes` rows in registers, a row a lane.
  static constexpr bool quads = true;
  class lane_walk {
   public:
    TERN_INLINE lane_walk(mid_rise_weights const& w, index row) : codes_(w.memory(row)), scales_(w.scales_, row) {}
    template <class Group>
    TERN_INLINE void load(index g, Group& out) {
      codes_.load(g, out.u);
      out.scale[0] = scales_.get() * unit;
      simd::pack<std::int32_t> const shift(static_cast<std::int32_t>(shift_of_bytes));
      TERN_UNROLL
      for (index i = 0; i < 8; ++i) {
        auto const u = simd::bit_cast<std::int32_t>(out.u[i / 4][i % 4]);
        out.u[i / 4][i % 4] = simd::bit_cast<std::uint8_t>(u + u + shift);
      }
    }

   private:
    detail::packed_walk<bits> codes_;
    detail::row_scale_walk scales_;
  };
  TERN_INLINE lane_walk walk(index row) const
    requires(bits <= 7)
  {
    return {*this, row};
  }
  TERN_INLINE row_memory memory(index row) const { return codes_.memory(row, columns); }
  /// Columns k0 to k1, multiples of 32, of a row.
  TERN_INLINE void decode(index row, index k0, index k1, float* TERN_RESTRICT out) const
    requires(bits == 8)
  {
    float const scale = scales_[row] * unit;
    for (index k = k0; k < k1; k += 32, out += 32) {
      std::uint8_t u[32];
      codes_.unpack(row, k / 32, u);
      for (int j = 0; j < 32; ++j) out[j] = static_cast<float>(2 * u[j] - 255) * scale;
    }
  }

 private:
  static constexpr float unit = 1.f / static_cast<float>(1 << bits);
  /// From twice a code to its integer, for each byte: all stay below 256.
  static constexpr std::uint64_t shift_of_bytes = static_cast<std::uint64_t>(1 - (1 << bits) + offset) * detail::each_byte;
  detail::packed_rows<bits> codes_;
  tensor_view<float const, 1> scales_;
};

/// Codes and scales of w (n, k), k a multiple of 32. A row of zeros gets scale 0; NaN, and rows that hold infinity, are not defined.
template <int bits>
inline void encode_mid_rise(tensor_view<float const, 2> const& w, tensor_view<std::uint8_t, 2> const& codes,
                            tensor_view<float, 1> const& scales) {
  detail::expect_packed<bits>("encode_mid_rise", w, codes);
  mid_rise_weights<bits> const checked(codes, scales);
  constexpr float n = static_cast<float>(1 << bits) / 2.f;
  for (index i = 0; i < checked.rows; ++i) {
    double sum = 0;
    for (index k = 0; k < checked.columns; ++k) sum += static_cast<double>(__builtin_fabsf(w(i, k)));
    float const s = checked.columns > 0 ? static_cast<float>(2 * sum / static_cast<double>(checked.columns)) : 0.f;
    scales[i] = s;
    detail::pack_row<bits>(codes, i, checked.columns, [&](index k) TERN_LAMBDA {
      float const step = __builtin_nearbyintf(w(i, k) / s * n - 0.5f);  // NaN if s is 0
      return static_cast<std::uint8_t>((step >= n - 1 ? n - 1 : step >= -n ? step : step < -n ? -n : 0.f) + n);
    });
  }
}

}  // namespace TERN_ABI
}  // namespace tern::formats
