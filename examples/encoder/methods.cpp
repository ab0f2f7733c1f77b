// SPDX-License-Identifier: Apache-2.0
#include "methods.hpp"

#include "token_memory.hpp"

#include <tern/core/random.hpp>
#include <tern/tokens/average_tokens.hpp>
#include <tern/tokens/bipartite_matching.hpp>
#include <tern/tokens/move_tokens.hpp>
#include <tern/tokens/select_tokens.hpp>

#include <algorithm>
#include <cmath>

namespace encoder {

using tern::index;

namespace {

/// The first and the last token stay: [CLS] and [SEP].
constexpr tern::protect ends{1, 1};

/// A share of the tokens goes on from the feed-forward of one layer.
class at_one_layer : public reduction {
 public:
  at_one_layer(double share, index layers) : share_(share), layer_((layers - 1) / 2) {}
  index tokens_after(index layer, index, index tokens) const override {
    return layer == layer_ ? std::max(index{1}, static_cast<index>(std::ceil(share_ * static_cast<double>(tokens)))) : tokens;
  }

 private:
  double share_;
  index layer_;
};

/// Tokens merge into the most similar ones (ToMe), at most half of them at once; what is left is matched again.
class merging : public at_one_layer {
 public:
  using at_one_layer::at_one_layer;
  bool proportional() const override { return true; }
  void reduce(tern::cpu_policy const& policy, stage const& s) override {
    index const goal = s.x_to.extent(1);
    auto x = s.x, keys = s.keys;
    auto sizes = s.sizes;
    for (auto* from = &halves_[0];; from = from == &halves_[0] ? &halves_[1] : &halves_[0]) {
      index const tokens = x.extent(1), after = std::max(goal, tokens - tern::bipartite_sources(tokens, {}));
      tern::token_map const map = map_.map(s.x.extent(0), tokens);
      tern::token_pairs const pairs = map_.pairs(s.x.extent(0), tokens - after);
      tern::bipartite_matching(policy, keys, tokens - after, pairs);
      tern::map_merged(pairs, map);
      if (after == goal) return tern::average_tokens(policy, map, sizes, s.sizes_to, tern::moved{x, s.x_to});
      auto const to = from->like(x, after);
      tern::average_tokens(policy, map, sizes, to.sizes, tern::moved{x, to.x}, tern::moved{keys, to.keys});
      x = to.x, keys = to.keys, sizes = to.sizes;
    }
  }

 private:
  map_memory map_;
  token_memory halves_[2];
};

/// The tokens with the largest scores stay, and maybe one for all others.
class pruning : public at_one_layer {
 public:
  pruning(double share, index layers, tern::others rest) : at_one_layer(share, layers), rest_(rest) {}
  bool proportional() const override { return rest_ == tern::others::together; }
  void reduce(tern::cpu_policy const& policy, stage const& s) override {
    index const texts = s.x.extent(0), tokens = s.x.extent(1), goal = s.x_to.extent(1);
    tern::token_map const map = map_.map(texts, tokens);
    tern::index_lists const kept = map_.list(texts, goal);
    tern::select_tokens(policy, scores(s), proportional() ? goal - 1 : goal, ends, kept);
    tern::map_kept(kept, map, rest_);
    tern::average_tokens(policy, map, s.sizes, s.sizes_to, tern::moved{s.x, s.x_to});
  }

 protected:
  virtual tern::tensor_view<float const, 2> scores(stage const& s) = 0;

 private:
  tern::others rest_;
  map_memory map_;
};

class by_attention : public pruning {
 public:
  using pruning::pruning;
  bool wants_attention() const override { return true; }

 protected:
  tern::tensor_view<float const, 2> scores(stage const& s) override { return s.received; }
};

/// Scores that do not look at the tokens.
template <class Score>
class blind : public pruning {
 public:
  blind(double share, index layers) : pruning(share, layers, tern::others::nowhere) {}

 protected:
  tern::tensor_view<float const, 2> scores(stage const& s) override {
    scores_.resize(static_cast<std::size_t>(s.x.extent(0) * s.x.extent(1)));
    auto const all = tern::view(scores_.data(), s.x.extent(0), s.x.extent(1));
    for (index b = 0; b < all.extent(0); ++b)
      for (index i = 0; i < all.extent(1); ++i) all(b, i) = score_(i);
    return all;
  }

 private:
  Score score_;
  std::vector<float> scores_;
};
struct by_chance {
  tern::random random{1};
  float operator()(index) { return static_cast<float>(random() % (1U << 24)); }
};
struct by_place {
  float operator()(index i) const { return -static_cast<float>(i); }
};

template <class Reduction, auto... Options>
std::unique_ptr<reduction> make(double share, index layers) {
  return std::make_unique<Reduction>(share, layers, Options...);
}

}  // namespace

std::vector<method> const& methods() {
  using tern::others;
  static std::vector<method> const all = {
      {"merge", "the most similar merge (ToMe)", make<merging>},
      {"prune", "those stay that get the most attention", make<by_attention, others::nowhere>},
      {"prune, one for the rest", "the same, and the mean of the others", make<by_attention, others::together>},
      {"chance", "any", make<blind<by_chance>>},
      {"first", "the first", make<blind<by_place>>},
  };
  return all;
}

}  // namespace encoder
