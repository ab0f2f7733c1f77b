// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/quantize.hpp
/// Activations as 8-bit integers, in blocks of 32 columns: what compute::int8 multiplies with.
///
///     d = max |x| / 127 rounded to f16,    q = x * (127 / max |x|) to the nearest integer, ties to even,    s = d sum(q) as f16
///
/// so that x is about d q, and s about the block's sum (the products with a format's minimum need it). A block with infinity
/// or NaN gets d = s = NaN. These are the values of ggml's block formats Q8_0 and Q8_1, so that both compute the same products.

#include <tern/matmul/types.hpp>
#include <tern/simd/pack.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// What goes with 32 bytes of q.
struct q8_scales {
  float scale;         // d
  float sum;           // s
  std::int32_t total;  // the sum of q
  std::int32_t first;  // the sum of the first 16
};

/// Quantized rows: row r's integers at q + r * stride, its scales at scales + r * blocks.
struct q8_rows {
  std::int8_t* q;
  q8_scales* scales;
  index stride;
  index blocks;
};

TERN_INLINE void quantize_block(float const* x, std::int8_t* q, q8_scales& s) {
  using simd::pack;
  constexpr index W = simd::lanes;
  static_assert(32 % W == 0);
  pack<float> largest(0.f), poison(0.f);
  for (index i = 0; i < 32; i += W) {
    pack<float> const v = simd::load(x + i);
    largest = simd::max(largest, simd::abs(v));
    poison = simd::fma(v, pack<float>(0.f), poison);  // NaN if v is not finite
  }
  float const amax = simd::reduce_max(largest);
  float const inverse = amax != 0.f ? 127.f / amax : 0.f;
  float const d = amax / 127.f + simd::reduce_add(poison);
  std::int32_t whole[32];
  pack<std::int32_t> sum[2] = {pack<std::int32_t>(0), pack<std::int32_t>(0)};
  for (index i = 0; i < 32; i += W) {
    pack<std::int32_t> const n = simd::to_int(simd::load(x + i) * pack<float>(inverse));
    simd::store(whole + i, n);
    if constexpr (W <= 16) sum[i / 16] = sum[i / 16] + n;
  }
  for (index i = 0; i < 32; ++i) q[i] = static_cast<std::int8_t>(whole[i]);
  if constexpr (W <= 16) {
    s.first = simd::reduce_add(sum[0]);
    s.total = s.first + simd::reduce_add(sum[1]);
  } else {
    s.first = s.total = 0;
    for (index i = 0; i < 32; ++i) {
      if (i < 16) s.first += q[i];
      s.total += q[i];
    }
  }
  s.scale = f16(d);
  s.sum = f16(d * static_cast<float>(s.total));
}

/// Rows of x, 16 to an item of work.
inline void quantize_rows(cpu_policy const& policy, matmul_input const& in, q8_rows const& out) {
  constexpr index rows_each = 16;
  parallel_for(policy, ceil_div(in.rows, rows_each), [&](index item, index) TERN_LAMBDA {
    index const end = (item + 1) * rows_each < in.rows ? (item + 1) * rows_each : in.rows;
    for (index r = item * rows_each; r < end; ++r)
      for (index b = 0; b < out.blocks; ++b)
        quantize_block(in.x + r * in.x_stride + 32 * b, out.q + r * out.stride + 32 * b, out.scales[r * out.blocks + b]);
  });
}

}  // namespace TERN_ABI
}  // namespace tern::detail
