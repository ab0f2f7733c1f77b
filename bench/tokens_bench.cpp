// SPDX-License-Identifier: Apache-2.0
// Tokens that are scored, chosen, gathered, merged and put back, in the shapes of vision encoders: 4096 tokens of 768 channels, and
// scores of 65536 tokens. Peers choose with the standard library, and match with Eigen's product and a maximum of each row.
// Matching: `match` is the whole, `similarity` its product alone, held against the peak in operations of that product.
// Moves: `_cold` has copies enough to come from memory; the others' data lies in the caches, as in a model.
#include "harness.hpp"
#include "inputs.hpp"
#include "peers.hpp"

#include <tern/attention.hpp>
#include <tern/attention/key_weights.hpp>
#include <tern/tokens.hpp>

#include <algorithm>
#include <numeric>
#include <string>

namespace tern::bench {
namespace {

/// Scores, and the indices of the k largest, ascending.
struct top_problem {
  index k;
  buffer<float> scores;
  buffer<std::int32_t> ids;
  std::vector<std::int32_t> want, order;

  top_problem(index n, index count) : k(count), scores(fast_normal(n)), ids(n), order(static_cast<std::size_t>(n)) {
    sort();
    want.assign(ids.begin(), ids.begin() + k);
    std::sort(want.begin(), want.end());
  }
  auto before() {
    return [this](std::int32_t a, std::int32_t b) { return scores[a] > scores[b] || (scores[a] == scores[b] && a < b); };
  }
  /// As partial_sort leaves them: the largest first.
  void sort() {
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + k, order.end(), before());
    std::copy_n(order.begin(), k, ids.begin());
  }
  /// The k-th in order; then all that are not behind it, ascending.
  void partition() {
    std::iota(order.begin(), order.end(), 0);
    std::nth_element(order.begin(), order.begin() + (k - 1), order.end(), before());
    std::int32_t const last = order[static_cast<std::size_t>(k - 1)];
    auto const is_before = before();
    index count = 0;
    for (std::int32_t i = 0; i < static_cast<std::int32_t>(order.size()); ++i)
      if (!is_before(last, i)) ids[count++] = i;
  }
  bool right() const {
    std::vector<std::int32_t> got(ids.begin(), ids.begin() + k);
    std::sort(got.begin(), got.end());
    return got == want;
  }
};

void add_top_k(index n, index k) {
  auto data = lazy([=] { return top_problem(n, k); });
  workload const w{.op = "tokens",
                   .name = "top_k_n" + std::to_string(n) + "_k" + std::to_string(k),
                   .bytes = 4.0 * static_cast<double>(n + k),
                   .threads = {1}};
  auto const add = [&](std::string const& name, auto call) {
    w.add(name, [=](run& r) {
      top_problem& p = data();
      std::fill(p.ids.begin(), p.ids.end(), -1);
      r.check([&] {
        call(p);
        return p.right();
      });
      r.time([&](index) { call(p); });
    });
  };
  add("tern", [](top_problem& p) { select_top(tern::view(p.scores), p.k, tern::view(p.ids)); });
  add("std_partial_sort", [](top_problem& p) { p.sort(); });
  add("std_nth_element", [](top_problem& p) { p.partition(); });
}

/// Tokens of one image, and memory for what becomes of them.
struct match_problem {
  index tokens, dim, half, r;
  buffer<float> metric, product, similarity;
  buffer<std::int32_t> from, to, count;
  match_problem(index n, index d)
      : tokens(n),
        dim(d),
        half(n / 2),
        r(n / 4),
        metric(fast_normal(n * d)),
        product(half * half),
        similarity(half),
        from(half),
        to(half),
        count(1) {}
  token_pairs pairs() {
    return {tern::view(from.data(), 1, r), tern::view(to.data(), 1, r), tern::view(similarity.data(), 1, r), tern::view(count.data(), 1)};
  }
  tensor_view<float, 2> every_other(index first) { return {metric.data() + first * dim, shape<2>{{half, dim}}, shape<2>{{2 * dim, 1}}}; }
  /// Whether a few pairs are the best of their rows.
  bool right() {
    if (count[0] != r) return false;
    for (index p : sample(r, 5)) {
      auto const cosine = [&](index b) {
        double ab = 0, bb = 0;
        for (index c = 0; c < dim; ++c) {
          double const x = static_cast<double>(metric[from[p] * dim + c]), y = static_cast<double>(metric[b * dim + c]);
          ab += x * y;
          bb += y * y;
        }
        return ab / std::sqrt(bb);
      };
      double best = -1e30;
      for (index b = 1; b < tokens; b += 2) best = std::max(best, cosine(b));
      if (!(cosine(to[p]) >= best - 1e-3)) return false;
    }
    return true;
  }
};

void add_matching(index n, index d) {
  auto data = lazy([=] { return match_problem(n, d); });
  std::string const shape = "_n" + std::to_string(n) + "_c" + std::to_string(d);
  double const flops = 2.0 * static_cast<double>(n / 2) * static_cast<double>(n / 2) * static_cast<double>(d);
  workload const whole{.op = "tokens", .name = "match" + shape, .flops = flops};
  whole.add("tern", [=](run& r) {
    match_problem& p = data();
    auto const call = [&](index) {
      bipartite_matching(r.policy(), tern::view(p.metric.data(), 1, p.tokens, p.dim), p.r, p.pairs(), {.always = {1}});
    };
    r.check([&] {
      call(0);
      return p.right();
    });
    r.time(call);
  });
#if TERN_BENCH_HAVE_EIGEN
  whole.add("eigen", [=](run& r) {
    match_problem& p = data();
    set_peer_threads(r.threads());
    using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    matrix normed(p.tokens, p.dim), a(p.half, p.dim), b(p.half, p.dim), product(p.half, p.half);
    std::vector<std::int32_t> best(static_cast<std::size_t>(p.half)), order(best.size());
    std::vector<float> most(best.size());
    auto const call = [&](index) {
      normed = Eigen::Map<matrix const>(p.metric.data(), p.tokens, p.dim).rowwise().normalized();
      for (index i = 0; i < p.half; ++i) {
        a.row(i) = normed.row(2 * i);
        b.row(i) = normed.row(2 * i + 1);
      }
      product.noalias() = a * b.transpose();
      for (index i = 0; i < p.half; ++i) {
        Eigen::Index at;
        most[static_cast<std::size_t>(i)] = i == 0 ? -INFINITY : product.row(i).maxCoeff(&at);
        best[static_cast<std::size_t>(i)] = i == 0 ? 0 : static_cast<std::int32_t>(at);
      }
      std::iota(order.begin(), order.end(), 0);
      std::partial_sort(order.begin(), order.begin() + p.r, order.end(), [&](std::int32_t x, std::int32_t y) {
        return most[static_cast<std::size_t>(x)] > most[static_cast<std::size_t>(y)];
      });
      for (index i = 0; i < p.r; ++i) {
        std::int32_t const o = order[static_cast<std::size_t>(i)];
        p.from[i] = 2 * o;
        p.to[i] = 2 * best[static_cast<std::size_t>(o)] + 1;
      }
      p.count[0] = static_cast<std::int32_t>(p.r);
    };
    r.check([&] {
      call(0);
      return p.right();
    });
    r.time(call);
  });
#endif
  workload const similarity{.op = "tokens", .name = "similarity" + shape, .flops = flops};
  similarity.add("tern", [=](run& r) {
    match_problem& p = data();
    auto const y = tern::view(p.product.data(), p.half, p.half);
    r.time([&](index) {
      for (index i = 0; i < p.half; i += 512)
        matmul(r.policy(), p.every_other(0).slice(0, i, std::min(i + 512, p.half)), p.every_other(1),
               y.slice(0, i, std::min(i + 512, p.half)));
    });
  });
}

/// Half of the tokens, at random places, and a quarter merged into others.
struct move_problem {
  index tokens, channels, copies;
  std::vector<buffer<float>> from, to;
  buffer<std::int32_t> ids, counts, map_to, map_counts;
  buffer<float> sizes, merged;
  move_problem(index n, index c, bool cold)
      : tokens(n),
        channels(c),
        copies(cold ? copies_beyond_cache(static_cast<std::size_t>(n * c * 8)) : 1),
        ids(n),
        counts(1),
        map_to(n),
        map_counts(1),
        sizes(n),
        merged(n) {
    std::vector<float> const values = fast_normal(n * c);
    for (index i = 0; i < copies; ++i) {
      from.emplace_back(values);
      to.emplace_back(n * c);
    }
    test::rng random(3);
    index kept = 0, count = 0;
    for (index i = 0; i < n; ++i) {
      sizes[i] = 1;
      if (random.integer(0, 1) == 1) ids[kept++] = static_cast<std::int32_t>(i);
      bool const merges = count > 0 && random.integer(0, 3) == 0;
      map_to[i] = merges ? static_cast<std::int32_t>(random.integer(0, count - 1)) : static_cast<std::int32_t>(count++);
    }
    counts[0] = static_cast<std::int32_t>(kept);
    map_counts[0] = static_cast<std::int32_t>(count);
  }
  index_lists kept() { return {tern::view(ids.data(), 1, tokens), tern::view(counts.data(), 1)}; }
  token_map map() { return {tern::view(map_to.data(), 1, tokens), tern::view(map_counts.data(), 1)}; }
  tensor_view<float, 3> x(index call) { return tern::view(from[static_cast<std::size_t>(call % copies)].data(), 1, tokens, channels); }
  tensor_view<float, 3> y(index call) { return tern::view(to[static_cast<std::size_t>(call % copies)].data(), 1, tokens, channels); }
};

void add_moves(index n, index c, bool cold) {
  auto data = lazy([=] { return move_problem(n, c, cold); });
  std::string const shape = "_n" + std::to_string(n) + "_c" + std::to_string(c) + (cold ? "_cold" : "");
  double const row = 4.0 * static_cast<double>(c);
  // What is read and written: half the tokens twice; all, and three quarters; all twice.
  double const half = row * static_cast<double>(n), three_quarters = row * 1.75 * static_cast<double>(n),
               all = row * 2 * static_cast<double>(n);
  auto const add = [&](std::string const& name, double bytes, auto call) {
    workload{.op = "tokens", .name = name + shape, .bytes = bytes}.add("tern", [=](run& r) {
      move_problem& p = data();
      r.time([&](index i) { call(r.policy(), p, i); });
    });
  };
  add("gather", half, [](cpu_policy const& policy, move_problem& p, index i) { gather_tokens(policy, p.kept(), moved{p.x(i), p.y(i)}); });
  add("scatter", half, [](cpu_policy const& policy, move_problem& p, index i) { scatter_tokens(policy, p.kept(), moved{p.x(i), p.y(i)}); });
  add("merge", three_quarters, [](cpu_policy const& policy, move_problem& p, index i) {
    average_tokens(policy, p.map(), tern::view(p.sizes.data(), 1, p.tokens), tern::view(p.merged.data(), 1, p.tokens),
                   moved{p.x(i), p.y(i)});
  });
  add("unmerge", all, [](cpu_policy const& policy, move_problem& p, index i) { unmerge_tokens(policy, p.map(), moved{p.x(i), p.y(i)}); });
}

/// Queries, keys and values of one image, and what its tokens receive.
struct attention_problem {
  index tokens, heads = 12, dim = 64;
  buffer<float> q, k, v, out, lse, weights, scores;
  attention_problem(index n)
      : tokens(n),
        q(fast_normal(12 * n * 64)),
        k(fast_normal(12 * n * 64, 1, 2)),
        v(fast_normal(12 * n * 64, 1, 3)),
        out(12 * n * 64),
        lse(12 * n),
        weights(12 * n),
        scores(n) {}
  tensor_view<float, 4> view(buffer<float>& x) { return tern::view(x.data(), 1, heads, tokens, dim); }
  void attend(cpu_policy const& policy) {
    attention(policy, view(q), view(k), view(v), view(out), log_sum_exp{tern::view(lse.data(), 1, heads, tokens)});
  }
  void receive(cpu_policy const& policy, query_range const& from) {
    attention_received(policy, view(q), view(k), tern::view(lse.data(), 1, heads, tokens), from, tern::view(scores.data(), 1, tokens));
  }
  void attend_and_receive(cpu_policy const& policy) {
    auto const sums = tern::view(weights.data(), 1, heads, tokens);
    attention(policy, view(q), view(k), view(v), view(out), key_weights{sums});
    attention_received(policy, sums, tokens, tern::view(scores.data(), 1, tokens));
  }
  /// The scores of a mean over weights sum up to one.
  bool right() const { return std::abs(std::accumulate(scores.begin(), scores.end(), 0.0) - 1) < 1e-4; }
};

void add_received(index n) {
  auto data = lazy([=] { return attention_problem(n); });
  std::string const shape = "_n" + std::to_string(n) + "_h12_d64";
  double const flops = 4.0 * 12 * 64 * static_cast<double>(n) * static_cast<double>(n);
  workload{.op = "tokens", .name = "attention" + shape, .flops = flops}.add("tern", [=](run& r) {
    attention_problem& p = data();
    r.time([&](index) { p.attend(r.policy()); });
  });
  auto const add = [&](std::string const& name, auto attend) {
    workload{.op = "tokens", .name = name + shape, .flops = flops}.add("tern", [=](run& r) {
      attention_problem& p = data();
      auto const call = [&](index) { attend(p, r.policy()); };
      r.check([&] {
        call(0);
        return p.right();
      });
      r.time(call);
    });
  };
  auto const from = [](query_range const& queries) {
    return [=](attention_problem& p, cpu_policy const& policy) {
      p.attend(policy);
      p.receive(policy, queries);
    };
  };
  add("attention_and_class_token", from({0, 1}));
  add("attention_and_32_queries", from({0, n, (n + 31) / 32}));
  add("attention_and_all_queries", [](attention_problem& p, cpu_policy const& policy) { p.attend_and_receive(policy); });
}

}  // namespace

void register_benchmarks() {
  for (index n : {197, 512, 1024, 4096}) add_received(n);
  for (index k : {655, 6554, 32768}) add_top_k(65536, k);
  add_matching(1024, 64);
  add_matching(4096, 768);
  add_moves(4096, 768, false);
  add_moves(4096, 768, true);
}

}  // namespace tern::bench
