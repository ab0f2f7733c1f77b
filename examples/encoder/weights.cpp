// SPDX-License-Identifier: Apache-2.0
#include "weights.hpp"

#include <string>

namespace encoder {

using tern::index;

namespace {

constexpr long most = 1L << 24;  // of any extent

/// Fails for what the formula in model.hpp leaves out.
void expect_plain_bert(json const& config) {
  auto const expect = [&](char const* key, std::string const& value) {
    if (std::string const& was = config[key].as_string(); was != value)
      throw tern::error("model: " + std::string(key) + " is " + was + ", expected " + value);
  };
  expect("model_type", "bert");
  expect("hidden_act", "gelu");
  if (config.has("position_embedding_type")) expect("position_embedding_type", "absolute");
}

/// Tensors by name, of the shape that they should have.
struct reader {
  tern::safetensors_file const& file;
  std::string prefix;

  weights::vector vector(std::string const& name, index n) const {
    auto const v = file.tensor(prefix + name).view<float, 1>();
    expect(name, v.extent(0), n);
    return v;
  }
  weights::matrix matrix(std::string const& name, index n, index k) const {
    auto const m = file.tensor(prefix + name).view<float, 2>();
    expect(name, m.extent(0), n);
    expect(name, m.extent(1), k);
    return m;
  }
  weights::linear linear(std::string const& name, index n, index k) const {
    return {matrix(name + ".weight", n, k), vector(name + ".bias", n)};
  }
  weights::norm norm(std::string const& name, index n) const { return {vector(name + ".weight", n), vector(name + ".bias", n)}; }

 private:
  void expect(std::string const& name, index was, index wanted) const {
    if (was != wanted)
      throw tern::error("model: an extent of " + prefix + name + " is " + std::to_string(was) + ", expected " + std::to_string(wanted));
  }
};

weights::layer load_layer(reader const& in, index width, index hidden) {
  return {.query = in.linear("attention.self.query", width, width),
          .key = in.linear("attention.self.key", width, width),
          .value = in.linear("attention.self.value", width, width),
          .out = in.linear("attention.output.dense", width, width),
          .attention_norm = in.norm("attention.output.LayerNorm", width),
          .up = in.linear("intermediate.dense", hidden, width),
          .down = in.linear("output.dense", width, hidden),
          .feed_forward_norm = in.norm("output.LayerNorm", width)};
}

}  // namespace

weights::weights(tern::safetensors_file const& file, json const& config) {
  expect_plain_bert(config);
  width = config["hidden_size"].as_integer(1, most);
  hidden = config["intermediate_size"].as_integer(1, most);
  heads = config["num_attention_heads"].as_integer(1, width);
  if (width % heads != 0) throw tern::error("model: hidden_size is no multiple of num_attention_heads");
  epsilon = static_cast<float>(config["layer_norm_eps"].as_number());
  reader const in{file, "embeddings."};
  words = in.matrix("word_embeddings.weight", config["vocab_size"].as_integer(1, most), width);
  positions = in.matrix("position_embeddings.weight", config["max_position_embeddings"].as_integer(2, most), width);
  types = in.matrix("token_type_embeddings.weight", config["type_vocab_size"].as_integer(1, most), width);
  embedding_norm = in.norm("LayerNorm", width);
  long const count = config["num_hidden_layers"].as_integer(1, most);
  for (long i = 0; i < count; ++i) layers.push_back(load_layer({file, "encoder.layer." + std::to_string(i) + "."}, width, hidden));
}

}  // namespace encoder
