// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/methods/matryoshka_kv.hpp
/// MatryoshkaKV: Adaptive KV Compression via Trainable Orthogonal Projection (Lin et al. 2024, arXiv:2410.14731).
///
/// Keys and values are stored in fewer dimensions, along orthogonal directions of each head, of which any first r may be used:
///
///     k~ = (k - m_k) U_k[:, :r],   v~ = (v - m_v) U_v[:, :r']                                stored
///     s_ij = (q_i U_k[:, :r]) . k~_j / sqrt(dim),   out_i = softmax(s_i) v~ U_v[:, :r']^T + m_v
///
/// q . m_k is the same for all keys, so that the softmax does without; the log-sum-exp has it.
///
///     matryoshka_append(policy, cache, s, layer, of_keys, of_values, k, v)
///     matryoshka_attention(policy, q, cache, s, layer, of_keys, of_values, out, lse, options...)
///
/// Shapes    k, v (kv_heads, tokens, dim) of f32, f16 or bf16; q, out (heads, tokens, dim), out f32; lse (heads, tokens). r and r' are dim
///           and dim_v of the cache. A head may take fewer (`ranks`): its other numbers are stored as zeros. Layers of other ranks have
///           caches of their own.
/// RoPE      comes before the projection: q and k are rotated.
/// When      instead of cache.append and attention, from the first token of a layer on.
/// Options   those of attention that do not look at scores: masks and layouts.
/// Directions  principal components (cache/principal_components.hpp), or trained ones: any orthogonal matrix.
/// Memory    scratch from the policy: the rows of the call and the projected ones, in f32.
/// Cost      2 dim r flop a key, query and output besides, where heads that share a key head read its directions once; a step reads r + r'
///           numbers of each token.
/// Error     at r = dim that of attention, and of two more products; else what the directions left out held.
/// Source    its authors' code (modeling_pcallama_trial.py: the order of RoPE and projection, means, zeros of heads of less
///           rank). There U_v goes into the output projection; here it is applied, so that any model can use it. Ranks are searched there
///           by what the model loses; rank_of gives those of a share of the variance.

#include <tern/attention/attention.hpp>
#include <tern/cache/kv_cache.hpp>
#include <tern/formats/column_rows.hpp>
#include <tern/matmul/matmul.hpp>
#include <tern/pointwise/convert.hpp>

namespace tern {

/// Directions of each head for keys, or for values.
struct matryoshka_projection {
  tensor_view<float const, 3> components;      ///< (kv_heads, at least r, dim): a direction a row, those that matter most first
  tensor_view<float const, 2> mean;            ///< (kv_heads, dim)
  tensor_view<std::int32_t const, 1> ranks{};  ///< (kv_heads): how many of them each head uses; none given: all that the cache has room for
};

namespace detail {
inline namespace TERN_ABI {

TERN_INLINE index matryoshka_rank(matryoshka_projection const& p, index h, index most) {
  return p.ranks.data() != nullptr && p.ranks[h] < most ? index{p.ranks[h]} : most;
}
inline void check_projection(char const* op, matryoshka_projection const& p, index heads, index rank, index dim) {
  expect_equal(op, "the heads of components", p.components.extent(0), "those of the cache", heads);
  expect(p.components.extent(1) >= rank, op, "the number of components", p.components.extent(1), "at least the dimensions of the cache");
  expect_equal(op, "the dim of components", p.components.extent(2), "that of the rows", dim);
  expect_equal(op, "mean.extent(0)", p.mean.extent(0), "the heads of the cache", heads);
  expect_equal(op, "mean.extent(1)", p.mean.extent(1), "the dim of components", dim);
  for (index h = 0; h < heads && p.ranks.data() != nullptr; ++h) expect(p.ranks[h] >= 0, op, "a rank", index{p.ranks[h]}, "at least 0");
}
/// Products of a step are few: threads are for those of a prompt.
TERN_INLINE cpu_policy projecting_threads(cpu_policy const& policy, index rows, index dim, index rank) {
  return threads_for(policy, static_cast<double>(rows) * static_cast<double>(dim * rank));
}
/// to (heads, tokens, r) = (x - mean) U; `centered` has room for x.
template <class X>
inline void project_rows(cpu_policy const& policy, X const& x, matryoshka_projection const& p, float* centered,
                         tensor_view<float, 3> const& to) {
  index const tokens = x.extent(1), dim = x.extent(2), most = to.extent(2);
  for_rows(policy, x.extent(0) * tokens, dim, [&](index r) TERN_LAMBDA {
    index const h = r / tokens, i = r % tokens;
    for (index d = 0; d < dim; ++d) centered[r * dim + d] = static_cast<float>(x(h, i, d)) - p.mean(h, d);
    for (index c = matryoshka_rank(p, h, most); c < most; ++c) to(h, i, c) = 0;
  });
  for (index h = 0; h < x.extent(0); ++h) {
    index const rank = matryoshka_rank(p, h, most);
    matmul(projecting_threads(policy, tokens, dim, rank), tern::view(centered + h * tokens * dim, tokens, dim),
           p.components[h].slice(0, 0, rank), to[h].slice(1, 0, rank));
  }
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// Projects and stores: see the top of this file.
inline constexpr struct matryoshka_append_fn {
  template <class K, class V, tensor_like X, tensor_like Y>
  void operator()(cpu_policy const& policy, kv_cache<K, V>& cache, std::int32_t s, index layer, matryoshka_projection const& of_keys,
                  matryoshka_projection const& of_values, X&& k, Y&& v) const {
    static_assert(view_of<X>::rank == 3 && view_of<Y>::rank == 3, "tern: matryoshka_append takes k and v (kv_heads, tokens, dim)");
    constexpr char const* op = "matryoshka_append";
    auto const x = tern::view(k);
    auto const y = tern::view(v);
    index const heads = cache.shape().kv_heads, tokens = x.extent(1), rank = cache.shape().dim, rank_v = cache.shape().dim_v;
    detail::expect_equal(op, "k.extent(0)", x.extent(0), "the heads of the cache", heads);
    detail::expect_equal(op, "v.extent(0)", y.extent(0), "the heads of the cache", heads);
    detail::expect_equal(op, "v.extent(1)", y.extent(1), "k.extent(1)", tokens);
    detail::check_projection(op, of_keys, heads, rank, x.extent(2));
    detail::check_projection(op, of_values, heads, rank_v, y.extent(2));
    index const dim = x.extent(2) > y.extent(2) ? x.extent(2) : y.extent(2);
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(tokens * heads * (rank + rank_v + dim)) * sizeof(float));
    float* const centered = reinterpret_cast<float*>(memory.data());
    auto const keys = tern::view(centered + heads * tokens * dim, heads, tokens, rank);
    auto const values = tern::view(keys.data() + keys.size(), heads, tokens, rank_v);
    detail::project_rows(policy, x, of_keys, centered, keys);
    detail::project_rows(policy, y, of_values, centered, values);
    cache.append(policy, s, layer, keys, values);
  }
} matryoshka_append{};

/// Attention over what was stored: see the top of this file.
inline constexpr struct matryoshka_attention_fn {
  template <tensor_like Q, class K, class V, tensor_like O, tensor_like L, class... Options>
  void operator()(cpu_policy const& policy, Q&& q, kv_cache<K, V> const& cache, std::int32_t s, index layer,
                  matryoshka_projection const& of_keys, matryoshka_projection const& of_values, O&& out, L&& lse,
                  Options const&... options) const {
    static_assert(view_of<Q>::rank == 3 && view_of<O>::rank == 3, "tern: matryoshka_attention takes q and out (heads, tokens, dim)");
    constexpr char const* op = "matryoshka_attention";
    auto const x = tern::view(q);
    auto const to = tern::view(out);
    auto const sums = tern::view(lse);
    index const heads = x.extent(0), tokens = x.extent(1), dim = x.extent(2), dim_v = to.extent(2), kv_heads = cache.shape().kv_heads;
    index const rank = cache.shape().dim, rank_v = cache.shape().dim_v;
    detail::expect(heads % kv_heads == 0, op, "q.extent(0)", heads, "a multiple of the heads of the cache");
    detail::expect_rows(op, "q", x);
    detail::expect_equal(op, "out.extent(0)", to.extent(0), "q.extent(0)", heads);
    detail::expect_equal(op, "out.extent(1)", to.extent(1), "q.extent(1)", tokens);
    detail::check_projection(op, of_keys, kv_heads, rank, dim);
    detail::check_projection(op, of_values, kv_heads, rank_v, dim_v);
    float const factor = 1 / __builtin_sqrtf(static_cast<float>(dim));
    index const wide = dim > dim_v ? dim : dim_v, rows = heads / kv_heads * tokens;  // of the heads that share a key head
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(heads * tokens * (rank + rank_v + 1 + wide)) * sizeof(float));
    auto const thin = tern::view(reinterpret_cast<float*>(memory.data()), kv_heads, rows, rank);
    auto const sum = tern::view(thin.data() + thin.size(), kv_heads, rows, rank_v);
    auto const of_mean = tern::view(sum.data() + sum.size(), kv_heads, rows, index{1});
    float* const whole = of_mean.data() + of_mean.size();  // (kv_heads, rows, dim) queries, (.., dim_v) results
    convert(policy, x, tern::view(whole, heads, tokens, dim));
    for (index h = 0; h < kv_heads; ++h) {
      block_matrix const weights[] = {block_matrix(of_keys.components[h].slice(0, 0, rank)), block_matrix(of_keys.mean.slice(0, h, h + 1))};
      matmul(detail::projecting_threads(policy, rows, dim, rank), tern::view(whole + h * rows * dim, rows, dim), weights,
             {thin[h], of_mean[h]});
    }
    attention(policy, tern::view(thin.data(), heads, tokens, rank), cache.keys(s, layer), cache.values(s, layer),
              tern::view(sum.data(), heads, tokens, rank_v), scale{factor}, log_sum_exp{sums}, options...);
    for (index h = 0; h < kv_heads; ++h)
      matmul(detail::projecting_threads(policy, rows, dim_v, rank_v), sum[h],
             detail::column_rows{of_values.components[h].slice(0, 0, rank_v)}, tern::view(whole + h * rows * dim_v, rows, dim_v),
             bias{of_values.mean[h]});
    detail::for_rows(policy, heads * tokens, dim_v, [&](index r) TERN_LAMBDA {
      index const g = r / tokens, i = r % tokens;
      bool const hidden = sums(g, i) == detail::negative_infinity;
      for (index d = 0; d < dim_v; ++d) to(g, i, d) = hidden ? 0.f : whole[r * dim_v + d];
      sums(g, i) += factor * of_mean.data()[r];
    });
  }
} matryoshka_attention{};

}  // namespace TERN_ABI
}  // namespace tern
