// SPDX-License-Identifier: Apache-2.0
// model.hpp: what happens between a layer's attention and its feed-forward where tokens are to become fewer.

#include "by_head.hpp"
#include "model.hpp"

#include <tern/attention/key_weights.hpp>
#include <tern/pointwise.hpp>

#include <algorithm>
#include <cmath>

namespace encoder {

using tern::index;

void model::reduce(index layer, reduction& fewer) {
  index const texts = batch_.texts();
  begins_.assign(1, 0);
  for (index i = 0; i < texts; ++i)
    begins_.push_back(begins_.back() + static_cast<std::int32_t>(fewer.tokens_after(layer, batch_.length(i), batch_.rows(i))));
  if (begins_ == batch_.begins) return;
  auto const after = [&](index i) { return begins_[static_cast<std::size_t>(i) + 1] - begins_[static_cast<std::size_t>(i)]; };
  sizes_.resize(batch_.sizes.size());
  for (index first = 0, end = 0; first < texts; first = end) {
    while (end < texts && batch_.rows(end) == batch_.rows(first) && after(end) == after(first)) ++end;
    reduce_texts(fewer, first, end, begins_[static_cast<std::size_t>(first)], after(first));
  }
  std::swap(x_, h_);
  std::swap(batch_.sizes, sizes_);
  std::swap(batch_.begins, begins_);
  if (!fewer.proportional()) return;
  for (index t = 0; t < batch_.rows(); ++t) log_sizes_[static_cast<std::size_t>(t)] = std::log(batch_.sizes[static_cast<std::size_t>(t)]);
}

void model::reduce_texts(reduction& fewer, index first, index end, index to, index tokens_after) {
  index const texts = end - first, begin = batch_.begin(first), tokens = batch_.rows(first);
  auto const slice = [&](std::vector<float>& memory, index from, index count) {
    return by_text(tern::view(memory.data() + from * weights_.width, texts * count, weights_.width), texts);
  };
  auto const numbers = [&](std::vector<float>& memory, index from, index count) { return tern::view(memory.data() + from, texts, count); };
  auto const x = slice(x_, begin, tokens), x_to = slice(h_, to, tokens_after);
  auto const sizes = numbers(batch_.sizes, begin, tokens), sizes_to = numbers(sizes_, to, tokens_after);
  if (tokens_after == tokens) {
    tern::convert(policy_, x, x_to);
    tern::convert(policy_, sizes, sizes_to);
    return;
  }
  if (fewer.wants_attention()) weigh_tokens(first, end, fewer.proportional());
  fewer.reduce(policy_, {x, slice(key_, begin, tokens), numbers(received_, 0, tokens), sizes, x_to, sizes_to});
}

/// received_ (texts, tokens): the sum of the attention that each token gets, over heads and queries.
void model::weigh_tokens(index first, index end, bool proportional) {
  index const texts = end - first, begin = batch_.begin(first), tokens = batch_.rows(first), heads = weights_.heads;
  auto const split = [&](std::vector<float>& memory) {
    return by_head(by_text(tern::view(memory.data() + begin * weights_.width, texts * tokens, weights_.width), texts), heads);
  };
  tern::tensor_view<float const, 3> const log_sums(log_sums_.data() + begin, {{texts, heads, tokens}}, {{tokens, batch_.rows(), 1}});
  head_received_.resize(static_cast<std::size_t>(texts * heads * tokens));
  auto const by_each_head = tern::view(head_received_.data(), texts, heads, tokens);
  tern::attention_key_weights(policy_, split(query_), split(key_), log_sums, by_each_head);
  received_.assign(static_cast<std::size_t>(texts * tokens), 0.F);
  for (index h = 0; h < heads; ++h) {
    tern::tensor_view<float const, 2> const of_head(&by_each_head(0, h, 0), {{texts, tokens}}, {{heads * tokens, 1}});
    auto const sum = tern::view(received_.data(), texts, tokens);
    tern::add(policy_, sum, of_head, sum);
  }
  // log_sums_ have the sizes; scores do not: e^(score + log size) = size e^score.
  for (index t = 0; proportional && t < texts * tokens; ++t)
    received_[static_cast<std::size_t>(t)] *= batch_.sizes[static_cast<std::size_t>(begin + t)];
}

}  // namespace encoder
