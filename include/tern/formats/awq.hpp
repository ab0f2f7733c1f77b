// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/awq.hpp
/// Four-bit weights as AutoAWQ stores them (its "gemm" version), used where they lie (formats/safetensors.hpp):
///
///     w(n, k) = scales(k / group, n) (q(k, n) - z(k / group, n)): exact in f32
///
///     qweight (k, n / 8)       i32    bits 4 j to 4 j + 3 of word (k, i) are q of row 8 i + o[j], o = 0, 2, 4, 6, 1, 3, 5, 7
///     qzeros  (groups, n / 8)  i32    z in the same order
///     scales  (groups, n)      f16
///
/// Groups are of a multiple of 32 columns. Rows lie across the words: tern::repack copies them into group_int4_zeros, which is faster.
///
/// System: AWQ (Lin et al. 2023) finds such weights: before rounding, columns that meet large activations are scaled up, and the layer
/// before them down by as much; what is stored is rounded to nearest in groups. The layout: read from AutoAWQ's packing
/// (modules/linear/gemm.py, utils/packing_utils.py).

#include <tern/formats/group_int4.hpp>

namespace tern {

inline namespace TERN_ABI {

/// AWQ's weights: see the top of formats/awq.hpp.
struct awq_weights {
  static constexpr index granule = 32;
  static constexpr int offset = 16;
  static constexpr bool has_min = false;

  index rows, columns, group;
  tensor_view<std::int32_t const, 2> qweight, qzeros;
  tensor_view<f16 const, 2> group_scales;

  /// qweight (k, n / 8), qzeros (groups, n / 8), scales (groups, n).
  awq_weights(tensor_view<std::int32_t const, 2> const& qweight_in, tensor_view<std::int32_t const, 2> const& qzeros_in,
              tensor_view<f16 const, 2> const& scales_in)
      : rows(8 * qweight_in.extent(1)),
        columns(qweight_in.extent(0)),
        group(32),
        qweight(qweight_in),
        qzeros(qzeros_in),
        group_scales(scales_in) {
    constexpr char const* op = "awq_weights";
    index const groups = scales_in.extent(0);
    detail::expect(columns % 32 == 0, op, "qweight.extent(0)", columns, "a multiple of 32");
    detail::expect_equal(op, "scales.extent(1)", scales_in.extent(1), "8 qweight.extent(1)", rows);
    detail::expect_equal(op, "qzeros.extent(0)", qzeros.extent(0), "scales.extent(0)", groups);
    detail::expect_equal(op, "qzeros.extent(1)", qzeros.extent(1), "qweight.extent(1)", qweight.extent(1));
    if (columns == 0) return;
    detail::expect(groups > 0 && columns % (32 * groups) == 0, op, "scales.extent(0)", groups,
                   "the number of groups, each of a multiple of 32 columns");
    group = columns / groups;
  }

  /// q of columns 32 g to 32 g + 31, and their zero and scale.
  TERN_INLINE void codes(index row, index g, std::uint8_t* q) const {
    for (index j = 0; j < 32; ++j) q[j] = static_cast<std::uint8_t>(at(qweight, 32 * g + j, row));
  }
  TERN_INLINE int zero(index row, index g) const { return static_cast<int>(at(qzeros, 32 * g / group, row)); }
  TERN_INLINE f16 scale(index row, index g) const { return group_scales(32 * g / group, row); }

  /// The 32 integers of columns 32 g to 32 g + 31: an element is scale (u - offset).
  TERN_INLINE void unpack(index row, index g, std::uint8_t* u) const {
    codes(row, g, u);
    int const shift = offset - zero(row, g);
    for (index j = 0; j < 32; ++j) u[j] = static_cast<std::uint8_t>(u[j] + shift);
  }
  TERN_INLINE void scales(index row, index g, float* s, float*) const { s[0] = scale(row, g); }

 private:
  TERN_INLINE static std::uint32_t at(tensor_view<std::int32_t const, 2> const& words, index i, index row) {
    index const within = row % 8, place = within / 2 + (within % 2) * 4;
    return static_cast<std::uint32_t>(words(i, row / 8)) >> (4 * place) & 15u;
  }
};

}  // namespace TERN_ABI
}  // namespace tern
