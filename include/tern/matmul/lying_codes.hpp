// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/lying_codes.hpp
/// Up to 32 quantized rows of x times weights whose blocks hold signed bytes, in matrix registers (simd/tiles.hpp): 32 columns of 16
/// weight rows are taken where they lie, and meet 16 rows of x, whose integers then go through memory to vectors, where they are scaled
/// and added up.
///
/// Each y(r, n) is what int8_kernel.hpp makes it, to the bit: integers are exact, and the rest are the same operations in the same order.
///
/// Cost, for 16 weight rows times 32 columns and each 16 rows of x: a product, 32 loads, and 16 each of additions, multiplications and
/// FMA. The last two share one unit while matrix registers are at work (measured on Sapphire Rapids, weights of 4096 x 4096: 16 rows of x
/// take 0.65 of the time that they take with weights in a panel, 32 rows 0.68).

#include <tern/matmul/piece_rows.hpp>
#include <tern/matmul/quantize.hpp>
#include <tern/simd/tiles.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Rows of x that are multiplied so: a tile of them costs what it costs when it is full, and for less than half of one, weights in a panel
/// (int8_kernel.hpp) do as well or better.
inline constexpr index most_lying_codes = 2 * x_tile::rows;
TERN_INLINE bool takes_x_tiles(index rows) {
  return rows <= most_lying_codes && (rows - 1) % x_tile::rows >= x_tile::rows / 2 && simd::tiles::ready();
}
TERN_INLINE bool blocks_lie_ready(any_weights const& w) { return w.lying.scales != nullptr && simd::tiles::ready(); }

/// Integers on their way from matrix registers to vectors. A product is stored when the next one has been issued, and scaled three later:
/// nothing waits for it then.
///
/// Matrix registers start from `unit`, so that what they store are the bits of the float 1.5 * 2^23 + n, n an integer below 2^22. To take
/// 1.5 * 2^23 off is exact, and an addition: a conversion would share its unit with multiplications.
struct product_ring {
  static constexpr int places = 4;
  static constexpr float unit = 0x1.8p23f;
  alignas(64) float of[places][simd::lanes][simd::lanes] = {};
  alignas(64) float start[simd::lanes];
  TERN_INLINE product_ring() {
    for (float& s : start) s = unit;
  }
};

/// Weight rows of a matrix times tiles of x: all tiles meet some groups of columns of some weight rows, then those that follow.
struct lying_codes {
  static constexpr index rows = simd::lanes, groups = lying_blocks::groups, most_parts = panel_rows / rows;
  static constexpr index most_tiles = divide_up(most_lying_codes, x_tile::rows);
  using sums_type = simd::pack<float>[rows];

  any_weights const& w;
  q8_rows const& x;
  index n = 0, width = 0, parts = 0, tiles;  // weight rows from n on, in parts of `rows`
  alignas(64) float scales[groups][rows] = {};
  alignas(64) float sums[most_parts * most_tiles][rows][x_tile::rows] = {};
  product_ring ring;

  lying_codes(any_weights const& weights, q8_rows const& input, index x_rows)
      : w(weights), x(input), tiles(divide_up(x_rows, x_tile::rows)) {}

  /// One part times one tile, `groups` groups of columns, or what is left of them.
  struct run {
    index part, tile, group;
  };
  TERN_INLINE run after(run r) const {
    if (++r.tile < tiles) return r;
    if (r.part + 1 < parts) return {r.part + 1, 0, r.group};
    return {0, 0, r.group + groups};
  }
  TERN_INLINE index live(index part) const { return least(rows, width - part * rows); }
  TERN_INLINE std::uint8_t const* row(index part) const { return w.memory.data + (n + part * rows) * w.memory.stride; }

  /// What the products of a run are made of, by groups of columns.
  struct operands {
    std::uint8_t const* codes;  // those of a weight row are `step` bytes apart, rows `stride`
    x_tile const* x;
    index step, stride, count;
  };
  TERN_INLINE operands at(run r) const {
    if (r.group >= x.blocks) return {};  // behind the last one
    return {row(r.part) + w.lying.first + r.group * w.lying.step, x.tiles + r.tile * x.blocks + r.group, w.lying.step, w.memory.stride,
            least(groups, x.blocks - r.group)};
  }
  /// The product of step s, to a matrix register, if there is such a step.
  template <int Place>
  TERN_INLINE static void multiply(operands const& o, index s, float const* start) {
    constexpr int a = 4 + Place % 2, b = 6 + Place % 2;
    if (s >= o.count) return;
    simd::tiles::load<Place>(start, 0);
    simd::tiles::load<a>(o.codes + s * o.step, o.stride);
    simd::tiles::load<b>(o.x[s].q, sizeof(x_tile::q[0]));
    simd::tiles::dot_signed<Place, a, b>();
  }
  template <int Place>
  TERN_INLINE static void keep(float (&ring)[product_ring::places][rows][rows]) {
    simd::tiles::store<Place>(ring[Place], sizeof(ring[0][0]));
  }
  /// The integers of a step, scaled and added to sums. scales: of the weight rows.
  TERN_INLINE static void scale(float const (&ring)[rows][rows], float const* scales, x_tile const& x, sums_type& sum) {
    using simd::pack;
    pack<float> const own = simd::load(x.scale), unit = simd::in_register(pack<float>(product_ring::unit));
    TERN_UNROLL
    for (index i = 0; i < rows; ++i) sum[i] = simd::fma(simd::load(ring[i]) - unit, pack<float>(scales[i]) * own, sum[i]);
  }

  /// Asks for what one weight row has for the groups that follow those of a run; at its end, for the row that comes next.
  TERN_INLINE void ask(run r, index i) const {
    constexpr index line = 64;
    if (i >= live(r.part)) return;
    index from = (r.group + groups) * w.lying.step;
    if (from >= w.memory.bytes) from = panel_rows * w.memory.stride;
    auto const at = reinterpret_cast<std::uintptr_t>(row(r.part)) + static_cast<std::uintptr_t>(i * w.memory.stride + from);
    for (index b = 0; b < groups * w.lying.step; b += line)
      __builtin_prefetch(reinterpret_cast<void const*>(at + static_cast<std::uintptr_t>(b)), 0, 2);
  }

  /// All steps of a run: while its last products are scaled, the next run's first ones are made.
  TERN_INLINE void take(run r) {
    constexpr index places = product_ring::places;
    operands const now = at(r), next = at(after(r));
    index const first = n + r.part * rows;
    if (r.tile == 0) w.lying.scales(w.object, first, first + live(r.part), r.group, r.group + now.count, scales[0]);
    float(&kept)[rows][x_tile::rows] = sums[r.part * tiles + r.tile];
    sums_type sum;
    TERN_UNROLL
    for (index i = 0; i < rows; ++i) sum[i] = simd::load(kept[i]);
    for (index s = 0; s < now.count; s += places) {
      bool const last = s + places >= now.count;
      operands const later = last ? next : now;
      index const from = last ? 0 : s + places;
      auto const step = [&]<int Place>() TERN_LAMBDA {
        multiply<Place>(later, from + Place, ring.start);
        keep<(Place + places - 1) % places>(ring.of);
        if (s + Place < now.count) scale(ring.of[Place], scales[s + Place], now.x[s + Place], sum);
      };
      step.template operator()<0>();
      step.template operator()<1>();
      step.template operator()<2>();
      step.template operator()<3>();
      for (index i = s; i < s + places && r.tile == 0; ++i) ask(r, i);
    }
    TERN_UNROLL
    for (index i = 0; i < rows; ++i) simd::store(kept[i], sum[i]);
  }
  TERN_INLINE void take_all() {
    run const start{0, 0, 0};
    operands const first = at(start);
    multiply<0>(first, 0, ring.start);
    multiply<1>(first, 1, ring.start);
    keep<0>(ring.of);
    multiply<2>(first, 2, ring.start);
    keep<1>(ring.of);
    multiply<3>(first, 3, ring.start);
    keep<2>(ring.of);
    for (run r = start; r.group < x.blocks; r = after(r)) take(r);
  }

  /// Calls f(part, tile) for all sums, which are of weight rows as matrix registers make them.
  template <class F>
  TERN_INLINE void for_sums(F const& f) {
    for (index part = 0; part < parts; ++part)
      for (index tile = 0; tile < tiles; ++tile) f(part, tile, sums[part * tiles + tile]);
  }
  /// Weight rows [first, first + count), a panel's or fewer than a part's, added to the sums of `x_rows` rows of x. Nothing is read behind
  /// the last of them.
  TERN_INLINE void multiply_all(index first, index count, index x_rows, piece_rows const& to) {
    n = first;
    width = count;
    parts = divide_up(count, rows);
    for_sums([&](index part, index tile, float(&own)[rows][x_tile::rows]) TERN_LAMBDA {
      sums_type t;
      TERN_UNROLL
      for (index r = 0; r < rows; ++r) t[r] = tile * rows + r < x_rows ? to.load(tile * rows + r, part) : simd::pack<float>(0.f);
      simd::transpose(t);
      TERN_UNROLL
      for (index r = 0; r < rows; ++r) simd::store(own[r], t[r]);
    });
    simd::tiles::configure(simd::tiles::shape(live(0), live(0), 32));
    take_all();
    simd::tiles::release();
    for_sums([&](index part, index tile, float(&own)[rows][x_tile::rows]) TERN_LAMBDA {
      sums_type t;
      TERN_UNROLL
      for (index r = 0; r < rows; ++r) t[r] = simd::load(own[r]);
      simd::transpose(t);
      for (index r = 0; r < least(rows, x_rows - tile * rows); ++r) to.store(tile * rows + r, part, t[r]);
    });
  }
};

/// Weight rows [n0, n1) of a job, whose blocks lie ready, times all `rows` rows of x.
inline void multiply_stripe_lying(matmul_job const& job, index n0, index n1, index rows, q8_rows const& x, bool add) noexcept {
  lying_codes codes(job.w, x, rows);
  for (index n = n0, width; n < n1; n += width) {
    width = n + panel_rows <= n1 ? panel_rows : least(lying_codes::rows, n1 - n);
    codes.multiply_all(n, width, rows, piece_rows(job.y + n, job.y_stride, nullptr, add, true, true, width));
  }
}

}  // namespace TERN_ABI
}  // namespace tern::detail
