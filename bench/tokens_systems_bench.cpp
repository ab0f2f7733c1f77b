// SPDX-License-Identifier: Apache-2.0
// Published systems that reduce tokens, each in one layer of a vision transformer of ViT-B's shape: 1024 tokens of 768 channels, 12 heads
// of 64. What a system must compute (products, or tokens read and written) is held against the machine's limits; a quarter of the tokens
// is merged, half is kept. Checks: what merging preserves, or that weights sum up to one.
#include "harness.hpp"
#include "inputs.hpp"

#include <tern/tokens.hpp>
#include <tern/tokens/systems/aim.hpp>
#include <tern/tokens/systems/diffrate.hpp>
#include <tern/tokens/systems/evad.hpp>
#include <tern/tokens/systems/expediting_vit.hpp>
#include <tern/tokens/systems/glmix.hpp>
#include <tern/tokens/systems/ia_red2.hpp>
#include <tern/tokens/systems/lemo.hpp>
#include <tern/tokens/systems/paraformer.hpp>
#include <tern/tokens/systems/pyra.hpp>
#include <tern/tokens/systems/showui.hpp>
#include <tern/tokens/systems/simvlg.hpp>
#include <tern/tokens/systems/sit.hpp>
#include <tern/tokens/systems/stvit.hpp>
#include <tern/tokens/systems/toc3d.hpp>
#include <tern/tokens/systems/tome.hpp>
#include <tern/tokens/systems/turbo.hpp>

#include <algorithm>
#include <cmath>
#include <string>

namespace tern::bench {
namespace {

constexpr index tokens = 1024, channels = 768, heads = 12, dim = 64, quarter = tokens / 4, half = tokens / 2, side = 32;

struct problem {
  buffer<float> x, y, z, q, k, v, o, metric, lse, sizes, merged, scores, alpha, small, weights;
  buffer<std::int32_t> to, count, ids, kept_count;
  problem()
      : x(fast_normal(tokens * channels)),
        y(tokens * channels),
        z(tokens * channels),
        q(fast_normal(tokens * channels, 1, 2)),
        k(fast_normal(tokens * channels, 1, 3)),
        v(fast_normal(tokens * channels, 1, 4)),
        o(tokens * channels),
        metric(fast_normal(tokens * dim)),
        lse(tokens * heads),
        sizes(tokens),
        merged(tokens),
        scores(fast_normal(tokens)),
        alpha(tokens),
        small(tokens * channels),
        weights(fast_normal(channels * channels, 0.05)),
        to(tokens),
        count(1),
        ids(tokens),
        kept_count(1) {
    for (float& s : sizes) s = 1;
    for (float& s : scores) s = std::abs(s) + 0.01f;
    for (index i = 0; i < tokens; ++i) alpha[i] = std::min(0.9f * scores[i], 0.6f);  // a token of about three frames
    attention(cpu, heads_of(q), heads_of(k), heads_of(v), heads_of(o), log_sum_exp{lse_view()});
  }
  tensor_view<float, 3> view(buffer<float>& of, index n = tokens, index c = channels) { return tern::view(of.data(), 1, n, c); }
  tensor_view<float, 4> heads_of(buffer<float>& of, index n = tokens) { return tern::view(of.data(), 1, heads, n, dim); }
  tensor_view<float, 2> row(buffer<float>& of) { return tern::view(of.data(), 1, tokens); }
  tensor_view<float, 3> lse_view() { return tern::view(lse.data(), 1, heads, tokens); }
  token_map map() { return {tern::view(to.data(), 1, tokens), tern::view(count.data(), 1)}; }
  index_lists kept() { return {tern::view(ids.data(), 1, tokens), tern::view(kept_count.data(), 1)}; }

  /// What a merge preserves: the sum of tokens, weighted by their sizes.
  bool preserves_sums() {
    for (index c : sample(channels, 7)) {
      double before = 0, after = 0, magnitude = 0;
      for (index i = 0; i < tokens; ++i) before += static_cast<double>(x[i * channels + c]), magnitude += std::abs(x[i * channels + c]);
      for (index j = 0; j < count[0]; ++j) after += static_cast<double>(merged[j]) * static_cast<double>(y[j * channels + c]);
      if (!(std::abs(before - after) < 1e-5 * magnitude)) return false;
    }
    return true;
  }
  /// Whether n numbers are finite, and not all the same.
  static bool sane(float const* p, index n) {
    bool differ = false;
    for (index i = 0; i < n; ++i) {
      if (!std::isfinite(p[i])) return false;
      differ = differ || p[i] != p[0];
    }
    return differ;
  }
};

using call = void (*)(cpu_policy const&, problem&);
using check = bool (*)(problem&);

void add(std::string const& name, double flops, double bytes, call run_it, check right) {
  static auto data = lazy([] { return problem(); });
  workload{.op = "tokens_systems", .name = name + "_n1024_c768", .flops = flops, .bytes = bytes}.add("tern", [=](run& r) {
    problem& p = data();
    r.check([&] {
      run_it(r.policy(), p);
      return right(p);
    });
    r.time([&](index) { run_it(r.policy(), p); });
  });
}

constexpr double product(double m, double n, double k) { return 2 * m * n * k; }
constexpr double token_bytes = 4.0 * channels, merge_bytes = 1.75 * tokens * token_bytes;
bool merged_right(problem& p) { return p.count[0] == tokens - quarter && p.preserves_sums(); }
bool has_output(problem& p) { return problem::sane(p.y.data(), tokens * dim); }

void add_matching_systems() {
  double const matching = product(half, half, dim);
  add(
      "tome", matching, merge_bytes,
      [](cpu_policy const& policy, problem& p) {
        tome(policy, p.view(p.metric, tokens, dim), quarter, {.always = {1}}, p.map(), p.row(p.sizes), p.row(p.merged),
             moved{p.view(p.x), p.view(p.y)});
      },
      merged_right);
  add(
      "turbo", matching, merge_bytes,
      [](cpu_policy const& policy, problem& p) {
        turbo(policy, p.view(p.metric, tokens, dim), p.row(p.scores), 0.1f, quarter, {.always = {1}}, p.map(), p.row(p.sizes),
              p.row(p.merged), moved{p.view(p.x), p.view(p.y)});
      },
      merged_right);
  add(
      "simvlg", matching, merge_bytes + 4.0 * tokens * channels,
      [](cpu_policy const& policy, problem& p) {
        simvlg(policy, p.heads_of(p.k), quarter, p.map(), p.row(p.sizes), p.row(p.merged), moved{p.view(p.x), p.view(p.y)});
      },
      merged_right);
  add(
      "pyra", matching, merge_bytes + 2 * tokens * token_bytes,
      [](cpu_policy const& policy, problem& p) {
        auto const learned = [&](index row, index n) {
          return tensor_view<float const, 1>(p.weights.data() + row * channels, shape<1>{{n}});
        };
        pyra(policy, p.view(p.metric, tokens, dim), {learned(0, quarter), learned(1, channels), learned(2, channels), learned(3, channels)},
             {.always = {1}}, p.map(), p.row(p.sizes), p.row(p.merged), p.view(p.x), p.view(p.y));
      },
      [](problem& p) { return p.count[0] == tokens - quarter && problem::sane(p.y.data(), p.count[0] * channels); });
  add(
      "diffrate", product(quarter, half, channels), merge_bytes,
      [](cpu_policy const& policy, problem& p) {
        diffrate(policy, p.view(p.x), p.row(p.scores), half + quarter, half, p.map(), p.row(p.sizes), p.row(p.merged), p.view(p.y));
      },
      [](problem& p) { return p.count[0] == half && problem::sane(p.y.data(), half * channels); });
  add(
      "aim_merge", product(half, half, channels) + product(quarter, quarter, channels), merge_bytes,
      [](cpu_policy const& policy, problem& p) { aim_merge(policy, p.view(p.x), quarter, p.map(), p.view(p.y, quarter)); },
      [](problem& p) { return p.count[0] == quarter && problem::sane(p.y.data(), quarter * channels); });
}

void add_attention_systems() {
  double const scores = product(tokens, tokens, dim) * heads;
  auto const mean_is_right = [](problem& p) {
    double sum = 0;
    for (float s : p.merged) sum += static_cast<double>(s);
    return sum > 0.9 && problem::sane(p.merged.data(), tokens);
  };
  add(
      "evad", scores, 0,
      [](cpu_policy const& policy, problem& p) {
        evad(policy, p.heads_of(p.q), p.heads_of(p.k), p.lse_view(), quarter, 0.5, 2.f, p.row(p.merged), p.kept());
      },
      mean_is_right);
  add(
      "aim_importance", 6 * scores, 0,
      [](cpu_policy const& policy, problem& p) { aim_importance(policy, p.heads_of(p.q), p.heads_of(p.k), p.row(p.merged)); },
      mean_is_right);
  add(
      "lemo", product(half, half, dim) * heads * 2, 0,
      [](cpu_policy const& policy, problem& p) {
        select_tokens(policy, p.row(p.scores), half, protect{}, p.kept());
        lemo_attention(policy, p.heads_of(p.q), p.heads_of(p.k), p.heads_of(p.v), p.heads_of(p.y), tern::view(p.ids.data(), half));
      },
      has_output);
  add(
      "stvit", product(16, tokens + 16, dim) * heads * 2 + product(tokens, 16, dim) * heads * 2, 0,
      [](cpu_policy const& policy, problem& p) {
        stvit_refine(policy, p.heads_of(p.q, 16), p.heads_of(p.k, 16), p.heads_of(p.k), p.heads_of(p.v, 16), p.heads_of(p.v),
                     p.heads_of(p.small, 16));
        stvit_recover(policy, p.heads_of(p.q), p.heads_of(p.k, 16), p.heads_of(p.small, 16), p.heads_of(p.y));
      },
      has_output);
  add(
      "sit", product(tokens, channels / 2, channels) + product(quarter, tokens, channels / 2) + product(quarter, tokens, channels), 0,
      [](cpu_policy const& policy, problem& p) {
        tensor_view<float const, 2> const w(p.weights.data(), shape<2>{{channels, channels}});
        sit(policy, p.view(p.x),
            {w[0], w[1], w.slice(0, 0, channels / 2), w[2].slice(0, 0, channels / 2), w.slice(0, 0, quarter).slice(1, 0, channels / 2)},
            p.view(p.y, quarter));
      },
      has_output);
  add(
      "glmix", 4 * product(64, tokens, channels), 0,
      [](cpu_policy const& policy, problem& p) {
        pool_grid(policy, p.view(p.x), shape<2>{{side, side}}, p.view(p.small, 64), shape<2>{{8, 8}});
        glmix_gather(policy, p.view(p.x), p.view(p.small, 64), 4.f, p.view(p.z, 64));
        glmix_dispatch(policy, p.view(p.x), p.view(p.small, 64), 4.f, p.view(p.z, 64), p.view(p.y));
      },
      has_output);
  // With clusters of all of the image in reach, three products an iteration, and one for the nearest.
  add(
      "expediting_vit", 3 * 3 * product(64, tokens, channels) + product(64, tokens, channels), 0,
      [](cpu_policy const& policy, problem& p) {
        expediting_options const how{.temperature = 0.01f, .iterations = 3, .reach = 8, .nearest = 20};
        expediting_cluster(policy, p.view(p.x), shape<2>{{side, side}}, how, p.view(p.small, 64), shape<2>{{8, 8}});
        expediting_reconstruct(policy, p.view(p.x), p.view(p.small, 64), p.view(p.small, 64), how, p.view(p.y));
      },
      has_output);
}

void add_score_systems() {
  add(
      "toc3d", 0, 4 * tokens * token_bytes,
      [](cpu_policy const& policy, problem& p) {
        auto const slow = p.view(p.z, half + 1), x = p.view(p.y);
        toc3d_compress(policy, p.view(p.x), p.row(p.scores), half, p.kept(), p.map(), slow);
        toc3d_restore(policy, p.kept(), p.map(), slow, slow, x);
      },
      [](problem& p) { return p.count[0] == half + 1 && problem::sane(p.z.data(), (half + 1) * channels); });
  add(
      "ia_red2", 0, tokens * token_bytes,
      [](cpu_policy const& policy, problem& p) {
        tensor_view<float const, 3> const token(p.k.data(), shape<3>{{1, heads, dim}});
        ia_red2(policy, p.heads_of(p.q), token, 0.5f, protect{1}, p.row(p.merged), p.kept());
      },
      [](problem& p) { return p.kept_count[0] > 1 && p.kept_count[0] < tokens; });
  add(
      "showui", 0, tokens * token_bytes,
      [](cpu_policy const& policy, problem& p) {
        showui(policy, p.view(p.x), shape<2>{{side, side}}, 38.f, 0.5, tern::view(p.to.data(), 1, tokens), p.kept());
      },
      [](problem& p) { return p.kept_count[0] > 1 && p.kept_count[0] <= tokens; });
  add(
      "paraformer", 0, 1.5 * tokens * token_bytes,
      [](cpu_policy const& policy, problem& p) {
        integrate_and_fire(policy, p.view(p.x), p.row(p.alpha), p.view(p.y, half), tern::view(p.count.data(), 1));
      },
      [](problem& p) { return p.count[0] > quarter && p.count[0] <= half && problem::sane(p.y.data(), quarter * channels); });
}

}  // namespace

void register_benchmarks() {
  add_matching_systems();
  add_attention_systems();
  add_score_systems();
}

}  // namespace tern::bench
