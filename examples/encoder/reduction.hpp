// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/encoder/reduction.hpp
/// What a method that leaves fewer tokens sees of a layer, between its attention and its feed-forward, and what it gives back.

#include <tern/core/policy.hpp>
#include <tern/core/tensor_view.hpp>

namespace encoder {

/// Texts of one length, and where fewer tokens of them go.
struct stage {
  tern::tensor_view<float const, 3> x;         // (texts, tokens, width)
  tern::tensor_view<float const, 2> received;  // (texts, tokens): attention from [CLS], mean over heads, if wants_attention()
  tern::tensor_view<float const, 2> sizes;     // (texts, tokens): how many of the text's tokens each stands for
  tern::tensor_view<float, 3> x_to;            // (texts, tokens after, width)
  tern::tensor_view<float, 2> sizes_to;        // (texts, tokens after)
};

class reduction {
 public:
  virtual ~reduction() = default;
  /// How many tokens of a text of `length` go on into a layer's feed-forward, of the `tokens` that came into the layer.
  virtual tern::index tokens_after(tern::index layer, tern::index length, tern::index tokens) const = 0;
  /// Whether it goes by the attention that tokens get.
  virtual bool wants_attention() const { return false; }
  /// Whether later layers count a token as often as it stands for others.
  virtual bool proportional() const { return false; }
  /// Called where fewer tokens are to go on.
  virtual void reduce(tern::cpu_policy const& policy, stage const& s) = 0;
};

}  // namespace encoder
