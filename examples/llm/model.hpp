// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/llm/model.hpp
/// A language model of the Llama family, computed with tern on the weights of a GGUF file where they lie:
///
///     x = embedding(tokens)
///     for each layer
///       h = rms_norm(x);  x += attention(rope(h Wq^T), rope(h Wk^T), h Wv^T) Wo^T
///       h = rms_norm(x);  x += (silu(h Wgate^T) * (h Wup^T)) Wdown^T
///     logits = rms_norm(x) Woutput^T

#include "kv_store.hpp"

#include <tern/formats/gguf.hpp>
#include <tern/matmul.hpp>
#include <tern/pointwise.hpp>

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace llm {

class model {
 public:
  using token = std::int32_t;

  /// Fails with a clear error if the file does not hold a model of this family. `context` is how many tokens the cache
  /// holds at most; 0 means the longest that the model was trained on.
  model(tern::gguf_file const& file, tern::cpu_policy const& policy, tern::compute compute, tern::index context);

  /// Reads tokens, at the positions after those it has read, and returns the logits of the last `scored` of them:
  /// (scored, vocabulary), valid until the next call.
  tern::tensor_view<float const, 2> read(std::span<token const> tokens, tern::index scored = 1);

  /// How many tokens it has read.
  tern::index length() const { return length_; }
  /// Forgets the tokens from `length` on.
  void rewind(tern::index length = 0) {
    length_ = length;
    store_->truncate(length);
  }
  /// Goes on with another store, which holds the first `length` tokens of a text; its own, which holds all in f16, is gone.
  void use(std::unique_ptr<kv_store> store, tern::index length) {
    store_ = std::move(store);
    length_ = length;
  }
  kv_store& store() { return *store_; }
  kv_model shape() const;

  tern::index context() const { return context_; }
  tern::index vocabulary() const { return embedding_.rows; }

  /// A matrix as the file has it. Products take what it was exchanged for, of the same shape, or what `repack` made of it.
  struct weight {
    tern::block_matrix matrix;
    tern::interleaved_matrix fast;
    std::optional<tern::weights_ref> exchanged;
    weight(tern::block_matrix const& m = {}) : matrix(m) {}
    tern::weights_ref ref() const {
      if (exchanged) return *exchanged;
      return fast.data != nullptr ? tern::weights_ref(fast) : tern::weights_ref(matrix);
    }
  };
  /// The matrices of a layer.
  struct matrices {
    weight query, key, value, out;
    weight gate, up, down;
  };
  /// Copies all matrices of blocks into the layout that products are fastest with.
  void repack();
  tern::index layers() const { return static_cast<tern::index>(layers_.size()); }
  matrices& layer_matrices(tern::index i) { return layers_[static_cast<std::size_t>(i)].weights; }
  tern::block_matrix const& embedding() const { return embedding_; }

  /// What a layer multiplies: the inputs of query, key and value; of out; of gate and up; of down.
  enum class input { attention, out, feed_forward, down };
  static constexpr int inputs = 4;
  /// Called with each layer's inputs (tokens, width) before they are multiplied.
  using observer = std::function<void(tern::index layer, input, tern::tensor_view<float const, 2>)>;
  void observe(observer o) { observer_ = std::move(o); }

 private:
  struct layer {
    tern::tensor_view<float const, 1> attention_norm, feed_forward_norm;
    matrices weights;
  };
  using rows = tern::tensor_view<float, 2>;

  layer load_layer(tern::gguf_file const& file, std::string const& prefix) const;
  void forward(std::span<token const> tokens, rows logits);
  tern::index attend(layer& l, tern::index tokens);
  void feed_forward(layer& l, tern::index tokens);
  void show(layer const& l, input what, rows x) const {
    if (observer_) observer_(&l - layers_.data(), what, x);
  }

  tern::cpu_policy policy_;
  tern::compute compute_;
  tern::index width_, hidden_, heads_, kv_heads_, dim_, context_;
  float epsilon_;
  tern::rope_options rope_;  // interleaved pairs: GGUF files of this family have their weights permuted for it
  tern::block_matrix embedding_;
  weight output_;
  tern::tensor_view<float const, 1> output_norm_;
  std::vector<layer> layers_;
  std::unique_ptr<kv_store> store_;
  std::vector<std::vector<std::uint8_t>> repacked_;
  tern::index length_ = 0;
  observer observer_;

  // What a batch of tokens becomes on its way, one row a token.
  std::vector<float> angles_, x_, h_, query_, key_, value_, gate_, up_, logits_;
};

}  // namespace llm
