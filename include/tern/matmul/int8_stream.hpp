// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/int8_stream.hpp
/// y = x w^T for one row of quantized x: the weights are read once, from their blocks, as they lie.
///
/// `lanes` weight rows are walked side by side, 32 columns at a time. A register takes 16 bytes of lanes / 4 rows; dot products
/// of bytes leave four partial sums a row, and `sum_quads` makes one lane a row of four registers. Blocks of 256, and tiles, are a
/// row a lane from the start; where shuffles cost little, four blocks of a row of q4_0 fill a register. From there on all is done by the
/// lane, in the order that int8_kernel.hpp keeps too.

#include <tern/matmul/code_panel.hpp>
#include <tern/matmul/quantize.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

template <class W>
using code_shape_of = code_shape<W::granule, W::has_min, is_wide(code_kind_of<W>)>;

/// What all weight rows share of 32 columns of x: the scale, and for each scale of the weights what takes their offset off and what their
/// minimum is multiplied by.
template <class W>
struct group_scales {
  static constexpr index granules = 32 / W::granule;
  static constexpr std::int32_t offset_of_products = offset_left<code_shape_of<W>>(W::offset);
  simd::pack<float> scale, sum[granules];
  simd::pack<std::int32_t> offset[granules];
  TERN_INLINE explicit group_scales(q8_scales const& x) : scale(x.scale) {
    std::int32_t const taken[2] = {granules == 1 ? x.total : x.first, x.total - x.first};
    TERN_UNROLL
    for (index j = 0; j < granules; ++j) {
      if constexpr (offset_of_products != 0) offset[j] = simd::pack<std::int32_t>(-offset_of_products * taken[j]);
      if constexpr (W::has_min) sum[j] = simd::pack<float>(granules == 1 ? x.sum : x.half_sum[j]);
    }
  }
};
/// What 32 columns add to a sum. part: the integer dot products with each part of the columns that has a scale.
template <class W>
TERN_INLINE simd::pack<float> add_group(simd::pack<float> sum, simd::pack<std::int32_t> const (&part)[2], group_scales<W> const& x,
                                        row_scales<W::granule> const& w) {
  TERN_UNROLL
  for (index j = 0; j < 32 / W::granule; ++j) {
    simd::pack<std::int32_t> n = part[j];
    if constexpr (group_scales<W>::offset_of_products != 0) n = n + x.offset[j];
    sum = simd::fma(simd::to_float(n), w.scale[j] * x.scale, sum);
    if constexpr (W::has_min) sum = simd::fma(w.min[j], x.sum[j], sum);
  }
  return sum;
}

/// Adds the products of each 16 of 32 columns of x and `lanes` weight rows, a row a lane.
template <class W>
TERN_INLINE void dot_quads(row_group<W::granule> const& w, std::int8_t const* q, simd::pack<std::int32_t>& first,
                           simd::pack<std::int32_t>& second) {
  using shape = code_shape_of<W>;
  if constexpr (simd::has_pair_sums) {
    auto const half = [&](index h, simd::pack<std::int32_t>& sum) TERN_LAMBDA {
      auto const u = [&](index j) TERN_LAMBDA { return w.u[h][j]; };
      auto const x = [&](index j) TERN_LAMBDA { return simd::splat4(q + 16 * h + 4 * j); };
      sum = dot_several<shape, 4>(sum, u, x, largest_code<W>);
    };
    half(0, first);
    half(1, second);
  } else {
    TERN_UNROLL
    for (index j = 0; j < 4; ++j) {
      first = dot_codes<shape>(first, w.u[0][j], simd::splat4(q + 4 * j));
      second = dot_codes<shape>(second, w.u[1][j], simd::splat4(q + 16 + 4 * j));
    }
  }
}
/// Adds the products of 32 columns of x and `lanes` weight rows to partial sums, which `total_of` makes one lane a row.
template <class W>
TERN_INLINE void add_dots(row_group<W::granule> const& w, std::int8_t const* q, simd::pack<std::int32_t> (&sum)[4]) {
  using shape = code_shape_of<W>;
  constexpr int most = largest_code<W>;
  if constexpr (loads_quads<W>) {
    dot_quads<W>(w, q, sum[0], sum[1]);
  } else {
    simd::pack<std::int8_t> const of[2] = {simd::repeat16(q), simd::repeat16(q + 16)};
    auto const x = [&](index i) TERN_LAMBDA { return of[i]; };
    TERN_UNROLL
    for (index r = 0; r < 4; ++r) {
      auto const u = [&](index i) TERN_LAMBDA { return w.u[i][r]; };
      sum[r] = dot_several<shape, 2>(sum[r], u, x, most);
    }
  }
}
template <class W>
TERN_INLINE simd::pack<std::int32_t> total_of(simd::pack<std::int32_t> const (&sum)[4]) {
  if constexpr (loads_quads<W>)
    return sum[0] + sum[1];
  else
    return simd::sum_quads(sum);
}

/// The integer dot products of `lanes` weight rows with 32 columns of x: of each half, or of both in part[0] where they share a scale.
template <class W>
TERN_INLINE void multiply_group(row_group<W::granule> const& w, std::int8_t const* q, simd::pack<std::int32_t> (&part)[2]) {
  using pack = simd::pack<std::int32_t>;
  using shape = code_shape_of<W>;
  if constexpr (W::granule == 32) {
    pack sum[4] = {pack(0), pack(0), pack(0), pack(0)};
    add_dots<W>(w, q, sum);
    part[0] = total_of<W>(sum);
  } else if constexpr (loads_quads<W>) {
    part[0] = part[1] = pack(0);
    dot_quads<W>(w, q, part[0], part[1]);
  } else {
    auto const x0 = simd::repeat16(q), x1 = simd::repeat16(q + 16);
    pack first[4], second[4];
    TERN_UNROLL
    for (index r = 0; r < 4; ++r) {
      first[r] = dot_codes<shape>(pack(0), w.u[0][r], x0);
      second[r] = dot_codes<shape>(pack(0), w.u[1][r], x1);
    }
    part[0] = simd::sum_quads(first);
    part[1] = simd::sum_quads(second);
  }
}

/// Registers of weight rows that are walked side by side. Rows are read in `lanes` places at once; a tile is one place, and a few of them
/// keep memory busier (measured on Sapphire Rapids, one row of x times 4096 x 14336, memory read at 16.2 GB/s: interleaved q2_k 11.8 GB/s
/// with one, 14.6 with two, 14.0 with four; q4_0, whose groups have little to do, 14.2 with two, 14.9 with four).
template <class W>
inline constexpr index streamed_registers = !lies_in_tiles<W>                                                      ? 1
                                            : walks_blocks<decltype(walk_rows(std::declval<W const&>(), index{}))> ? 2
                                                                                                                   : 4;

/// What 32 columns of `lanes` weight rows add to their sums.
template <class W>
TERN_INLINE simd::pack<float> add_products(simd::pack<float> sum, row_group<W::granule> const& w, std::int8_t const* q,
                                           group_scales<W> const& scales) {
  simd::pack<std::int32_t> part[2];
  multiply_group<W>(w, q, part);
  return add_group<W>(sum, part, scales, w);
}

/// Visits a block of 256 columns of `lanes` weight rows for its products with x, which are added group by group, once a group's integer dot
/// products are complete.
template <class W, class Scales, class Ahead>
struct block_products {
  using pack = simd::pack<std::int32_t>;
  static constexpr int granules = 32 / static_cast<int>(W::granule);
  std::int8_t const* q;
  q8_scales const* x;
  Scales const& scales;
  Ahead& ahead;
  simd::pack<float> sum;
  pack part[8][2], less[8];  // the dot products with halves of groups, or with groups; what ternary ones are less

  /// The compiler takes addresses as unknown: several registers of rows meet the same columns, and it would keep each column's in memory.
  TERN_INLINE block_products(std::int8_t const* columns, q8_scales const* of_columns, Scales const& of_rows, Ahead& next,
                             simd::pack<float> before)
      : q(columns), x(of_columns), scales(of_rows), ahead(next), sum(before) {
    asm("" : "+r"(q), "+r"(x));
  }
  /// Codes stay where they are in their bytes, if products of bytes take them so, and the sum is moved.
  TERN_INLINE void take(int piece, row_words const (&w)[4], int shift, int mask) {
    using shape = code_shape_of<W>;
    int const raised = !shape::wide && mask << shift <= (simd::dot7_takes_bytes ? 255 : 127) ? shift : 0;
    pack to = starts(piece) ? pack(0) : dots(piece);
    auto const u = [&](index j) TERN_LAMBDA { return field_of(w[j], shift - raised, mask << raised); };
    to = dot_piece<shape>(to, piece, u, mask << raised);
    dots(piece) = ends(piece) && raised > 0 ? simd::shift_right(to, raised) : to;
    if (piece % 2 == 1) add(piece / 2);
  }
  /// 256 times the first digit of p is 3 p less what is left for the others: two products of bytes, where these take all bytes.
  TERN_INLINE void take_digits(int piece, row_words const (&w)[4], row_words const (&next)[4]) {
    pack to = starts(piece) ? pack(0) : dots(piece), taken = starts(piece) ? pack(0) : less[piece / 2];
    if constexpr (simd::dot7_takes_bytes) {
      TERN_UNROLL
      for (int j = 0; j < 4; ++j) {
        to = simd::dot7(to, simd::bit_cast<std::uint8_t>(w[j]), columns(piece, j));
        taken = simd::dot7(taken, simd::bit_cast<std::uint8_t>(next[j]), columns(piece, j));
      }
    } else {
      auto const u = [&](index j) TERN_LAMBDA { return first_digit(w[j]); };
      to = dot_piece<code_shape_of<W>>(to, piece, u, 2);
    }
    less[piece / 2] = taken;
    dots(piece) = ends(piece) && simd::dot7_takes_bytes ? simd::shift_right<8>(to + to + to - taken) : to;
    if (piece % 2 == 1) add(piece / 2);
  }

 private:
  TERN_INLINE static bool starts(int piece) { return granules == 2 || piece % 2 == 0; }
  TERN_INLINE static bool ends(int piece) { return granules == 2 || piece % 2 == 1; }
  TERN_INLINE pack& dots(int piece) { return part[piece / 2][granules == 2 ? piece % 2 : 0]; }
  TERN_INLINE simd::pack<std::int8_t> columns(int piece, int j) const { return simd::splat4(q + 16 * piece + 4 * j); }
  template <class Shape, class Codes>
  TERN_INLINE pack dot_piece(pack to, int piece, Codes const& u, int most) const {
    auto const of = [&](index j) TERN_LAMBDA { return columns(piece, static_cast<int>(j)); };
    return dot_several<Shape, 4>(to, u, of, most);
  }
  TERN_INLINE void add(int g) {
    if ((g + 1) % Ahead::registers == 0) ahead.step();
    sum = add_group<W>(sum, part[g], group_scales<W>(x[g]), scales.of_group(g));
  }
};

/// Whether four blocks of a row are taken at once: two loads a row instead of four of codes and four of scales, and one tree of sums.
template <class W>
inline constexpr bool takes_four_blocks = false;
template <>
inline constexpr bool takes_four_blocks<block_rows<formats::q4_0>> = simd::has_four_blocks && simd::shuffles_freely;
template <>
inline constexpr bool takes_four_blocks<block_rows<formats::iq4_nl>> = takes_four_blocks<block_rows<formats::q4_0>>;

/// What blocks g to g + 3 of `lanes` weight rows from row n on add to their sums, block after block.
template <class Format>
TERN_INLINE simd::pack<float> add_four_blocks(simd::pack<float> sum, block_rows<Format> const& w, index n, index g, q8_rows const& x) {
  using pack = simd::pack<std::int32_t>;
  using shape = code_shape_of<block_rows<Format>>;
  using blocks = simd::four_blocks<index{sizeof(typename Format::block)}>;
  simd::row_places const rows(w.m.row(n) + g * index{sizeof(typename Format::block)}, w.m.row_bytes);
  simd::pack<std::int8_t> columns[2];
  blocks::load_columns(x.q + 32 * g, columns);
  simd::pack<float> dots[4], scales[4];
  pack heads[2] = {pack(0), pack(0)};
  auto const multiply = [&]<index i, index r>(pack(&part)[4]) TERN_LAMBDA {  // row 4 i + r
    blocks const b(rows.row(i, r));
    simd::pack<std::uint8_t> const bytes[1] = {b.codes()};
    simd::pack<std::uint8_t> u[2][1];
    split_codes(Format{}, bytes, u);
    part[r] = dot_codes<shape>(dot_codes<shape>(pack(0), u[1][0], columns[1]), u[0][0], columns[0]);
    b.template heads<r, i % 2>(heads[i / 2]);
  };
  auto const four_rows = [&]<index i>() TERN_LAMBDA {
    pack part[4];
    multiply.template operator()<i, 0>(part);
    multiply.template operator()<i, 1>(part);
    multiply.template operator()<i, 2>(part);
    multiply.template operator()<i, 3>(part);
    dots[i] = simd::bit_cast<float>(simd::sum_quads(part));  // a block a quarter
  };
  four_rows.template operator()<0>();
  four_rows.template operator()<1>();
  four_rows.template operator()<2>();
  four_rows.template operator()<3>();
  simd::transpose_quarters(dots);
  blocks::widen_heads(heads, scales);
  TERN_UNROLL
  for (index b = 0; b < 4; ++b) {
    row_scales<32> of;
    of.scale[0] = scales[b];
    pack const all[2] = {simd::bit_cast<std::int32_t>(dots[b]), pack(0)};
    sum = add_group<block_rows<Format>>(sum, all, group_scales<block_rows<Format>>(x.scales[g + b]), of);
  }
  return sum;
}

/// `Registers` times `lanes` whole weight rows from row n on, of [.., end), times one row of x, added to `sum`.
template <index Registers, class W>
TERN_INLINE void stream_rows(W const& weights, index n, index end, q8_rows const& x, simd::pack<float> (&sum)[Registers]) {
  static_assert(Registers == 1 || Registers == 2 || Registers == 4);
  struct walks {
    decltype(walk_rows(weights, n)) of[Registers];
  };
  auto const walk = [&](index r) TERN_LAMBDA { return walk_rows(weights, n + r * simd::lanes); };
  auto rows = [&]() TERN_LAMBDA {
    if constexpr (Registers == 1)
      return walks{{walk(0)}};
    else if constexpr (Registers == 2)
      return walks{{walk(0), walk(1)}};
    else
      return walks{{walk(0), walk(1), walk(2), walk(3)}};
  }();
  using walk_type = std::remove_reference_t<decltype(rows.of[0])>;
  auto next = ahead_of<Registers>(weights, n, end);
  if constexpr (walks_blocks<walk_type>) {
    for (index g = 0; g < x.blocks; g += walk_type::groups)
      for (index r = 0; r < Registers; ++r) {
        using scales_type = super_scales<typename walk_type::format>;
        auto const make = [&](scales_type const& scales) TERN_LAMBDA {
          return block_products<W, scales_type, decltype(next)>(x.q + 32 * g, x.scales + g, scales, next, sum[r]);
        };
        sum[r] = rows.of[r].visit(g / walk_type::groups, make).sum;
      }
  } else {
    index g = 0;
    if constexpr (takes_four_blocks<W>) {
      static_assert(Registers == 1);
      for (; g + 4 <= x.blocks; g += 4) {
        next.step(4);
        sum[0] = add_four_blocks(sum[0], weights, n, g, x);
      }
    }
    for (; g < x.blocks; ++g) {
      next.step();
      group_scales<W> const scales(x.scales[g]);
      TERN_UNROLL
      for (index r = 0; r < Registers; ++r) {
        row_group<W::granule> w;
        rows.of[r].load(g, w);
        sum[r] = add_products<W>(sum[r], w, x.q + 32 * g, scales);
      }
    }
  }
}
/// Weight rows [n, end), fewer than `lanes`.
template <class W>
TERN_INLINE void stream_last_rows(W const& weights, index n, index end, q8_rows const& x, simd::pack<float>& sum) {
  for (index g = 0; g < x.blocks; ++g) {
    row_group<W::granule> w;
    load_rows(weights, n, end, g, w);
    sum = add_products<W>(sum, w, x.q + 32 * g, group_scales<W>(x.scales[g]));
  }
}

/// Weight rows [n0, n1) of a job times the one row of x.
template <class W>
inline void stream_stripe(W const& w, matmul_job const& job, index n0, index n1, q8_rows const& x, bool add) noexcept {
  using simd::pack;
  constexpr index L = simd::lanes, most = streamed_registers<W>;
  if constexpr (L % 4 == 0) {  // others are never streamed
    auto const take = [&]<index Registers>(index n) TERN_LAMBDA {
      pack<float> sum[Registers];
      TERN_UNROLL
      for (index r = 0; r < Registers; ++r) sum[r] = add ? simd::load(job.y + n + r * L) : pack<float>(0.f);
      stream_rows<Registers>(w, n, n1, x, sum);
      TERN_UNROLL
      for (index r = 0; r < Registers; ++r) simd::store(job.y + n + r * L, sum[r]);
    };
    index n = n0;
    for (; n + most * L <= n1; n += most * L) take.template operator()<most>(n);
    if constexpr (most > 1)
      for (; n + L <= n1; n += L) take.template operator()<1>(n);
    if (n == n1) return;
    pack<float> sum = add ? simd::load_n(job.y + n, n1 - n) : pack<float>(0.f);
    stream_last_rows(w, n, n1, x, sum);
    simd::store_n(job.y + n, sum, n1 - n);
  }
}

}  // namespace TERN_ABI
}  // namespace tern::detail
