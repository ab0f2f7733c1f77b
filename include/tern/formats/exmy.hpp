// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/exmy.hpp
/// Small floating-point numbers: a sign, x bits of exponent, y of fraction, at most 8 in all.
///
///     code = sign 2^(x + y) + e 2^y + m        bias = 2^(x - 1) - 1
///     value = +- (m / 2^y) 2^(1 - bias)        where e = 0
///           = +- (1 + m / 2^y) 2^(e - bias)    else
///
///     format      specials    largest   least       use
///     e2m1        none        6         1/2         FP4 of MX and NVFP4
///     e2m3, e3m2  none        7.5, 28   1/8, 1/16   FP6 of MX
///     fp8_e4m3    nan         448       2^-9        code 127 and 255 are NaN, none is infinite
///     fp8_e5m2    ieee        57344     2^-16       the largest e is infinity (m = 0) and NaN
///     exmy<2, 5>, exmy<3, 4>, ...                   any other split
///
/// encode rounds to nearest, ties to even codes; what is too large, or infinite, becomes the largest number of its sign. NaN
/// becomes NaN, or +0 where there is none. The relative error of a number in the normal range is at most 2^-(y + 1), the absolute
/// one below it half of `least`.
///
///     exmy_weights<F, Scale, granule>(codes, scales)     element (i, j) = scale * value(code), rounded once to f32
///       codes    (n, bytes of a row)  bits of a code side by side (formats/packed_bits.hpp): FP4 two to a byte, FP8 one each
///       scales   (1, 1), (n, 1), (n, k / 32), ...: formats/scale_grid.hpp; granule is 16 for blocks of 16, 32 for all larger
///     encode_exmy<F>(w, codes, scales)                   scales: the largest |w| of a rectangle over F's largest
///     round_to_exmy<F, Scale>(x, out, rows, columns)     the same without codes: x as it is after encoding and decoding
///
/// Where all values are integers below 2^7 times the least one (e2m1, e2m3, e1m6, e3m0, ...), weights are integers with scales, for
/// products of integers; the scale is then least * scale, exact unless it is below f32's normal range. Others are decoded.
///
/// Sources: OCP 8-bit Floating Point Specification (OFP8) and MX Specification 1.0, 2023, from knowledge. The study of (x, y) and of
/// tensor, channel and block scales: "Scaling Laws for Floating Point Quantization Training" (abstract read), "FP8 versus INT8 for
/// efficient deep learning inference" (abstract read; its FP8 with e bits of exponent is exmy<e, 7 - e>).

#include <tern/formats/packed_bits.hpp>
#include <tern/formats/scale_grid.hpp>
#include <tern/simd/bytes.hpp>
#include <tern/simd/convert.hpp>
#include <tern/simd/shuffle.hpp>

namespace tern::formats {
inline namespace TERN_ABI {

/// Which codes are no numbers: none; those of all ones (NaN); those of the largest exponent (infinity and NaN).
enum class float_specials { none, nan, ieee };

namespace detail {

/// 2^n, n in [-126, 127].
TERN_INLINE constexpr float power_of_two(int n) { return __builtin_bit_cast(float, static_cast<std::uint32_t>(n + 127) << 23); }
TERN_INLINE constexpr int exmy_bias(int x) { return (1 << (x - 1)) - 1; }
/// The value of a code without sign.
TERN_INLINE constexpr float exmy_magnitude(int x, int y, std::uint32_t code) {
  int const bias = exmy_bias(x);
  float const below = static_cast<float>(static_cast<int>(code)) * power_of_two(1 - bias - y);
  float const normal = __builtin_bit_cast(float, (code << (23 - y)) + (static_cast<std::uint32_t>(127 - bias) << 23));
  return code >> y == 0 ? below : normal;
}
/// The same in units of the least one.
TERN_INLINE constexpr long long exmy_integer(int y, int code) {
  int const e = code >> y, m = code & ((1 << y) - 1);
  return e == 0 ? m : static_cast<long long>(m | 1 << y) << (e - 1);
}
TERN_INLINE constexpr int exmy_largest_code(int x, int y, float_specials s) {
  int const ones = (1 << (x + y)) - 1;
  return s == float_specials::none ? ones : s == float_specials::nan ? ones - 1 : (((1 << x) - 1) << y) - 1;
}

}  // namespace detail

/// A format of X bits of exponent and Y of fraction.
template <int X, int Y, float_specials S = float_specials::none>
struct exmy {
  static_assert(X >= 1 && X <= 5 && Y >= 0 && X + Y <= 7, "tern: exmy has 1 to 5 bits of exponent and at most 8 in all");
  static_assert(S != float_specials::ieee || (X >= 2 && Y >= 1), "tern: infinity and NaN need two bits of exponent and one of fraction");
  static constexpr int fraction_bits = Y;
  static constexpr float_specials specials = S;
  static constexpr int bits = 1 + X + Y;
  static constexpr int bias = detail::exmy_bias(X);
  static constexpr int largest_code = detail::exmy_largest_code(X, Y, S);
  static constexpr float largest = detail::exmy_magnitude(X, Y, static_cast<std::uint32_t>(largest_code));
  static constexpr float least = detail::power_of_two(1 - bias - Y);
  /// Whether all values are integers times `least` that integer products can take, and u = integer + offset.
  static constexpr bool has_integers = S == float_specials::none && detail::exmy_integer(Y, largest_code) <= 127;
  static constexpr int offset = detail::exmy_integer(Y, largest_code) <= 63 ? static_cast<int>(detail::exmy_integer(Y, largest_code)) : 128;

  /// The value of a code; bits above the format's are not looked at.
  TERN_INLINE static constexpr float decode(std::uint8_t code) {
    std::uint32_t const magnitude = code & ((1u << (X + Y)) - 1), sign = static_cast<std::uint32_t>(code >> (X + Y) & 1) << 31;
    std::uint32_t value = __builtin_bit_cast(std::uint32_t, detail::exmy_magnitude(X, Y, magnitude));
    if constexpr (S == float_specials::nan) value = magnitude > largest_code ? 0x7fc00000u : value;
    if constexpr (S == float_specials::ieee)
      value = magnitude > largest_code ? (magnitude == largest_code + 1u ? 0x7f800000u : 0x7fc00000u) : value;
    return __builtin_bit_cast(float, value | sign);
  }
  /// The nearest code: ties to even, saturating.
  TERN_INLINE static constexpr std::uint8_t encode(float x) {
    std::uint32_t const bits_of_x = __builtin_bit_cast(std::uint32_t, x), sign = bits_of_x >> 31 << (X + Y);
    std::uint32_t const bits_of_magnitude = bits_of_x & 0x7fffffffu;
    float const magnitude = __builtin_bit_cast(float, bits_of_magnitude);
    if (x != x) return S == float_specials::none ? std::uint8_t{0} : static_cast<std::uint8_t>(sign | ((1u << (X + Y)) - 1));
    if (magnitude >= largest) return static_cast<std::uint8_t>(sign | largest_code);
    if (magnitude < detail::power_of_two(1 - bias)) {  // added to 2^23 times the least, the sum's last bits are the code
      constexpr float shift = least * 0x1p23f;
      std::uint32_t const sum = __builtin_bit_cast(std::uint32_t, magnitude + shift);
      return static_cast<std::uint8_t>(sign | (sum - __builtin_bit_cast(std::uint32_t, shift)));
    }
    std::uint32_t const half = (1u << (22 - Y)) - 1 + (bits_of_magnitude >> (23 - Y) & 1);
    std::uint32_t const code = (bits_of_magnitude + half - (static_cast<std::uint32_t>(127 - bias) << 23)) >> (23 - Y);
    return static_cast<std::uint8_t>(sign | (code < largest_code ? code : static_cast<std::uint32_t>(largest_code)));
  }
};

/// OCP's FP4 and FP6 elements, and its two FP8.
using e2m1 = exmy<2, 1>;
using e2m3 = exmy<2, 3>;
using e3m2 = exmy<3, 2>;
using fp8_e4m3 = exmy<4, 3, float_specials::nan>;
using fp8_e5m2 = exmy<5, 2, float_specials::ieee>;

namespace detail {
/// What each code of a format is among integers.
template <class F>
struct exmy_level_table {
  std::uint8_t u[F::bits <= 4 ? 16 : F::bits <= 6 ? 64 : 1 << F::bits] = {};
  constexpr exmy_level_table() {
    for (int c = 0; c < 1 << F::bits; ++c) {
      int const magnitude = static_cast<int>(exmy_integer(F::fraction_bits, c & ((1 << (F::bits - 1)) - 1)));
      u[c] = static_cast<std::uint8_t>(F::offset + (c >> (F::bits - 1) != 0 ? -magnitude : magnitude));
    }
  }
};
template <class F>
inline constexpr exmy_level_table<F> exmy_levels{};
/// 32 codes become integers.
template <class F>
TERN_INLINE void choose_levels(std::uint8_t* u) {
  if constexpr (F::bits <= 4) {
    simd::look_up_32(simd::load_table(reinterpret_cast<std::int8_t const*>(exmy_levels<F>.u)), u);
  } else {
    for (int j = 0; j < 32; ++j) u[j] = exmy_levels<F>.u[u[j]];
  }
}

/// F::decode of each lane; all comparisons are those of small integers as floats.
template <class F>
TERN_INLINE simd::pack<float> decode_exmy(simd::pack<std::int32_t> code) {
  using packf = simd::pack<float>;
  using packi = simd::pack<std::int32_t>;
  constexpr int sign = F::bits - 1, y = F::fraction_bits;
  packi const magnitude = code & packi(std::int32_t{(1 << sign) - 1});
  packf const integer = simd::to_float(magnitude);
  packf const normal = simd::bit_cast<float>(simd::shift_left<23 - y>(magnitude) + packi(std::int32_t{(127 - F::bias) << 23}));
  packf value = simd::select(integer < packf(static_cast<float>(1 << y)), integer * F::least, normal);
  packf const last(static_cast<float>(F::largest_code));
  if constexpr (F::specials != float_specials::none) value = simd::select(integer > last, packf(__builtin_nanf("")), value);
  if constexpr (F::specials == float_specials::ieee) value = simd::select(integer == last + packf(1.f), packf(__builtin_inff()), value);
  return simd::bit_cast<float>(simd::bit_cast<std::int32_t>(value) | simd::shift_left<31 - sign>(code & packi(std::int32_t{1 << sign})));
}
/// `lanes` codes, a byte each, times a scale.
template <class F>
TERN_INLINE simd::pack<float> load_exmy(std::uint8_t const* code, float scale) {
  constexpr bool nan = F::specials == float_specials::nan, ieee = F::specials == float_specials::ieee;
  // f16 has five bits of exponent, and its last one is for infinity and NaN.
  if constexpr (simd::has_small_floats && F::bits == 8 && (ieee ? F::fraction_bits == 2 : F::fraction_bits > 2))
    return (simd::widen_small_floats<F::fraction_bits, nan>(code) * power_of_two(15 - F::bias)) * scale;
  else
    return decode_exmy<F>(simd::load_widened(code)) * scale;
}
}  // namespace detail

/// Weights (rows, columns) of a format F with scales, owned by somebody else.
template <class F, scale_storage Scale = float, index Granule = 32>
class exmy_weights {
  static_assert(Granule == 16 || Granule == 32);

 public:
  index rows, columns;
  static constexpr index granule = Granule;
  static constexpr int offset = F::offset;
  static constexpr bool has_min = false;

  /// Fails if a row is no whole number of 32 codes, or the scales do not divide the matrix.
  TERN_INLINE exmy_weights(tensor_view<std::uint8_t const, 2> const& codes, tensor_view<Scale const, 2> const& scales)
      : rows(codes.extent(0)),
        columns(detail::packed_rows<F::bits>::columns(codes)),
        codes_("exmy_weights", codes),
        scales_("exmy_weights", scales, rows, columns, Granule) {}

  /// Columns 32 g to 32 g + 31 as integers.
  TERN_INLINE void unpack(index row, index g, std::uint8_t* u) const
    requires(F::has_integers)
  {
    codes_.unpack(row, g, u);
    detail::choose_levels<F>(u);
  }
  TERN_INLINE void scales(index row, index g, float* scale, float*) const
    requires(F::has_integers)
  {
    for (index i = 0; i < 32 / Granule; ++i) scale[i] = scales_.at(row, 32 * g + Granule * i) * F::least;
  }
  /// For matmul: `lanes` rows in registers, a row a lane.
  static constexpr bool quads = true;
  TERN_INLINE auto walk(index row) const
    requires(F::has_integers && F::bits <= 6)
  {
    return detail::level_walk<F::bits, Scale, Granule>(memory(row), scales_, row, detail::exmy_levels<F>.u, F::least);
  }
  TERN_INLINE row_memory memory(index row) const { return codes_.memory(row, columns); }
  /// For matmul: columns k0 + k to k0 + k + lanes - 1 of a row in a register.
  class row_cursor {
   public:
    row_cursor() = default;
    TERN_INLINE row_cursor(exmy_weights const& w, index row, index k0)
        : code_(w.memory(row).data + k0), scale_(w.scales_.row(row)), shift_(w.scales_.column_shift), k0_(k0) {}
    TERN_INLINE simd::pack<float> at(index k) const {
      return detail::load_exmy<F>(code_ + k, static_cast<float>(scale_[(k0_ + k) >> shift_]));
    }

   private:
    std::uint8_t const* code_ = nullptr;
    Scale const* scale_ = nullptr;
    int shift_ = 0;
    index k0_ = 0;
  };
  TERN_INLINE row_cursor cursor(index row, index k0) const
    requires(!F::has_integers && F::bits == 8)
  {
    return {*this, row, k0};
  }
  /// Columns k0 to k1, multiples of 32, of a row.
  TERN_INLINE void decode(index row, index k0, index k1, float* TERN_RESTRICT out) const
    requires(!F::has_integers)
  {
    for (index k = k0; k < k1; k += 32) {
      std::uint8_t u[32];
      std::uint8_t const* const code = codes_.at(row, k / 32, u);
      TERN_UNROLL
      for (index i = 0; i < 32; i += Granule, out += Granule) {
        float const scale = scales_.at(row, k + i);
        TERN_UNROLL
        for (index j = 0; j < Granule; j += simd::lanes) simd::store(out + j, detail::load_exmy<F>(code + i + j, scale));
      }
    }
  }

 private:
  detail::packed_rows<F::bits> codes_;
  detail::scale_grid<Scale> scales_;
};

/// Codes and scales of w (n, k): each scale takes the largest magnitude of its rectangle to F's largest. Zeros give a zero scale; NaN
/// counts as 0 for scales, infinity as f32's largest. The rectangles are what scales.extent(...) divides w into.
template <class F, index Granule = 32, scale_storage Scale>
inline void encode_exmy(tensor_view<float const, 2> const& w, tensor_view<std::uint8_t, 2> const& codes,
                        tensor_view<Scale, 2> const& scales) {
  detail::expect_packed<F::bits>("encode_exmy", w, codes);
  detail::scale_grid<Scale> const grid("encode_exmy", scales, w.extent(0), w.extent(1), Granule);
  if (w.size() == 0) return;
  detail::each_rectangle(w, w.extent(0) / scales.extent(0), w.extent(1) / scales.extent(1),
                         [&](index i, index j, auto const& part) TERN_LAMBDA {
                           scales.data()[(i >> grid.row_shift) * scales.stride(0) + (j >> grid.column_shift)] =
                               detail::scale_to<Scale>(detail::largest_magnitude(part), F::largest);
                         });
  for (index i = 0; i < w.extent(0); ++i)
    detail::pack_row<F::bits>(codes, i, w.extent(1), [&](index k) TERN_LAMBDA {
      float const scale = grid.at(i, k);
      return scale == 0.f ? std::uint8_t{0} : F::encode(w(i, k) / scale);
    });
}

/// x as encoding and decoding leave it, with a scale for each rectangle of `rows` by `columns` elements (smaller at the ends): the
/// whole of x, (1, k), (1, block) and so on. out may be x.
template <class F, scale_storage Scale = float>
inline void round_to_exmy(tensor_view<float const, 2> const& x, tensor_view<float, 2> const& out, index rows, index columns) {
  tern::detail::expect(rows > 0, "round_to_exmy", "rows", rows, "at least 1");
  tern::detail::expect(columns > 0, "round_to_exmy", "columns", columns, "at least 1");
  tern::detail::expect_equal("round_to_exmy", "out.extent(0)", out.extent(0), "x.extent(0)", x.extent(0));
  tern::detail::expect_equal("round_to_exmy", "out.extent(1)", out.extent(1), "x.extent(1)", x.extent(1));
  detail::each_rectangle(x, rows, columns, [&](index i0, index j0, auto const& part) TERN_LAMBDA {
    auto const scale = static_cast<float>(detail::scale_to<Scale>(detail::largest_magnitude(part), F::largest));
    for (index i = 0; i < part.extent(0); ++i)
      for (index j = 0; j < part.extent(1); ++j)
        out(i0 + i, j0 + j) = scale == 0.f ? 0.f : F::decode(F::encode(part(i, j) / scale)) * scale;
  });
}

}  // namespace TERN_ABI
}  // namespace tern::formats
