// SPDX-License-Identifier: Apache-2.0
// Stores that choose among the tokens, or among what of them is read.
#include "kv_store.hpp"

#include <tern/attention.hpp>
#include <tern/cache/every.hpp>
#include <tern/cache/methods/adakv.hpp>
#include <tern/cache/methods/chunkkv.hpp>
#include <tern/cache/methods/expected_attention.hpp>
#include <tern/cache/methods/keydiff.hpp>
#include <tern/cache/methods/knorm.hpp>
#include <tern/cache/methods/lagkv.hpp>
#include <tern/cache/methods/pyramidkv.hpp>
#include <tern/cache/methods/quest.hpp>
#include <tern/cache/methods/snapkv.hpp>
#include <tern/cache/methods/streaming_llm.hpp>
#include <tern/cache/methods/tova.hpp>
#include <tern/core/random.hpp>

#include <algorithm>
#include <functional>

namespace llm {

using tern::index;

namespace {

class method_store;
using method = std::function<void(method_store&, index layer)>;

/// A full store of which tokens go whenever it has read 64 more than its budget.
class method_store : public full_store {
 public:
  method_store(full_store const& text, index budget, method m) : full_store(text), budget(budget), method_(std::move(m)) { shorten(); }
  void read_to_end(index tokens) override {
    if (due_(tokens)) shorten();
  }

  /// What was read and is forgotten does not count.
  void truncate(index position) override {
    full_store::truncate(position);
    due_ = tern::every(64);
  }

  index const budget;
  /// The latest queries before rotation.
  std::vector<float> unrotated(index layer) {
    auto const q = seen(layer).last.queries();
    std::vector<float> to(static_cast<std::size_t>(q.size()));
    auto const out = tern::view(to.data(), q.extent(0), q.extent(1), q.extent(2));
    std::vector<std::int32_t> back;
    for (index t = 0; t < q.extent(1); ++t)
      back.push_back(static_cast<std::int32_t>(q.extent(1) - t - cache().next_position(sequence(), layer)));
    tern::rope(policy(), q, out, back, model().rope);
    return to;
  }

 private:
  void shorten() {
    for (index l = 0; l < model().layers; ++l)
      if (cache().longest(sequence(), l) > budget) method_(*this, l);
  }
  method method_;
  tern::every due_{64};
};

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
  return {};
}

/// Everything stays; single tokens read the pages that may matter.
class quest_store : public full_store {
 public:
  quest_store(full_store const& text, index budget) : full_store(text), pages_(std::max(budget / tern::page_rows, index{1})) {
    for (index l = 0; l < model().layers; ++l) states_.emplace_back(cache().shape());
  }
  void attend(index layer, rows q) override {
    if (q.extent(1) == 1)
      tern::quest_attention(policy(), states_[static_cast<std::size_t>(layer)], cache(), sequence(), layer, q, q, pages_);
    else
      full_store::attend(layer, q);
  }
  void truncate(index position) override {
    full_store::truncate(position);
    for (auto& s : states_) s.reset();
  }
  bool stepwise() const override { return true; }

 private:
  index pages_;
  std::vector<tern::quest_state> states_;
};

}  // namespace

std::unique_ptr<kv_store> make_method_store(std::string_view name, index budget, full_store const& text) {
  if (name == "quest") return std::make_unique<quest_store>(text, budget);
  if (auto const m = method_of(name)) return std::make_unique<method_store>(text, budget, m);
  return nullptr;
}

}  // namespace llm
