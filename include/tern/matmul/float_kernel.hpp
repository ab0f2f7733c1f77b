// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/float_kernel.hpp
/// y = x w^T in f32 or with bf16 products: `panel_rows` weight rows are decoded into a panel (float_panel.hpp), then each row of x is
/// broadcast against it. Up to four rows of f32 meet codes that are decoded on the way. Some numbers of rows become a panel themselves,
/// once, and each row of weights is broadcast against it from where it lies.
///
/// Each y(r, n) is the sum over chunks of 256 columns, in order, of the sum over k within the chunk, in order (in matrix registers, in
/// theirs): the same operations whatever else is in the batch.

#include <tern/matmul/options.hpp>
#include <tern/matmul/tile_kernel.hpp>
#include <tern/simd/dot.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

struct f32_products {
  using element = float;
  static constexpr index step = 1;
  TERN_INLINE static float const* fill(any_weights const& w, index n0, index n1, index k0, index k1, matmul_panel& panel) {
    fill_floats(w, n0, n1, k0, k1, panel);
    return panel.floats;
  }
  using operand = simd::pack<float>;
  TERN_INLINE static operand load(float const* p) { return simd::load(p); }
  TERN_INLINE static operand broadcast(float const* p) { return operand(*p); }
  /// Whether rows of weights meet panels of x where they lie.
  TERN_INLINE static bool meets_panels(any_weights const& w) { return w.floats; }
  TERN_INLINE static simd::pack<float> multiply_add(operand w, operand x, simd::pack<float> sum) { return simd::fma(w, x, sum); }
};
struct bf16_products {
  using element = bf16;
  static constexpr index step = 2;
  TERN_INLINE static bf16 const* fill(any_weights const& w, index n0, index n1, index k0, index k1, matmul_panel& panel) {
    if (w.panels != nullptr && n1 - n0 == panel_rows) return w.panels + n0 * w.columns + k0 * panel_rows;
    fill_halves(w, n0, n1, k0, k1, panel);
    return panel.halves;
  }
  using operand = simd::pack<bf16>;
  TERN_INLINE static operand load(bf16 const* p) { return simd::load_narrow(p); }
  TERN_INLINE static operand broadcast(bf16 const* p) { return simd::splat2(p); }
  /// Nothing may be read behind a row. Matrix registers do it in their own way.
  TERN_INLINE static bool meets_panels(any_weights const& w) {
    return w.bf16 && w.panels == nullptr && w.memory.data != nullptr && w.columns % 2 == 0 && w.memory.stride % 2 == 0 &&
           !simd::tiles::ready();
  }
  TERN_INLINE static simd::pack<float> multiply_add(operand w, operand x, simd::pack<float> sum) { return simd::dot(sum, w, x); }
};

struct ask_nothing {
  TERN_INLINE void operator()() const {}
};
/// `Rows` rows of x against a panel, added to the sums of rows r, r + 1, ... ask() is called with each step.
template <class Products, int Rows, class Ask>
TERN_INLINE void multiply_tile(typename Products::element const* TERN_RESTRICT panel, index steps,
                               typename Products::element const* TERN_RESTRICT x, index x_stride, piece_rows const& sums, index r,
                               Ask const& ask) {
  using simd::pack;
  constexpr index W = simd::lanes;
  pack<float> sum[Rows][2];
  TERN_UNROLL
  for (int i = 0; i < Rows; ++i) sum[i][0] = sum[i][1] = pack<float>(0.f);
  row_walk<Rows, typename Products::element> rows(x, x_stride);
  for (index k = 0; k < steps; ++k) {
    ask();
    auto const w0 = Products::load(panel);
    auto const w1 = Products::load(panel + W * Products::step);
    panel += panel_rows * Products::step;
    TERN_UNROLL
    for (int i = 0; i < Rows; ++i) {
      auto const broadcast = Products::broadcast(rows.at(i));
      sum[i][0] = Products::multiply_add(w0, broadcast, sum[i][0]);
      sum[i][1] = Products::multiply_add(w1, broadcast, sum[i][1]);
    }
    rows.step(Products::step);
  }
  sums.add(r, Rows, sum);
}

/// Calls take<Rows>(r) with tiles of at most `Most` rows that make up `rows` rows.
template <int Most, class Take>
TERN_INLINE void for_row_tiles(index rows, Take const& take) {
  index r = 0;
  for (; r + Most <= rows; r += Most) take.template operator()<Most>(r);
  if constexpr (Most > 8)
    for (; r + 8 <= rows; r += 8) take.template operator()<8>(r);
  if constexpr (Most > 4)
    for (; r + 4 <= rows; r += 4) take.template operator()<4>(r);
  for (; r + 2 <= rows; r += 2) take.template operator()<2>(r);
  if (r < rows) take.template operator()<1>(r);
}

/// Fewer rows than a tile: they wait for memory, and the machine's prefetchers begin anew with each panel, so that lines of what follows
/// are asked for with each step (measured on Zen 4, one row times interleaved bf16: 0.95 of a plain read, 0.7 without).
template <class Products>
[[gnu::noinline]] inline void multiply_few_rows(typename Products::element const* panel, index steps, typename Products::element const* x,
                                                index x_stride, index rows, piece_rows const& sums, memory_ahead& ahead) noexcept {
  index const lines = steps > 0 ? divide_up(ahead.lines(), steps) : 0;
  auto const ask = [&]() TERN_LAMBDA {
    for (index l = 0; l < lines; ++l) ahead.ask();
  };
  for_row_tiles<4>(
      rows, [&]<int Rows>(index r) TERN_LAMBDA { multiply_tile<Products, Rows>(panel, steps, x + r * x_stride, x_stride, sums, r, ask); });
}

/// A tile of x against a panel, its first `live` rows added to the sums of rows r, r + 1, ... On the way, memory that follows is asked
/// for, a line each `every` steps. Not inlined: gcc spills sums where it knows too much about the arguments.
[[gnu::noinline]] inline void multiply_tiled(float const* TERN_RESTRICT panel,  // (steps, panel_rows)
                                             float const* TERN_RESTRICT x,      // (steps, tile_rows)
                                             index steps, index live, piece_rows const& sums, index r, memory_ahead& ahead,
                                             index every) noexcept {
  using simd::pack;
  constexpr index W = simd::lanes;
  sums.ask(r, live);
  pack<float> sum[tile_rows][2];
  TERN_UNROLL
  for (int i = 0; i < tile_rows; ++i) sum[i][0] = sum[i][1] = pack<float>(0.f);
  while (steps > 0) {
    ahead.ask();
    index const rest = steps > every ? steps - every : 0;
    for (; steps > rest; --steps) {
      pack<float> const w0 = simd::load(panel), w1 = simd::load(panel + W);
      TERN_UNROLL
      for (int i = 0; i < tile_rows; ++i) {
        pack<float> const broadcast(x[i]);
        sum[i][0] = simd::fma(w0, broadcast, sum[i][0]);
        sum[i][1] = simd::fma(w1, broadcast, sum[i][1]);
      }
      panel += panel_rows;
      x += tile_rows;
    }
  }
  sums.add(r, live, sum);
}
/// All tiles of `rows` rows.
inline void multiply_tiles_of(float const* panel, float const* tiles, index steps, index rows, piece_rows const& sums,
                              memory_ahead& ahead) noexcept {
  index const lines = ahead.lines(), all = divide_up(rows, tile_rows) * steps, every = lines < all ? all / (lines + 1) : 1;
  for (index r = 0; r < rows; r += tile_rows)
    multiply_tiled(panel, tiles + r * steps, steps, least(tile_rows, rows - r), sums, r, ahead, every);
}

/// The same in f32 with the numbers of a panel's codes, `groups` times 32 columns.
template <class Shape, int Rows>
inline void multiply_decoded(code_panel const& panel, std::int32_t offset, index groups, float const* x, index x_stride,
                             piece_rows const& sums, index r) noexcept {
  using simd::pack;
  constexpr index L = simd::lanes;
  pack<float> sum[Rows][2];
  TERN_UNROLL
  for (int i = 0; i < Rows; ++i) sum[i][0] = sum[i][1] = pack<float>(0.f);
  std::uint8_t const* codes = panel.codes;
  for (index part = 0; part < groups * 32 / Shape::granule; ++part) {
    code_decoder<Shape> const first(panel, offset, part, 0), second(panel, offset, part, L);
    for (index k = 0; k < Shape::granule; k += 4, x += 4, codes += 4 * panel_rows) {
      pack<float> w[2][4];
      first.decode(codes, w[0]);
      second.decode(codes + 4 * L, w[1]);
      TERN_UNROLL
      for (int i = 0; i < Rows; ++i) {
        TERN_UNROLL
        for (int j = 0; j < 4; ++j) {
          pack<float> const broadcast(x[i * x_stride + j]);
          sum[i][0] = simd::fma(w[0][j], broadcast, sum[i][0]);
          sum[i][1] = simd::fma(w[1][j], broadcast, sum[i][1]);
        }
      }
    }
  }
  sums.add(r, Rows, sum);
}
/// Up to this many rows of x in f32, codes are decoded where they are multiplied, once for four rows and for each of fewer; beyond, it
/// pays to keep the numbers. With bf16 products it does at once: rounding takes longer, and matrix registers read memory.
inline constexpr index most_decoded_rows = 4;

/// `rows` rows of x, up to most_decoded_rows, times columns [k0, k1) of weight rows [n, n + width), whose elements are codes.
inline void multiply_few(any_weights const& w, index n, index width, index k0, index k1, float const* x, index x_stride, index rows,
                         code_panel& panel, piece_rows const& sums) noexcept {
  w.operations->pack_codes(w.object, n, n + width, k0 / 32, k1 / 32, panel);
  with_decoded_shape(w.codes, [&]<class Shape>(Shape) TERN_LAMBDA {
    auto const take = [&]<int Rows>(index r) TERN_LAMBDA {
      multiply_decoded<Shape, Rows>(panel, w.codes.offset, (k1 - k0) / 32, x + r * x_stride, x_stride, sums, r);
    };
    if (rows == most_decoded_rows) return take.template operator()<most_decoded_rows>(0);
    for (index r = 0; r < rows; ++r) take.template operator()<1>(r);
  });
}

/// x as the products take it: rows of its elements and maybe, in f32, tiles, in bf16 a panel.
template <class Products>
struct product_rows {
  using element = typename Products::element;
  element const* x;
  index stride;
  tiled_rows tiles{};
  element const* panel = nullptr;  // panels of up to most_turned_rows rows, each [columns / step][panel_rows][step]
  index panel_columns = 0;         // to the next panel, times panel_rows
  TERN_INLINE element const* at(index row, index k) const { return x + row * stride + k; }
  /// A panel's share of the tiles that follow, for rows [first, first + rows). Matrix registers meet rows of x so fast that asking for
  /// them, too, costs more than it gains.
  TERN_INLINE void add_next(memory_ahead& ahead, index first, index rows, stripe_place const& p) const {
    if (tiles.data == nullptr) return;
    index const k0 = p.next_k0(), columns = p.next_columns();
    index const tile_bytes = columns * tile_rows * index{sizeof(float)};
    add_share(ahead, tiles.at(first, k0, k0 + columns), tile_bytes, tile_bytes, divide_up(rows, tile_rows), p);
  }
};

/// As many rows of x are turned over into panels at most, and so many rows of weights are broadcast against one at once.
inline constexpr index most_turned_rows = simd::many_registers ? 64 : 32;
inline constexpr int turned_tile_rows = tile_rows < 8 ? least(tile_rows, panel_rows) : 8;
static_assert(most_turned_rows <= 8 * tile_rows);  // no item divides them
template <class Products, int Rows>
[[gnu::noinline]] inline void multiply_turned_tile(typename Products::element const* panel, index steps,
                                                   typename Products::element const* w, index w_stride, piece_rows const& sums, index r,
                                                   memory_ahead& ahead, index lines) noexcept {
  auto const ask = [&]() TERN_LAMBDA {
    for (index l = 0; l < lines; ++l) ahead.ask();
  };
  multiply_tile<Products, Rows>(panel, steps, w, w_stride, sums, r, ask);
}
/// Sums of y's rows to memory of turned ones, [panel_rows][panel_rows] for each panel of x, before the first chunk is added.
TERN_INLINE void turn_sums(piece_rows const& sums, index rows, float* to) {
  constexpr index W = simd::lanes;
  for (index first = 0; first < rows; first += W)
    for (index half = 0; half < 2; ++half) {
      simd::pack<float> t[W];
      TERN_UNROLL
      for (index i = 0; i < W; ++i) t[i] = first + i < rows ? sums.load(first + i, half) : simd::pack<float>(0.f);
      simd::transpose(t);
      float* const out = to + (first / panel_rows * panel_rows + half * W) * panel_rows + first % panel_rows;
      TERN_UNROLL
      for (index i = 0; i < W; ++i) simd::store(out + i * panel_rows, t[i]);
    }
}
/// Columns [k0, k1) of weight rows [n, n + width) times panels of `rows` rows of x, added to sums, which stay turned over between chunks:
/// the same sums of the same products as with weights in a panel.
template <class Products>
inline void multiply_turned(any_weights const& w, index n, index width, index k0, index k1, product_rows<Products> const& in, index rows,
                            piece_rows const& sums, memory_ahead& ahead) noexcept {
  using element = typename Products::element;
  constexpr index block = panel_rows * panel_rows;
  float* const kept = sums.kept;
  bool const add = sums.from != nullptr;
  if (add && sums.first) turn_sums(sums, rows, kept);
  index const steps = divide_up(k1 - k0, Products::step), panels = divide_up(rows, panel_rows);
  index const tiles = divide_up(width, turned_tile_rows) * panels * steps, lines = tiles > 0 ? divide_up(ahead.lines(), tiles) : 0;
  for_row_tiles<turned_tile_rows>(width, [&]<int Rows>(index i) TERN_LAMBDA {
    auto const* const from = reinterpret_cast<element const*>(w.memory.data + (n + i) * w.memory.stride) + k0;
    for (index p = 0; p < panels; ++p)
      multiply_turned_tile<Products, Rows>(
          in.panel + (p * in.panel_columns + k0) * panel_rows, steps, from, w.memory.stride / index{sizeof(element)},
          piece_rows(kept + p * block, panel_rows, kept + p * block, false, !add, false, panel_rows), i, ahead, lines);
  });
  for (index p = 0; p < panels && sums.last; ++p)
    for_lying_rows(kept + p * block, width, least(panel_rows, rows - p * panel_rows),
                   [&](index r, index half, simd::pack<float> sum) TERN_LAMBDA { sums.store(p * panel_rows + r, half, sum); });
}

/// Rows [first, first + rows) of x times columns [k0, k1) of weight rows [n, n + width), at most a panel's, added to sums. ahead: memory
/// that follows.
template <class Products>
inline void multiply_chunk(any_weights const& w, index n, index width, index k0, index k1, product_rows<Products> const& in, index first,
                           index rows, matmul_panel& panel, piece_rows const& sums, memory_ahead& ahead) noexcept {
  constexpr bool f32 = std::is_same_v<Products, f32_products>;
  auto const* const x = in.at(first, k0);
  if constexpr (f32)
    if (w.codes.granule > 0 && rows <= most_decoded_rows) return multiply_few(w, n, width, k0, k1, x, in.stride, rows, panel.codes, sums);
  if constexpr (!f32)
    if (in.panel != nullptr && halves_lie_ready(w)) return multiply_lying_halves(w, n, width, k0, k1, in.panel, rows, sums, panel.floats);
  if (in.panel != nullptr && Products::meets_panels(w)) return multiply_turned(w, n, width, k0, k1, in, rows, sums, ahead);
  auto const* const weights = Products::fill(w, n, n + width, k0, k1, panel);
  index const steps = divide_up(k1 - k0, Products::step);
  if constexpr (f32) {
    if (in.tiles.data != nullptr) return multiply_tiles_of(weights, in.tiles.at(first, k0, k1), steps, rows, sums, ahead);
  } else {
    if (simd::tiles::ready()) return multiply_halves(weights, divide_up(k1 - k0, 32), x, in.stride, rows, sums, panel.floats, ahead);
  }
  if (rows < tile_rows) return multiply_few_rows<Products>(weights, steps, x, in.stride, rows, sums, ahead);
  for_row_tiles<tile_rows>(rows, [&]<int Rows>(index r) TERN_LAMBDA {
    multiply_tile<Products, Rows>(weights, steps, x + r * in.stride, in.stride, sums, r, ask_nothing{});
  });
}

/// Weight rows [n0, n1) of a job (at most panels_at_once panels) times rows [r0, r1) of x. Sums are kept aside until the last chunk: rows
/// of y are often a multiple of the page apart, and would push each other out of the caches. kept: panels_at_once * kept_size(r1 - r0).
template <class Products>
inline void multiply_stripe(matmul_job const& job, index n0, index n1, index r0, index r1, index columns, product_rows<Products> const& in,
                            bool add, matmul_panel& panel, float* kept) noexcept {
  for (index first = r0; first < r1; first += kept_rows)
    for (index k0 = 0; k0 < columns || k0 == 0; k0 += chunk_columns) {
      index const k1 = least(k0 + chunk_columns, columns), rows = least(kept_rows, r1 - first);
      for (index n = n0; n < n1; n += panel_rows) {
        index const width = least(panel_rows, n1 - n);
        stripe_place const place{n0, n1, n, columns, k0, chunk_columns};
        piece_rows const sums(job.y + first * job.y_stride + n, job.y_stride, kept + place.panel() * kept_size(r1 - r0), add, k0 == 0,
                              k1 == columns, width);
        memory_ahead ahead;
        add_weights(ahead, job.w, place);
        in.add_next(ahead, first, rows, place);
        multiply_chunk(job.w, n, width, k0, k1, in, first, rows, panel, sums, ahead);
      }
    }
}

/// What follows when the piece of y has its sums.
inline void finish_piece(matmul_split::piece const& p, std::byte* memory) noexcept {
  if (p.job->finish == nullptr) return;
  matmul_finish const& finish = *p.job->finish;
  for (index s = 0; s < finish.side_count; ++s) {
    side_product const& side = finish.sides[s];
    matmul_job const job{side.b, p.job->y, p.job->y_stride};
    for (index n = p.n0; n < p.n1; n += panels_at_once * panel_rows)
      multiply_stripe(job, n, least(n + panels_at_once * panel_rows, p.n1), p.r0, p.r1, side.b.columns,
                      product_rows<f32_products>{side.t, side.t_stride}, true, panel_at(memory), kept_at(memory));
  }
  for (index e = 0; e < finish.epilogue_count; ++e)
    for (index r = p.r0; r < p.r1; ++r)
      finish.epilogues[e].finish(finish.epilogues[e].object, p.job->y + r * p.job->y_stride + p.n0, r, p.n0, p.n1);
}

/// Splits a call into stripes of a panel's weight rows; where these are few for the threads, also by rows of x.
TERN_INLINE index rows_per_item(cpu_policy const& policy, matmul_job const* jobs, index count, index rows, index stripe, index tile) {
  index stripes = 0;
  for (index j = 0; j < count; ++j) stripes += divide_up(jobs[j].w.rows, stripe);
  index const wanted = 4 * policy.concurrency();
  if (stripes >= wanted || stripes == 0 || rows == 0) return rows > 0 ? rows : 1;
  index const chunk = round_to_multiple(divide_up(rows, divide_up(wanted, stripes)), tile), least = 8 * tile;
  return chunk > least ? chunk : least;
}

/// Panels that an item of work takes: several where that leaves items enough for the threads.
TERN_INLINE index panels_of(cpu_policy const& policy, index weight_rows, index rows) {
  index const panels = divide_up(weight_rows, panel_rows) / (2 * policy.concurrency());
  return rows < 64 || panels < 1 ? 1 : least(panels, panels_at_once);
}

/// All jobs, with weights decoded to f32 (or bf16). in: (rows, columns) elements of Products; scratch: slot_bytes a slot.
template <class Products>
inline void multiply_float(cpu_policy const& policy, matmul_job const* jobs, index count, product_rows<Products> const& in, index rows,
                           index columns, bool add, std::byte* scratch) {
  if (count == 0) return;
  // One or a few rows spend their time on reading weights: long stripes, so that a thread asks for rows that it will use.
  index total = 0;
  for (index j = 0; j < count; ++j) total += jobs[j].w.rows;
  index const few = round_to_multiple(divide_up(total, 4 * policy.concurrency()), panel_rows);
  // Weights that matrix registers take where they lie are read along their rows, and panels of x meet several panels of weights.
  bool const along_rows = in.panel != nullptr && !std::is_same_v<Products, f32_products> && simd::tiles::ready();
  index const panels = panels_of(policy, total, in.panel != nullptr && !along_rows ? kept_rows : rows);
  index const stripe = rows < tile_rows && few > panel_rows ? few : panels * panel_rows;
  matmul_split const split(jobs, count, rows, stripe, rows_per_item(policy, jobs, count, rows, stripe, tile_rows));
  // No item divides a panel of x.
  static_assert(!simd::tiles::exist || most_lying_rows <= 8 * tile_rows);
  index const at_once = (along_rows ? 1 : panels_at_once) * panel_rows;
  parallel_for(policy, split.items, [&](index item, index slot) TERN_LAMBDA {
    auto const piece = split.at(item, jobs, rows);
    std::byte* const memory = scratch + slot * slot_bytes(rows);
    for (index n = piece.n0; n < piece.n1; n += at_once)
      multiply_stripe(*piece.job, n, least(n + at_once, piece.n1), piece.r0, piece.r1, columns, in, add, panel_at(memory), kept_at(memory));
    finish_piece(piece, memory);
  });
}

}  // namespace TERN_ABI
}  // namespace tern::detail
