// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/gaussian_quantile.hpp
/// One to four bits an element that name levels of a normal distribution, with a mean and a deviation for the matrix or each row:
///
///     w = mean + deviation v[code]                                rounded once to f32
///     code = the nearest v to (w - mean) / (deviation + 1e-5)     deviation: of a sample, over n - 1
///
/// The levels v make the mean absolute error of a normal number least: each is the median of what is nearer to it than to the others,
///
///     v_c = Phi^-1((Phi(r_(c - 1)) + Phi(r_c)) / 2),  r_c = (v_c + v_(c + 1)) / 2,  Phi(r_-1) = 0,  Phi(r_last) = 1
///
///     1 bit    +- 0.67449
///     2 bits   +- 0.37775  1.26572
///     3 bits   +- 0.20262  0.62542  1.11373  1.79203
///     4 bits   +- 0.10555  0.31904  0.54007  0.77519  1.03401  1.33311  1.70774  2.26549
///
/// Codes lie side by side (formats/packed_bits.hpp): with 1, 2 and 4 bits and rows of whole groups of 32 the bytes that the authors
/// store, who stop the iteration for v 3e-8 short of its end (4 bits) and leave two bits of a byte unused with 3.
///
/// Source: "Revisiting the Parameter Efficiency of Adapters from the Perspective of Precision Redundancy" (levels, rounding, deviation
/// and bytes were read in the authors' code).

#include <tern/formats/packed_bits.hpp>
#include <tern/simd/convert.hpp>
#include <tern/simd/shuffle.hpp>

namespace tern::formats {
inline namespace TERN_ABI {

/// The levels of one to four bits, ascending.
template <int bits>
struct gaussian_levels {
  static_assert(bits >= 1 && bits <= 4, "tern: Gaussian quantiles have 1 to 4 bits");
  static constexpr int count = 1 << bits;
  float v[16] = {};

  TERN_INLINE constexpr gaussian_levels() {
    constexpr double upper[4][8] = {{0.6744897501960817},
                                    {0.3777541611494495, 1.2657203250220042},
                                    {0.2026238030707476, 0.6254197260644330, 1.1137289378766225, 1.7920250350537382},
                                    {0.1055502854371701, 0.3190360083602814, 0.5400720769475932, 0.7751920715056686, 1.0340063046995854,
                                     1.3331067076218455, 1.7077375932104633, 2.2654906381173388}};
    for (int i = 0; i < count / 2; ++i) {
      v[count / 2 + i] = static_cast<float>(upper[bits - 1][i]);
      v[count / 2 - 1 - i] = -v[count / 2 + i];
    }
  }
  /// The code nearest to x; ties go to the lower one, NaN to 0.
  TERN_INLINE constexpr std::uint8_t encode(float x) const {
    int code = 0;
    for (int c = 1; c < count; ++c) code += x > 0.5f * (v[c - 1] + v[c]);
    return static_cast<std::uint8_t>(code);
  }
};

/// Weights (rows, columns) of Gaussian quantiles, owned by somebody else; a mean and a deviation, or one for each row.
template <int bits>
class gaussian_quantile_weights {
 public:
  index rows, columns;

  TERN_INLINE gaussian_quantile_weights(tensor_view<std::uint8_t const, 2> const& codes, tensor_view<float const, 1> const& mean,
                                        tensor_view<float const, 1> const& deviation)
      : rows(codes.extent(0)),
        columns(detail::packed_rows<bits>::columns(codes)),
        codes_("gaussian_quantile_weights", codes),
        mean_(mean),
        deviation_(deviation) {
    char const* const op = "gaussian_quantile_weights";
    tern::detail::expect(mean.extent(0) == 1 || mean.extent(0) == rows, op, "mean.extent(0)", mean.extent(0), "1 or the rows of codes");
    tern::detail::expect_equal(op, "deviation.extent(0)", deviation.extent(0), "mean.extent(0)", mean.extent(0));
    tern::detail::expect(mean.data() != nullptr || rows == 0, op, "mean.data()", 0, "not null");
    tern::detail::expect(deviation.data() != nullptr || rows == 0, op, "deviation.data()", 0, "not null");
  }

  TERN_INLINE row_memory memory(index row) const { return codes_.memory(row, columns); }
  /// Columns k0 to k1, multiples of 32, of a row.
  TERN_INLINE void decode(index row, index k0, index k1, float* TERN_RESTRICT out) const {
    constexpr gaussian_levels<bits> levels{};
    index const which = mean_.extent(0) == 1 ? 0 : row;
    float value[16];
    for (int c = 0; c < 16; ++c) value[c] = __builtin_fmaf(deviation_[which], levels.v[c], mean_[which]);
    simd::float_table const values = simd::load_table(static_cast<float const*>(value));
    for (index k = k0; k < k1; k += 32, out += 32) {
      std::uint8_t u[32];
      codes_.unpack(row, k / 32, u);
      for (index j = 0; j < 32; j += simd::lanes) simd::store(out + j, simd::lookup(values, simd::load_widened(u + j)));
    }
  }

 private:
  detail::packed_rows<bits> codes_;
  tensor_view<float const, 1> mean_, deviation_;
};

/// Codes of w (n, k), k a multiple of 32, and their mean and deviation: of extent 1 for the matrix, n for each row.
template <int bits>
inline void encode_gaussian_quantile(tensor_view<float const, 2> const& w, tensor_view<std::uint8_t, 2> const& codes,
                                     tensor_view<float, 1> const& mean, tensor_view<float, 1> const& deviation) {
  constexpr gaussian_levels<bits> levels{};
  detail::expect_packed<bits>("encode_gaussian_quantile", w, codes);
  gaussian_quantile_weights<bits> const checked(codes, mean, deviation);
  index const parts = mean.extent(0), rows_each = parts == 1 ? w.extent(0) : 1;
  for (index p = 0; p < parts && w.size() > 0; ++p) {
    auto const part = w.slice(0, p * rows_each, (p + 1) * rows_each);
    double sum = 0, squares = 0;
    auto const n = static_cast<double>(part.size());
    for (index i = 0; i < part.extent(0); ++i)
      for (index k = 0; k < part.extent(1); ++k) sum += static_cast<double>(part(i, k));
    for (index i = 0; i < part.extent(0); ++i)
      for (index k = 0; k < part.extent(1); ++k) {
        double const d = static_cast<double>(part(i, k)) - sum / n;
        squares += d * d;
      }
    mean[p] = static_cast<float>(sum / n);
    deviation[p] = static_cast<float>(__builtin_sqrt(squares / (n - 1)));
    for (index i = p * rows_each; i < (p + 1) * rows_each; ++i)
      detail::pack_row<bits>(codes, i, checked.columns,
                             [&](index k) TERN_LAMBDA { return levels.encode((w(i, k) - mean[p]) / (deviation[p] + 1e-5f)); });
  }
}

}  // namespace TERN_ABI
}  // namespace tern::formats
