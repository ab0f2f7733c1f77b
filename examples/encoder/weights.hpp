// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/encoder/weights.hpp
/// The tensors of a text encoder of the BERT family, where they lie in a safetensors file; config.json says how many there are.

#include "json.hpp"

#include <tern/formats/safetensors.hpp>

#include <vector>

namespace encoder {

struct weights {
  using vector = tern::tensor_view<float const, 1>;
  using matrix = tern::tensor_view<float const, 2>;

  struct linear {
    matrix weight;  // (n, k)
    vector bias;    // (n)
  };
  struct norm {
    vector weight, bias;  // (width)
  };
  struct layer {
    linear query, key, value, out;  // (width, width)
    norm attention_norm;
    linear up, down;  // (hidden, width), (width, hidden)
    norm feed_forward_norm;
  };

  tern::index width, hidden, heads;
  float epsilon;     // of the norms
  matrix words;      // (vocabulary, width)
  matrix positions;  // (longest text, width)
  matrix types;      // (types, width)
  norm embedding_norm;
  std::vector<layer> layers;

  /// Fails with a clear error if the file does not hold a model of this family.
  weights(tern::safetensors_file const& file, json const& config);
};

}  // namespace encoder
