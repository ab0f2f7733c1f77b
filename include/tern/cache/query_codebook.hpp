// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/query_codebook.hpp
/// Vector quantization of keys for the queries that they will meet: what errs is q . k, not k.
///
///     code_j = argmin over c of E[(q . (k_j - c))^2] = (k_j - c) H (k_j - c)^T,   H = E[q q^T] = L L^T, so that |k_j L - c L|^2 is it
///     c      = the mean of its keys
///
///     fit_query_codebook(policy, q, k, codebook, rounds)       off line, or from a prompt
///     nearest_codes(policy, codebook, k, codes)                of each token once
///
/// Shapes    q (heads, samples, dim), k (kv_heads, tokens, dim) of f32, f16 or bf16; codes int32 (kv_heads, tokens).
/// Composition  L by Cholesky in f64; matmul; k_means (attention/estimators/k_means.hpp).
/// Memory    scratch from the policy: fitting, k L of a head and what k_means takes.
/// Cost      2 codes dim flop a token and key head, and in fitting as many for each round; heads samples dim^2 for H.
/// Ties      go to the first centroid.
/// Source    A2ATS (arXiv:2502.12665): its authors' code (construct_codebooks.py: H scaled by the root mean square of its elements,
///           + 1e-6 on the diagonal; 4096 codes). That code seeds k-means++ at random, where this spreads its seeds evenly.

#include <tern/attention/estimators/k_means.hpp>

namespace tern {

/// Centroids of the keys of each head: see the top of this file.
struct query_codebook {
  tensor_view<float, 3> metric;     ///< (kv_heads, dim, dim): L transposed
  tensor_view<float, 3> centroids;  ///< (kv_heads, codes, dim): c L
  tensor_view<float, 3> keys;       ///< (kv_heads, codes, dim): c

  TERN_INLINE void check(char const* op, index kv_heads, index dim) const {
    for (auto const* x : {&metric, &centroids, &keys}) {
      detail::expect_equal(op, "the heads of the codebook", x->extent(0), "those of k", kv_heads);
      detail::expect_equal(op, "the dim of the codebook", x->extent(2), "that of k", dim);
    }
    detail::expect_equal(op, "metric.extent(1)", metric.extent(1), "the dim of k", dim);
    detail::expect_equal(op, "keys.extent(1)", keys.extent(1), "centroids.extent(1)", centroids.extent(1));
  }
};

namespace detail {

/// h = L L^T in place, below and on the diagonal; row-major (n, n), f64.
TERN_INLINE void cholesky(double* h, index n) {
  for (index j = 0; j < n; ++j)
    for (index i = j; i < n; ++i) {
      double sum = h[i * n + j];
      for (index c = 0; c < j; ++c) sum -= h[i * n + c] * h[j * n + c];
      h[i * n + j] = i == j ? __builtin_sqrt(sum) : sum / h[j * n + j];
    }
}

}  // namespace detail

inline namespace TERN_ABI {

/// Fits the codebook: see the top of this file.
inline constexpr struct fit_query_codebook_fn {
  template <tensor_like Q, tensor_like X>
  void operator()(cpu_policy const& policy, Q&& q, X&& k, query_codebook const& book, index rounds = 150) const {
    static_assert(view_of<Q>::rank == 3 && view_of<X>::rank == 3,
                  "tern: fit_query_codebook takes q (heads, samples, dim), k (kv_heads, tokens, dim)");
    constexpr char const* op = "fit_query_codebook";
    auto const x = tern::view(q);
    auto const y = tern::view(k);
    index const kv_heads = y.extent(0), dim = y.extent(2), n = y.extent(1), codes = book.keys.extent(1);
    book.check(op, kv_heads, dim);
    detail::expect(kv_heads > 0 && x.extent(0) % kv_heads == 0, op, "q.extent(0)", x.extent(0), "a multiple of the heads of k");
    detail::expect_equal(op, "q.extent(2)", x.extent(2), "k.extent(2)", dim);
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(dim * dim) * sizeof(double) +
                                                        static_cast<std::size_t>(n * (dim + 1) + codes) * sizeof(float));
    auto* const l = reinterpret_cast<double*>(memory.data());
    auto const turned = tern::view(reinterpret_cast<float*>(l + dim * dim), n, dim);
    auto const counts = tern::view(turned.data() + turned.size(), codes);
    auto const labels = tern::view(reinterpret_cast<std::int32_t*>(counts.data() + codes), n);
    index const group = x.extent(0) / kv_heads;
    for (index h = 0; h < kv_heads; ++h) {
      second_moment(x.slice(0, h * group, (h + 1) * group), l);
      detail::cholesky(l, dim);
      for (index i = 0; i < dim; ++i)
        for (index j = 0; j < dim; ++j) book.metric(h, i, j) = j >= i ? static_cast<float>(l[j * dim + i]) : 0.f;
      matmul(policy, y[h], book.metric[h], turned);
      k_means(policy, turned, book.centroids[h], labels, counts, rounds, cluster_by::place);
      for (index c = 0; c < codes; ++c)  // c L = centroid, from the last column on
        for (index j = dim - 1; j >= 0; --j) {
          double sum = static_cast<double>(book.centroids(h, c, j));
          for (index i = j + 1; i < dim; ++i) sum -= static_cast<double>(book.keys(h, c, i)) * l[i * dim + j];
          book.keys(h, c, j) = static_cast<float>(sum / l[j * dim + j]);
        }
    }
  }

 private:
  /// The products of the queries' elements, scaled, with something on the diagonal.
  template <class Q>
  static void second_moment(Q const& q, double* h) {
    index const dim = q.extent(2);
    for (index i = 0; i < dim * dim; ++i) h[i] = 0;
    for (index g = 0; g < q.extent(0); ++g)
      for (index t = 0; t < q.extent(1); ++t)
        for (index i = 0; i < dim; ++i)
          for (index j = 0; j <= i; ++j)
            h[i * dim + j] += static_cast<double>(static_cast<float>(q(g, t, i))) * static_cast<double>(static_cast<float>(q(g, t, j)));
    double square = 0;
    for (index i = 0; i < dim; ++i)
      for (index j = 0; j <= i; ++j) square += (i == j ? 1 : 2) * h[i * dim + j] * h[i * dim + j];
    double const size = __builtin_sqrt(square) / static_cast<double>(dim);
    for (index i = 0; i < dim * dim; ++i) h[i] = (size > 0 ? h[i] / size : 0) + (i % (dim + 1) == 0 ? 1e-6 : 0);
  }
} fit_query_codebook{};

/// The nearest centroid of each key: see the top of this file.
inline constexpr struct nearest_codes_fn {
  template <tensor_like X>
  void operator()(cpu_policy const& policy, query_codebook const& book, X&& k, tensor_view<std::int32_t, 2> const& codes) const {
    static_assert(view_of<X>::rank == 3, "tern: nearest_codes takes k (kv_heads, tokens, dim)");
    constexpr char const* op = "nearest_codes";
    constexpr index chunk = detail::k_means_chunk;
    auto const x = tern::view(k);
    index const kv_heads = x.extent(0), tokens = x.extent(1), dim = x.extent(2), n = book.centroids.extent(1);
    book.check(op, kv_heads, dim);
    detail::expect_equal(op, "codes.extent(0)", codes.extent(0), "k.extent(0)", kv_heads);
    detail::expect_equal(op, "codes.extent(1)", codes.extent(1), "k.extent(1)", tokens);
    workspace::lease const memory(policy.scratch(),
                                  detail::k_means_scratch::bytes(n, dim) + static_cast<std::size_t>(chunk * dim) * sizeof(float));
    detail::k_means_scratch const w(memory.data(), n, dim);
    float* const turned = w.score + chunk * n;
    for (index h = 0; h < kv_heads; ++h) {
      for (index c = 0; c < n; ++c) detail::widen_row(&book.centroids(h, c, 0), dim, 1.f, w.mean + c * dim);
      for (index first = 0; first < tokens; first += chunk) {
        index const some = tokens - first < chunk ? tokens - first : chunk;
        auto const keys = tern::view(turned, some, dim);
        auto const to = codes[h].slice(0, first, first + some);
        for (index i = 0; i < some; ++i) to[i] = -1;
        matmul(policy, x[h].slice(0, first, first + some), book.metric[h], keys);
        detail::label_keys(policy, keys, n, cluster_by::place, w, to);
      }
    }
  }
} nearest_codes{};

}  // namespace TERN_ABI
}  // namespace tern
