// SPDX-License-Identifier: Apache-2.0
// Stores whose queries see a part of the text by a pattern, also while it is read.
#include "kv_store.hpp"

#include <tern/attention.hpp>
#include <tern/attention/systems/lm_infinite.hpp>
#include <tern/attention/systems/minference.hpp>

#include <algorithm>

namespace llm {

using tern::index;

namespace {

/// LM-Infinite: the first tokens and the last, in pages; keys before rotation, for the first stand at a distance of the window's length.
class lm_infinite_store : public kv_store {
 public:
  lm_infinite_store(full_store& text, index budget)
      : model_(text.model()),
        policy_(text.policy()),
        window_(std::max(budget - sinks, index{1})),
        cache_(text.cache().shape()),
        sequence_(cache_.open()) {
    copy_text(text, *this);
    read_to_end(0);
  }
  void append(index layer, rows k, rows v) override {
    rotate_back(policy_, k, k, cache_.next_position(sequence_, layer), model_.rope);
    cache_.append(policy_, sequence_, layer, k, v);
  }
  void attend(index layer, rows q) override {
    rotate_back(policy_, q, q, cache_.next_position(sequence_, layer) - q.extent(1), model_.rope);
    tern::lm_infinite(policy_, q, cache_.keys(sequence_, layer), cache_.values(sequence_, layer), q, sums_(q),
                      rotations_(policy_, model_, std::max(cache_.length(sequence_, layer), window_) + 1), sinks, window_,
                      model_.rope.pairing);
  }
  void read_to_end(index) override {
    for (index l = 0; l < model_.layers; ++l) cache_.slide(policy_, sequence_, l, sinks, window_);
  }
  void truncate(index position) override { cache_.truncate(sequence_, position); }
  index bytes() const override { return cache_.bytes() + rotations_.bytes(); }

 private:
  static constexpr index sinks = 4;
  kv_model model_;
  tern::cpu_policy policy_;
  index window_;
  tern::kv_cache<tern::f16> cache_;
  std::int32_t sequence_;
  rotation_table rotations_;
  log_sums sums_;
};

/// MInference: of tokens that come together, each head sees the columns and the diagonals that the last queries look at. The search
/// of a pattern for each head is left out: all have the most common one.
class minference_store : public full_store {
 public:
  minference_store(kv_model const& model, tern::cpu_policy const& policy) : full_store(model, policy, observes::nothing) {}
  void attend(index layer, rows q) override {
    if (q.extent(1) == 1) return full_store::attend(layer, q);
    index const heads = q.extent(0), keys = cache().length(sequence(), layer);
    std::vector<tern::minference_head> const patterns(
        static_cast<std::size_t>(heads), {.pattern = tern::minference_pattern::vertical_slash, .first = columns, .second = slashes});
    memory_.resize(static_cast<std::size_t>(tern::minference_capacity(patterns.data(), heads, q.extent(1), keys)));
    std::vector<tern::vertical_slash_head> runs(patterns.size());
    text_rows const all(*this, layer, 0, keys);
    tern::minference(policy(), q, all.keys, all.values, q, patterns.data(), tern::view(memory_), runs.data());
  }

 private:
  static constexpr index columns = 128, slashes = 512;
  std::vector<std::int32_t> memory_;
};

}  // namespace

std::unique_ptr<kv_store> make_pattern_store(std::string_view name, index budget, full_store& text) {
  if (name == "lm_infinite") return std::make_unique<lm_infinite_store>(text, budget);
  return nullptr;
}
std::unique_ptr<kv_store> make_reading_store(kv_model const& model, tern::cpu_policy const& policy) {
  return std::make_unique<minference_store>(model, policy);
}

}  // namespace llm
