// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/encoder/batch.hpp
/// Texts that pass through the layers together, one row a token.

#include <tern/core/tensor_view.hpp>

#include <cstdint>
#include <vector>

namespace encoder {

using token = std::int32_t;
using text = std::vector<token>;

struct batch {
  std::vector<token> ids;
  std::vector<std::int32_t> places;   // of each token in its text
  std::vector<std::int32_t> lengths;  // of the texts, without padding
  std::vector<std::int32_t> begins;   // of the texts, and the end of the last
  std::vector<float> sizes;           // how many of its text's tokens each token stands for
  bool padded = false;

  void clear(bool with_padding) {
    for (auto* const list : {&ids, &places, &lengths}) list->clear();
    begins.assign(1, 0);
    sizes.clear();
    padded = with_padding;
  }
  /// Adds a text, with [PAD] behind it up to a length.
  void add(text const& t, std::size_t padded_length) {
    for (std::size_t i = 0; i < padded_length; ++i) {
      ids.push_back(i < t.size() ? t[i] : 0);
      places.push_back(static_cast<std::int32_t>(i));
    }
    lengths.push_back(static_cast<std::int32_t>(t.size()));
    begins.push_back(static_cast<std::int32_t>(ids.size()));
    sizes.resize(ids.size(), 1.F);
  }

  tern::index texts() const { return static_cast<tern::index>(lengths.size()); }
  tern::index rows() const { return begins.back(); }
  tern::index begin(tern::index text) const { return begins[static_cast<std::size_t>(text)]; }
  tern::index length(tern::index text) const { return lengths[static_cast<std::size_t>(text)]; }
  /// How many rows a text has.
  tern::index rows(tern::index text) const { return begin(text + 1) - begin(text); }
};

}  // namespace encoder
