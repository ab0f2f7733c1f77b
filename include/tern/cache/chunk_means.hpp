// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/chunk_means.hpp
/// Means of chunks of keys, which stand for them, and how well they do.
///
///     mean_c = the mean of keys c chunk ... c chunk + chunk - 1,   strays_c = - min over these keys of cos(k_j, mean_c)
///
///     chunk_means(keys, chunk, means, strays)
///
/// Shapes    keys f32 (tokens, dim); means f32 (chunks, dim), strays f32 (chunks), chunks chunk <= tokens. A key, or a mean, of zeros has
///           cosine 0. Sums are made in f64. Cost: 5 tokens dim flop.
/// Source    the landmarks and outliers of ShadowKV (arXiv:2410.21465).

#include <tern/core/error.hpp>
#include <tern/core/tensor_view.hpp>

namespace tern {
namespace detail {

TERN_INLINE double dot_of(float const* x, float const* y, index n) {
  double sum = 0;
  for (index d = 0; d < n; ++d) sum += static_cast<double>(x[d]) * static_cast<double>(y[d]);
  return sum;
}

}  // namespace detail

/// See the top of this file.
TERN_INLINE void chunk_means(tensor_view<float const, 2> const& keys, index chunk, tensor_view<float, 2> const& means,
                             tensor_view<float, 1> const& strays) {
  index const dim = keys.extent(1), chunks = means.extent(0);
  detail::expect(chunk >= 1 && chunks * chunk <= keys.extent(0), "chunk_means", "means.extent(0)", chunks,
                 "at most the whole chunks of keys");
  detail::expect_equal("chunk_means", "means.extent(1)", means.extent(1), "keys.extent(1)", dim);
  detail::expect_equal("chunk_means", "strays.extent(0)", strays.extent(0), "means.extent(0)", chunks);
  for (index c = 0; c < chunks; ++c) {
    for (index d = 0; d < dim; ++d) {
      double sum = 0;
      for (index j = c * chunk; j < (c + 1) * chunk; ++j) sum += static_cast<double>(keys(j, d));
      means(c, d) = static_cast<float>(sum / static_cast<double>(chunk));
    }
    double least = 1, of_mean = detail::dot_of(&means(c, 0), &means(c, 0), dim);
    for (index j = c * chunk; j < (c + 1) * chunk; ++j) {
      double const sizes = of_mean * detail::dot_of(&keys(j, 0), &keys(j, 0), dim);
      double const cosine = sizes > 0 ? detail::dot_of(&keys(j, 0), &means(c, 0), dim) / __builtin_sqrt(sizes) : 0;
      least = cosine < least ? cosine : least;
    }
    strays[c] = static_cast<float>(-least);
  }
}

}  // namespace tern
