// SPDX-License-Identifier: Apache-2.0
// Methods of which tokens go into those that stay.
#include "kv_method.hpp"

#include <tern/cache/methods/cam.hpp>
#include <tern/cache/methods/lococo.hpp>
#include <tern/cache/methods/look_m.hpp>

#include <algorithm>

namespace llm {

using tern::index;

namespace {

/// H2O's tokens stay; values of the others are shared among them by what the last queries look at. Sums over all queries would not do:
/// the latest tokens, which few queries saw, would take every other token's value.
void merge_values(method_store& m, index layer) {
  index const heads = m.model().kv_heads, length = m.cache().longest(m.sequence(), layer);
  tern::token_scores const scores(m.policy(), heads, length);
  for (index h = 0; h < heads; ++h)
    for (index j = 0; j < length; ++j) scores.first(h, j) = m.seen(layer).sums.sums(h)[j];
  tern::select_tokens(scores.first, m.budget, {0, m.budget - m.budget / 2}, scores.kept);
  auto const copy = m.cache().fork(m.sequence());  // of which the same tokens go, for the sums
  m.seen(layer).sums.evict(m.policy(), m.cache(), copy, layer, m.budget);
  m.cache().close(copy);
  tern::observed_weights(m.policy(), m.seen(layer).last.queries(), m.cache().keys(m.sequence(), layer), scores.second);
  tern::random random(static_cast<std::uint64_t>(layer) + 1);
  tern::cam(m.policy(), m.cache(), m.sequence(), layer, scores.second, scores.kept, random);
}

void merge_into_nearest(method_store& m, index layer) {
  index const length = m.cache().longest(m.sequence(), layer);
  auto const is_text = std::make_unique<bool[]>(static_cast<std::size_t>(length));
  std::fill_n(is_text.get(), length, true);
  tern::look_m(m.policy(), m.cache(), m.sequence(), layer, m.seen(layer).last.queries(),
               tern::tensor_view<bool const, 1>(is_text.get(), tern::shape<1>{{length}}), m.budget, m.budget / 2);
}

/// Without what training would give: a convolution of zeros weighs all tokens alike.
void merge_into_slots(method_store& m, index layer) {
  index const heads = m.model().kv_heads, slots = m.budget / 2, channels = 2 * m.model().dim;
  std::vector<float> const zeros(static_cast<std::size_t>(slots * (channels + 1)));
  tern::lococo_convolution const uniform{tern::view(zeros.data(), slots, index{1}, channels),
                                         tern::view(zeros.data() + slots * channels, slots), 0.1F};
  tern::token_scores const scores(m.policy(), heads, m.cache().longest(m.sequence(), layer));
  tern::observed_weights(m.policy(), m.seen(layer).last.queries(), m.cache().keys(m.sequence(), layer), scores.first);
  tern::lococo(m.policy(), m.cache(), m.sequence(), layer, scores.first, uniform, m.budget, observed_tokens);
}

}  // namespace

method merge_method(std::string_view name) {
  if (name == "cam") return merge_values;
  if (name == "look_m") return merge_into_nearest;
  if (name == "lococo") return merge_into_slots;
  return {};
}

}  // namespace llm
