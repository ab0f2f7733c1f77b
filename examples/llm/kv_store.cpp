// SPDX-License-Identifier: Apache-2.0
#include "kv_store.hpp"

#include <tern/attention.hpp>
#include <tern/core/error.hpp>

#include <charconv>

namespace llm {

using tern::index;

full_store::full_store(kv_model const& model, tern::cpu_policy const& policy, observes what)
    : model_(model),
      policy_(policy),
      cache_(std::make_shared<cache_type>(tern::kv_shape{.layers = model.layers, .kv_heads = model.kv_heads, .dim = model.dim})),
      sequence_(cache_->open()),
      observes_(what) {
  for (index l = 0; l < model.layers && what != observes::nothing; ++l)
    seen_.push_back({tern::recent_queries(model.heads, observed_tokens, model.dim), tern::h2o_state(model.kv_heads)});
}
full_store::full_store(full_store const& other)
    : model_(other.model_),
      policy_(other.policy_),
      cache_(other.cache_),
      sequence_(cache_->fork(other.sequence_)),
      seen_(other.seen_),
      observes_(other.observes_) {}
full_store::~full_store() { cache_->close(sequence_); }

void full_store::append(index layer, rows k, rows v) { cache_->append(policy_, sequence_, layer, k, v); }
void full_store::attend(index layer, rows q) {
  if (observes_ != observes::nothing) seen(layer).last.push(q);
  if (observes_ == observes::sums) seen(layer).sums.observe(policy_, *cache_, sequence_, layer, q);
  tern::attention(policy_, q.expanded(), cache_->keys(sequence_, layer), cache_->values(sequence_, layer), q.expanded(), tern::causal{});
}

std::vector<kv_store_name> const& kv_store_names() {
  static std::vector<kv_store_name> const names = {
      {"f16", "everything, in f16", false},
      {"q8", "8 bits", false},
      {"q8v4", "keys in 8 bits, values in 4", false},
      {"q4", "4 bits", false},
      {"q4-rotated", "4 bits of rotated rows (Hadamard)", false},
      {"kivi", "2 bits, keys by channel, the last 128 tokens in f16", false},
      {"kivi-rotated", "the same of rotated rows", false},
      {"random", "random tokens", true},
      {"streaming", "the first 4 and the last tokens", true},
      {"h2o", "half recent, half heavy hitters", true},
      {"snapkv", "what the last queries look at", true},
      {"pyramidkv", "the same, more in the first layers", true},
      {"adakv", "the same, heads share a budget", true},
      {"chunkkv", "the same, by chunks of 10", true},
      {"tova", "what the last query looks at", true},
      {"keydiff", "keys unlike the others", true},
      {"knorm", "keys of small norm", true},
      {"expected", "what queries to come should look at", true},
      {"lagkv", "what differs from the next tokens", true},
      {"quest", "everything; the pages that a query may need are read", true},
  };
  return names;
}

std::unique_ptr<kv_store> make_kv_store(std::string_view name, kv_model const& model, tern::cpu_policy const& policy, full_store* text) {
  auto const colon = name.find(':');
  std::string_view const method = name.substr(0, colon);
  index budget = 0;
  if (colon != std::string_view::npos) {
    auto const digits = name.substr(colon + 1);
    auto const [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), budget);
    if (problem != std::errc{} || end != digits.data() + digits.size() || budget < 1)
      throw tern::error("llm: the budget of --kv is " + std::string(digits) + ", expected a number of tokens");
  }
  std::string known;
  for (kv_store_name const& n : kv_store_names()) {
    known += " " + n.name + (n.takes_budget ? ":TOKENS" : "");
    if (n.name != method) continue;
    if (n.takes_budget != (budget > 0))
      throw tern::error("llm: --kv is " + std::string(name) + ", expected " + n.name + (n.takes_budget ? ":TOKENS" : " alone"));
    if (n.takes_budget)
      return make_method_store(
          method, budget,
          text != nullptr ? *text
                          : full_store(model, policy, method == "h2o" ? full_store::observes::sums : full_store::observes::queries));
    if (method == "f16")
      return text != nullptr ? std::make_unique<full_store>(*text)
                             : std::make_unique<full_store>(model, policy, full_store::observes::nothing);
    auto store = make_format_store(method, model, policy);
    if (text != nullptr) copy_text(*text, *store);
    return store;
  }
  throw tern::error("llm: --kv is " + std::string(name) + ", expected one of" + known);
}

void copy_text(full_store& from, kv_store& to) {
  constexpr index some = 512;
  kv_model const& m = from.model();
  std::vector<float> k(static_cast<std::size_t>(m.kv_heads * some * m.dim)), v(k.size());
  for (index layer = 0; layer < m.layers; ++layer) {
    index const length = from.cache().length(from.sequence(), layer);
    for (index t0 = 0; t0 < length; t0 += some) {
      index const count = std::min(some, length - t0);
      auto const keys = tern::view(k.data(), m.kv_heads, count, m.dim), values = tern::view(v.data(), m.kv_heads, count, m.dim);
      for (index h = 0; h < m.kv_heads; ++h)
        for (index t = 0; t < count; ++t) {
          from.cache().read_key(from.sequence(), layer, h, t0 + t, &keys(h, t, 0));
          from.cache().read_value(from.sequence(), layer, h, t0 + t, &values(h, t, 0));
        }
      to.append(layer, keys, values);
    }
  }
}

}  // namespace llm
