// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/systems/pyra.hpp
/// PYRA, parallel yielding re-activation: token merging in which what is merged away is first modulated by learned weights.
///
///     pyra(policy, metric, weights, {.always = {1}}, map, sizes, merged_sizes, x, y)
///
///     P_p = LayerNorm(x_from(p) + x_to(p)),   w1 = 2 sigmoid(sum_p u_p P_p),   w2_p = 2 sigmoid(P_p . v) - 1
///     x_from(p) <- x_from(p) + (x_from(p) w1) w2_p,   then as in tome.hpp
///
/// Shapes    weights: u (r), v, gain, bias (channels) f32; x, y (samples, tokens, channels) f32, f16 or bf16; all else as in tome.hpp, the
///           r best pairs, the best with u_0.
/// v = 0     is ToMe to the bit.
/// Composition  bipartite_matching, layer_norm, two matmuls, average_tokens.
/// Memory    from the policy: a copy of x, r channels floats, and what these take.
/// Cost      what tome takes, a copy of x, and 4 r channels flop.
/// Source    Xiong et al. 2024, arXiv:2403.09192, by its authors' code.

#include <tern/formats/column_rows.hpp>
#include <tern/pointwise/layer_norm.hpp>
#include <tern/tokens/systems/tome.hpp>

namespace tern {

/// What is learned: see the top of this file.
struct pyra_weights {
  tensor_view<float const, 1> u;              // (r)
  tensor_view<float const, 1> v, gain, bias;  // (channels)
  float eps = 1e-5f;
};

namespace detail {
inline namespace TERN_ABI {

/// 2 / (1 + e^-x) + add, in place.
TERN_INLINE void twice_sigmoid(float* x, index n, float add) {
  using pack = simd::pack<float>;
  each_pack(0, n,
            [&](index i, auto part) TERN_LAMBDA { store(x + i, simd::fma(pack(2.f), simd::sigmoid(load(x + i, part)), pack(add)), part); });
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// pyra(policy, metric, weights, options, map, sizes, merged_sizes, x, y): see the top of this file.
inline constexpr struct pyra_fn {
  template <tensor_like M, tensor_like X, tensor_like Y>
  void operator()(cpu_policy const& policy, M&& metric, pyra_weights const& weights, matching_options const& options, token_map const& map,
                  tensor_view<float const, 2> const& sizes, tensor_view<float, 2> const& merged_sizes, X&& x, Y&& y) const {
    auto const from = tern::view(x);
    auto const m = tern::view(metric);
    check(from, m, weights);
    detail::run_steps steps(policy);
    merge(steps, m, weights, options, map, sizes, merged_sizes, from, tern::view(y));
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like M, tensor_like X, tensor_like Y>
  std::size_t workspace_size(cpu_policy const& policy, M&& metric, pyra_weights const& weights, matching_options const& options,
                             token_map const& map, tensor_view<float const, 2> const& sizes, tensor_view<float, 2> const& merged_sizes,
                             X&& x, Y&& y) const {
    detail::count_steps steps(policy);
    merge(steps, tern::view(metric), weights, options, map, sizes, merged_sizes, tern::view(x), tern::view(y));
    return steps.bytes();
  }

 private:
  template <class Steps, class M, class X, class Y>
  static void merge(Steps& steps, M const& m, pyra_weights const& weights, matching_options const& options, token_map const& map,
                    tensor_view<float const, 2> const& sizes, tensor_view<float, 2> const& merged_sizes, X const& x, Y const& y) {
    index const samples = x.extent(0), tokens = x.extent(1), channels = x.extent(2), r = weights.u.extent(0);
    index const most = detail::least(r, bipartite_sources(m.extent(1), options.always));
    detail::borrowed_pairs<Steps> const pairs(steps, samples, most);
    steps(bipartite_matching, m, r, pairs.view, options);
    auto const copy = detail::borrow<typename X::value_type>(steps, samples, tokens, channels);
    if constexpr (Steps::runs) {
      map_merged(pairs.view, map, options.lengths);
      for (index b = 0; b < samples; ++b)
        for (index i = 0; i < tokens; ++i) detail::copy_token(&x(b, i, 0), &copy.view(b, i, 0), channels);
    }
    auto const sums = detail::borrow<float>(steps, most, channels);
    auto const w1 = detail::borrow<float>(steps, index{1}, channels), w2 = detail::borrow<float>(steps, most, index{1});
    for (index b = 0; b < (Steps::runs ? samples : 1); ++b) {
      index count = most;
      if constexpr (Steps::runs) count = pairs.view.count(b);
      if (count == 0) continue;
      auto const normed = sums.view.slice(0, 0, count);
      if constexpr (Steps::runs) {
        add_pairs(pairs.view, b, copy.view[b], normed);
        layer_norm(steps.policy, normed, weights.gain, weights.bias, normed, weights.eps);
      }
      tensor_view<float const, 2> const u(weights.u.data(), shape<2>{{1, count}}, shape<2>{{0, weights.u.stride(0)}});
      steps(matmul, u, detail::column_rows{normed}, w1.view);
      steps(matmul, normed, weights.v.expanded(), w2.view.slice(0, 0, count));
      if constexpr (Steps::runs) modulate(pairs.view, b, w1.view.data(), w2.view.data(), copy.view[b]);
    }
    steps(average_tokens, map, sizes, merged_sizes, moved{copy.view, y});
  }
  /// sums_p = x_from(p) + x_to(p)
  template <class T>
  static void add_pairs(token_pairs const& pairs, index b, tensor_view<T, 2> const& x, tensor_view<float, 2> const& sums) {
    for (index p = 0; p < sums.extent(0); ++p) {
      T const *const from = &x(pairs.from(b, p), 0), *const to = &x(pairs.to(b, p), 0);
      detail::each_pack(0, x.extent(1), [&](index c, auto part) TERN_LAMBDA {
        detail::store(&sums(p, 0) + c, detail::load(from + c, part) + detail::load(to + c, part), part);
      });
    }
  }
  /// Changes the tokens of a sample that are merged away.
  template <class T>
  static void modulate(token_pairs const& pairs, index b, float* w1, float* w2, tensor_view<T, 2> const& x) {
    index const count = pairs.count(b), channels = x.extent(1);
    detail::twice_sigmoid(w1, channels, 0.f);
    detail::twice_sigmoid(w2, count, -1.f);
    for (index p = 0; p < count; ++p) {
      T* const row = &x(pairs.from(b, p), 0);
      detail::each_pack(0, channels, [&](index c, auto part) TERN_LAMBDA {
        simd::pack<float> const e = detail::load(row + c, part);
        detail::store(row + c, e + e * detail::load(w1 + c, part) * simd::pack<float>(w2[p]), part);
      });
    }
  }
  template <class V, class M>
  static void check(V const& x, M const& metric, pyra_weights const& weights) {
    constexpr char const* op = "pyra";
    detail::expect_rows(op, "x", x);
    for (int d = 0; d < 2; ++d) detail::expect_extent(op, "metric", metric, d, "x", x, d);
    for (auto const* w : {&weights.v, &weights.gain, &weights.bias}) {
      detail::expect_rows(op, "v, gain or bias", *w);
      detail::expect_extent(op, "v, gain or bias", *w, 0, "x", x, 2);
    }
  }
} pyra{};

}  // namespace TERN_ABI
}  // namespace tern
