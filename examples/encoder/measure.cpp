// SPDX-License-Identifier: Apache-2.0
#include "measure.hpp"

#include "../common/stopwatch.hpp"
#include "similarity.hpp"

#include <algorithm>
#include <cstdio>
#include <functional>

namespace encoder {

using tern::index;

namespace {

constexpr index batch_texts = 32;  // of a padded batch: sentence-transformers' default
constexpr int rounds = 3;

struct way {
  char const* name;
  std::function<void()> embed;
  index tokens;  // that it computes, padding included
  double seconds = 1e30;
};

index padded_tokens(std::vector<text> const& texts) {
  index total = 0;
  for (std::size_t begin = 0; begin < texts.size(); begin += batch_texts) {
    std::size_t const end = std::min(begin + batch_texts, texts.size());
    std::size_t longest = 0;
    for (std::size_t i = begin; i < end; ++i) longest = std::max(longest, texts[i].size());
    total += static_cast<index>((end - begin) * longest);
  }
  return total;
}

}  // namespace

void measure_padding(std::vector<text> const& texts, model& network) {
  auto sorted = texts;
  std::stable_sort(sorted.begin(), sorted.end(), [](text const& a, text const& b) { return a.size() < b.size(); });
  index tokens = 0;
  for (text const& t : texts) tokens += static_cast<index>(t.size());
  embeddings out(texts.size(), network.width());
  way ways[] = {{"padded to the longest of 32", [&] { network.embed_padded(texts, batch_texts, out.view()); }, padded_tokens(texts)},
                {"sorted by length, then padded", [&] { network.embed_padded(sorted, batch_texts, out.view()); }, padded_tokens(sorted)},
                {"packed", [&] { network.embed(texts, out.view()); }, tokens}};
  for (int round = 0; round < rounds; ++round)
    for (way& w : ways) {
      common::stopwatch const clock;
      w.embed();
      w.seconds = std::min(w.seconds, clock.seconds());
    }
  std::printf("%zu texts of %zu to %zu tokens, %td in all\n\n| batches | tokens computed | texts/s | speed |\n| --- | --- | --- | --- |\n",
              texts.size(), sorted.front().size(), sorted.back().size(), tokens);
  for (way const& w : ways)
    std::printf("| %s | %td | %.0f | %.2f |\n", w.name, w.tokens, static_cast<double>(texts.size()) / w.seconds,
                ways[0].seconds / w.seconds);
}

}  // namespace encoder
