// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/estimators/k_means.hpp
/// Clusters of keys by direction (Lloyd's algorithm on normalized keys), for centroid scores; or of any vectors as they are.
///
///     x_j = k_j / |k_j|                                    (a key of zeros stays), or x_j = k_j with cluster_by::place
///     label_j = argmin_c |x_j - m_c|^2,   m_c = the mean of x over the keys labelled c,   until no label changes or `rounds` rounds
///     centroid_c = the mean of k, not of x, over the keys labelled c; count_c how many they are
///
/// Shapes    keys (n, dim) f32, f16 or bf16; centroids (clusters, dim) f32; labels (n) int32; counts (clusters) f32.
/// Seeds     m_c starts as x of key c n / clusters: keys spread evenly over the text. Nothing is random.
/// Ties      go to the first cluster. A cluster that loses all its keys keeps its m and may win some back; at the end its centroid is
///           zero and its count 0.
/// Composition  x . m is a matmul, 256 keys at a time; |x - m|^2 is least where x . m - |m|^2 / 2 is largest. Means add up in double.
/// Memory    scratch from the policy: 12 clusters dim bytes, and 256 (dim + clusters) numbers.
/// Cost      2 n clusters dim flop a round. Returns the number of rounds.
/// Fails     unless 1 <= clusters <= n.
/// Source    Squeezed Attention (arXiv:2411.09688; clustering.py of its authors: k-means of the normalized keys, centroids as means of
///           the keys themselves, 150 rounds, k-means++ seeds with a fixed random state where this spreads them evenly).

#include <tern/attention/rows.hpp>
#include <tern/matmul/matmul.hpp>
#include <tern/pointwise/argmax.hpp>

namespace tern {

/// What k_means compares: the directions of keys, or where they lie.
enum class cluster_by { direction, place };

namespace detail {
inline namespace TERN_ABI {

inline constexpr index k_means_chunk = 256;

/// The memory of k_means.
struct k_means_scratch {
  double* sum;   // (clusters, dim)
  float* mean;   // (clusters, dim)
  float* half;   // (clusters): |m|^2 / 2
  float* x;      // (chunk, dim), normalized
  float* score;  // (chunk, clusters)

  TERN_INLINE static std::size_t bytes(index clusters, index dim) {
    return static_cast<std::size_t>(clusters * dim) * (sizeof(double) + sizeof(float)) +
           static_cast<std::size_t>(clusters + k_means_chunk * (dim + clusters)) * sizeof(float);
  }
  TERN_INLINE k_means_scratch(std::byte* memory, index clusters, index dim) {
    sum = reinterpret_cast<double*>(memory);
    mean = reinterpret_cast<float*>(sum + clusters * dim);
    half = mean + clusters * dim;
    x = half + clusters;
    score = x + k_means_chunk * dim;
  }
};

/// to = row / |row|
template <class T>
TERN_INLINE void normalize_row(T const* row, index dim, float* to) {
  double sum = 0;
  for (index d = 0; d < dim; ++d) sum += static_cast<double>(static_cast<float>(row[d])) * static_cast<double>(static_cast<float>(row[d]));
  widen_row(row, dim, sum > 0 ? static_cast<float>(1 / __builtin_sqrt(sum)) : 0.f, to);
}

/// A key as it is compared.
template <class T>
TERN_INLINE void compared_row(T const* row, index dim, cluster_by by, float* to) {
  if (by == cluster_by::direction)
    normalize_row(row, dim, to);
  else
    widen_row(row, dim, 1.f, to);
}

/// Labels the keys by their nearest mean; returns how many labels changed.
template <class T>
inline index label_keys(cpu_policy const& policy, tensor_view<T, 2> const& keys, index clusters, cluster_by by, k_means_scratch const& w,
                        tensor_view<std::int32_t, 1> const& labels) {
  index const n = keys.extent(0), dim = keys.extent(1);
  index changed = 0;
  for (index c = 0; c < clusters; ++c) {
    double sum = 0;
    for (index d = 0; d < dim; ++d) sum += static_cast<double>(w.mean[c * dim + d]) * static_cast<double>(w.mean[c * dim + d]);
    w.half[c] = static_cast<float>(sum / 2);
  }
  for (index first = 0; first < n; first += k_means_chunk) {
    index const count = n - first < k_means_chunk ? n - first : k_means_chunk;
    for (index j = 0; j < count; ++j) compared_row(keys.data() + (first + j) * keys.stride(0), dim, by, w.x + j * dim);
    matmul(policy, tern::view(w.x, count, dim), tern::view(w.mean, clusters, dim), tern::view(w.score, count, clusters));
    for (index j = 0; j < count; ++j) {
      float const* const score = w.score + j * clusters;
      index const best = argmax_packs(clusters, [&](index c, auto part) TERN_LAMBDA {
        return load(score + c, part) - load(static_cast<float const*>(w.half) + c, part);
      });
      changed += labels[first + j] != best;
      labels[first + j] = static_cast<std::int32_t>(best);
    }
  }
  return changed;
}

/// The mean of each cluster's keys, normalized or as they are; `otherwise(c)` for a cluster without keys.
template <class T, class Otherwise>
inline void average_keys(tensor_view<T, 2> const& keys, index clusters, cluster_by by, k_means_scratch const& w,
                         tensor_view<std::int32_t, 1> const& labels, tensor_view<float, 1> const& counts, float* to, index to_stride,
                         Otherwise const& otherwise) {
  index const n = keys.extent(0), dim = keys.extent(1);
  for (index i = 0; i < clusters * dim; ++i) w.sum[i] = 0;
  for (index c = 0; c < clusters; ++c) counts[c] = 0;
  for (index j = 0; j < n; ++j) {
    compared_row(keys.data() + j * keys.stride(0), dim, by, w.x);
    index const c = labels[j];
    counts[c] += 1;
    for (index d = 0; d < dim; ++d) w.sum[c * dim + d] += static_cast<double>(w.x[d]);
  }
  for (index c = 0; c < clusters; ++c) {
    double const share = 1 / static_cast<double>(counts[c]);
    if (counts[c] == 0)
      otherwise(c);
    else
      for (index d = 0; d < dim; ++d) to[c * to_stride + d] = static_cast<float>(w.sum[c * dim + d] * share);
  }
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// k_means(policy, keys, centroids, labels, counts, rounds, by): see the top of this file.
inline constexpr struct k_means_fn {
  template <tensor_like K>
  index operator()(cpu_policy const& policy, K&& keys, tensor_view<float, 2> const& centroids, tensor_view<std::int32_t, 1> const& labels,
                   tensor_view<float, 1> const& counts, index rounds = 150, cluster_by by = cluster_by::direction) const {
    static_assert(view_of<K>::rank == 2, "tern: k_means takes keys (n, dim)");
    auto const k = tern::view(keys);
    index const n = k.extent(0), dim = k.extent(1), clusters = centroids.extent(0);
    detail::expect(clusters >= 1 && clusters <= n, "k_means", "centroids.extent(0)", clusters, "1 to the number of keys");
    detail::expect_equal("k_means", "centroids.extent(1)", centroids.extent(1), "keys.extent(1)", dim);
    detail::expect_equal("k_means", "labels.extent(0)", labels.extent(0), "keys.extent(0)", n);
    detail::expect_equal("k_means", "counts.extent(0)", counts.extent(0), "centroids.extent(0)", clusters);
    detail::expect(dim <= 1 || (k.stride(1) == 1 && centroids.stride(1) == 1), "k_means", "the last stride of keys", k.stride(1), "1");
    workspace::lease const scratch(policy.scratch(), detail::k_means_scratch::bytes(clusters, dim));
    detail::k_means_scratch const w(scratch.data(), clusters, dim);
    for (index c = 0; c < clusters; ++c) detail::compared_row(k.data() + c * n / clusters * k.stride(0), dim, by, w.mean + c * dim);
    for (index j = 0; j < n; ++j) labels[j] = -1;
    index round = 0;
    while (round < rounds && detail::label_keys(policy, k, clusters, by, w, labels) > 0) {
      ++round;
      detail::average_keys(k, clusters, by, w, labels, counts, w.mean, dim, [](index) TERN_LAMBDA {});
    }
    if (round == 0) detail::label_keys(policy, k, clusters, by, w, labels);
    float* const to = centroids.data();
    detail::average_keys(k, clusters, cluster_by::place, w, labels, counts, to, centroids.stride(0), [&](index c) TERN_LAMBDA {
      for (index d = 0; d < dim; ++d) to[c * centroids.stride(0) + d] = 0;
    });
    return round;
  }
} k_means{};

}  // namespace TERN_ABI
}  // namespace tern
