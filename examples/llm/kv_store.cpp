// SPDX-License-Identifier: Apache-2.0
#include "kv_store.hpp"

#include <tern/attention.hpp>
#include <tern/core/error.hpp>

#include <algorithm>
#include <charconv>
#include <functional>

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
full_store::full_store(full_store const& other, observes what)
    : model_(other.model_),
      policy_(other.policy_),
      cache_(other.cache_),
      sequence_(cache_->fork(other.sequence_)),
      seen_(other.seen_),
      observes_(what) {}
full_store::~full_store() { cache_->close(sequence_); }

void full_store::append(index layer, rows k, rows v) { cache_->append(policy_, sequence_, layer, k, v); }
void full_store::attend(index layer, rows q) {
  if (observes_ != observes::nothing) seen(layer).last.push(q);
  if (observes_ == observes::sums) seen(layer).sums.observe(policy_, *cache_, sequence_, layer, q);
  tern::attention(policy_, q.expanded(), cache_->keys(sequence_, layer), cache_->values(sequence_, layer), q.expanded(), tern::causal{});
}

std::vector<kv_store_name> const& kv_store_names() {
  using enum kv_store_name::source;
  static std::vector<kv_store_name> const names = {
      {"f16", "everything, in f16", nothing},
      {"q8", "8 bits", nothing},
      {"q8v4", "keys in 8 bits, values in 4", nothing},
      {"q4", "4 bits", nothing},
      {"q4-rotated", "4 bits of rotated rows (Hadamard)", nothing},
      {"codes", "vectors of the lattice E8, 2.5 bits", nothing},
      {"codes-rotated", "the same codes of rotated rows", nothing},
      {"kivi", "2 bits, keys by channel, the last 128 tokens in f16", nothing},
      {"kivi-rotated", "2 bits as kivi, of rotated rows", nothing},
      {"zip_vl", "4 bits of tokens with 97 % of the attention, 2 of the others", prompt},
      {"think", "38 of 64 channels of keys, the last 32 tokens whole", prompt},
      {"matryoshka", "half of the principal components", prompt},
      {"random", "random tokens", tokens},
      {"streaming", "the first 4 and the last tokens", tokens},
      {"lm_infinite", "the first 4 and the last tokens; the first stand where the window begins", prompt_part},
      {"s2", "half recent, half a shard of the blocks, other ones for each key head; nothing is trained", tokens},
      {"h2o", "half recent, half heavy hitters", tokens},
      {"cam", "as h2o, values of the others shared among those behind them", tokens},
      {"snapkv", "what the last queries look at", tokens},
      {"pyramidkv", "as snapkv, more in the first layers", tokens},
      {"adakv", "as snapkv, heads share a budget", tokens},
      {"chunkkv", "as snapkv, by chunks of 10", tokens},
      {"criticalkv", "as snapkv, half of it by what values add to the output", tokens},
      {"finch", "as snapkv, weighed by what each query sees, and moved together", tokens},
      {"look_m", "half recent, half what the last queries look at, others merged into them; all is text", tokens},
      {"lococo", "what the last queries look at; half of it slots for mixed tokens; the mixing is not trained: a tenth of the mean",
       tokens},
      {"tova", "what the last query looks at", tokens},
      {"keydiff", "keys unlike the others", tokens},
      {"knorm", "keys of small norm", tokens},
      {"expected", "what queries to come should look at", tokens},
      {"lagkv", "what differs from the next tokens", tokens},
      {"quest", "everything; pages that a query may need are read, in the first two layers all", tokens},
      {"lserve", "everything; half the heads read the first 2 and last 4 pages, others what they may need", prompt_part},
      {"squeezed", "everything; clusters of keys that a query may need are read", prompt_part},
      {"shadow_kv", "values, keys in few dimensions; chunks that a query may need are read", prompt_part},
      {"a2ats", "everything; keys whose code a query may need are read, and the last 64", prompt_part},
      {"minference", "everything; while a text is read, a head sees 128 columns and 512 diagonals", reading},
      {"cache_blend", "everything, read in chunks of 512; 15 % are read again in place", chunks},
      {"cache_craft", "everything, read in chunks of another order; the tokens that looked at others are read again", chunks},
  };
  return names;
}

namespace {

/// Collects a text until the first tokens have been read together; goes on in the store that is made of it.
class prompt_store : public kv_store {
 public:
  using maker = std::function<std::unique_ptr<kv_store>(full_store&)>;
  prompt_store(kv_model const& model, tern::cpu_policy const& policy, maker make) : model_(model), policy_(policy), make_(std::move(make)) {
    begin();
  }
  void append(index layer, rows k, rows v) override { now().append(layer, k, v); }
  void attend(index layer, rows q) override { now().attend(layer, q); }
  void read_to_end(index tokens) override {
    if (made_ != nullptr) return made_->read_to_end(tokens);
    if (tokens == 1) return;
    made_ = make_(*text_);
    text_.reset();
  }
  void truncate(index position) override {
    if (position > 0) return now().truncate(position);
    begin();
  }
  index bytes() const override { return made_ != nullptr ? made_->bytes() : text_->bytes(); }

 private:
  void begin() {
    made_.reset();
    text_ = std::make_unique<full_store>(model_, policy_, full_store::observes::queries);
  }
  kv_store& now() { return made_ != nullptr ? *made_ : *text_; }
  kv_model model_;
  tern::cpu_policy policy_;
  maker make_;
  std::unique_ptr<full_store> text_;
  std::unique_ptr<kv_store> made_;
};

std::unique_ptr<kv_store> make_text_store(std::string_view name, index budget, full_store& text) {
  if (auto store = make_method_store(name, budget, text)) return store;
  if (auto store = make_low_rank_store(name, text)) return store;
  if (auto store = make_page_store(name, budget, text)) return store;
  if (auto store = make_retrieval_store(name, budget, text)) return store;
  return make_pattern_store(name, budget, text);
}

/// What is behind the colon of a name; 0 where there is none.
index budget_of(std::string_view name) {
  auto const colon = name.find(':');
  if (colon == std::string_view::npos) return 0;
  auto const digits = name.substr(colon + 1);
  index budget = 0;
  auto const [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), budget);
  if (problem != std::errc{} || end != digits.data() + digits.size() || budget < 1)
    throw tern::error("llm: the budget of --kv is " + std::string(digits) + ", expected a number of tokens");
  return budget;
}

kv_store_name const& named(std::string_view name, index budget) {
  std::string known;
  for (kv_store_name const& n : kv_store_names()) {
    known += " " + n.name + (n.takes_budget() ? ":TOKENS" : "");
    if (n.name != name.substr(0, name.find(':'))) continue;
    if (n.takes_budget() != (budget > 0))
      throw tern::error("llm: --kv is " + std::string(name) + ", expected " + n.name + (n.takes_budget() ? ":TOKENS" : " alone"));
    if (n.from == kv_store_name::source::chunks)
      throw tern::error("llm: --kv is " + std::string(name) + ", which is for --kv-report alone");
    return n;
  }
  throw tern::error("llm: --kv is " + std::string(name) + ", expected one of" + known);
}

}  // namespace

std::unique_ptr<kv_store> make_kv_store(std::string_view name, kv_model const& model, tern::cpu_policy const& policy, full_store* text) {
  using source = kv_store_name::source;
  using observes = full_store::observes;
  index const budget = budget_of(name);
  kv_store_name const& n = named(name, budget);
  if (n.name == "f16")
    return text != nullptr ? std::make_unique<full_store>(*text, observes::nothing)
                           : std::make_unique<full_store>(model, policy, observes::nothing);
  if (n.from == source::nothing) {
    auto store = make_format_store(n.name, model, policy);
    if (text != nullptr) copy_text(*text, *store);
    return store;
  }
  if (n.from == source::reading) return make_reading_store(model, policy);
  if (text != nullptr) return make_text_store(n.name, budget, *text);
  if (n.from != source::tokens)
    return std::make_unique<prompt_store>(model, policy, [&n, budget](full_store& read) { return make_text_store(n.name, budget, read); });
  full_store empty(model, policy, n.name == "h2o" || n.name == "cam" ? observes::sums : observes::queries);
  return make_text_store(n.name, budget, empty);
}

text_rows::text_rows(full_store& text, index layer, index first, index count)
    : memory_(static_cast<std::size_t>(2 * text.model().kv_heads * count * text.model().dim)) {
  kv_model const& m = text.model();
  keys = tern::view(memory_.data(), m.kv_heads, count, m.dim);
  values = tern::view(memory_.data() + keys.size(), m.kv_heads, count, m.dim);
  for (index h = 0; h < m.kv_heads; ++h)
    for (index t = 0; t < count; ++t) {
      text.cache().read_key(text.sequence(), layer, h, first + t, &keys(h, t, 0));
      text.cache().read_value(text.sequence(), layer, h, first + t, &values(h, t, 0));
    }
}

void rotate_back(tern::cpu_policy const& policy, tern::tensor_view<float const, 3> x, kv_store::rows to, index first,
                 tern::rope_options const& options) {
  std::vector<std::int32_t> back;
  for (index t = 0; t < x.extent(1); ++t) back.push_back(static_cast<std::int32_t>(-first - t));
  tern::rope(policy, x, to, back, options);
}

void copy_text(full_store& from, kv_store& to) {
  constexpr index some = 512;
  for (index layer = 0; layer < from.model().layers; ++layer) {
    index const length = from.cache().length(from.sequence(), layer);
    for (index t = 0; t < length; t += some) {
      text_rows const part(from, layer, t, std::min(some, length - t));
      to.append(layer, part.keys, part.values);
    }
  }
}

}  // namespace llm
