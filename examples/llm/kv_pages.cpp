// SPDX-License-Identifier: Apache-2.0
// Stores that keep everything; a single token reads the pages that it may need, tokens that come together all.
#include "kv_store.hpp"

#include <tern/attention.hpp>
#include <tern/attention/systems/lserve.hpp>
#include <tern/cache/methods/quest.hpp>
#include <tern/cache/observed_weights.hpp>

#include <algorithm>
#include <numeric>

namespace llm {

using tern::index;

namespace {

/// Quest, which leaves the first layers as they are.
class quest_store : public full_store {
 public:
  quest_store(full_store const& text, index budget)
      : full_store(text, observes::nothing), pages_(std::max(budget / tern::page_rows, index{1})) {
    for (index l = 0; l < model().layers; ++l) states_.emplace_back(cache().shape());
  }
  void attend(index layer, rows q) override {
    if (q.extent(1) > 1 || layer < whole_layers) return full_store::attend(layer, q);
    tern::quest_attention(policy(), states_[static_cast<std::size_t>(layer)], cache(), sequence(), layer, q, q, pages_);
  }
  void truncate(index position) override {
    full_store::truncate(position);
    for (auto& s : states_) s.reset();
  }
  index bytes() const override {
    index sum = full_store::bytes();
    for (auto const& s : states_) sum += s.pages() * model().kv_heads * model().dim * 4;
    return sum;
  }
  bool stepwise() const override { return true; }

 private:
  static constexpr index whole_layers = 2;
  index pages_;
  std::vector<tern::quest_state> states_;
};

/// LServe: the half of the heads whose last queries look most at the first and the last pages see only those.
class lserve_store : public full_store {
 public:
  lserve_store(full_store& text, index budget) : full_store(text, observes::nothing) {
    budget_.pages = std::max(budget / tern::page_rows, index{1});
    layers_.resize(static_cast<std::size_t>(model().layers),
                   {{}, {}, 0, 0, {model().kv_heads, tern::lserve_room(budget_, tern::page_rows)}});
    find_streaming();
  }
  void attend(index layer, rows q) override {
    if (q.extent(1) > 1) return full_store::attend(layer, q);
    bounds& b = layers_[static_cast<std::size_t>(layer)];
    update(layer, b);
    index const heads = model().kv_heads;
    std::vector<std::int32_t> table(static_cast<std::size_t>((b.keys + tern::page_rows - 1) / tern::page_rows));
    std::iota(table.begin(), table.end(), 0);
    tern::shape<4> const extents{{static_cast<index>(table.size()), heads, logical, model().dim}};
    tern::lserve_select(policy(), q.slice(1, 0, 1).transposed(0, 1)[0], tern::tensor_view<float const, 4>(b.low.data(), extents),
                        tern::tensor_view<float const, 4>(b.high.data(), extents), tern::view(table), tern::page_rows, b.keys,
                        &streaming_[static_cast<std::size_t>(layer * heads)], budget_, b.step++, b.selected());
    tern::attention(policy(), q.expanded(), cache().keys(sequence(), layer), cache().values(sequence(), layer), q.expanded(),
                    tern::gathered_pages{b.selected(), q.extent(0), heads, 1, b.keys});
  }
  void truncate(index position) override {
    full_store::truncate(position);
    for (bounds& b : layers_) b.keys = std::min(b.keys, position), b.step = 0;
  }
  index bytes() const override {
    index sum = full_store::bytes();
    for (bounds const& b : layers_) sum += static_cast<index>((b.low.size() + b.high.size()) * sizeof(float));
    return sum;
  }
  bool stepwise() const override { return true; }

 private:
  static constexpr index logical = 4;  // pages of bounds in one of the cache
  struct bounds {
    std::vector<float> low, high;  // (pages, kv_heads, logical, dim)
    index keys, step;
    place_lists selected;
  };

  /// Takes in what was appended; the page that this ends in is looked at anew.
  void update(index layer, bounds& b) {
    index const heads = model().kv_heads, dim = model().dim, size = heads * logical * dim, keys = cache().length(sequence(), layer);
    for (index page = b.keys / tern::page_rows; page * tern::page_rows < keys; ++page) {
      text_rows const of(*this, layer, page * tern::page_rows, std::min(keys - page * tern::page_rows, tern::page_rows));
      for (auto* side : {&b.low, &b.high}) side->resize(std::max(side->size(), static_cast<std::size_t>((page + 1) * size)));
      tern::page_bounds(policy(), of.keys, tern::page_rows / logical, tern::view(b.low.data() + page * size, heads, logical, dim),
                        tern::view(b.high.data() + page * size, heads, logical, dim));
    }
    b.keys = keys;
  }
  /// Training finds such heads in the paper.
  void find_streaming() {
    index const heads = model().kv_heads;
    std::vector<float> shares;
    for (index l = 0; l < model().layers; ++l) {
      index const keys = cache().length(sequence(), l);
      std::vector<float> memory(static_cast<std::size_t>(heads * keys));
      auto const weights = tern::view(memory.data(), heads, keys);
      tern::observed_weights(policy(), seen(l).last.queries(), cache().keys(sequence(), l), weights);
      for (index h = 0; h < heads; ++h) {
        float far = 0;
        for (index j = budget_.sink * tern::page_rows; j < keys - budget_.local * tern::page_rows; ++j) far += weights(h, j);
        shares.push_back(far);
      }
    }
    auto sorted = shares;
    std::nth_element(sorted.begin(), sorted.begin() + static_cast<index>(sorted.size() / 2), sorted.end());
    streaming_ = std::make_unique<bool[]>(shares.size());
    for (std::size_t i = 0; i < shares.size(); ++i) streaming_[i] = shares[i] < sorted[sorted.size() / 2];
  }

  tern::lserve_budget budget_;
  std::vector<bounds> layers_;
  std::unique_ptr<bool[]> streaming_;  // (layers, kv_heads)
};

}  // namespace

std::unique_ptr<kv_store> make_page_store(std::string_view name, index budget, full_store& text) {
  if (name == "quest") return std::make_unique<quest_store>(text, budget);
  if (name == "lserve") return std::make_unique<lserve_store>(text, budget);
  return nullptr;
}

}  // namespace llm
