// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/power_of_two.hpp
/// Weights that are a sign times a power of two, so that products are shifts: 2 to 6 bits an element, of which one is the sign.
///
///     code = sign 2^(bits - 1) + m,  top = 2^(bits - 1) - 1
///     w = 0 where m = 0,  +- scale 2^(m - top) else          rounded once to f32 (exact in f32's normal range)
///
///     bits                2      3         4              5              6
///     powers below scale  1      1 .. 1/4  1 .. 1/64      1 .. 2^-14     1 .. 2^-30
///
/// Codes lie side by side (formats/packed_bits.hpp), scales as in formats/scale_grid.hpp. Up to 4 bits, weights are integers
/// +- 2^(m - 1) with scales, and a product of integers with them is the sum of shifted activations. Wider ones are decoded.
///
/// Encoding: the scale is a power of two, the nearest in its logarithm to a rectangle's largest magnitude; each weight goes to the
/// power nearest in its logarithm, 2^round(log2 |w|), or to the least power, or to 0 below half of that. Relative error: at most
/// sqrt(2) - 1 from the least power on. NaN counts as 0, infinity as f32's largest.
///
/// Source: "ShiftAddViT: Mixture of Multiplication Primitives Towards Efficient Vision Transformer" (MatShift), from knowledge, after
/// the formula of "DeepShift: Towards Multiplication-Less Neural Networks" (read in public code: powers 0 to 2 - 2^(bits - 1)).

#include <tern/formats/packed_bits.hpp>
#include <tern/formats/scale_grid.hpp>
#include <tern/simd/convert.hpp>
#include <tern/simd/shuffle.hpp>

namespace tern::formats {
inline namespace TERN_ABI {

namespace detail {
/// round(log2 |x|) for normal numbers: no f32 is at the tie, sqrt(2).
TERN_INLINE constexpr int nearest_power(float x) {
  std::uint32_t const fraction = __builtin_bit_cast(std::uint32_t, x) & 0x7fffffu;
  return exponent_of(x) + (fraction > 0x3504f3u);
}

/// What integers up to 4 bits stand for are among bytes.
template <int bits>
inline constexpr int power_offset = bits <= 3 ? 1 << ((1 << (bits - 1)) - 2) : 128;
/// power_offset +- 2^(m - 1), or itself for m = 0, of each code.
template <int bits>
struct power_levels {
  std::int8_t of[16] = {};
  constexpr power_levels() {
    constexpr int sign = 1 << (bits - 1);
    for (int code = 0; code < 2 * sign; ++code) {
      int const magnitude = 1 << (code % sign) >> 1;
      of[code] = static_cast<std::int8_t>(static_cast<std::uint8_t>(power_offset<bits> + (code >= sign ? -magnitude : magnitude)));
    }
  }
};
template <int bits>
inline constexpr power_levels<bits> power_table{};
}  // namespace detail

/// Weights (rows, columns) that are powers of two with scales, owned by somebody else.
template <int bits, scale_storage Scale = float>
class power_of_two_weights {
  static_assert(bits >= 2 && bits <= 6, "tern: signed powers of two have 2 to 6 bits");
  static constexpr int sign = 1 << (bits - 1), top = sign - 1;

 public:
  index rows, columns;
  static constexpr index granule = 32;
  static constexpr int offset = detail::power_offset<bits>;
  static constexpr bool has_min = false;

  TERN_INLINE power_of_two_weights(tensor_view<std::uint8_t const, 2> const& codes, tensor_view<Scale const, 2> const& scales)
      : rows(codes.extent(0)),
        columns(detail::packed_rows<bits>::columns(codes)),
        codes_("power_of_two_weights", codes),
        scales_("power_of_two_weights", scales, rows, columns, granule) {}

  /// Columns 32 g to 32 g + 31 as integers.
  TERN_INLINE void unpack(index row, index g, std::uint8_t* u) const
    requires(bits <= 4)
  {
    codes_.unpack(row, g, u);
    simd::look_up_32(simd::load_table(detail::power_table<bits>.of), u);
  }
  TERN_INLINE void scales(index row, index g, float* scale, float*) const
    requires(bits <= 4)
  {
    scale[0] = scales_.at(row, 32 * g) * least;
  }
  /// For matmul: `lanes` rows in registers, a row a lane.
  static constexpr bool quads = true;
  TERN_INLINE auto walk(index row) const
    requires(bits <= 4)
  {
    auto const* const levels = reinterpret_cast<std::uint8_t const*>(detail::power_table<bits>.of);
    return detail::level_walk<bits, Scale, granule>(memory(row), scales_, row, levels, least);
  }
  TERN_INLINE row_memory memory(index row) const { return codes_.memory(row, columns); }
  /// Columns k0 to k1, multiples of 32, of a row.
  TERN_INLINE void decode(index row, index k0, index k1, float* TERN_RESTRICT out) const
    requires(bits >= 5)
  {
    for (index k = k0; k < k1; k += 32, out += 32) {
      std::uint8_t u[32];
      codes_.unpack(row, k / 32, u);
      float const scale = scales_.at(row, k);
      using packi = simd::pack<std::int32_t>;
      for (index j = 0; j < 32; j += simd::lanes) {
        packi const code = simd::load_widened(u + j), m = code & packi(std::int32_t{top});
        simd::pack<float> const power = simd::bit_cast<float>(simd::shift_left<23>(m + packi(std::int32_t{127 - top})));
        simd::pack<float> const magnitude = simd::select(simd::to_float(m) > simd::pack<float>(0.f), power, simd::pack<float>(0.f));
        packi const negative = simd::shift_left<32 - bits>(code & packi(std::int32_t{sign}));
        simd::store(out + j, simd::bit_cast<float>(simd::bit_cast<std::int32_t>(magnitude) | negative) * scale);
      }
    }
  }

 private:
  static constexpr float least = 2.f / static_cast<float>(1 << top);
  detail::packed_rows<bits> codes_;
  detail::scale_grid<Scale> scales_;
};

/// Codes and scales of w (n, k), k a multiple of 32; the rectangles are what scales.extent(...) divides w into.
template <int bits, scale_storage Scale>
inline void encode_power_of_two(tensor_view<float const, 2> const& w, tensor_view<std::uint8_t, 2> const& codes,
                                tensor_view<Scale, 2> const& scales) {
  detail::expect_packed<bits>("encode_power_of_two", w, codes);
  detail::scale_grid<Scale> const grid("encode_power_of_two", scales, w.extent(0), w.extent(1), 32);
  if (w.size() == 0) return;
  detail::each_rectangle(w, w.extent(0) / scales.extent(0), w.extent(1) / scales.extent(1),
                         [&](index i, index j, auto const& part) TERN_LAMBDA {
                           float const most = detail::largest_magnitude(part);
                           scales.data()[(i >> grid.row_shift) * scales.stride(0) + (j >> grid.column_shift)] =
                               detail::scale_to<Scale>(static_cast<float>(e8m0::power(detail::nearest_power(most))), 1.f);
                         });
  constexpr int sign = 1 << (bits - 1), top = sign - 1;
  for (index i = 0; i < w.extent(0); ++i)
    detail::pack_row<bits>(codes, i, w.extent(1), [&](index k) TERN_LAMBDA {
      float const x = w(i, k) / grid.at(i, k);
      int const power = detail::nearest_power(x) + top;
      int const m = !(__builtin_fabsf(x) * static_cast<float>(1u << (top - 1)) >= 0.5f) ? 0 : power > top ? top : power < 1 ? 1 : power;
      return static_cast<std::uint8_t>(x < 0.f && m != 0 ? m | sign : m);
    });
}

}  // namespace TERN_ABI
}  // namespace tern::formats
