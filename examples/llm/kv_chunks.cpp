// SPDX-License-Identifier: Apache-2.0
#include "kv_chunks.hpp"

#include <tern/cache/methods/cache_craft.hpp>
#include <tern/core/random.hpp>

#include <algorithm>
#include <numeric>

namespace llm {

using tern::index;

namespace {

constexpr index chunk = 512, sinks = 4;

std::span<model::token const> chunk_of(std::span<model::token const> tokens, index which) {
  auto const first = static_cast<std::size_t>(which * chunk);
  return tokens.subspan(first, std::min(tokens.size() - first, static_cast<std::size_t>(chunk)));
}
index chunks_of(std::span<model::token const> tokens) { return (static_cast<index>(tokens.size()) + chunk - 1) / chunk; }

/// Tokens [first, first + count) of `from` stand behind those of `to`; both share a cache.
void append_part(full_store& from, index first, index count, full_store& to) {
  auto const s = to.cache().fork(from.sequence());
  std::vector<std::int32_t> memory(static_cast<std::size_t>(count + from.model().kv_heads));
  auto const lists = tern::consecutive_tokens(memory.data(), from.model().kv_heads, first, count);
  for (index l = 0; l < from.model().layers; ++l) {
    to.cache().keep(to.policy(), s, l, lists);
    tern::append_chunk(to.policy(), to.cache(), s, l, to.cache(), to.sequence(), to.model().rope);
  }
  to.cache().close(s);
}

/// Chunks that were each read behind the first tokens alone, together.
full_store read_alone(model& network, tern::cpu_policy const& policy, std::span<model::token const> tokens) {
  full_store text = read_text(network, policy, chunk_of(tokens, 0));
  full_store first(text);
  first.truncate(sinks);
  for (index c = 1; c < chunks_of(tokens); ++c) {
    auto store = std::make_unique<full_store>(first);
    full_store& read = *store;
    network.use(std::move(store), sinks);
    network.read(chunk_of(tokens, c), 0);
    append_part(read, sinks, static_cast<index>(chunk_of(tokens, c).size()), text);
  }
  return text;
}

/// A full store that also sees how much the tokens of a chunk look at each chunk before it, and at their own: the mean over the layers.
/// The first tokens, which all look at, do not count.
class looking_store : public full_store {
 public:
  explicit looking_store(full_store const& text) : full_store(text, observes::nothing) {}
  void begin_chunk(index count, index place) {
    starts_.resize(static_cast<std::size_t>(place + 2));
    for (index i = 1; i <= place; ++i) starts_[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(i * chunk - sinks);
    starts_.back() = static_cast<std::int32_t>(place * chunk + count - sinks);
    masses_.assign(static_cast<std::size_t>(count * (place + 1)), 0.F);
  }
  void attend(index layer, rows q) override {
    text_rows const all(*this, layer, sinks, starts_.back());
    std::vector<float> memory(masses_.size());
    tern::chunk_masses(policy(), q, all.keys, starts(), tern::view(memory.data(), q.extent(1), starts().extent(0) - 1));
    for (std::size_t i = 0; i < memory.size(); ++i) masses_[i] += memory[i] / static_cast<float>(model().layers);
    full_store::attend(layer, q);
  }
  tern::tensor_view<std::int32_t const, 1> starts() const { return tern::view(starts_); }
  /// (tokens of the chunk, chunks)
  tern::tensor_view<float const, 2> masses() const {
    index const texts = starts().extent(0) - 1;
    return tern::view(masses_.data(), static_cast<index>(masses_.size()) / texts, texts);
  }

 private:
  std::vector<std::int32_t> starts_;
  std::vector<float> masses_;
};

/// Which tokens of a chunk that was read at `place` of `order` are to be read again, from `chosen` on.
void choose_tokens(looking_store const& seen, std::span<std::int32_t const> order, index place, std::uint8_t* chosen) {
  auto const masses = seen.masses();
  std::vector<std::int32_t> now(static_cast<std::size_t>(order[static_cast<std::size_t>(place)]));
  std::iota(now.begin(), now.end(), 0);
  double const overlap = tern::cache_craft_overlap(masses, tern::view(order.first(static_cast<std::size_t>(place))), tern::view(now));
  std::vector<float> scores(static_cast<std::size_t>(masses.extent(0)));
  std::vector<std::int32_t> list(scores.size());
  index const count =
      tern::cache_craft_choose(masses, tern::cache_craft_impact(masses, seen.starts()), overlap, 1, tern::view(scores), tern::view(list));
  for (index i = 0; i < count; ++i) chosen[list[static_cast<std::size_t>(i)]] = 1;
}

/// Chunks that were read in another order, together, and which tokens are to be read again.
full_store read_shuffled(model& network, tern::cpu_policy const& policy, std::span<model::token const> tokens,
                         std::vector<std::uint8_t>& chosen) {
  full_store text = read_text(network, policy, chunk_of(tokens, 0));
  auto store = std::make_unique<looking_store>(text);
  looking_store& seen = *store;
  network.use(std::move(store), chunk);
  std::vector<std::int32_t> order(static_cast<std::size_t>(chunks_of(tokens)));  // but for the last, which may be shorter
  std::iota(order.begin(), order.end(), 0);
  tern::random random(1);
  for (index i = static_cast<index>(order.size()) - 2; i > 1; --i)
    std::swap(order[static_cast<std::size_t>(i)], order[1 + random() % static_cast<std::size_t>(i)]);
  for (index place = 1; place < static_cast<index>(order.size()); ++place) {
    index const which = order[static_cast<std::size_t>(place)];
    seen.begin_chunk(static_cast<index>(chunk_of(tokens, which).size()), place);
    network.read(chunk_of(tokens, which), 0);
    choose_tokens(seen, order, place, chosen.data() + which * chunk);
  }
  for (std::int32_t c = 1; c < static_cast<std::int32_t>(order.size()); ++c)
    append_part(seen, (std::find(order.begin(), order.end(), c) - order.begin()) * chunk, static_cast<index>(chunk_of(tokens, c).size()),
                text);
  return text;
}

/// A text of chunks while the model reads it again: chosen tokens take the keys and values that they have in their place, and go on.
class blend_store : public full_store {
 public:
  /// `chosen`: for each token of the text whether it goes on; none: in each layer those that differ most.
  blend_store(full_store const& text, std::vector<std::uint8_t> chosen) : full_store(text, observes::nothing), chosen_(std::move(chosen)) {}
  void append(index, rows k, rows v) override { k_ = k, v_ = v; }
  void attend(index layer, rows q) override {
    index const n = q.extent(1);
    on_.clear();
    if (layer == 0) begin(n);
    if (layer == 0 && !chosen_.empty()) {
      for (index i = 0; i < n; ++i)
        if (chosen_[static_cast<std::size_t>(places_[static_cast<std::size_t>(i)])] != 0 || i + 1 == n)
          on_.push_back(static_cast<std::int32_t>(i));
      for (rows x : {q, k_, v_}) to_front(x);
      list_places();
    }
    auto const left = static_cast<index>(places_.size());
    index const count = chosen_.empty() ? count_of(layer) : left;
    std::vector<std::int32_t> differ(static_cast<std::size_t>(count));
    rows const x = q.slice(1, 0, left), out = q.slice(1, 0, count);
    tern::cache_blend(policy(), cache(), sequence(), layer, tern::view(places_), x, k_.slice(1, 0, left), v_.slice(1, 0, left), count,
                      chosen_.empty() ? 0 : count, tern::view(differ), out, sums_(out));
    if (!chosen_.empty()) return;
    on_ = std::move(differ);
    list_places();
  }
  std::span<std::int32_t const> going_on() const override { return on_; }
  /// The next tokens that are read stand from here on.
  void begin_at(index place) { next_ = place; }

 private:
  /// A fourth more in the first layer than in the last.
  index count_of(index layer) const {
    double const more = 1 + 0.25 * static_cast<double>(model().layers - 1 - layer) / static_cast<double>(model().layers);
    return std::clamp(static_cast<index>(share * more * static_cast<double>(read_)), index{1}, static_cast<index>(places_.size()));
  }
  void begin(index n) {
    read_ = n;
    places_.resize(static_cast<std::size_t>(n));
    std::iota(places_.begin(), places_.end(), static_cast<std::int32_t>(next_));
    next_ += n;
  }
  void to_front(rows x) const {
    for (index h = 0; h < x.extent(0); ++h)
      for (std::size_t i = 0; i < on_.size(); ++i) std::copy_n(&x(h, on_[i], 0), x.extent(2), &x(h, static_cast<index>(i), 0));
  }
  void list_places() {
    for (std::size_t i = 0; i < on_.size(); ++i) places_[i] = places_[static_cast<std::size_t>(on_[i])];
    places_.resize(on_.size());
  }

  static constexpr double share = 0.15;
  std::vector<std::uint8_t> chosen_;
  index next_ = 0, read_ = 0;
  rows k_, v_;
  std::vector<std::int32_t> places_, on_;  // of the tokens of this layer, and which of them go on
  log_sums sums_;
};

}  // namespace

full_store read_text(model& network, tern::cpu_policy const& policy, std::span<model::token const> tokens, full_store::observes what) {
  auto store = std::make_unique<full_store>(network.shape(), policy, what);
  full_store& text = *store;
  network.use(std::move(store), 0);
  network.read(tokens, 0);
  return text;
}

std::unique_ptr<kv_store> read_in_chunks(std::string_view name, model& network, tern::cpu_policy const& policy,
                                         std::span<model::token const> tokens) {
  std::vector<std::uint8_t> chosen(name == "cache_craft" ? tokens.size() : 0);
  auto store = std::make_unique<blend_store>(
      chosen.empty() ? read_alone(network, policy, tokens) : read_shuffled(network, policy, tokens, chosen), chosen);
  full_store& text = *store;
  store->begin_at(chunk);
  network.use(std::move(store), chunk);
  if (chunks_of(tokens) > 1) network.read(tokens.subspan(chunk), 0);
  return std::make_unique<full_store>(text);
}

}  // namespace llm
