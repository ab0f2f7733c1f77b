// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/systems/expediting_vit.hpp
/// Expediting ViT: neighboring tokens are clustered to a small image without training, and the full one is put together again from it.
///
///     expediting_cluster(policy, x, {H, W}, {.temperature = 0.05, .iterations = 5, .reach = 3}, s, {h, w})
///     expediting_reconstruct(policy, x, s, refined, {.temperature = 0.05, .nearest = 20}, y)
///
///     s starts as x pooled to h x w; then, as often as there are iterations,
///         A_ip = softmax over p of -temperature |x_i - s_p|^2, over the clusters at most `reach` rows and columns from token i's own
///         s_p = sum_i A_ip x_i / sum_i A_ip
///     y_i = sum_p softmax over p of -temperature |x_i - s_p|^2 refined_p, over the `nearest` clusters p of token i
///
/// Shapes    x (samples, H W, channels) f32, f16 or bf16, s, refined (samples, h w, channels), y (samples, H W, channels) f32, rows
///           contiguous; s of the clustering, and what the layers between made of it. Token (r, c)'s own cluster is (r h / H, c w / W).
/// Composition  |x - s|^2 = |x|^2 - 2 x . s + |s|^2, whose parts of one row cancel in its softmax: an iteration is an attention call
///           without values for the log-sum-exp of each token, and one in which clusters ask tokens with scores 2 temperature x . s - lse.
///           Reconstruction: top_keys of an attention call, softmax, mix_tokens.
/// Memory    from the policy: for one sample a byte for each pair of a token and a cluster, 2 numbers a token, channels + 1 a cluster, and
///           2 nearest a token.
/// Cost      6 H W h w channels flop an iteration, less what the reach hides, and 2 H W h w channels for the reconstruction.
/// Source    Liang et al. 2022, arXiv:2210.01035 (section 3). Its authors' hourglass_image_encoder.py of Expedit-SAM is followed but
///           for the weights of the reconstruction, which sum up to one in the paper and have a sum of squares of one there.

#include <tern/attention/additive_mask.hpp>
#include <tern/attention/attention.hpp>
#include <tern/attention/dense_mask.hpp>
#include <tern/core/steps.hpp>
#include <tern/pointwise/softmax.hpp>
#include <tern/tokens/mix_tokens.hpp>
#include <tern/tokens/pool_grid.hpp>

namespace tern {

/// How tokens are clustered and put together again: see the top of this file.
struct expediting_options {
  float temperature = 0.05f;
  index iterations = 5;
  index reach = 3;
  index nearest = 20;
};

namespace detail {
inline namespace TERN_ABI {

/// One row of numbers for all queries.
TERN_INLINE additive_mask<2> for_all_queries(float const* numbers, index queries, index keys) {
  return additive_mask<2>(tensor_view<float const, 2>(numbers, shape<2>{{queries, keys}}, shape<2>{{0, 1}}));
}
/// to_i = factor |x_i|^2
TERN_INLINE void scaled_squares(cpu_policy const& policy, tensor_view<float const, 2> const& x, float factor, float* to) {
  for_rows(policy, x.extent(0), x.extent(1),
           [&](index i) TERN_LAMBDA { to[i] = factor * sum_squares(x.data() + i * x.stride(0), x.extent(1)); });
}
/// No values, for `rows` keys or queries.
TERN_INLINE tensor_view<float, 2> no_columns(index rows) { return {nullptr, shape<2>{{rows, 0}}, shape<2>{{0, 1}}}; }

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// expediting_cluster(policy, x, grid, options, s, small): see the top of this file.
inline constexpr struct expediting_cluster_fn {
  template <tensor_like X>
  void operator()(cpu_policy const& policy, X&& x, shape<2> const& grid, expediting_options const& how, tensor_view<float, 3> const& s,
                  shape<2> const& small) const {
    static_assert(view_of<X>::rank == 3, "tern: expediting_cluster takes x (samples, tokens, channels)");
    detail::expect(how.iterations >= 0, "expediting_cluster", "iterations", how.iterations, "at least 0");
    detail::expect(how.reach >= 0, "expediting_cluster", "reach", how.reach, "at least 0");
    pool_grid(policy, x, grid, s, small);
    detail::run_steps steps(policy);
    cluster(steps, tern::view(x), grid, how, s, small);
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like X>
  std::size_t workspace_size(cpu_policy const& policy, X&& x, shape<2> const& grid, expediting_options const& how,
                             tensor_view<float, 3> const& s, shape<2> const& small) const {
    detail::count_steps steps(policy);
    cluster(steps, tern::view(x), grid, how, s, small);
    return steps.bytes();
  }

 private:
  template <class Steps, class X>
  static void cluster(Steps& steps, X const& x, shape<2> const& grid, expediting_options const& how, tensor_view<float, 3> const& s,
                      shape<2> const& small) {
    index const samples = x.extent(0), tokens = x.extent(1), clusters = s.extent(1), channels = x.extent(2);
    auto const near = detail::borrow<unsigned char>(steps, tokens, clusters);
    auto const squares = detail::borrow<float>(steps, clusters);
    auto const lse = detail::borrow<float>(steps, tokens), minus = detail::borrow<float>(steps, tokens);
    auto const next = detail::borrow<float>(steps, clusters, channels);
    if constexpr (Steps::runs) mark(grid, small, how.reach, near.view);
    for (index b = 0; b < (Steps::runs ? samples : 1); ++b)
      for (index n = 0; n < (Steps::runs ? how.iterations : 1); ++n) {
        tensor_view<float const, 2> const centers = s[b];
        if constexpr (Steps::runs) detail::scaled_squares(steps.policy, centers, -how.temperature, squares.view.data());
        steps(attention, x[b], centers, detail::no_columns(clusters), detail::no_columns(tokens), scale{2 * how.temperature},
              detail::for_all_queries(squares.view.data(), tokens, clusters), dense_mask(near.view), log_sum_exp{lse.view});
        if constexpr (Steps::runs)
          for (index i = 0; i < tokens; ++i) minus.view[i] = -lse.view[i];
        steps(attention, centers, x[b], x[b], next.view, scale{2 * how.temperature},
              detail::for_all_queries(minus.view.data(), clusters, tokens), dense_mask(near.view.transposed(0, 1)));
        if constexpr (Steps::runs)
          for (index p = 0; p < clusters; ++p) detail::convert_row(&next.view(p, 0), &s(b, p, 0), channels);
      }
  }
  /// Which clusters a token may belong to.
  static void mark(shape<2> const& grid, shape<2> const& small, index reach, tensor_view<unsigned char, 2> const& near) noexcept {
    index const width = grid.extents[1], w = small.extents[1];
    auto const within = [&](index a, index b) TERN_LAMBDA { return a - b <= reach && b - a <= reach; };
    for (index i = 0; i < near.extent(0); ++i) {
      index const row = i / width * small.extents[0] / grid.extents[0], column = i % width * w / width;
      for (index p = 0; p < near.extent(1); ++p) near(i, p) = within(p / w, row) && within(p % w, column);
    }
  }
} expediting_cluster{};

/// expediting_reconstruct(policy, x, s, refined, options, y): see the top of this file.
inline constexpr struct expediting_reconstruct_fn {
  template <tensor_like X>
  void operator()(cpu_policy const& policy, X&& tokens, tensor_view<float const, 3> const& s, tensor_view<float const, 3> const& refined,
                  expediting_options const& how, tensor_view<float, 3> const& y) const {
    static_assert(view_of<X>::rank == 3, "tern: expediting_reconstruct takes x (samples, tokens, channels)");
    constexpr char const* op = "expediting_reconstruct";
    auto const x = tern::view(tokens);
    detail::expect(how.nearest >= 1 && how.nearest <= s.extent(1), op, "nearest", how.nearest, "1 to the number of clusters");
    detail::expect_extent(op, "s", s, 0, "x", x, 0);
    detail::expect_extent(op, "s", s, 2, "x", x, 2);
    detail::expect_extent(op, "refined", refined, 1, "s", s, 1);
    detail::run_steps steps(policy);
    reconstruct(steps, x, s, refined, how, y);
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like X>
  std::size_t workspace_size(cpu_policy const& policy, X&& x, tensor_view<float const, 3> const& s,
                             tensor_view<float const, 3> const& refined, expediting_options const& how,
                             tensor_view<float, 3> const& y) const {
    detail::count_steps steps(policy);
    reconstruct(steps, tern::view(x), s, refined, how, y);
    return steps.bytes();
  }

 private:
  template <class Steps, class X>
  static void reconstruct(Steps& steps, X const& x, tensor_view<float const, 3> const& s, tensor_view<float const, 3> const& refined,
                          expediting_options const& how, tensor_view<float, 3> const& y) {
    index const samples = x.extent(0), tokens = x.extent(1), clusters = s.extent(1), k = how.nearest;
    auto const squares = detail::borrow<float>(steps, clusters);
    auto const scores = detail::borrow<float>(steps, samples, tokens, k);
    auto const ids = detail::borrow<std::int32_t>(steps, samples, tokens, k);
    for (index b = 0; b < (Steps::runs ? samples : 1); ++b) {
      if constexpr (Steps::runs) detail::scaled_squares(steps.policy, s[b], -how.temperature, squares.view.data());
      steps(attention, x[b], s[b], detail::no_columns(clusters), detail::no_columns(tokens), scale{2 * how.temperature},
            detail::for_all_queries(squares.view.data(), tokens, clusters), top_keys{ids.view[b], scores.view[b]});
    }
    if constexpr (Steps::runs) {
      softmax(steps.policy, scores.view, scores.view);
      mix_tokens(steps.policy, ids.view, scores.view, refined, y);
    }
  }
} expediting_reconstruct{};

}  // namespace TERN_ABI
}  // namespace tern
