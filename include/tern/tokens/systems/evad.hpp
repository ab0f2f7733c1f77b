// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/systems/evad.hpp
/// EVAD: of a video, all tokens of the keyframe stay, and those of other frames that the keyframe, above all, attends to.
///
///     evad(policy, q, k, lse, key_tokens, keep, weight, scores, kept)
///
///     score_j = mean over heads and all queries i of w_i softmax(q k^T / sqrt(dim))_ij,   w_i = `weight` for the keyframe's queries, or 1
///     kept: the first `key_tokens` tokens, and of the others the largest scores, up to ceil(keep tokens) in all
///
/// Shapes    q, k (samples, heads, tokens, dim), the keyframe's tokens first; lse (samples, heads, tokens) as the attention call wrote it;
///           scores (samples, tokens) f32; kept index_lists. gather_tokens moves tokens and their numbers in the video.
/// keep = 1  keeps all. weight > 0.
/// Composition  attention_received with lse_i - log(w_i), select_tokens with protected first ones.
/// Memory    from the policy: a number a query and head, and what these take.
/// Cost      2 heads tokens^2 dim flop: half of an attention call.
/// Source    Chen et al. 2023, arXiv:2304.08451; projects/evad/models/vit_model.py of its authors.

#include <tern/core/steps.hpp>
#include <tern/tokens/attention_received.hpp>
#include <tern/tokens/keep_schedule.hpp>
#include <tern/tokens/select_tokens.hpp>

namespace tern {
inline namespace TERN_ABI {

/// evad(policy, q, k, lse, key_tokens, keep, weight, scores, kept): see the top of this file.
inline constexpr struct evad_fn {
  template <tensor_like Q, tensor_like K, tensor_like L>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, L&& lse, index key_tokens, double keep, float weight,
                  tensor_view<float, 2> const& scores, index_lists const& kept) const {
    constexpr char const* op = "evad";
    tensor_view<float const, 3> const l = tern::view(lse);
    index const tokens = l.extent(2);
    detail::expect_share(op, "keep in percent", keep);
    detail::expect(key_tokens >= 0 && key_tokens <= tokens, op, "key_tokens", key_tokens, "0 to the number of tokens");
    detail::expect(kept.most() >= key_tokens, op, "the room of kept", kept.most(), "a place for each of the keyframe's tokens");
    detail::expect(weight > 0, op, "the sign of weight", weight < 0 ? -1 : 0, "that of a positive number");
    detail::run_steps steps(policy);
    score(steps, tern::view(q), tern::view(k), l, key_tokens, weight, scores);
    index const wanted = detail::share_of(keep, tokens);
    select_tokens(policy, scores, wanted > key_tokens ? wanted : key_tokens, protect{key_tokens, 0}, kept);
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like Q, tensor_like K, tensor_like L>
  std::size_t workspace_size(cpu_policy const& policy, Q&& q, K&& k, L&& lse, index key_tokens, double, float weight,
                             tensor_view<float, 2> const& scores, index_lists const&) const {
    detail::count_steps steps(policy);
    score(steps, tern::view(q), tern::view(k), tern::view(lse), key_tokens, weight, scores);
    return steps.bytes();
  }

 private:
  template <class Steps, class Q, class K>
  static void score(Steps& steps, Q const& q, K const& k, tensor_view<float const, 3> const& lse, index key_tokens, float weight,
                    tensor_view<float, 2> const& scores) {
    index const samples = lse.extent(0), heads = lse.extent(1), tokens = lse.extent(2);
    auto const shifted = detail::borrow<float>(steps, samples, heads, tokens);
    if constexpr (Steps::runs) {
      float const logarithm = simd::reduce_max(simd::log(floats(weight)));
      for (index b = 0; b < samples; ++b)
        for (index h = 0; h < heads; ++h)
          for (index i = 0; i < tokens; ++i) shifted.view(b, h, i) = lse(b, h, i) - (i < key_tokens ? logarithm : 0.f);
    }
    steps(attention_received, q, k, shifted.view, query_range{0, tokens}, scores);
  }
} evad{};

}  // namespace TERN_ABI
}  // namespace tern
