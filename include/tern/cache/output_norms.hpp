// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/output_norms.hpp
/// How much each value of a cache moves the layer's output.
///
///     output_norms(policy, cache, s, layer, w, norms)     norms_hj = mean over the query heads g that share key head h of
///                                                         sum over the outputs o of |w_o,g . v_hj|
///
/// Shapes    w (outputs, heads dim_v): the output projection, of f32, f16 or bf16, rows contiguous; norms (kv_heads, keys of the longest
///           head) f32, -inf behind the tokens of a shorter head.
/// Composition  a matmul for each query head and 64 tokens. Memory: 64 values and products as floats.
/// Cost      2 heads keys dim_v outputs flop: as much as the projection of that many tokens.
/// Source    CriticalKV (Feng et al. 2025, arXiv:2502.03805).

#include <tern/cache/token_norms.hpp>
#include <tern/matmul/matmul.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr struct output_norms_fn {
  template <class K, class V, tensor_like W>
  void operator()(cpu_policy const& policy, kv_cache<K, V> const& cache, std::int32_t s, index layer, W&& w,
                  tensor_view<float, 2> const& norms) const {
    static_assert(view_of<W>::rank == 2, "tern: output_norms takes w (outputs, heads dim_v)");
    constexpr char const* op = "output_norms";
    auto const weights = tern::view(w);
    index const heads = cache.shape().kv_heads, dim = cache.shape().dim_v, outputs = weights.extent(0), keys = cache.longest(s, layer);
    detail::expect(weights.extent(1) > 0 && weights.extent(1) % (heads * dim) == 0, op, "w.extent(1)", weights.extent(1),
                   "a multiple of kv_heads dim_v");
    detail::expect_equal(op, "norms.extent(0)", norms.extent(0), "kv_heads", heads);
    detail::expect_equal(op, "norms.extent(1)", norms.extent(1), "the tokens of the longest head", keys);
    index const group = weights.extent(1) / (heads * dim);
    workspace::lease const scratch(policy.scratch(), static_cast<std::size_t>(page_rows * (dim + outputs)) * sizeof(float));
    auto* const rows = reinterpret_cast<float*>(scratch.data());
    float* const products = rows + page_rows * dim;
    for (index h = 0; h < heads; ++h) {
      index const length = cache.length(s, layer, h);
      for (index t0 = 0; t0 < length; t0 += page_rows) {
        index const count = length - t0 < page_rows ? length - t0 : page_rows;
        for (index t = 0; t < count; ++t) {
          cache.read_value(s, layer, h, t0 + t, rows + t * dim);
          norms(h, t0 + t) = 0;
        }
        for (index g = h * group; g < (h + 1) * group; ++g) {
          matmul(policy, tern::view(rows, count, dim), weights.slice(1, g * dim, (g + 1) * dim), tern::view(products, count, outputs));
          for (index t = 0; t < count; ++t) norms(h, t0 + t) += absolute_sum(products + t * outputs, outputs) / static_cast<float>(group);
        }
      }
      for (index t = length; t < keys; ++t) norms(h, t) = detail::negative_infinity;
    }
  }

 private:
  TERN_INLINE static float absolute_sum(float const* x, index n) {
    return detail::sum_packs(n, [&](index i, auto part) TERN_LAMBDA { return simd::abs(detail::load(x + i, part)); });
  }
} output_norms{};

}  // namespace TERN_ABI
}  // namespace tern
