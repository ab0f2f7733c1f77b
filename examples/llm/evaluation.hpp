// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/llm/evaluation.hpp
/// How well a model predicts a text, how far it is from a reference, and how fast it is.
///
/// Text is read as llama.cpp's tool does: windows of 512 tokens that know nothing of each other; in each, the second half is scored,
/// every token with at least 256 before it. What is left at the end of the text is not read.

#include "../common/stopwatch.hpp"
#include "model.hpp"
#include "tokenizer.hpp"

#include <string>
#include <vector>

namespace llm {

inline constexpr tern::index window_tokens = 512, scored_tokens = window_tokens / 2;
using window = std::vector<tokenizer::token>;

using common::stopwatch;

/// The windows of a text file: one at least.
std::vector<window> windows_of(tokenizer const& words, std::string const& path);

/// The token that follows the i-th scored one; i + 1 < scored_tokens.
inline tokenizer::token expected_after(window const& w, tern::index i) {
  return w[static_cast<std::size_t>(window_tokens - scored_tokens + i + 1)];
}

/// -log p(token) for softmax(logits), in f64.
double surprise(tern::tensor_view<float const, 1> logits, tokenizer::token token);

/// Tokens a second.
struct rates {
  double prompt, generation;
};
/// Times a prompt and the generation of more tokens.
rates measure_rates(model& network, tern::index prompt, tern::index generated);

/// What a model predicts against a reference: perplexity, the mean of KL(reference || model), and how often the likeliest tokens agree.
struct quality {
  double perplexity, divergence, agreement;
};

/// Means over tokens that two models predict.
class comparison {
 public:
  /// want: the reference's logarithms of probabilities; got: the other's logits; next: the token that came.
  void add(std::vector<float> const& want, tern::tensor_view<float const, 1> got, tokenizer::token next);
  quality means() const;

 private:
  double surprises_ = 0, divergence_ = 0;
  tern::index agreed_ = 0, count_ = 0;
};
/// Logits less the logarithm of the sum of their exponentials.
std::vector<float> log_probabilities(tern::tensor_view<float const, 1> logits);

/// What the reference predicts: 4 bytes for each of the vocabulary and each scored token.
class reference {
 public:
  reference(model& network, std::vector<window> windows);
  quality of(model& network) const;
  double perplexity() const { return perplexity_; }

 private:
  std::vector<window> windows_;
  std::vector<std::vector<std::vector<float>>> wanted_;  // of each window and scored token
  double perplexity_ = 0;
};

}  // namespace llm
