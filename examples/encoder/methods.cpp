// SPDX-License-Identifier: Apache-2.0
#include "methods.hpp"

#include "token_memory.hpp"

#include <tern/core/random.hpp>
#include <tern/tokens/keep_schedule.hpp>
#include <tern/tokens/systems/diffrate.hpp>
#include <tern/tokens/systems/turbo.hpp>

#include <algorithm>

namespace encoder {

using tern::index;

namespace {

/// [CLS] and [SEP] stay as they are.
constexpr tern::protect ends{1, 1};
constexpr index fewest = 3;  // tokens of a text: these and one between

/// A share of the tokens is left from the middle layer's feed-forward on.
struct in_the_middle : tern::ramp_schedule {
  in_the_middle(double share, index layers) : tern::ramp_schedule{(layers - 1) / 2 - 1, (layers - 1) / 2, 1, share} {}
};
/// Each layer leaves as many fewer, until the share is left.
struct in_each_layer : tern::ramp_schedule {
  in_each_layer(double share, index layers) : tern::ramp_schedule{-1, layers - 1, 1, share} {}
};

class scheduled : public reduction {
 public:
  explicit scheduled(tern::ramp_schedule const& schedule) : schedule_(schedule) {}
  index tokens_after(index layer, index length, index tokens) const override {
    return std::min(tokens, std::max(fewest, schedule_.tokens(layer, length)));
  }

 private:
  tern::ramp_schedule schedule_;
};

/// Tokens merge into the most similar ones: ToMe, or with a penalty for those that get attention, Turbo. At most half of them merge at
/// once; what is left is matched again.
class merging : public scheduled {
 public:
  explicit merging(tern::ramp_schedule const& schedule, float penalty = 0) : scheduled(schedule), penalty_(penalty) {}
  bool proportional() const override { return true; }
  bool wants_attention() const override { return penalty_ != 0; }
  void reduce(tern::cpu_policy const& policy, stage const& s) override {
    index const texts = s.x.extent(0), goal = s.x_to.extent(1);
    auto from = s.x;
    auto sizes = s.sizes;
    for (int round = 0;; ++round) {
      index const tokens = from.extent(1), after = std::max(goal, tokens - tern::bipartite_sources(tokens, ends));
      auto const to = after == goal ? token_memory::views{s.x_to, s.sizes_to} : halves_[round % 2].like(from, after);
      auto const map = map_.map(texts, tokens);
      if (penalty_ != 0 && round == 0)
        tern::turbo(policy, from, s.received, penalty_ * static_cast<float>(tokens), tokens - after, {.always = ends}, map, sizes, to.sizes,
                    tern::moved{from, to.x});
      else
        tern::tome(policy, from, tokens - after, {.always = ends}, map, sizes, to.sizes, tern::moved{from, to.x});
      if (after == goal) return;
      from = to.x, sizes = to.sizes;
    }
  }

 private:
  float penalty_;
  map_memory map_;
  token_memory halves_[2];
};

/// Half of the tokens that go are dropped, the others merge into the most similar ones that stay.
class dropping_and_merging : public scheduled {
 public:
  using scheduled::scheduled;
  bool proportional() const override { return true; }
  bool wants_attention() const override { return true; }
  void reduce(tern::cpu_policy const& policy, stage const& s) override {
    index const tokens = s.x.extent(1), goal = s.x_to.extent(1);
    tern::diffrate(policy, s.x, s.received, (tokens + goal) / 2, goal, map_.map(s.x.extent(0), tokens), s.sizes, s.sizes_to, s.x_to);
  }

 private:
  map_memory map_;
};

/// The tokens with the largest scores stay, and maybe one for all others.
class pruning : public scheduled {
 public:
  explicit pruning(tern::ramp_schedule const& schedule, tern::others rest = tern::others::nowhere) : scheduled(schedule), rest_(rest) {}
  void reduce(tern::cpu_policy const& policy, stage const& s) override {
    index const texts = s.x.extent(0), goal = s.x_to.extent(1);
    auto const map = map_.map(texts, s.x.extent(1));
    auto const kept = map_.list(texts, goal);
    tern::select_tokens(policy, scores(s), rest_ == tern::others::together ? goal - 1 : goal, ends, kept);
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
  using pruning::pruning;

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

template <class Reduction, class Schedule, auto... Options>
std::unique_ptr<reduction> make(double share, index layers) {
  return std::make_unique<Reduction>(Schedule(share, layers), Options...);
}

}  // namespace

std::vector<method> const& methods() {
  using tern::others;
  static std::vector<method> const all = {
      {"merge", "the most similar become one (ToMe)", make<merging, in_the_middle>},
      {"merge by layer", "the most similar become one, some in each layer", make<merging, in_each_layer>},
      {"Turbo by layer", "the most similar of those that [CLS] looks at little become one, some in each layer",
       make<merging, in_each_layer, 0.1F>},
      {"DiffRate", "half of those that [CLS] looks at least are dropped, half merge", make<dropping_and_merging, in_the_middle>},
      {"DiffRate by layer", "half of those that [CLS] looks at least are dropped, half merge, some in each layer",
       make<dropping_and_merging, in_each_layer>},
      {"prune", "those that [CLS] looks at least are dropped", make<by_attention, in_the_middle>},
      {"prune by layer", "those that [CLS] looks at least are dropped, some in each layer", make<by_attention, in_each_layer>},
      {"prune and sum up", "those that [CLS] looks at least become one", make<by_attention, in_the_middle, others::together>},
      {"chance", "any are dropped", make<blind<by_chance>, in_the_middle>},
      {"first", "the last are dropped", make<blind<by_place>, in_the_middle>},
  };
  return all;
}

}  // namespace encoder
