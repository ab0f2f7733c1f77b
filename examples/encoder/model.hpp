// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/encoder/model.hpp
/// A text encoder of the BERT family, computed with tern:
///
///     x = layer_norm(word[token] + position[i] + type[0])
///     for each layer
///       x = layer_norm(x + attention(x Wq^T + bq, x Wk^T + bk, x Wv^T + bv) Wo^T + bo)
///       x = layer_norm(x + gelu(x Wu^T + bu) Wd^T + bd)
///     embedding = s / |s| with s the sum of x over the text's tokens
///
/// Devlin et al. 2019 (arXiv:1810.04805); the mean over tokens, of which only the direction counts: Reimers and Gurevych 2019
/// (arXiv:1908.10084).
///
/// Texts lie behind each other without padding, as in ByteTransformer, in bins of a thousand tokens, as in Prepacking: products and norms
/// do not see where one ends, and attention is told (tern::varlen). A reduction leaves fewer tokens of them on the way (reduction.hpp); s
/// is then the sum of x times the number of tokens that each stands for.

#include "batch.hpp"
#include "linear.hpp"
#include "reduction.hpp"
#include "weights.hpp"

#include <tern/core/policy.hpp>
#include <tern/matmul/types.hpp>

#include <span>
#include <vector>

namespace encoder {

class model {
 public:
  using rows = tern::tensor_view<float, 2>;

  model(weights const& w, tern::cpu_policy const& policy, tern::compute compute);

  /// The embedding of each text: out (texts, width), rows of length 1.
  void embed(std::span<text const> texts, rows out, reduction* fewer = nullptr);
  /// The same as it is done without packing: `count` texts at a time, as they come, each padded to the longest of them.
  void embed_padded(std::span<text const> texts, tern::index count, rows out);

  tern::index width() const { return weights_.width; }
  tern::index layers() const { return static_cast<tern::index>(weights_.layers.size()); }

 private:
  void check(std::span<text const> texts) const;
  void forward(reduction* fewer);
  void look_up();
  void attend(tern::index layer);
  void feed_forward(tern::index layer);
  void reduce(tern::index layer, reduction& fewer);
  /// Of texts [first, end), which have one length: their tokens go to the rows from `to` on.
  void reduce_texts(reduction& fewer, tern::index first, tern::index end, tern::index to, tern::index tokens_after);
  void weigh_tokens(tern::index first, tern::index end);
  void pool(tern::index i, tern::tensor_view<float, 1> out);

  /// y = x w^T + bias, and what the options say.
  template <class... Options>
  void multiply(rows x, linear const& w, rows y, Options const&... options) const {
    tern::matmul(policy_, x, w.weight(), y, compute_, tern::bias{w.bias}, options...);
  }
  /// One row for each of the batch's.
  rows rows_of(std::vector<float>& memory, tern::index width) const { return tern::view(memory.data(), batch_.rows(), width); }
  rows rows_of(std::vector<float>& memory) const { return rows_of(memory, weights_.width); }

  struct layer {
    linear query, key, value, out, up, down;
  };

  weights const& weights_;
  std::vector<layer> layers_;
  tern::cpu_policy policy_;
  tern::compute compute_;
  std::vector<float> gain_;  // 1 / sqrt(width), with which rms_norm gives rows of length 1

  batch batch_;
  std::vector<std::int32_t> lengths_, plan_, begins_;
  std::vector<float> x_, h_, query_, key_, value_, hidden_;

  // For reductions.
  std::vector<float> log_sums_;  // (heads, rows): of each layer's attention
  std::vector<float> log_sizes_, received_, sizes_;
  bool counts_sizes_ = false;  // a token is attended to as often as it stands for others
};

}  // namespace encoder
