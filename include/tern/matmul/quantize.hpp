// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/quantize.hpp
/// Activations as 8-bit integers, in blocks of 32 columns: what compute::int8 multiplies with. With compute::int8_tokens max |x| is
/// that of the whole row, and d stays f32.
///
///     d = max |x| / 127 rounded to f16,    q = x * (127 / max |x|) to the nearest integer, ties to even,    s = d sum(q) as f16
///
/// so that x is about d q, and s about the block's sum (the products with a format's minimum need it; where a minimum belongs to 16
/// columns, it meets d sum(q) of these, in f32). A block with infinity
/// or NaN makes every product with it NaN. These are the values of ggml's block formats Q8_0 and Q8_1, so that both compute the same
/// products.

#include <tern/matmul/types.hpp>
#include <tern/simd/convert.hpp>
#include <tern/simd/rows.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// What goes with 32 bytes of q.
struct q8_scales {
  float scale;         // d
  float sum;           // s
  std::int32_t total;  // the sum of q
  std::int32_t first;  // the sum of the first 16
  float half_sum[2];   // d times that of each 16
  TERN_INLINE void sum_halves() {
    half_sum[0] = scale * static_cast<float>(first);
    half_sum[1] = scale * static_cast<float>(total - first);
  }
};

/// 32 columns of `lanes` rows, for matrix registers (matmul/lying_codes.hpp): four columns of each row are neighbours.
struct x_tile {
  static constexpr index rows = simd::lanes;
  alignas(64) std::int8_t q[8][rows][4];
  float scale[rows];
};

/// Quantized rows: row r's integers at q + r * stride, its scales at scales + r * blocks.
struct q8_rows {
  std::int8_t* q;
  q8_scales* scales;
  index stride;
  index blocks;
  x_tile* tiles = nullptr;             // the same again, [rows / lanes][blocks], where matrix registers meet blocks
  std::int8_t const* panel = nullptr;  // the same integers for weights that lie ready (matmul/tile_kernel.hpp)
};

/// max |x|, NaN where there is one. n: a multiple of 32.
TERN_INLINE float largest_magnitude(float const* x, index n) {
  simd::pack<float> largest(0.f);
  bool numbers = true;
  for (index i = 0; i < n; i += simd::lanes) {
    simd::pack<float> const v = simd::load(x + i);
    largest = simd::max(largest, simd::abs(v));
    numbers &= simd::all(v == v);
  }
  return numbers ? simd::reduce_max(largest) : __builtin_nanf("");
}

/// All but the rounding of scale and sum to f16. amax: max |x|, of the block or of more.
TERN_INLINE void quantize_block(float const* x, float amax, std::int8_t* q, q8_scales& s) {
  using simd::pack;
  constexpr index W = simd::lanes;
  float const inverse = amax != 0.f ? 127.f / amax : 0.f;
  // No integers stand for NaN, for infinity, or for what is so small that f16 makes its scale zero.
  if (!(amax <= 0x1.fffffep127f && inverse <= 0x1.fffffep127f)) {
    for (index i = 0; i < 32; ++i) q[i] = 0;
    s.first = s.total = 0;
    s.scale = amax <= 0x1.fffffep127f ? 0.f : __builtin_nanf("");
    s.sum = s.scale;
    return;
  }
  if constexpr (W <= 16) {
    pack<std::int32_t> sum[2] = {pack<std::int32_t>(0), pack<std::int32_t>(0)};
    for (index i = 0; i < 32; i += W) {
      pack<std::int32_t> const n = simd::to_int(simd::load(x + i) * pack<float>(inverse));
      simd::store_low_bytes(q + i, n);
      sum[i / 16] = sum[i / 16] + n;
    }
    s.first = simd::reduce_add(sum[0]);
    s.total = simd::reduce_add(sum[0] + sum[1]);
  } else {
    simd::store_low_bytes(q, simd::to_int(simd::load(x) * pack<float>(inverse)));
    s.first = s.total = 0;
    for (index i = 0; i < 16; ++i) s.first += q[i];
    for (index i = 0; i < 32; ++i) s.total += q[i];
  }
  s.scale = amax / 127.f;
  s.sum = s.scale * static_cast<float>(s.total);
}

/// `blocks` blocks in a row.
TERN_INLINE void quantize_row(float const* x, index blocks, std::int8_t* q, q8_scales* scales) {
  constexpr index batch = simd::lanes;  // blocks whose scales are rounded at once
  float value[2 * batch] = {};
  f16 rounded[2 * batch];
  for (index b0 = 0; b0 < blocks; b0 += batch) {
    index const count = blocks - b0 < batch ? blocks - b0 : batch;
    for (index b = 0; b < count; ++b) {
      q8_scales& s = scales[b0 + b];
      quantize_block(x + 32 * (b0 + b), largest_magnitude(x + 32 * (b0 + b), 32), q + 32 * (b0 + b), s);
      value[b] = s.scale;
      value[batch + b] = s.sum;
    }
    for (index i = 0; i < 2 * batch; i += simd::lanes) {
      simd::store(static_cast<f16*>(rounded + i), simd::load(static_cast<float const*>(value + i)));
      simd::store(static_cast<float*>(value + i), simd::load(static_cast<f16 const*>(rounded + i)));
    }
    for (index b = 0; b < count; ++b) {
      scales[b0 + b].scale = value[b];
      scales[b0 + b].sum = value[batch + b];
      scales[b0 + b].sum_halves();
    }
  }
}

/// The same with one scale for the row.
TERN_INLINE void quantize_token(float const* x, index blocks, std::int8_t* q, q8_scales* scales) {
  float const amax = largest_magnitude(x, 32 * blocks);
  for (index b = 0; b < blocks; ++b) {
    quantize_block(x + 32 * b, amax, q + 32 * b, scales[b]);
    scales[b].sum_halves();
  }
}

/// A tile of each block of up to `lanes` rows; rows that are missing are zeros.
TERN_INLINE void fill_tiles(q8_rows const& x, index first, index rows, x_tile* out) {
  for (index b = 0; b < x.blocks; ++b)
    for (index r = 0; r < x_tile::rows; ++r) {
      std::int8_t q[32] = {};
      if (r < rows) __builtin_memcpy(q, x.q + (first + r) * x.stride + 32 * b, sizeof(q));
      for (index j = 0; j < 8; ++j) __builtin_memcpy(out[b].q[j][r], q + 4 * j, 4);
      out[b].scale[r] = r < rows ? x.scales[(first + r) * x.blocks + b].scale : 0.f;
    }
}

/// Rows of x, 16 to an item of work.
inline void quantize_rows(cpu_policy const& policy, matmul_input const& in, q8_rows const& out, bool tokens) {
  constexpr index rows_each = 16;
  parallel_for(policy, divide_up(in.rows, rows_each), [&](index item, index) TERN_LAMBDA {
    index const end = (item + 1) * rows_each < in.rows ? (item + 1) * rows_each : in.rows;
    for (index r = item * rows_each; r < end; ++r) {
      float const* const x = in.x + r * in.x_stride;
      std::int8_t* const q = out.q + r * out.stride;
      q8_scales* const s = out.scales + r * out.blocks;
      tokens ? quantize_token(x, out.blocks, q, s) : quantize_row(x, out.blocks, q, s);
    }
  });
  if (out.tiles == nullptr) return;
  parallel_for(policy, divide_up(in.rows, x_tile::rows), [&](index tile, index) TERN_LAMBDA {
    index const first = tile * x_tile::rows;
    fill_tiles(out, first, in.rows - first < x_tile::rows ? in.rows - first : x_tile::rows, out.tiles + tile * out.blocks);
  });
}

}  // namespace TERN_ABI
}  // namespace tern::detail
