// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/bit_planes.hpp
/// Matrices (n, k) of integers of 1 to 8 bits, of which each bit has a plane of its own, with a scale for each row:
///
///     bipolar_planes    r(n) sum over i of 2^i (2 b_i - 1)                        odd numbers from -(2^p - 1) to 2^p - 1, no zero
///     binary_planes     r(n) (sum over i < p - 1 of 2^i b_i - 2^(p-1) b_(p-1))    two's complement
///
///     words (p, n, ceil(k / 64))    bit j of word w is b of column 64 w + j; bits beyond column k are zero      row_scales (n) f32
///
/// They multiply each other in any numbers of bits (matmul/bit_planes.hpp). `bit_plane_weights` lets matmul multiply floats, or 8-bit
/// activations, with them.
///
/// `encode` rounds f32, f16 or bf16 rows of any strides, NaN as 0: codes for a range, the largest magnitude's or the best of `ranges`
/// down to a quarter of it, then the scale that is best for these codes (with one bipolar bit: signs, and the mean magnitude). One
/// range suits activations, about 20 suit weights. Zero becomes an odd code too, of the smallest magnitude.
///
/// System: Bipolar-INT ("Efficient Arbitrary Precision Acceleration for Large Language Models on GPU Tensor Cores", Ma et al. 2024). The
/// format's idea: read in the abstract; its formula and layout from knowledge; the encoder is own.

#include <tern/formats/float_rows.hpp>
#include <tern/formats/packed_bits.hpp>
#include <tern/formats/scale_grid.hpp>

namespace tern {

/// What a bit of a plane stands for.
enum class bit_code { bipolar, binary };

namespace detail {
inline namespace TERN_ABI {

/// The integer that p bits stand for.
template <bit_code code>
TERN_INLINE int bit_value(int bits, int planes) {
  if (code == bit_code::bipolar) return 2 * bits - ((1 << planes) - 1);
  return bits - (bits >> (planes - 1) << planes);
}
/// The bits of the integer nearest to x.
template <bit_code code>
TERN_INLINE int nearest_bits(float x, int planes) {
  int const most = (1 << planes) - 1;
  if (code == bit_code::bipolar) return formats::detail::nearest_int((x + static_cast<float>(most)) * 0.5f, most);
  int const half = 1 << (planes - 1);
  return formats::detail::nearest_int(x + static_cast<float>(half), most) ^ half;
}
/// The scale for which no element of a row is out of range.
template <bit_code code>
TERN_INLINE float widest_bit_scale(float const* x, index n, int planes) {
  if (n == 0) return 0.f;
  formats::detail::extremes const range = formats::detail::extremes_of(x, n);
  if (code == bit_code::bipolar) return __builtin_fabsf(range.farthest) / static_cast<float>((1 << planes) - 1);
  auto const half = static_cast<float>(1 << (planes - 1));
  float const below = range.least < 0.f ? -range.least / half : 0.f;
  float const above = planes > 1 && range.most > 0.f ? range.most / (half - 1.f) : 0.f;
  return above > below ? above : below;
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// A matrix of integers in planes of bits: see the top of formats/bit_planes.hpp.
template <bit_code code>
struct bit_planes {
  static constexpr int most_planes = 8;

  int planes;
  index rows, columns;
  tensor_view<std::uint64_t const, 3> words;
  tensor_view<float const, 1> row_scales;

  /// words (planes, rows, ceil(columns / 64)), row_scales (rows). Fails if a bit beyond the columns is set.
  bit_planes(tensor_view<std::uint64_t const, 3> const& words_in, index columns_in, tensor_view<float const, 1> const& row_scales_in)
      : planes(static_cast<int>(words_in.extent(0))),
        rows(words_in.extent(1)),
        columns(columns_in),
        words(words_in),
        row_scales(row_scales_in) {
    expect_shapes("bit_planes", words, columns, row_scales.extent(0));
    if (columns % 64 == 0) return;
    for (index i = 0; i < planes; ++i)
      for (index n = 0; n < rows; ++n)
        detail::expect(words(i, n, columns / 64) >> (columns % 64) == 0, "bit_planes", "the number of a row with a bit beyond the columns",
                       n, "none");
  }

  /// The words of a row in a plane.
  TERN_INLINE std::uint64_t const* row(index plane, index n) const { return words.data() + plane * words.stride(0) + n * words.stride(1); }

  /// Rounds x (n, k) into words (planes, n, ceil(k / 64)) and row_scales (n): see the top of the file.
  template <tensor_like X>
  static void encode(cpu_policy const& policy, X&& x, tensor_view<std::uint64_t, 3> const& words, tensor_view<float, 1> const& row_scales,
                     int ranges = 1) {
    auto const from = tern::view(x);
    expect_shapes("bit_planes::encode", words, from.extent(1), row_scales.extent(0));
    detail::expect_equal("bit_planes::encode", "words.extent(1)", words.extent(1), "x.extent(0)", from.extent(0));
    detail::expect(ranges >= 1, "bit_planes::encode", "ranges", ranges, "at least 1");
    int const planes = static_cast<int>(words.extent(0));
    // Squares of more would leave the range of floats.
    detail::for_each_float_row(policy, from, 0x1p60f, [&](index n, float const* values, std::uint8_t* bits) {
      row_scales[n] = encode_row(values, from.extent(1), planes, ranges, bits);
      for (int i = 0; i < planes; ++i) pack_plane(bits, from.extent(1), i, &words(i, n, 0));
    });
  }

 private:
  TERN_INLINE static void expect_shapes(char const* op, tensor_view<std::uint64_t const, 3> const& words, index columns, index row_scales) {
    detail::expect(words.extent(0) >= 1 && words.extent(0) <= most_planes, op, "words.extent(0)", words.extent(0), "1 to 8 planes");
    detail::expect(columns >= 0, op, "the number of columns", columns, "at least 0");
    detail::expect_equal(op, "words.extent(2)", words.extent(2), "the number of columns / 64, rounded up", (columns + 63) / 64);
    detail::expect(words.extent(2) <= 1 || words.stride(2) == 1, op, "words.stride(2)", words.stride(2), "1");
    detail::expect_equal(op, "row_scales.extent(0)", row_scales, "the number of rows", words.extent(1));
  }
  /// The bits of each element in a byte; returns the row's scale.
  static float encode_row(float const* x, index n, int planes, int ranges, std::uint8_t* bits) {
    float const widest = detail::widest_bit_scale<code>(x, n, planes);
    float best = widest, saved = -1.f;
    for (int i = 0; i < ranges && widest > 0.f; ++i) {
      float const scale = widest * (1.f - 0.75f * static_cast<float>(i) / static_cast<float>(ranges)), inverse = 1.f / scale;
      float xv = 0.f, vv = 0.f;
      for (index k = 0; k < n; ++k) {
        auto const v = static_cast<float>(detail::bit_value<code>(detail::nearest_bits<code>(x[k] * inverse, planes), planes));
        xv += x[k] * v;
        vv += v * v;
      }
      // Under its best scale, xv / vv, this choice of codes takes xv^2 / vv from the sum of squares.
      if (!(vv > 0.f && xv > 0.f && xv / vv * xv > saved)) continue;
      saved = xv / vv * xv;
      best = scale;
    }
    float const inverse = best > 0.f ? 1.f / best : 0.f;
    float xv = 0.f, vv = 0.f;
    for (index k = 0; k < n; ++k) {
      int const b = detail::nearest_bits<code>(x[k] * inverse, planes);
      auto const v = static_cast<float>(detail::bit_value<code>(b, planes));
      bits[k] = static_cast<std::uint8_t>(b);
      xv += x[k] * v;
      vv += v * v;
    }
    return vv > 0.f && xv > 0.f ? xv / vv : 0.f;
  }
  TERN_INLINE static void pack_plane(std::uint8_t const* bits, index n, int plane, std::uint64_t* words) {
    for (index first = 0; first < n; first += 64) {
      index const count = n - first < 64 ? n - first : 64;
      std::uint64_t word = 0;
      for (index j = 0; j < count; ++j) word |= static_cast<std::uint64_t>(bits[first + j] >> plane & 1) << j;
      *words++ = word;
    }
  }
};

/// sum of 2^i (2 b_i - 1).
using bipolar_planes = bit_planes<bit_code::bipolar>;
/// Two's complement.
using binary_planes = bit_planes<bit_code::binary>;

/// Planes as weights for matmul: of up to 7 bits if bipolar, 8 in two's complement; columns are a multiple of 32.
template <bit_code code>
struct bit_plane_weights {
  static constexpr index granule = 32;
  static constexpr int offset = 128;
  static constexpr bool has_min = false;
  static constexpr bool row_scale = true;

  index rows, columns;
  bit_planes<code> from;

  explicit bit_plane_weights(bit_planes<code> const& planes) : rows(planes.rows), columns(planes.columns), from(planes) {
    constexpr char const* op = "bit_plane_weights";
    if (code == bit_code::bipolar) detail::expect(planes.planes <= 7, op, "the number of bipolar planes", planes.planes, "at most 7");
    detail::expect(columns % 32 == 0, op, "the number of columns", columns, "a multiple of 32");
  }

  /// The 32 integers of columns 32 g to 32 g + 31: an element is scale (u - offset).
  TERN_INLINE void unpack(index row, index g, std::uint8_t* u) const {
    std::uint64_t bits[4] = {};
    for (int i = 0; i < from.planes; ++i) {
      std::uint64_t const half = from.row(i, row)[g / 2] >> (32 * (g % 2));
      for (int j = 0; j < 4; ++j) bits[j] |= simd::detail::spread_bits<1>(half >> (8 * j) & 255) << i;
    }
    // In each byte: bits < 2^p become the integer + 128.
    constexpr std::uint64_t each = formats::detail::each_byte;
    auto const count = 1u << from.planes;
    for (int j = 0; j < 4; ++j) {
      if (code == bit_code::bipolar)
        formats::detail::store8(u + 8 * j, 2 * bits[j] + (129 - count) * each);
      else
        formats::detail::store8(u + 8 * j, (bits[j] ^ count / 2 * each) + (128 - count / 2) * each);
    }
  }
  TERN_INLINE void scales(index row, index, float* s, float*) const { s[0] = from.row_scales[row]; }
  /// For matmul: `lanes` rows in registers, a row a lane.
  static constexpr bool quads = true;
  class lane_walk {
   public:
    TERN_INLINE lane_walk(bit_plane_weights const& w, index row) : count_(w.from.planes), scales_(w.from.row_scales, row) {
      for (int i = 0; i < count_; ++i) planes_[i] = formats::detail::packed_walk<1>(w.memory(i, row));
    }
    template <class Group>
    TERN_INLINE void load(index g, Group& out) {
      using packi = simd::pack<std::int32_t>;
      packi bits[8] = {packi(0), packi(0), packi(0), packi(0), packi(0), packi(0), packi(0), packi(0)};
      for (int i = count_; i-- > 0;) {
        planes_[i].load(g, out.u);
        TERN_UNROLL
        for (index j = 0; j < 8; ++j) bits[j] = bits[j] + bits[j] | simd::bit_cast<std::int32_t>(out.u[j / 4][j % 4]);
      }
      auto const each_of = [](std::uint32_t byte) TERN_LAMBDA { return packi(static_cast<std::int32_t>(byte * 0x01010101u)); };
      auto const count = 1u << count_;
      TERN_UNROLL
      for (index j = 0; j < 8; ++j)
        out.u[j / 4][j % 4] =
            simd::bit_cast<std::uint8_t>(code == bit_code::bipolar ? bits[j] + bits[j] + each_of(129 - count)
                                                                   : (bits[j] ^ each_of(count / 2)) + each_of(128 - count / 2));
      out.scale[0] = scales_.get();
    }

   private:
    int count_;
    formats::detail::packed_walk<1> planes_[bit_planes<code>::most_planes];
    formats::detail::row_scale_walk scales_;
  };
  TERN_INLINE lane_walk walk(index row) const { return {*this, row}; }

 private:
  TERN_INLINE row_memory memory(int plane, index row) const {
    return {reinterpret_cast<std::uint8_t const*>(from.row(plane, row)), 8 * from.words.extent(2), 8 * from.words.stride(1)};
  }
};

}  // namespace TERN_ABI
}  // namespace tern
