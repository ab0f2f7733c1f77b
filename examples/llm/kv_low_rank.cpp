// SPDX-License-Identifier: Apache-2.0
// Stores that keep of a text's tokens fewer channels, fewer dimensions, or fewer bits of some.
#include "kv_store.hpp"

#include <tern/attention.hpp>
#include <tern/cache/methods/matryoshka_kv.hpp>
#include <tern/cache/methods/think.hpp>
#include <tern/cache/methods/zip_vl.hpp>
#include <tern/cache/principal_components.hpp>

namespace llm {

using tern::index;

namespace {

/// ThinK: 60 % of the channels of all keys but the last ones.
class think_store : public full_store {
 public:
  explicit think_store(full_store& text)
      : full_store(text, observes::nothing),
        thin_({.layers = model().layers, .kv_heads = model().kv_heads, .dim = model().dim * 3 / 5, .dim_v = model().dim}),
        old_(thin_.open()),
        channels_(static_cast<std::size_t>(model().layers * model().kv_heads * thin_.shape().dim)) {
    for (index l = 0; l < model().layers; ++l) {
      tern::select_key_channels(cache(), sequence(), l, seen(l).last.queries(), channels(l));
      tern::think_prune(policy(), cache(), sequence(), l, {channels(l)}, recent, thin_, old_);
    }
  }
  void append(index layer, rows k, rows v) override {
    if (cache().longest(sequence(), layer) >= 2 * recent)
      tern::think_prune(policy(), cache(), sequence(), layer, {channels(layer)}, recent, thin_, old_);
    full_store::append(layer, k, v);
  }
  void attend(index layer, rows q) override {
    tern::think_attention(policy(), q, {channels(layer)}, thin_, old_, cache(), sequence(), layer, q, sums_(q));
  }
  void truncate(index position) override {
    full_store::truncate(position);
    thin_.truncate(old_, position);
  }
  index bytes() const override { return full_store::bytes() + thin_.bytes() + static_cast<index>(channels_.size() * 4); }

 private:
  static constexpr index recent = 32;
  tern::tensor_view<std::int32_t, 2> channels(index layer) {
    index const heads = model().kv_heads, dim = thin_.shape().dim;
    return tern::view(channels_.data() + layer * heads * dim, heads, dim);
  }
  tern::kv_cache<tern::f16> thin_;
  std::int32_t old_;
  std::vector<std::int32_t> channels_;  // (layers, kv_heads, dim of thin_)
  log_sums sums_;
};

/// MatryoshkaKV: coordinates along the principal components of the text's own keys and values.
class matryoshka_store : public kv_store {
 public:
  explicit matryoshka_store(full_store& text)
      : model_(text.model()),
        policy_(text.policy()),
        cache_({.layers = model_.layers, .kv_heads = model_.kv_heads, .dim = model_.dim / 2}),
        sequence_(cache_.open()),
        directions_(static_cast<std::size_t>(2 * model_.layers * per_side())) {
    for (index l = 0; l < model_.layers; ++l) {
      text_rows const all(text, l, 0, text.cache().length(text.sequence(), l));
      fit(all.keys, l, 0);
      fit(all.values, l, 1);
      append(l, all.keys, all.values);
    }
  }
  void append(index layer, rows k, rows v) override {
    tern::matryoshka_append(policy_, cache_, sequence_, layer, side(layer, 0), side(layer, 1), k, v);
  }
  void attend(index layer, rows q) override {
    tern::matryoshka_attention(policy_, q, cache_, sequence_, layer, side(layer, 0), side(layer, 1), q, sums_(q), tern::causal{});
  }
  void truncate(index position) override { cache_.truncate(sequence_, position); }
  index bytes() const override { return cache_.bytes() + static_cast<index>(directions_.size() * 4); }

 private:
  /// Of a layer's keys or values: the components and the mean of each head.
  index per_side() const { return model_.kv_heads * (cache_.shape().dim + 1) * model_.dim; }
  rows components(index layer, index which) {
    return tern::view(directions_.data() + (2 * layer + which) * per_side(), model_.kv_heads, cache_.shape().dim, model_.dim);
  }
  tern::tensor_view<float, 2> means(index layer, index which) {
    auto const behind = components(layer, which);
    return tern::view(behind.data() + behind.size(), model_.kv_heads, model_.dim);
  }
  tern::matryoshka_projection side(index layer, index which) { return {components(layer, which), means(layer, which)}; }
  void fit(rows x, index layer, index which) {
    std::vector<float> variances(static_cast<std::size_t>(model_.dim));
    for (index h = 0; h < model_.kv_heads; ++h)
      tern::principal_components(x[h], components(layer, which)[h], tern::view(variances.data(), model_.dim), means(layer, which)[h]);
  }

  kv_model model_;
  tern::cpu_policy policy_;
  tern::kv_cache<tern::f16> cache_;
  std::int32_t sequence_;
  std::vector<float> directions_;  // (layers, keys and values, per_side)
  log_sums sums_;
};

/// ZipVL: tokens that the last queries look at in 4 bits, and what is read later; the others in 2.
class zip_vl_store : public kv_store {
 public:
  explicit zip_vl_store(full_store& text)
      : policy_(text.policy()), high_(shape_of(text)), low_(shape_of(text)), of_high_(high_.open()), of_low_(low_.open()) {
    for (index l = 0; l < text.model().layers; ++l) {
      index const length = text.cache().length(text.sequence(), l);
      text_rows const all(text, l, 0, length);
      auto const probes = text.seen(l).last.queries();
      std::vector<std::int32_t> places;
      for (index i = 0; i < probes.extent(1); ++i) places.push_back(static_cast<std::int32_t>(length - probes.extent(1) + i));
      std::vector<float> weights(static_cast<std::size_t>(length));
      index const important = tern::zip_vl_rank(policy_, probes, tern::view(places), all.keys, 0.97, tern::view(weights));
      tern::zip_vl_store(policy_, all.keys, all.values, tern::view(weights), important, high_, of_high_, low_, of_low_, l);
    }
  }
  void append(index layer, rows k, rows v) override { high_.append(policy_, of_high_, layer, k, v); }
  void attend(index layer, rows q) override { tern::zip_vl_decode(policy_, q, high_, of_high_, low_, of_low_, layer, q, sums_(q)); }
  void truncate(index position) override {
    high_.truncate(of_high_, position);
    low_.truncate(of_low_, position);
  }
  index bytes() const override { return high_.bytes() + low_.bytes(); }

 private:
  static tern::kv_shape shape_of(full_store& text) {
    return {.layers = text.model().layers, .kv_heads = text.model().kv_heads, .dim = text.model().dim};
  }
  tern::cpu_policy policy_;
  tern::kv_cache<tern::formats::keys4, tern::formats::values4> high_;
  tern::kv_cache<tern::formats::keys2, tern::formats::values2> low_;
  std::int32_t of_high_, of_low_;
  log_sums sums_;
};

}  // namespace

std::unique_ptr<kv_store> make_low_rank_store(std::string_view name, full_store& text) {
  if (name == "think") return std::make_unique<think_store>(text);
  if (name == "matryoshka") return std::make_unique<matryoshka_store>(text);
  if (name == "zip_vl") return std::make_unique<zip_vl_store>(text);
  return nullptr;
}

}  // namespace llm
