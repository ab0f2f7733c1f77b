// SPDX-License-Identifier: Apache-2.0
// Stores that keep a text, of which a step reads the tokens that its query may need.
#include "kv_store.hpp"

#include <tern/attention.hpp>
#include <tern/attention/systems/squeezed_attention.hpp>
#include <tern/cache/methods/a2ats.hpp>
#include <tern/cache/methods/shadow_kv.hpp>
#include <tern/cache/principal_components.hpp>

#include <algorithm>
#include <cmath>

namespace llm {

using tern::index;

namespace {

/// What a text was made into cannot be cut.
void expect_behind(index position, index text) {
  if (position < text)
    throw tern::error("llm: the position to go back to is " + std::to_string(position) + ", expected 0, or the end of the prompt at " +
                      std::to_string(text) + " or behind it, with this --kv");
}

template <class T>
index bytes_of(std::vector<T> const& x) {
  return static_cast<index>(x.size() * sizeof(T));
}

/// Squeezed Attention: the text is clustered; what comes later is read as it is. A threshold for each layer, by the last queries.
class squeezed_store : public full_store {
 public:
  squeezed_store(full_store& text, index budget)
      : full_store(text, observes::nothing),
        length_(cache().length(sequence(), 0)),
        later_(cache().shape()),
        of_later_(later_.open()),
        selected_(model().kv_heads, length_) {
    for (index l = 0; l < model().layers; ++l) {
      layers_.push_back(cluster(l));
      calibrate(l, budget);
    }
  }
  void append(index layer, rows k, rows v) override { later_.append(policy(), of_later_, layer, k, v); }
  void attend(index layer, rows q) override {
    tern::squeezed_select(policy(), q, view_of(layer), selected_());
    index const heads = q.extent(0), tokens = q.extent(1);
    parts_.resize(static_cast<std::size_t>(2 * heads * tokens * (model().dim + 1)));
    auto const out = tern::view(parts_.data(), index{2}, heads, tokens, model().dim);
    auto const sums = tern::view(parts_.data() + out.size(), index{2}, heads, tokens);
    tern::attention(policy(), q, cache().keys(sequence(), layer), cache().values(sequence(), layer), out[0],
                    tern::gathered{selected_(), heads, model().kv_heads, tokens, length_}, tern::log_sum_exp{sums[0]});
    tern::attention(policy(), q, later_.keys(of_later_, layer), later_.values(of_later_, layer), out[1], tern::causal{},
                    tern::log_sum_exp{sums[1]});
    tern::merge(policy(), out, sums, q, sums_(q));
  }
  void truncate(index position) override {
    expect_behind(position, length_);
    for (index l = 0; l < model().layers; ++l) later_.truncate(of_later_, l, position - length_);
  }
  index bytes() const override {
    index sum = full_store::bytes() + later_.bytes();
    for (clusters const& c : layers_) sum += bytes_of(c.centroids) + bytes_of(c.counts) + bytes_of(c.labels);
    return sum;
  }
  bool stepwise() const override { return true; }

 private:
  struct clusters {
    std::vector<float> centroids, counts;
    std::vector<std::int32_t> labels;
    float threshold;
  };
  index clusters_of_text() const { return std::max(length_ / 20, index{1}); }
  clusters cluster(index layer) {
    constexpr index rounds = 5;
    index const heads = model().kv_heads, count = clusters_of_text(), dim = model().dim;
    text_rows const all(*this, layer, 0, length_);
    clusters c{std::vector<float>(static_cast<std::size_t>(heads * count * dim)),
               std::vector<float>(static_cast<std::size_t>(heads * count)),
               std::vector<std::int32_t>(static_cast<std::size_t>(heads * length_)), 0};
    for (index h = 0; h < heads; ++h)
      tern::k_means(policy(), all.keys[h], tern::view(c.centroids.data() + h * count * dim, count, dim),
                    tern::view(c.labels.data() + h * length_, length_), tern::view(c.counts.data() + h * count, count), rounds);
    return c;
  }
  tern::squeezed_clusters view_of(index layer) const {
    index const heads = model().kv_heads, count = clusters_of_text();
    clusters const& c = layers_[static_cast<std::size_t>(layer)];
    return {tern::view(c.centroids.data(), heads, count, model().dim), tern::view(c.counts.data(), heads, count),
            tern::view(c.labels.data(), heads, length_), c.threshold};
  }
  /// The threshold of which the last queries select `budget` tokens a head.
  void calibrate(index layer, index budget) {
    auto const last = seen(layer).last.queries();
    float low = -40, high = 0;  // powers of two
    for (int round = 0; round < 10; ++round) {
      float const middle = (low + high) / 2;
      layers_.back().threshold = std::exp2(middle);
      index selected = 0, asked = 0;
      for (index i = 0; i < last.extent(1); i += 4) {
        tern::squeezed_select(policy(), last.slice(1, i, i + 1), view_of(layer), selected_());
        for (index h = 0; h < model().kv_heads; ++h, ++asked) selected += selected_().count(h);
      }
      (selected > budget * asked ? low : high) = middle;
    }
    layers_.back().threshold = std::exp2(low);
  }

  index length_;
  cache_type later_;
  std::int32_t of_later_;
  std::vector<clusters> layers_;
  place_lists selected_;
  std::vector<float> parts_;  // attention to the text and to what came later, and its log-sum-exps
  log_sums sums_;
};

/// ShadowKV: keys of the text in few dimensions, before rotation, but for a few chunks.
class shadow_store : public kv_store {
 public:
  shadow_store(full_store& text, index budget)
      : model_(text.model()),
        policy_(text.policy()),
        length_(text.cache().length(text.sequence(), 0)),
        budget_(budget / chunk),
        cache_(text.cache().shape()),
        sequence_(cache_.open()),
        table_(static_cast<std::size_t>(length_ * model_.dim)) {
    tern::rope_table(policy_, 0, tern::view(table_.data(), length_, model_.dim), model_.rope);
    for (index l = 0; l < model_.layers; ++l) {
      text_rows const all(text, l, 0, length_);
      rotate_back(policy_, all.keys, all.keys, 0, model_.rope);
      shadow& s = layers_.emplace_back(shadow{std::vector<float>(static_cast<std::size_t>(length_ * rank())),
                                              basis_of(all.keys),
                                              std::vector<float>(static_cast<std::size_t>(model_.kv_heads * chunks() * model_.dim)),
                                              std::vector<tern::f16>(static_cast<std::size_t>(all.values.size())),
                                              {model_.kv_heads, outliers}});
      for (index i = 0; i < all.values.size(); ++i) s.values[static_cast<std::size_t>(i)] = tern::f16(all.values.data()[i]);
      tern::shadow_kv_prompt(policy_, all.keys, all.values, context(s), local, outliers, cache_, sequence_, l);
    }
  }
  void append(index layer, rows k, rows v) override { cache_.append(policy_, sequence_, layer, k, v); }
  void attend(index layer, rows q) override {
    shadow& s = layers_[static_cast<std::size_t>(layer)];
    tern::shadow_kv_attention(policy_, q, context(s), tern::view(s.values.data(), model_.kv_heads, length_, model_.dim), budget_, cache_,
                              sequence_, layer, q, sums_(q));
  }
  void truncate(index position) override {
    expect_behind(position, length_);
    cache_.truncate(sequence_, position);
  }
  index bytes() const override {
    index sum = cache_.bytes() + bytes_of(table_);
    for (shadow const& s : layers_) sum += bytes_of(s.codes) + bytes_of(s.basis) + bytes_of(s.landmarks) + bytes_of(s.values);
    return sum;
  }
  bool stepwise() const override { return true; }

 private:
  static constexpr index chunk = 8, local = 4, outliers = 48;
  struct shadow {
    std::vector<float> codes, basis, landmarks;
    std::vector<tern::f16> values;
    place_lists exact;
  };
  index rank() const { return model_.kv_heads * model_.dim / 2; }
  index chunks() const { return tern::shadow_chunks(length_, chunk, local); }
  tern::shadow_context context(shadow& s) const {
    return {tern::view(s.codes.data(), length_, rank()),
            tern::view(s.basis.data(), rank(), model_.kv_heads * model_.dim),
            tern::view(s.landmarks.data(), model_.kv_heads, chunks(), model_.dim),
            s.exact(),
            tern::view(table_.data(), length_, model_.dim),
            model_.rope.pairing,
            chunk};
  }
  /// The first principal components of the keys of all heads together.
  std::vector<float> basis_of(rows keys) const {
    index const dim = model_.dim, width = model_.kv_heads * dim;
    std::vector<float> together(static_cast<std::size_t>(length_ * width)), basis(static_cast<std::size_t>(rank() * width)),
        variances(static_cast<std::size_t>(width));
    for (index h = 0; h < model_.kv_heads; ++h)
      for (index t = 0; t < length_; ++t) std::copy_n(&keys(h, t, 0), dim, &together[static_cast<std::size_t>(t * width + h * dim)]);
    tern::principal_components(tern::view(together.data(), length_, width), tern::view(basis.data(), rank(), width),
                               tern::view(variances.data(), width));
    return basis;
  }

  kv_model model_;
  tern::cpu_policy policy_;
  index length_, budget_;
  tern::kv_cache<tern::f16> cache_;
  std::int32_t sequence_;
  std::vector<float> table_;  // (length, dim): how keys turn
  std::vector<shadow> layers_;
  log_sums sums_;
};

/// A2ATS: keys before rotation, and the code of each in a codebook of the text's own keys.
class a2ats_store : public kv_store {
 public:
  a2ats_store(full_store& text, index budget)
      : model_(text.model()),
        policy_(text.policy()),
        length_(text.cache().length(text.sequence(), 0)),
        reach_{.top = budget},
        cache_(text.cache().shape()),
        sequence_(cache_.open()),
        books_(static_cast<std::size_t>(model_.layers * book_size())),
        codes_(static_cast<std::size_t>(model_.layers)) {
    for (index l = 0; l < model_.layers; ++l) {
      text_rows const all(text, l, 0, length_);
      fit(l, all.keys, text.seen(l).last.queries());
      append(l, all.keys, all.values);
    }
  }
  void append(index layer, rows k, rows v) override {
    rotate_back(policy_, k, k, cache_.next_position(sequence_, layer), model_.rope);
    auto& codes = codes_[static_cast<std::size_t>(layer)];
    index const heads = model_.kv_heads, before = static_cast<index>(codes.size());
    codes.resize(codes.size() + static_cast<std::size_t>(heads * k.extent(1)));
    tern::nearest_codes(
        policy_, book(layer), k,
        tern::tensor_view<std::int32_t, 2>(codes.data() + before, tern::shape<2>{{heads, k.extent(1)}}, tern::shape<2>{{1, heads}}));
    cache_.append(policy_, sequence_, layer, k, v);
  }
  void attend(index layer, rows q) override {
    index const tokens = cache_.length(sequence_, layer), heads = model_.kv_heads;
    rotate_back(policy_, q, q, tokens - q.extent(1), model_.rope);
    auto const table = rotations_(policy_, model_, std::max(tokens, reach_.far + 1));
    auto const& codes = codes_[static_cast<std::size_t>(layer)];
    if (q.extent(1) == 1)
      tern::a2ats_attention(
          policy_, q, book(layer),
          tern::tensor_view<std::int32_t const, 2>(codes.data(), tern::shape<2>{{heads, tokens}}, tern::shape<2>{{1, heads}}), table,
          reach_, cache_, sequence_, layer, q, sums_(q), model_.rope.pairing);
    else
      tern::attention(policy_, q.expanded(), cache_.keys(sequence_, layer), cache_.values(sequence_, layer), q.expanded(), tern::causal{},
                      tern::rotary{table, model_.rope.pairing});
  }
  void truncate(index position) override {
    cache_.truncate(sequence_, position);
    for (index l = 0; l < model_.layers; ++l)
      codes_[static_cast<std::size_t>(l)].resize(static_cast<std::size_t>(model_.kv_heads * cache_.length(sequence_, l)));
  }
  index bytes() const override {
    index sum = cache_.bytes() + bytes_of(books_) + rotations_.bytes();
    for (auto const& codes : codes_) sum += bytes_of(codes);
    return sum;
  }
  bool stepwise() const override { return true; }

 private:
  index codes_of_book() const { return std::min(length_, index{256}); }
  index book_size() const { return model_.kv_heads * (model_.dim + 2 * codes_of_book()) * model_.dim; }
  tern::query_codebook book(index layer) {
    index const heads = model_.kv_heads, dim = model_.dim, count = codes_of_book();
    float* const at = books_.data() + layer * book_size();
    return {tern::view(at, heads, dim, dim), tern::view(at + heads * dim * dim, heads, count, dim),
            tern::view(at + heads * (dim + count) * dim, heads, count, dim)};
  }
  /// For queries that are `far` away.
  void fit(index layer, rows keys, tern::tensor_view<float const, 3> last) {
    constexpr index rounds = 5;
    std::vector<float> memory(static_cast<std::size_t>(last.size() + keys.size()));
    auto const q = tern::view(memory.data(), last.extent(0), last.extent(1), last.extent(2));
    auto const k = tern::view(memory.data() + last.size(), keys.extent(0), keys.extent(1), keys.extent(2));
    rotate_back(policy_, last, q, length_ - last.extent(1), model_.rope);
    std::vector<std::int32_t> const there(static_cast<std::size_t>(last.extent(1)), static_cast<std::int32_t>(reach_.far));
    tern::rope(policy_, q, there, model_.rope);
    rotate_back(policy_, keys, k, 0, model_.rope);
    tern::fit_query_codebook(policy_, q, k, book(layer), rounds);
  }

  kv_model model_;
  tern::cpu_policy policy_;
  index length_;
  tern::a2ats_reach reach_;
  tern::kv_cache<tern::f16> cache_;
  std::int32_t sequence_;
  std::vector<float> books_;                      // (layers, book_size)
  std::vector<std::vector<std::int32_t>> codes_;  // of each layer (tokens, kv_heads)
  rotation_table rotations_;
  log_sums sums_;
};

}  // namespace

std::unique_ptr<kv_store> make_retrieval_store(std::string_view name, index budget, full_store& text) {
  if (name == "squeezed") return std::make_unique<squeezed_store>(text, budget);
  if (name == "shadow_kv") return std::make_unique<shadow_store>(text, budget);
  if (name == "a2ats") return std::make_unique<a2ats_store>(text, budget);
  return nullptr;
}

}  // namespace llm
