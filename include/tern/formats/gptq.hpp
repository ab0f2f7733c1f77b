// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/gptq.hpp
/// Four-bit weights as AutoGPTQ and GPTQModel store them, used where they lie (formats/safetensors.hpp):
///
///     w(n, k) = scales(g, n) (q(k, n) - z(g, n)),   g the group of column k: exact in f32
///
///     qweight (k / 8, n)       i32    bits 4 j to 4 j + 3 of word (i, n) are q of column 8 i + j
///     qzeros  (groups, n / 8)  i32    bits 4 j to 4 j + 3 of word (g, i) are z of row 8 i + j, less one in files of version 1
///     scales  (groups, n)      f16
///     g_idx   (k)              i32    the group of each column; k / group unless GPTQ took columns in the order of their activations
///
///     auto part = [&](char const* name) { return file.tensor(std::string("model.layers.0.mlp.up_proj.") + name); };
///     tern::gptq_weights w(part("qweight").view<std::int32_t, 2>(), part("qzeros").view<std::int32_t, 2>(),
///                          part("scales").view<tern::f16, 2>(), tern::gptq_version::v1);
///
///     gptq_weights      groups in order, of a multiple of 32 columns: integer products. tern::repack copies it into group_int4_zeros,
///                       whose rows are contiguous and which is faster
///     gptq_act_order    any g_idx: decoded
///
/// System: GPTQ (Frantar et al. 2022) is how such weights are found: one column after another is rounded, and what that loses is spread
/// over the columns to come. The layout: read from AutoGPTQ's packing (nn_modules/qlinear); that version 2 stores z itself, from
/// GPTQModel's conversion between the two. Only four bits.

#include <tern/formats/group_int4.hpp>

namespace tern {

/// Whether zeros are stored less one (checkpoint_format "gptq") or as they are ("gptq_v2").
enum class gptq_version { v1, v2 };

namespace detail {
inline namespace TERN_ABI {

/// The eight halves of bytes of a word as bytes, the lowest first.
TERN_INLINE std::uint64_t spread_int4(std::uint32_t word) {
  std::uint64_t x = word;
  x = (x | x << 16) & 0x0000ffff0000ffffu;
  x = (x | x << 8) & 0x00ff00ff00ff00ffu;
  return (x | x << 4) & 0x0f0f0f0f0f0f0f0fu;
}

/// What both kinds of weights hold.
struct gptq_parts {
  tensor_view<std::int32_t const, 2> qweight, qzeros;
  tensor_view<f16 const, 2> scales;
  int zero_less;  // what is taken from a zero when it is stored

  gptq_parts(char const* op, tensor_view<std::int32_t const, 2> const& w, tensor_view<std::int32_t const, 2> const& z,
             tensor_view<f16 const, 2> const& s, gptq_version version)
      : qweight(w), qzeros(z), scales(s), zero_less(version == gptq_version::v1 ? 1 : 0) {
    index const n = w.extent(1);
    expect(n % 8 == 0, op, "qweight.extent(1)", n, "a multiple of 8");
    expect(w.extent(0) % 4 == 0, op, "qweight.extent(0)", w.extent(0), "k / 8 with k a multiple of 32");
    expect_equal(op, "scales.extent(1)", s.extent(1), "qweight.extent(1)", n);
    expect_equal(op, "qzeros.extent(0)", z.extent(0), "scales.extent(0)", s.extent(0));
    expect_equal(op, "qzeros.extent(1)", z.extent(1), "qweight.extent(1) / 8", n / 8);
    expect(s.extent(0) > 0 || w.extent(0) == 0, op, "scales.extent(0)", s.extent(0), "at least one group");
  }
  /// Codes of columns 8 i to 8 i + 7, a byte each.
  TERN_INLINE std::uint64_t codes(index row, index i) const { return spread_int4(static_cast<std::uint32_t>(qweight(i, row))); }
  TERN_INLINE int zero(index row, index group) const {
    auto const word = static_cast<std::uint32_t>(qzeros(group, row / 8));
    return static_cast<int>(word >> (4 * (row % 8)) & 15u) + zero_less;
  }
};

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// GPTQ's weights with groups in order: see the top of formats/gptq.hpp.
struct gptq_weights {
  static constexpr index granule = 32;
  static constexpr int offset = 16;
  static constexpr bool has_min = false;

  index rows, columns, group;
  detail::gptq_parts parts;

  /// qweight (k / 8, n), qzeros (groups, n / 8), scales (groups, n).
  gptq_weights(tensor_view<std::int32_t const, 2> const& qweight, tensor_view<std::int32_t const, 2> const& qzeros,
               tensor_view<f16 const, 2> const& scales_in, gptq_version version)
      : rows(qweight.extent(1)), columns(8 * qweight.extent(0)), group(32), parts("gptq_weights", qweight, qzeros, scales_in, version) {
    index const groups = scales_in.extent(0);
    if (columns == 0) return;
    detail::expect(columns % (32 * groups) == 0, "gptq_weights", "scales.extent(0)", groups,
                   "the number of groups, each of a multiple of 32 columns");
    group = columns / groups;
  }
  /// Fails unless g_idx (k) says that the groups are in order.
  gptq_weights(tensor_view<std::int32_t const, 2> const& qweight, tensor_view<std::int32_t const, 2> const& qzeros,
               tensor_view<f16 const, 2> const& scales_in, tensor_view<std::int32_t const, 1> const& g_idx, gptq_version version)
      : gptq_weights(qweight, qzeros, scales_in, version) {
    detail::expect_equal("gptq_weights", "g_idx.extent(0)", g_idx.extent(0), "the number of columns", columns);
    for (index k = 0; k < columns; ++k)
      detail::expect(g_idx[k] == k / group, "gptq_weights", "an element of g_idx", g_idx[k],
                     "column / group: weights in the order of activations are tern::gptq_act_order");
  }

  /// q of columns 32 g to 32 g + 31, and their zero and scale.
  TERN_INLINE void codes(index row, index g, std::uint8_t* q) const {
    for (index i = 0; i < 4; ++i) formats::detail::store8(q + 8 * i, parts.codes(row, 4 * g + i));
  }
  TERN_INLINE int zero(index row, index g) const { return parts.zero(row, 32 * g / group); }
  TERN_INLINE f16 scale(index row, index g) const { return parts.scales(32 * g / group, row); }

  /// The 32 integers of columns 32 g to 32 g + 31: an element is scale (u - offset).
  TERN_INLINE void unpack(index row, index g, std::uint8_t* u) const {
    auto const shift = static_cast<std::uint64_t>(offset - zero(row, g)) * formats::detail::each_byte;
    for (index i = 0; i < 4; ++i) formats::detail::store8(u + 8 * i, parts.codes(row, 4 * g + i) + shift);
  }
  TERN_INLINE void scales(index row, index g, float* s, float*) const { s[0] = scale(row, g); }

  /// For matmul: a word of each of `lanes` rows is one load, so that groups come by quads. Scales and zeros are kept for a group.
  static constexpr bool quads = true;
  struct lane_walk {
    gptq_weights const& w;
    index n, at = -1;
    simd::pack<float> scale{0.f};
    simd::pack<std::int32_t> shift{0};

    TERN_INLINE lane_walk(gptq_weights const& weights, index row) : w(weights), n(row) {}
    template <class Group>
    TERN_INLINE void load(index g, Group& out) {
      if (32 * g / w.group != at) enter(32 * g / w.group);
      TERN_UNROLL
      for (index i = 0; i < 4; ++i) {
        simd::pack<std::int32_t> const words = load_words(4 * g + i), low(0xffff);
        out.u[i / 2][i % 2 * 2] = spread(words & low);
        out.u[i / 2][i % 2 * 2 + 1] = spread(simd::shift_right<16>(words) & low);
      }
      out.scale[0] = scale;
    }

   private:
    static constexpr index ahead = 16;  // words of a column of qweight: each lies in a page of its own
    void enter(index next) {
      at = next;
      f16 halves[simd::lanes];
      std::int32_t shifts[simd::lanes];
      for (index i = 0; i < simd::lanes; ++i) {
        halves[i] = w.parts.scales(next, n + i);
        shifts[i] = (offset - w.parts.zero(n + i, next)) * 0x01010101;
      }
      scale = simd::load(static_cast<f16 const*>(halves));
      shift = simd::load(static_cast<std::int32_t const*>(shifts));
    }
    TERN_INLINE simd::pack<std::int32_t> load_words(index i) const {
      auto const& q = w.parts.qweight;
      std::int32_t const* const from = q.data() + i * q.stride(0) + n * q.stride(1);
      if (i + ahead < q.extent(0)) __builtin_prefetch(from + ahead * q.stride(0), 0, 2);
      if (q.stride(1) == 1) return simd::load(from);
      std::int32_t words[simd::lanes];
      for (index j = 0; j < simd::lanes; ++j) words[j] = from[j * q.stride(1)];
      return simd::load(static_cast<std::int32_t const*>(words));
    }
    /// Four halves of bytes in a word become its bytes, and the shift is added: all stays below 32.
    TERN_INLINE simd::pack<std::uint8_t> spread(simd::pack<std::int32_t> x) const {
      x = (x | simd::shift_left<8>(x)) & simd::pack<std::int32_t>(0x00ff00ff);
      x = (x | simd::shift_left<4>(x)) & simd::pack<std::int32_t>(0x0f0f0f0f);
      return simd::bit_cast<std::uint8_t>(x + shift);
    }
  };
  TERN_INLINE lane_walk walk(index n) const { return {*this, n}; }
};

/// GPTQ's weights whose columns were taken in the order of activations ("act_order", "desc_act"): each column names its group.
struct gptq_act_order {
  index rows, columns;
  detail::gptq_parts parts;
  tensor_view<std::int32_t const, 1> group_of;

  /// qweight (k / 8, n), qzeros (groups, n / 8), scales (groups, n), g_idx (k) in [0, groups).
  gptq_act_order(tensor_view<std::int32_t const, 2> const& qweight, tensor_view<std::int32_t const, 2> const& qzeros,
                 tensor_view<f16 const, 2> const& scales, tensor_view<std::int32_t const, 1> const& g_idx, gptq_version version)
      : rows(qweight.extent(1)),
        columns(8 * qweight.extent(0)),
        parts("gptq_act_order", qweight, qzeros, scales, version),
        group_of(g_idx) {
    detail::expect_equal("gptq_act_order", "g_idx.extent(0)", g_idx.extent(0), "the number of columns", columns);
    for (index k = 0; k < columns; ++k)
      detail::expect(g_idx[k] >= 0 && g_idx[k] < scales.extent(0), "gptq_act_order", "an element of g_idx", g_idx[k],
                     "at least 0 and less than scales.extent(0)");
  }

  /// Columns [k0, k1), both multiples of 32.
  TERN_INLINE void decode(index row, index k0, index k1, float* out) const {
    for (index k = k0; k < k1; k += 8) {
      std::uint8_t q[8];
      formats::detail::store8(q, parts.codes(row, k / 8));
      for (index j = 0; j < 8; ++j) {
        index const g = group_of[k + j];
        *out++ = static_cast<float>(q[j] - parts.zero(row, g)) * static_cast<float>(parts.scales(g, row));
      }
    }
  }
};

}  // namespace TERN_ABI
}  // namespace tern
