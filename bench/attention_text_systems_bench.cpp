// SPDX-License-Identifier: Apache-2.0
// Published systems of attention that differ in which tokens of a text, a graph or a batch of texts see each other.
#include "attention_systems.hpp"

#include <tern/attention/systems/anchor_attention.hpp>
#include <tern/attention/systems/budget_longformer.hpp>
#include <tern/attention/systems/byte2word.hpp>
#include <tern/attention/systems/byte_transformer.hpp>
#include <tern/attention/systems/fit.hpp>
#include <tern/attention/systems/flame.hpp>
#include <tern/attention/systems/largegt.hpp>
#include <tern/attention/systems/longlora.hpp>
#include <tern/attention/systems/prepacking.hpp>
#include <tern/attention/systems/ring_attention.hpp>
#include <tern/attention/systems/s2_attention.hpp>

namespace tern::bench {
namespace {

void add_packed(inputs const& text) {
  static std::vector<std::int32_t> ids, cu{0, 100, 300, 310, 700, 1024};
  for (index i = 0, d = 0; i < text.n.tokens; ++i) ids.push_back(static_cast<std::int32_t>(d += i == cu[at(d + 1)]));
  add_formula("anchor_attention", text, {.sees = [](index, index i, index j) { return j <= i && (j == 0 || ids[at(i)] == ids[at(j)]); }},
              [](cpu_policy const& on, problem& x) { attention(on, x.q, x.k, x.v, x.out, anchor_attention(ids)); });
  add_formula("byte_transformer", text, {.sees = [](index, index i, index j) { return ids[at(i)] == ids[at(j)]; }},
              [](cpu_policy const& on, problem& x) { attention(on, x.q, x.k, x.v, x.out, varlen(cu)); });

  // A caption of 700 tokens, and 27 facets of 12.
  static std::vector<std::int32_t> facets;
  for (index i = 0; i < text.n.tokens; ++i) facets.push_back(static_cast<std::int32_t>(i < 700 ? -1 : (i - 700) / 12));
  add_formula("flame", text, {.sees = [](index, index i, index j) { return j <= i && (j < 700 || facets[at(i)] == facets[at(j)]); }},
              [](cpu_policy const& on, problem& x) { attention(on, x.q, x.k, x.v, x.out, facet_decoupled(facets, 700)); });

  // Prompts in bins of 300 tokens; the plan is made for each batch.
  static std::vector<std::int32_t> const lengths{30, 300, 45, 70, 155, 30, 280, 100, 14};
  static std::vector<std::int32_t> memory(at(prepacking::room(std::ssize(lengths))));
  static std::vector<index> owner;
  prepacking const plan(lengths, 300, memory);
  for (index s = 0; s < plan.prompts(); ++s) owner.insert(owner.end(), at(plan.length(plan.prompt(s))), s);
  add_formula(
      "prepacking", text, {.sees = [](index, index i, index j) { return j <= i && owner[at(i)] == owner[at(j)]; }},
      [](cpu_policy const& on, problem& x) { attention(on, x.q, x.k, x.v, x.out, prepacking(lengths, 300, memory).layout(), causal{}); });
}

void add_long(inputs const& text) {
  add_formula("longlora", text,
              {.sees =
                   [](index h, index i, index j) {
                     index const shift = h >= 4 ? 128 : 0, a = i + (shift > 0 ? 256 - shift : 0), b = j + (shift > 0 ? 256 - shift : 0);
                     return j <= i && a / 256 == b / 256;
                   }},
              [](cpu_policy const& on, problem& x) { attention(on, x.q, x.k, x.v, x.out, longlora{256}, causal{}); });
  add_formula("s2_attention", text,
              {.sees = [](index h, index i, index j) { return j <= i && (i / 64 - j / 64 < 2 || (j / 64 + h * 1 + 1) % 8 == 0); }},
              [](cpu_policy const& on, problem& x) { attention(on, x.q, x.k, x.v, x.out, s2_attention{64, 2, 8}, causal{}); });
  // Keys in four blocks, the queries' own last.
  add_formula("ring_attention", text, {.sees = [](index, index i, index j) { return j <= i; }}, [](cpu_policy const& on, problem& x) {
    ring_attention_start(x.out, x.lse);
    for (index from = 0; from < 1024; from += 256)
      ring_attention_step(on, x.q, x.k.slice(1, from, from + 256), x.v.slice(1, from, from + 256), x.out, x.lse, causal{-from});
  });

  // Windows of 257 tokens and four global ones, which have projections of their own.
  static std::vector<std::int32_t> const globals{0, 1, 511, 700};
  static std::vector<std::uint8_t> is_global(1024);
  for (std::int32_t i : globals) is_global[at(i)] = 1;
  formula const local{.sees = [](index, index i, index j) { return std::abs(i - j) <= 128 || is_global[at(j)] != 0; }};
  inputs const own(text.n, 4);
  add(
      "budget_longformer", text, flops(text.n, pairs(text.n, local) + 8. * 4 * 1024),
      [=](problem const& x) {
        problem const& y = own.get();
        return right(x, [&](index h, index i) {
          return is_global[at(i)] != 0 ? weighed(y, weights(y, {}, h, i), h) : weighed(x, weights(x, local, h, i), h);
        });
      },
      [=](cpu_policy const& on, problem& x) {
        problem const& y = own.get();
        attention(on, x.q, x.k, x.v, x.out, longformer_local(128, is_global));
        attention(on, y.q, y.k, y.v, x.out, query_list(globals));
      });
}

/// Tokens and latents, or words and bytes, in groups of their own.
void add_groups() {
  static constexpr fit_groups fit{16, 4};
  auto const groups = [](std::string const& system, even_groups layout, index n, index m) {
    sizes const of{.heads = 8, .tokens = 256 * n, .dim = 64, .keys = 256 * m};
    add_formula(
        system, inputs(of), {.sees = [=](index, index i, index j) { return i / n == j / m; }},
        [layout](cpu_policy const& on, problem& x) { attention(on, x.q, x.k, x.v, x.out, layout); }, 8. * 256 * static_cast<double>(n * m));
  };
  groups("fit_local", fit.local(), 16, 16);
  groups("fit_read", fit.read(), 4, 16);
  groups("fit_write", fit.write(), 16, 4);

  // Words of 2 to 10 bytes.
  static std::vector<std::int32_t> offsets{0}, words{0};
  for (std::int32_t w = 0; w < 2048; ++w) {
    words.push_back(w + 1);
    offsets.push_back(offsets.back() + 2 + w * 7 % 9);
  }
  index const bytes = offsets.back();
  add_formula(
      "byte2word", inputs({.heads = 8, .tokens = 2048, .dim = 64, .keys = bytes}),
      {.sees = [](index, index w, index j) { return offsets[at(w)] <= j && j < offsets[at(w + 1)]; }},
      [](cpu_policy const& on, problem& x) { attention(on, x.q, x.k, x.v, x.out, byte2word(offsets, words)); },
      8. * static_cast<double>(bytes));
}

/// A graph of 1024 nodes: 50 sampled neighbours of each, at three hops, and a codebook.
void add_graph() {
  static constexpr index nodes = 1024, samples = 50;
  static std::vector<std::int32_t> starts{0}, list;
  test::rng random(5);
  for (index i = 0; i < nodes; ++i) {
    for (index s = 0; s < samples; ++s) {
      auto const j = static_cast<std::int32_t>(random.integer(0, nodes - 1));
      for (std::int32_t hop = 0; hop < 3; ++hop) list.push_back(hop * static_cast<std::int32_t>(nodes) + j);
    }
    starts.push_back(static_cast<std::int32_t>(list.size()));
  }
  auto const listed = [](index i, index j) { return std::count(list.begin() + starts[at(i)], list.begin() + starts[at(i + 1)], j); };
  add_formula(
      "largegt_local", inputs({.heads = 8, .tokens = nodes, .dim = 32, .keys = 3 * nodes}),
      {.sees = [=](index, index i, index j) { return listed(i, j) > 0; },
       .score = [=](problem const&, index, index i, index j, double s) { return s + std::log(static_cast<double>(listed(i, j))); }},
      [](cpu_policy const& on, problem& x) { attention(on, x.q, x.k, x.v, x.out, gather_list(starts, list)); }, 8. * nodes * 3 * samples);

  static std::vector<std::int32_t> counts;
  static std::vector<float> logs(nodes);
  for (index c = 0; c < nodes; ++c) counts.push_back(static_cast<std::int32_t>(c % 5 == 0 ? 0 : random.integer(1, 1000)));
  add_formula("largegt_global", inputs({.heads = 8, .tokens = nodes, .dim = 32}),
              {.sees = [](index, index, index c) { return counts[at(c)] > 0; },
               .score = [](problem const&, index, index, index c, double s) { return s + std::log(static_cast<double>(counts[at(c)])); }},
              [](cpu_policy const& on, problem& x) {
                log_counts(counts, logs);
                attention(on, x.q, x.k, x.v, x.out, count_weighted(logs, nodes));
              });
}

}  // namespace

void register_benchmarks() {
  inputs const text({.heads = 8, .tokens = 1024, .dim = 64});
  add_packed(text);
  add_long(text);
  add_groups();
  add_graph();
}

}  // namespace tern::bench
