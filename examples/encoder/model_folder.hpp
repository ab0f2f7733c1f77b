// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/encoder/model_folder.hpp
/// A model as sentence-transformers keeps it: a folder with model.safetensors, config.json, tokenizer.json and
/// sentence_bert_config.json.

#include "../common/mapped_file.hpp"
#include "../common/text_file.hpp"
#include "weights.hpp"
#include "wordpiece.hpp"

#include <string>

namespace encoder {

struct model_folder {
  common::mapped_file bytes;
  weights tensors;
  wordpiece words;
  std::size_t longest;  ///< tokens of a text that the model is to see

  explicit model_folder(std::string const& path)
      : bytes(path + "/model.safetensors"),
        tensors(tern::safetensors_file(bytes.data(), bytes.size()), json_file(path + "/config.json")),
        words(json_file(path + "/tokenizer.json")),
        longest(static_cast<std::size_t>(
            json_file(path + "/sentence_bert_config.json")["max_seq_length"].as_integer(2, tensors.positions.extent(0)))) {
    if (words.size() != tensors.words.extent(0))
      throw tern::error("model: the embedding has " + std::to_string(tensors.words.extent(0)) + " rows, expected one for each of the " +
                        std::to_string(words.size()) + " tokens");
  }

 private:
  static json json_file(std::string const& path) { return json(path, common::read_text(path)); }
};

}  // namespace encoder
