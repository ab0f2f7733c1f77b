// SPDX-License-Identifier: Apache-2.0
// Which tokens stay.
#include "kv_method.hpp"

#include <tern/attention/systems/s2_attention.hpp>
#include <tern/cache/methods/adakv.hpp>
#include <tern/cache/methods/chunkkv.hpp>
#include <tern/cache/methods/criticalkv.hpp>
#include <tern/cache/methods/expected_attention.hpp>
#include <tern/cache/methods/finch.hpp>
#include <tern/cache/methods/keydiff.hpp>
#include <tern/cache/methods/knorm.hpp>
#include <tern/cache/methods/lagkv.hpp>
#include <tern/cache/methods/pyramidkv.hpp>
#include <tern/cache/methods/snapkv.hpp>
#include <tern/cache/methods/streaming_llm.hpp>
#include <tern/cache/methods/tova.hpp>
#include <tern/core/random.hpp>

#include <algorithm>

namespace llm {

using tern::index;

namespace {

void keep_random(method_store& m, index layer) {
  tern::token_scores const scores(m.policy(), m.model().kv_heads, m.cache().longest(m.sequence(), layer));
  tern::random random(static_cast<std::uint64_t>(layer) + 1);
  for (index h = 0; h < scores.first.extent(0); ++h)
    for (index j = 0; j < scores.first.extent(1); ++j)
      scores.first(h, j) = j < m.cache().length(m.sequence(), layer, h) ? static_cast<float>(tern::uniform(random)) : -__builtin_inff();
  tern::select_tokens(scores.first, m.budget, {}, scores.kept);
  m.cache().keep(m.policy(), m.sequence(), layer, scores.kept);
}
void keep_expected(method_store& m, index layer) {
  constexpr index to_come = 512;
  auto const q = m.unrotated(layer);
  index const heads = m.model().heads, dim = m.model().dim;
  tern::query_statistics future(heads, dim);
  future.fit(m.policy(), tern::view(q.data(), heads, static_cast<index>(q.size()) / heads / dim, dim),
             m.cache().next_position(m.sequence(), layer), to_come, m.model().rope);
  tern::expected_attention(m.policy(), m.cache(), m.sequence(), layer, future, m.budget);
}
/// Partitions so long that about the budget stays.
void keep_lagged(method_store& m, index layer) {
  index const length = m.cache().longest(m.sequence(), layer), lag = 128;
  index const stay = std::clamp((m.budget - 2 * lag) * lag / std::max(length - 2 * lag, index{1}), index{1}, lag);
  tern::lagkv(m.policy(), m.cache(), m.sequence(), layer, {.lag = lag, .stay = stay});
}

/// S2-Attention: the blocks that its pattern has for a head; how many of the others a shard has is known once there is a text.
method keep_shards() {
  return [stride = index{0}](method_store& m, index layer) mutable {
    constexpr index block = 64;
    index const heads = m.model().kv_heads, end = m.cache().next_position(m.sequence(), layer);
    if (stride == 0) stride = (2 * end + m.budget - 1) / m.budget;
    tern::s2_attention const pattern{block, std::max(m.budget / 2 / block, index{1}), stride};
    tern::token_scores const of(m.policy(), heads, m.cache().longest(m.sequence(), layer));
    for (index h = 0; h < heads; ++h) {
      auto const positions = m.cache().positions(m.sequence(), layer, h);
      std::int32_t count = 0;
      for (index j = 0; j < positions.extent(0); ++j)
        if (index const b = positions[j] / block; (end - 1) / block - b < pattern.local || pattern.keeps(heads, h, b))
          of.kept.row(h)[count++] = static_cast<std::int32_t>(j);
      of.kept.counts[h] = count;
    }
    m.cache().keep(m.policy(), m.sequence(), layer, of.kept);
  };
}

void keep_critical(method_store& m, index layer) {
  tern::block_matrix const& out = m.model().out[static_cast<std::size_t>(layer)];
  std::vector<float> w(static_cast<std::size_t>(out.rows * out.columns));
  for (index i = 0; i < out.rows; ++i) tern::decode(out, i, w.data() + i * out.columns);
  tern::criticalkv(m.policy(), m.cache(), m.sequence(), layer, m.seen(layer).last.queries(), tern::view(w.data(), out.rows, out.columns),
                   m.budget);
}
/// The last queries are the question. What stays moves up to where the model goes on; in the paper the model goes back to where that ends.
void keep_as_finch(method_store& m, index layer) {
  index const end = m.cache().next_position(m.sequence(), layer);
  tern::finch(m.policy(), m.cache(), m.sequence(), layer, m.seen(layer).last.queries(), m.budget, m.model().rope);
  tern::rerotate(m.policy(), m.cache(), m.sequence(), layer, end - m.cache().longest(m.sequence(), layer), m.model().rope);
}

method method_of(std::string_view name) {
  // Methods that ask the latest queries do not drop those tokens.
  tern::protect const latest{4, observed_tokens};
  auto const asks = [](auto const& of) -> method {
    return [of](method_store& m, index l) { of(m.policy(), m.cache(), m.sequence(), l, m.seen(l).last.queries(), m.budget); };
  };
  if (name == "random") return keep_random;
  if (name == "streaming")
    return [](method_store& m, index l) { tern::streaming_llm(m.policy(), m.cache(), m.sequence(), l, {4, m.budget - 4, true}); };
  if (name == "h2o") return [](method_store& m, index l) { m.seen(l).sums.evict(m.policy(), m.cache(), m.sequence(), l, m.budget); };
  if (name == "snapkv") return asks(tern::snapkv);
  if (name == "pyramidkv") return asks(tern::pyramidkv);
  if (name == "adakv") return asks(tern::adakv);
  if (name == "chunkkv") return asks(tern::chunkkv);
  if (name == "tova") return asks(tern::tova);
  if (name == "keydiff") return [=](method_store& m, index l) { tern::keydiff(m.policy(), m.cache(), m.sequence(), l, m.budget, latest); };
  if (name == "knorm") return [=](method_store& m, index l) { tern::knorm(m.policy(), m.cache(), m.sequence(), l, m.budget, latest); };
  if (name == "expected") return keep_expected;
  if (name == "lagkv") return keep_lagged;
  if (name == "s2") return keep_shards();
  if (name == "criticalkv") return keep_critical;
  if (name == "finch") return keep_as_finch;
  return merge_method(name);
}

}  // namespace

std::unique_ptr<kv_store> make_method_store(std::string_view name, index budget, full_store& text) {
  using observes = full_store::observes;
  auto const what = name == "h2o" || name == "cam" ? observes::sums : observes::queries;
  if (auto const m = method_of(name)) return std::make_unique<method_store>(text, what, budget, m);
  return nullptr;
}

}  // namespace llm
