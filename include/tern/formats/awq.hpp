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
#include <tern/simd/shuffle.hpp>

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

  /// For matmul: each column's words that hold `lanes` rows go to the rows' lanes, where a multiplication moves a row's own four bits to
  /// the top; four columns make a quad. Scales and zeros are kept for a group.
  static constexpr bool quads = true;
  struct lane_walk {
    awq_weights const& w;
    index n, at = -1;
    simd::pack<float> scale{0.f};
    simd::pack<std::int32_t> shift{0}, to_top{0}, word{0};

    TERN_INLINE lane_walk(awq_weights const& weights, index row) : w(weights), n(row) {
      std::int32_t factor[simd::lanes], which[simd::lanes];
      for (index i = 0; i < simd::lanes; ++i) {
        factor[i] = std::int32_t{1} << (28 - 4 * place(n + i));
        which[i] = static_cast<std::int32_t>((n + i) / 8 - n / 8);
      }
      to_top = simd::load(static_cast<std::int32_t const*>(factor));
      word = simd::load(static_cast<std::int32_t const*>(which));
    }
    template <class Group>
    TERN_INLINE void load(index g, Group& out) {
      if (32 * g / w.group != at) enter(32 * g / w.group);
      float words[32 * slots] = {};  // their bits
      copy_words(32 * g, words);
      TERN_UNROLL
      for (index i = 0; i < 8; ++i) {
        simd::float_table const four = simd::load_table(static_cast<float const*>(words + 4 * slots * i));
        auto const codes = [&](std::int32_t column) TERN_LAMBDA {
          auto const of_row = simd::lookup(four, word + words_of(column * static_cast<std::int32_t>(slots)));
          return simd::bit_cast<std::int32_t>(of_row) * to_top;
        };
        words_of const last(15);
        out.u[i / 4][i % 4] = simd::bit_cast<std::uint8_t>(
            ((simd::shift_right<28>(codes(0)) & last) | (simd::shift_right<20>(codes(1)) & words_of(15 << 8)) |
             (simd::shift_right<12>(codes(2)) & words_of(15 << 16)) | (simd::shift_right<4>(codes(3)) & words_of(15 << 24))) +
            shift);
      }
      out.scale[0] = scale;
    }

   private:
    using words_of = simd::pack<std::int32_t>;
    static constexpr index slots = 4;  // words of a column: `lanes` rows lie in 3 at most
    void enter(index next) {
      at = next;
      f16 halves[simd::lanes];
      std::int32_t shifts[simd::lanes];
      for (index i = 0; i < simd::lanes; ++i) {
        halves[i] = w.group_scales(next, n + i);
        shifts[i] = (offset - static_cast<int>(w.at(w.qzeros, next, n + i))) * 0x01010101;
      }
      scale = simd::load(static_cast<f16 const*>(halves));
      shift = simd::load(static_cast<std::int32_t const*>(shifts));
    }
    TERN_INLINE void copy_words(index k, float* to) const {
      auto const& q = w.qweight;
      std::int32_t const* from = q.data() + k * q.stride(0) + n / 8 * q.stride(1);
      index const count = (n + simd::lanes - 1) / 8 - n / 8 + 1;
      bool const more = k + 32 < w.columns;
      for (index i = 0; i < 32; ++i, from += q.stride(0), to += slots) {
        if (more) __builtin_prefetch(from + 32 * q.stride(0), 0, 3);  // each column's words lie in a line of their own
        for (index j = 0; j < count; ++j) __builtin_memcpy(to + j, from + j * q.stride(1), 4);
      }
    }
  };
  template <index L = simd::lanes>
    requires(L <= 16)
  TERN_INLINE lane_walk walk(index n) const {
    return {*this, n};
  }

 private:
  /// Where a row's four bits lie in its word.
  TERN_INLINE static constexpr index place(index row) { return row % 8 / 2 + row % 2 * 4; }
  TERN_INLINE static std::uint32_t at(tensor_view<std::int32_t const, 2> const& words, index i, index row) {
    return static_cast<std::uint32_t>(words(i, row / 8)) >> (4 * place(row)) & 15u;
  }
};

}  // namespace TERN_ABI
}  // namespace tern
