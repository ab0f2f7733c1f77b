// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/llm/kv_store.hpp
/// Where a model keeps the keys and values of the text that it has read: one sequence, in one of many ways, chosen by name.

#include <tern/cache/kv_cache.hpp>
#include <tern/cache/methods/h2o.hpp>
#include <tern/cache/recent_queries.hpp>
#include <tern/formats/block_matrix.hpp>
#include <tern/pointwise.hpp>

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llm {

/// What a store has to know of a model.
struct kv_model {
  tern::index layers, heads, kv_heads, dim;
  tern::rope_options rope;
  std::vector<tern::block_matrix> out;  ///< the output projections of the layers, (width, heads dim)
};

/// See the top of this file.
class kv_store {
 public:
  using rows = tern::tensor_view<float, 3>;  // (heads, tokens, dim)
  virtual ~kv_store() = default;

  /// Takes in rotated keys, and values, (kv_heads, tokens, dim) each, of the tokens that follow. May change both.
  virtual void append(tern::index layer, rows k, rows v) = 0;
  /// Attention of the last tokens, in place of their rotated queries (heads, tokens, dim).
  virtual void attend(tern::index layer, rows q) = 0;
  /// Which of these tokens the model computes further, ascending: their attention is in the first rows of q. None listed: all.
  virtual std::span<std::int32_t const> going_on() const { return {}; }
  /// All layers have read `tokens` more tokens.
  virtual void read_to_end(tern::index) {}
  /// Forgets tokens at `position` and behind it.
  virtual void truncate(tern::index position) = 0;
  /// Bytes of the keys and values of the text.
  virtual tern::index bytes() const = 0;
  /// Whether it works differently where tokens come one by one, as the model's own do.
  virtual bool stepwise() const { return false; }
};

/// Keys and values as they came, in f16, and what methods look at to choose among them.
class full_store : public kv_store {
 public:
  using cache_type = tern::kv_cache<tern::f16>;
  /// What is remembered of the queries: nothing, the latest ones, or also what each token got of the attention of all.
  enum class observes { nothing, queries, sums };
  full_store(kv_model const& model, tern::cpu_policy const& policy, observes what);
  ~full_store() override;
  /// The same text, of which it goes on to observe what it is told; what either forgets the other keeps.
  full_store(full_store const& other, observes what);
  full_store(full_store const& other) : full_store(other, other.observes_) {}
  full_store& operator=(full_store const&) = delete;

  void append(tern::index layer, rows k, rows v) override;
  void attend(tern::index layer, rows q) override;
  void truncate(tern::index position) override { cache().truncate(sequence_, position); }
  tern::index bytes() const override { return cache_->bytes(sequence_); }

  kv_model const& model() const { return model_; }
  tern::cpu_policy const& policy() const { return policy_; }
  cache_type& cache() { return *cache_; }
  std::int32_t sequence() const { return sequence_; }
  /// Of a layer: the latest queries, rotated, and what each token got of the attention of all.
  struct observations {
    tern::recent_queries last;
    tern::h2o_state sums;
  };
  observations& seen(tern::index layer) { return seen_[static_cast<std::size_t>(layer)]; }

 private:
  kv_model model_;
  tern::cpu_policy policy_;
  std::shared_ptr<cache_type> cache_;
  std::int32_t sequence_;
  std::vector<observations> seen_;  // by layer
  observes observes_;
};

/// Queries of how many tokens are remembered.
inline constexpr tern::index observed_tokens = 32;

/// Tokens of a layer of a full store as floats: keys and values (kv_heads, tokens, dim).
class text_rows {
 public:
  text_rows(full_store& text, tern::index layer, tern::index first, tern::index count);
  text_rows(text_rows const&) = delete;
  kv_store::rows keys, values;

 private:
  std::vector<float> memory_;
};
/// Rows of tokens at positions from `first` on, (heads, tokens, dim), as they were before their rotation; `to` may be x.
void rotate_back(tern::cpu_policy const& policy, tern::tensor_view<float const, 3> x, kv_store::rows to, tern::index first,
                 tern::rope_options const& options);
/// The rotations of positions from 0 on, as many as were asked for.
class rotation_table {
 public:
  tern::tensor_view<float const, 2> operator()(tern::cpu_policy const& policy, kv_model const& model, tern::index positions) {
    if (static_cast<tern::index>(rows_.size()) < positions * model.dim) {
      positions += 1024;  // not anew at each step
      rows_.resize(static_cast<std::size_t>(positions * model.dim));
      tern::rope_table(policy, 0, tern::view(rows_.data(), positions, model.dim), model.rope);
    }
    return tern::view(static_cast<float const*>(rows_.data()), static_cast<tern::index>(rows_.size()) / model.dim, model.dim);
  }
  tern::index bytes() const { return static_cast<tern::index>(rows_.size() * sizeof(float)); }

 private:
  std::vector<float> rows_;
};
/// Room for a log-sum-exp of each query.
class log_sums {
 public:
  tern::tensor_view<float, 2> operator()(kv_store::rows const& q) {
    memory_.resize(static_cast<std::size_t>(q.extent(0) * q.extent(1)));
    return tern::view(memory_.data(), q.extent(0), q.extent(1));
  }

 private:
  std::vector<float> memory_;
};

/// Lists of places for each key head, with room for `most` each.
class place_lists {
 public:
  place_lists(tern::index heads, tern::index most) : memory_(static_cast<std::size_t>(heads * (most + 1))), heads_(heads), most_(most) {}
  tern::index_lists operator()() {
    return {tern::view(memory_.data(), heads_, most_), tern::view(memory_.data() + heads_ * most_, heads_)};
  }

 private:
  std::vector<std::int32_t> memory_;
  tern::index heads_, most_;
};

/// Appends the tokens of a text that has lost none to a store.
void copy_text(full_store& from, kv_store& to);

/// A name, and what it is.
struct kv_store_name {
  /// What its store is made of.
  enum class source {
    nothing,      ///< every token is rounded as it comes
    tokens,       ///< what comes, or a text; it takes a budget
    prompt,       ///< a text that has been read
    prompt_part,  ///< the same; it takes a budget
    reading,      ///< a text, of which it sees a part while it reads
    chunks,       ///< chunks of a text, as kv_chunks.hpp reads them
  };
  std::string name;
  char const* what;
  source from;
  bool takes_budget() const { return from == source::tokens || from == source::prompt_part; }
};
std::vector<kv_store_name> const& kv_store_names();

/// A store by its name, of which `kv_store_names` has the list. Names that take a budget end in ":" and how many tokens, as in
/// "snapkv:512". `text` may hold a text already, which is then in the store too. Stores that are made of a prompt begin as a full store
/// where there is no text, and are made of what the model reads first.
std::unique_ptr<kv_store> make_kv_store(std::string_view name, kv_model const& model, tern::cpu_policy const& policy,
                                        full_store* text = nullptr);

// The stores of some files, or null.
std::unique_ptr<kv_store> make_format_store(std::string_view name, kv_model const& model, tern::cpu_policy const& policy);
std::unique_ptr<kv_store> make_method_store(std::string_view name, tern::index budget, full_store& text);
std::unique_ptr<kv_store> make_low_rank_store(std::string_view name, full_store& text);
std::unique_ptr<kv_store> make_page_store(std::string_view name, tern::index budget, full_store& text);
std::unique_ptr<kv_store> make_retrieval_store(std::string_view name, tern::index budget, full_store& text);
std::unique_ptr<kv_store> make_pattern_store(std::string_view name, tern::index budget, full_store& text);
std::unique_ptr<kv_store> make_reading_store(kv_model const& model, tern::cpu_policy const& policy);

}  // namespace llm
