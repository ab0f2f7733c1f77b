// SPDX-License-Identifier: Apache-2.0
// model.hpp: what happens between a layer's attention and its feed-forward where tokens are to become fewer.

#include "by_head.hpp"
#include "model.hpp"

#include <tern/pointwise.hpp>
#include <tern/tokens/attention_received.hpp>
#include <tern/tokens/proportional.hpp>

#include <algorithm>

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
  counts_sizes_ = fewer.proportional();
  log_sizes_.resize(sizes_.size());
  auto const row = [&](std::vector<float>& numbers) { return tern::view(numbers.data(), index{1}, batch_.rows()); };
  if (counts_sizes_) tern::log_sizes(policy_, row(batch_.sizes), row(log_sizes_));
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
  if (fewer.wants_attention()) weigh_tokens(first, end);
  fewer.reduce(policy_, {x, numbers(received_, 0, tokens), sizes, x_to, sizes_to});
}

/// received_ (texts, tokens): the attention that each token gets from the text's first, the mean over heads.
void model::weigh_tokens(index first, index end) {
  index const texts = end - first, begin = batch_.begin(first), tokens = batch_.rows(first), heads = weights_.heads;
  auto const split = [&](std::vector<float>& memory) {
    return by_head(by_text(tern::view(memory.data() + begin * weights_.width, texts * tokens, weights_.width), texts), heads);
  };
  tern::tensor_view<float const, 3> const log_sums(log_sums_.data() + begin, {{texts, heads, tokens}}, {{tokens, batch_.rows(), 1}});
  received_.resize(static_cast<std::size_t>(texts * tokens));
  tern::attention_received(policy_, split(query_), split(key_), log_sums, {0, 1}, tern::view(received_.data(), texts, tokens));
  // log_sums_ have the sizes, scores here do not: e^(score + log size) = size e^score.
  for (index t = 0; counts_sizes_ && t < texts * tokens; ++t)
    received_[static_cast<std::size_t>(t)] *= batch_.sizes[static_cast<std::size_t>(begin + t)];
}

}  // namespace encoder
