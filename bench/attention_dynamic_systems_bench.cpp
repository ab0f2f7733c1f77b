// SPDX-License-Identifier: Apache-2.0
// Published systems of attention that find at run time which keys to look at: each as it is called for a prompt or a token, and what
// finds the keys by itself.
#include "attention_systems.hpp"

#include <tern/attention/estimators/k_means.hpp>
#include <tern/attention/estimators/page_bounds.hpp>
#include <tern/attention/systems/lserve.hpp>
#include <tern/attention/systems/minference.hpp>
#include <tern/attention/systems/qwen2_5_1m.hpp>
#include <tern/attention/systems/squeezed_attention.hpp>

#include <numeric>

namespace tern::bench {
namespace {

/// The `count` largest.
std::vector<index> largest(std::vector<double> const& x, index count) {
  std::vector<index> order(x.size());
  std::iota(order.begin(), order.end(), index{0});
  std::stable_sort(order.begin(), order.end(), [&](index a, index b) { return x[at(a)] > x[at(b)]; });
  order.resize(std::min(order.size(), at(count)));
  return order;
}

constexpr index block = 64;

/// Which keys each block of 64 queries looks at, head by head, found anew for each chunk of queries: what the papers say.
class looked_at {
 public:
  looked_at(problem const& of, std::vector<minference_head> const& patterns, index chunk)
      : x(of), tokens(of.n.tokens), seen(at(of.n.heads * tokens / block * tokens)) {
    for (index h = 0; h < x.n.heads; ++h)
      for (index from = 0; from < tokens; from += chunk) {
        minference_head const& p = patterns[at(h)];
        if (p.pattern == minference_pattern::vertical_slash) vertical_slash_of(h, p, from, from + chunk);
        for (index g = from / block; g < (from + chunk) / block; ++g) {
          if (p.pattern == minference_pattern::block_sparse) blocks_of(h, p, g);
          for (index j = 0; j < tokens; ++j)
            if (p.pattern == minference_pattern::dense ||
                (p.pattern == minference_pattern::a_shape && (j < p.first || g * block - j < p.second)))
              see(h, g, j);
        }
      }
  }
  bool operator()(index h, index i, index j) const { return j <= i && seen[at((h * (tokens / block) + i / block) * tokens + j)] != 0; }

 private:
  problem const& x;
  index tokens;
  std::vector<char> seen;

  void see(index h, index g, index j) { seen[at((h * (tokens / block) + g) * tokens + j)] = 1; }
  /// By the last 64 queries before `to`.
  void vertical_slash_of(index h, minference_head const& p, index from, index to) {
    std::vector<double> column(at(to)), slash(at(to));
    for (index i = to - 64; i < to; ++i) {
      auto const w = weights(x, {.sees = [](index, index a, index b) { return b <= a; }}, h, i);
      for (index j = 0; j <= i; ++j) {
        column[at(j)] += w[at(j)];
        slash[at(i - j)] += w[at(j)];
      }
    }
    for (index j = 0; j < p.sink; ++j) column[at(j)] = 1e9;
    for (index s = 0; s < p.recent; ++s) slash[at(s)] = 1e9;
    for (index j : largest(column, p.first))
      for (index g = from / block; g < to / block; ++g) see(h, g, j);
    for (index s : largest(slash, p.second))
      for (index i = std::max(from, s); i < to; ++i) see(h, i / block, i - s);
  }
  /// By the means of blocks.
  void blocks_of(index h, minference_head const& p, index g) {
    auto const mean = [](tensor_view<float const, 2> const& rows, index b) {
      std::vector<double> sum(at(rows.extent(1)));
      for (index r = b * block; r < (b + 1) * block; ++r)
        for (index d = 0; d < rows.extent(1); ++d) sum[at(d)] += wide(rows(r, d)) / block;
      return sum;
    };
    std::vector<double> scores;
    auto const q = mean(x.q[h], g);
    for (index b = 0; b <= g; ++b) {
      auto const k = mean(x.k[h], b);
      scores.push_back(std::inner_product(q.begin(), q.end(), k.begin(), 0.));
    }
    for (index b : largest(scores, p.first))
      for (index j = b * block; j < (b + 1) * block; ++j) see(h, g, j);
  }
};

/// A prompt whose scores are large enough that some keys matter more than others.
void add_prompts() {
  static constexpr index heads = 4, tokens = 4096, chunk = 1024;
  // The heads that the check samples are all but the dense one.
  static std::vector<minference_head> const patterns{{minference_pattern::vertical_slash, 500, 130},
                                                     {minference_pattern::a_shape, 64, 1024},
                                                     {minference_pattern::dense},
                                                     {minference_pattern::block_sparse, 16}};
  static std::vector<std::int32_t> memory(at(minference_capacity(patterns.data(), heads, tokens, tokens)));
  static std::vector<vertical_slash_head> runs(heads);
  inputs const data({.heads = heads, .tokens = tokens, .dim = 64});
  problem& prompt = data.get();
  for (float& e : prompt.q_values) e *= 3;

  formula const at_once{.sees = looked_at(prompt, patterns, tokens)}, by_chunks{.sees = looked_at(prompt, patterns, chunk)};
  add_formula("minference", data, at_once,
              [](cpu_policy const& on, problem& x) { minference(on, x.q, x.k, x.v, x.out, patterns.data(), view(memory), runs.data()); });
  add(
      "minference_index", data, 4. * 64 * tokens * 64 + 2. * tokens / block * tokens / block * 64,
      [=](problem const& x) {
        attention(cpu, x.q, x.k, x.v, x.out, vertical_slash{runs.data(), tokens, tokens});
        return right(x, at_once);
      },
      [](cpu_policy const& on, problem& x) { minference_index(on, x.q, x.k, patterns.data(), view(memory), runs.data()); });
  add_formula("qwen2_5_1m_prefill", data, by_chunks, [](cpu_policy const& on, problem& x) {
    qwen2_5_1m_prefill(on, x.q, x.k, x.v, x.out, patterns.data(), chunk, view(memory), runs.data());
  });
}

/// A token after 16384 others, in pages of 64: two key heads look at 64 pages, two at the first two and the latest four.
void add_lserve() {
  static constexpr index keys = 16384, page = 64, pages = keys / page, k_heads = 4, heads = 8, dim = 128, logical = 16;
  static constexpr bool streaming[k_heads] = {false, false, true, true};
  struct cache {
    std::vector<std::int32_t> table, ids, counts;
    std::vector<float> low, high;
    std::int32_t length = keys;
    index step = 0;
    explicit cache(problem& x)
        : table(pages), ids(k_heads * lserve_room({}, page)), counts(k_heads), low(pages * k_heads * page / logical * dim), high(low) {
      std::iota(table.begin(), table.end(), 0);
      for (index p = 0; p < pages; ++p) page_bounds(cpu, pool(x.k)[p], logical, bounds(low)[p], bounds(high)[p]);
    }
    static tensor_view<float, 4> pool(tensor_view<float, 3> const& rows) {
      return {rows.data(), shape{pages, k_heads, page, dim}, shape{page * dim, keys * dim, dim, index{1}}};
    }
    static tensor_view<float, 4> bounds(std::vector<float>& x) { return view(x.data(), pages, k_heads, page / logical, dim); }
    index_lists selected() { return {view(ids.data(), k_heads, lserve_room({}, page)), view(counts)}; }
    void select(cpu_policy const& on, problem& x, lserve_budget const& budget) {
      lserve_select(on, view(x.q.data(), heads, dim), bounds(low), bounds(high), view(table), page, keys, streaming, budget, step++,
                    selected());
    }
    void decode(cpu_policy const& on, problem const& x) {
      tensor_view<std::int32_t const, 2> const where = view(table.data(), 1, pages);
      lserve_decode(on, x.q.expanded(), paged(pool(x.k), where, tern::view(&length, 1)), paged(pool(x.v), where, tern::view(&length, 1)),
                    x.out.expanded(), selected());
    }
  };
  inputs const data({.heads = heads, .tokens = 1, .dim = dim, .keys = keys, .k_heads = k_heads});
  auto const of = lazy([data] { return cache(data.get()); });

  auto const check = [](problem const& x) {
    std::vector<std::vector<char>> sees;
    for (index kh = 0; kh < k_heads; ++kh) {
      std::vector<double> scores;
      for (index p = 0; p < pages; ++p) {
        scores.push_back(p == pages - 1 ? 1e9 : -1e9);
        for (index first = p * page; first < (p + 1) * page; first += logical)
          for (index h = 2 * kh; h < 2 * kh + 2; ++h) {
            double bound = 0;
            for (index d = 0; d < dim; ++d) {
              double most = -1e9;  // of q_d k_d over the logical page, which is max(q_d low_d, q_d high_d)
              for (index j = first; j < first + logical; ++j) most = std::max(most, wide(x.q(h, 0, d)) * wide(x.k(kh, j, d)));
              bound += most;
            }
            scores.back() = std::max(scores.back(), bound);
          }
      }
      auto& of_head = sees.emplace_back(pages);
      for (index p = 0; p < pages; ++p) of_head[at(p)] = streaming[kh] && (p < 2 || p >= pages - 4);
      for (index p : largest(scores, streaming[kh] ? 0 : 64)) of_head[at(p)] = 1;
    }
    return right(x, {.sees = [&](index h, index, index j) { return sees[at(h / 2)][at(j / page)] != 0; }});
  };
  double const attended = flops(data.n, 4. * page * (64 + 6)), bounded = 4. * heads * keys / logical * dim;
  add("lserve", data, attended + bounded / 4, check, [=](cpu_policy const& on, problem& x) {
    of().select(on, x, {});
    of().decode(on, x);
  });
  add(
      "lserve_select", data, bounded,
      [=](problem const& x) {
        of().decode(cpu, x);
        return check(x);
      },
      [=](cpu_policy const& on, problem& x) { of().select(on, x, {.interval = 1}); });
}

/// A token after 64 of the user's and a fixed context of 8192 in clusters of 20, of which a fifth is looked at.
void add_squeezed_attention() {
  static constexpr index fixed = 8192, user = 64, clusters = fixed / 20, heads = 8, dim = 64;
  static std::vector<float> centroids(heads * clusters * dim), counts(heads * clusters);
  static std::vector<std::int32_t> labels(heads * fixed), ids(heads * fixed), found(heads);
  static tensor_view<float, 3> const centers = view(centroids.data(), heads, clusters, dim);
  static tensor_view<float, 2> const number = view(counts.data(), heads, clusters);
  static tensor_view<std::int32_t, 2> const label = view(labels.data(), heads, fixed);
  inputs const data({.heads = heads, .tokens = 1, .dim = dim, .keys = fixed + user});
  problem& x = data.get();

  static std::vector<std::vector<double>> scores;
  for (index h = 0; h < heads; ++h) {
    k_means(cpu, x.k[h].slice(0, 0, fixed), centers[h], label[h], number[h], 3);
    auto& s = scores.emplace_back();
    double sum = 0;
    for (index c = 0; c < clusters; ++c) {
      s.push_back(std::exp(dot(x.q[h][0], centers[h][c]) / 8));
      sum += wide(number(h, c)) * s.back();
    }
    for (double& e : s) e /= sum;
  }
  auto const order = largest(scores[0], clusters);
  static auto const threshold = static_cast<float>((scores[0][at(order[clusters / 5 - 1])] + scores[0][at(order[clusters / 5])]) / 2);

  formula const f{.sees = [](index h, index, index j) { return j >= fixed || scores[at(h)][at(label(h, j))] > wide(threshold); }};
  static index_lists const selected{view(ids.data(), heads, fixed), view(found)};
  auto const select = [](cpu_policy const& on, problem& p) { squeezed_select(on, p.q, {centers, number, label, threshold}, selected); };
  auto const attend = [](cpu_policy const& on, problem const& p) {
    squeezed_attention(on, p.q, p.k.slice(1, 0, fixed), p.v.slice(1, 0, fixed), selected, p.k.slice(1, fixed, fixed + user),
                       p.v.slice(1, fixed, fixed + user), p.out, p.lse);
  };
  double const compared = 2. * heads * clusters * dim;
  add_formula(
      "squeezed_attention", data, f,
      [=](cpu_policy const& on, problem& p) {
        select(on, p);
        attend(on, p);
      },
      -1, compared);
  add(
      "squeezed_select", data, compared,
      [=](problem const& p) {
        attend(cpu, p);
        return right(p, f);
      },
      select);
}

}  // namespace

void register_benchmarks() {
  add_prompts();
  add_lserve();
  add_squeezed_attention();
}

}  // namespace tern::bench
