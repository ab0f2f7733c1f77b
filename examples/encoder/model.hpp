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
/// do not see where one ends, and attention is told (tern::varlen).

#include "weights.hpp"

#include <tern/core/policy.hpp>
#include <tern/matmul/types.hpp>

#include <cstdint>
#include <span>
#include <vector>

namespace encoder {

class model {
 public:
  using token = std::int32_t;
  using text = std::vector<token>;
  using rows = tern::tensor_view<float, 2>;

  model(weights const& w, tern::cpu_policy const& policy, tern::compute compute);

  /// The embedding of each text: out (texts, width), rows of length 1.
  void embed(std::span<text const> texts, rows out);
  /// The same as it is done without packing: `count` texts at a time, as they come, each padded to the longest of them.
  void embed_padded(std::span<text const> texts, tern::index count, rows out);

  tern::index width() const { return weights_.width; }

 private:
  /// What lies in x_, one row a token.
  struct batch {
    std::vector<token> ids;
    std::vector<std::int32_t> places;   // of each token in its text
    std::vector<std::int32_t> lengths;  // of the texts, which lie at ...
    std::vector<std::int32_t> begins;   // and the end of the last
    bool padded = false;                // to texts of the same length
    void clear();
    void add(text const& t, tern::index padded_length);
  };

  void check(std::span<text const> texts) const;
  void forward();
  void look_up();
  void attend(weights::layer const& l);
  void feed_forward(weights::layer const& l);
  /// The embedding of the batch's i-th text.
  void pool(tern::index i, tern::tensor_view<float, 1> out);
  rows rows_of(std::vector<float>& memory, tern::index width) const;

  weights const& weights_;
  tern::cpu_policy policy_;
  tern::compute compute_;
  std::vector<float> gain_;  // 1 / sqrt(width), with which rms_norm gives rows of length 1

  batch batch_;
  std::vector<std::int32_t> lengths_, plan_;
  std::vector<float> x_, h_, query_, key_, value_, hidden_;
};

}  // namespace encoder
