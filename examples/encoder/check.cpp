// SPDX-License-Identifier: Apache-2.0
#include "check.hpp"

#include "methods.hpp"
#include "similarity.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

namespace encoder {

using tern::index;

namespace {

constexpr double least_cosine = 0.9999;

std::vector<float> floats(json const& list) {
  std::vector<float> all;
  for (json const& x : list.as_array()) all.push_back(static_cast<float>(x.as_number()));
  return all;
}

/// Whether each method that leaves all tokens changes no bit, and leaves vectors of length 1 where it leaves a quarter.
bool check_methods(std::vector<text> const& texts, model& network, embeddings const& full) {
  bool right = true;
  for (method const& m : methods())
    for (double share : {1., 0.25}) {
      embeddings out(texts.size(), network.width());
      network.embed(texts, out.view(), m.make(share, network.layers()).get());
      for (std::size_t i = 0; i < texts.size(); ++i) {
        bool const same = std::equal(out[i].data(), out[i].data() + network.width(), full[i].data());
        double const length = std::inner_product(out[i].data(), out[i].data() + network.width(), out[i].data(), 0.);
        if (share == 1 ? same : std::abs(length - 1) < 1e-5) continue;
        std::printf("%s with %.0f %% of the tokens is wrong for text %zu\n", m.name, 100 * share, i);
        right = false;
      }
    }
  return right;
}

}  // namespace

bool check(model_folder const& folder, model& network, std::string const& file) {
  json const wanted(file, common::read_text(file));
  std::vector<text> texts;
  std::vector<std::vector<float>> vectors;
  index wrong = 0;
  for (json const& entry : wanted.as_array()) {
    auto const tokens = folder.words.encode(entry["text"].as_string(), folder.longest);
    auto const& list = entry["tokens"].as_array();
    bool const same = std::equal(tokens.begin(), tokens.end(), list.begin(), list.end(),
                                 [](auto token, json const& t) { return static_cast<double>(token) == t.as_number(); });
    if (!same) std::printf("other tokens: %s\n", entry["text"].as_string().c_str());
    wrong += !same;
    if (!entry.has("embedding")) continue;
    texts.push_back(tokens);
    vectors.push_back(floats(entry["embedding"]));
    if (static_cast<index>(vectors.back().size()) != network.width())
      throw tern::error("check: an embedding has " + std::to_string(vectors.back().size()) + " numbers, expected " +
                        std::to_string(network.width()));
  }
  embeddings packed(texts.size(), network.width()), padded(texts.size(), network.width());
  network.embed(texts, packed.view());
  network.embed_padded(texts, static_cast<index>(texts.size()), padded.view());
  double least = 1;
  for (std::size_t i = 0; i < texts.size(); ++i)
    for (embeddings const* const e : {&packed, &padded}) least = std::min(least, cosine((*e)[i], tern::view(vectors[i])));
  auto const total = wanted.as_array().size();
  std::printf("%zu of %zu texts have the reference's tokens; the least of %zu cosines is %.7f\n", total - static_cast<std::size_t>(wrong),
              total, 2 * texts.size(), least);
  return check_methods(texts, network, packed) && wrong == 0 && least >= least_cosine;
}

}  // namespace encoder
