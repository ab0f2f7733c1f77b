// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/binary.hpp
/// One bit an element: +1 or -1 times a scale for each row, so that products are sums and differences.
///
///     w = scale_i (2 bit - 1)        bit k % 64 of word k / 64; exact
///     bit = w >= 0,  scale_i = mean |w| of row i, which makes the squared error least
///
/// 1 bit an element and 4 bytes a row. A row that ends within a word leaves its upper bits unused. Without scales every weight is +-1:
/// binary codes of queries and keys. Source: "ShiftAddViT: Mixture of Multiplication Primitives Towards Efficient Vision Transformer"
/// (MatAdd), from knowledge; the scale is that of "XNOR-Net: ImageNet Classification Using Binary Convolutional Neural Networks".

#include <tern/core/error.hpp>
#include <tern/core/rounding.hpp>
#include <tern/core/tensor_view.hpp>
#include <tern/formats/packed_bits.hpp>
#include <tern/formats/scale_grid.hpp>

#include <cstdint>

namespace tern::formats {
inline namespace TERN_ABI {

/// Weights (rows, columns) of one bit, owned by somebody else: words (n, k / 64 rounded up); columns a multiple of 32.
class binary_weights {
 public:
  index rows, columns;
  static constexpr index granule = 32;
  static constexpr int offset = 1;
  static constexpr bool has_min = false;
  static constexpr bool row_scale = true;

  /// scales: one for each row, or none (an empty view).
  TERN_INLINE binary_weights(tensor_view<std::uint64_t const, 2> const& words, index k, tensor_view<float const, 1> const& scales = {})
      : rows(words.extent(0)), columns(k), words_(words), scales_(scales) {
    tern::detail::expect(k >= 0 && k % 32 == 0, "binary_weights", "k", k, "a multiple of 32");
    tern::detail::expect_equal("binary_weights", "words.extent(1)", words.extent(1), "k / 64 rounded up", tern::detail::divide_up(k, 64));
    tern::detail::expect(words.data() != nullptr || words.size() == 0, "binary_weights", "words.data()", 0, "not null");
    tern::detail::expect(words.extent(1) <= 1 || words.stride(1) == 1, "binary_weights", "words.stride(1)", words.stride(1), "1");
    tern::detail::expect(scales.extent(0) == 0 || scales.extent(0) == rows, "binary_weights", "scales.extent(0)", scales.extent(0),
                         "0 or the rows of words");
    tern::detail::expect(scales.data() != nullptr || scales.extent(0) == 0, "binary_weights", "scales.data()", 0, "not null");
  }

  /// Columns 32 g to 32 g + 31 as integers: 0 for -1, 2 for +1.
  TERN_INLINE void unpack(index row, index g, std::uint8_t* u) const {
    auto const bits = static_cast<std::uint32_t>(words_(row, g / 2) >> 32 * (g % 2));
    for (int j = 0; j < 32; ++j) u[j] = static_cast<std::uint8_t>((bits >> j & 1) << 1);
  }
  TERN_INLINE void scales(index row, index, float* scale, float*) const { scale[0] = scales_.extent(0) == 0 ? 1.f : scales_[row]; }
  /// For matmul: `lanes` rows in registers, a row a lane.
  static constexpr bool quads = true;
  class lane_walk {
   public:
    TERN_INLINE lane_walk(binary_weights const& w, index row) : codes_(w.memory(row)), scales_(w.scales_, row) {}
    template <class Group>
    TERN_INLINE void load(index g, Group& out) {
      codes_.load(g, out.u);
      TERN_UNROLL
      for (index i = 0; i < 8; ++i) {
        auto const u = simd::bit_cast<std::int32_t>(out.u[i / 4][i % 4]);
        out.u[i / 4][i % 4] = simd::bit_cast<std::uint8_t>(u + u);
      }
      out.scale[0] = scales_.get();
    }

   private:
    detail::packed_walk<1> codes_;
    detail::row_scale_walk scales_;
  };
  TERN_INLINE lane_walk walk(index row) const { return {*this, row}; }
  TERN_INLINE row_memory memory(index row) const {
    return {reinterpret_cast<std::uint8_t const*>(words_.data() + row * words_.stride(0)), 8 * words_.extent(1), 8 * words_.stride(0)};
  }

 private:
  tensor_view<std::uint64_t const, 2> words_;
  tensor_view<float const, 1> scales_;
};

/// Signs and scales of w (n, k); scales may be empty. Zero and NaN count as positive.
inline void encode_binary(tensor_view<float const, 2> const& w, tensor_view<std::uint64_t, 2> const& words,
                          tensor_view<float, 1> const& scales = {}) {
  index const n = w.extent(0), k = w.extent(1);
  binary_weights const checked(words, k, scales);
  tern::detail::expect_equal("encode_binary", "words.extent(0)", checked.rows, "w.extent(0)", n);
  for (index i = 0; i < n; ++i) {
    double sum = 0;
    for (index j = 0; j < words.extent(1); ++j) words(i, j) = 0;
    for (index j = 0; j < k; ++j) {
      if (w(i, j) == w(i, j)) sum += static_cast<double>(__builtin_fabsf(w(i, j)));
      words(i, j / 64) |= std::uint64_t{!(w(i, j) < 0.f)} << j % 64;
    }
    if (scales.extent(0) != 0) scales[i] = k > 0 ? static_cast<float>(sum / static_cast<double>(k)) : 0.f;
  }
}

}  // namespace TERN_ABI
}  // namespace tern::formats
