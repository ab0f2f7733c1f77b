// SPDX-License-Identifier: Apache-2.0
// Attention that leaves out most keys, beside the dense call on the same tensors, and what builds the indices. Names:
// dense_..., block_list_p<percent>_..., and the estimators by what they make. Operations count listed pairs only.
#include "harness.hpp"
#include "inputs.hpp"

#include <tern/attention.hpp>
#include <tern/attention/block_list.hpp>
#include <tern/attention/estimators/centroids.hpp>
#include <tern/attention/estimators/k_means.hpp>
#include <tern/attention/estimators/last_queries.hpp>
#include <tern/attention/estimators/page_bounds.hpp>
#include <tern/attention/estimators/pooled_blocks.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace tern::bench {
namespace {

constexpr index heads = 8, tokens = 4096, dim = 128, block = 128, blocks = tokens / block;

struct tensors {
  std::vector<float> q = fast_normal(heads * tokens * dim, 1, 1), k = fast_normal(heads * tokens * dim, 1, 2),
                     v = fast_normal(heads * tokens * dim, 1, 3), out = q;
  tensor_view<float, 3> of(std::vector<float>& x) const { return {x.data(), {heads, tokens, dim}}; }
};

/// For each head and block of queries, every `step`-th block of keys, at an offset of the head's and the block's own.
struct lists {
  index step;
  std::vector<std::int32_t> starts, entries;
  explicit lists(index every) : step(every) {
    for (index h = 0; h < heads; ++h) {
      for (index g = 0; g <= blocks; ++g) starts.push_back(static_cast<std::int32_t>(g * (blocks / step)));
      for (index g = 0; g < blocks; ++g)
        for (index b = (h + g) % step; b < blocks; b += step) entries.push_back(static_cast<std::int32_t>(b));
    }
  }
  auto layout() const {
    return block_list(block, block, view(starts.data(), heads, blocks + 1), view(entries.data(), heads, blocks * blocks / step));
  }
  bool shows(index h, index i, index j) const { return j / block % step == (h + i / block) % step; }
};

/// A few rows against f64.
bool right(tensors const& t, lists const& which) {
  std::vector<double> p(tokens);
  for (index h : sample(heads, 3))
    for (index i : sample(tokens, 4)) {
      double sum = 0, got = 0, want = 0;
      for (index j = 0; j < tokens; ++j) {
        double s = 0;
        for (index d = 0; d < dim; ++d)
          s += static_cast<double>(t.q[static_cast<std::size_t>((h * tokens + i) * dim + d)]) *
               static_cast<double>(t.k[static_cast<std::size_t>((h * tokens + j) * dim + d)]);
        p[static_cast<std::size_t>(j)] = which.shows(h, i, j) ? std::exp(s / std::sqrt(static_cast<double>(dim))) : 0;
        sum += p[static_cast<std::size_t>(j)];
      }
      for (index d = 0; d < dim; d += 17) {
        want = 0;
        for (index j = 0; j < tokens; ++j)
          want += p[static_cast<std::size_t>(j)] / sum * static_cast<double>(t.v[static_cast<std::size_t>((h * tokens + j) * dim + d)]);
        got = static_cast<double>(t.out[static_cast<std::size_t>((h * tokens + i) * dim + d)]);
        if (!(std::abs(got - want) < 1e-5)) return false;
      }
    }
  return true;
}

template <class Data>
void add_lists(Data const& data, index step) {
  std::string const shape = "_h8x8_n4096_d128";
  workload const w{.op = "sparse_attention",
                   .name = (step == 1 ? "dense" : "block_list_p" + std::to_string(100 / step)) + shape,
                   .flops = 4.0 * heads * tokens * tokens * dim / static_cast<double>(step),
                   .peak = unit::f32};
  w.add("tern", [data, step](run& r) {
    tensors& t = data();
    lists const which(step);
    auto const call = [&](index) {
      if (step == 1)
        attention(r.policy(), t.of(t.q), t.of(t.k), t.of(t.v), t.of(t.out));
      else
        attention(r.policy(), t.of(t.q), t.of(t.k), t.of(t.v), t.of(t.out), which.layout());
    };
    if (r.check([&] {
          call(0);
          return right(t, which);
        }))
      r.time(call);
  });
}

constexpr index logical = 16;

/// Smallest and largest elements of every 16 keys, held against those of a few.
template <class Data>
void add_page_bounds(Data const& data) {
  workload const w{.op = "sparse_attention",
                   .name = "page_bounds_h8_n4096_d128",
                   .bytes = 4.0 * heads * (tokens + 2 * tokens / logical) * dim,
                   .peak = unit::f32};
  w.add("tern", [data](run& r) {
    tensors& t = data();
    std::vector<float> low(heads * tokens / logical * dim), high(low);
    auto const least = view(low.data(), heads, tokens / logical, dim), most = view(high.data(), heads, tokens / logical, dim);
    auto const k = t.of(t.k);
    auto const call = [&](index) { page_bounds(r.policy(), k, logical, least, most); };
    bool const is_right = r.check([&] {
      call(0);
      for (index h : sample(heads, 3))
        for (index p : sample(tokens / logical, 7))
          for (index d = 0; d < dim; ++d) {
            float x = k(h, p * logical, d), y = x;
            for (index j = p * logical; j < (p + 1) * logical; ++j) {
              x = std::min(x, k(h, j, d));
              y = std::max(y, k(h, j, d));
            }
            if (least(h, p, d) != x || most(h, p, d) != y) return false;
          }
      return true;
    });
    if (is_right) r.time(call);
  });
}

/// One round of Lloyd's algorithm: which seed is nearest to each key, held against that of a few; and the means of those.
template <class Data>
void add_k_means(Data const& data) {
  constexpr index clusters = 204;
  workload const w{
      .op = "sparse_attention", .name = "k_means_round_c204_n4096_d128", .flops = 2.0 * tokens * clusters * dim, .peak = unit::f32};
  w.add("tern", [data](run& r) {
    tensors& t = data();
    std::vector<float> centroids(clusters * dim), counts(clusters);
    std::vector<std::int32_t> labels(tokens);
    auto const k = t.of(t.k)[0];
    auto const call = [&](index) { k_means(r.policy(), k, view(centroids.data(), clusters, dim), view(labels), view(counts), 1); };
    auto const cosine = [&](index i, index j) {
      double ij = 0, ii = 0, jj = 0;
      for (index d = 0; d < dim; ++d) {
        double const a = static_cast<double>(k(i, d)), b = static_cast<double>(k(j, d));
        ij += a * b;
        ii += a * a;
        jj += b * b;
      }
      return ij / std::sqrt(ii * jj);
    };
    bool const is_right = r.check([&] {
      call(0);
      for (index j : sample(tokens, 31)) {
        double nearest = -1;
        for (index c = 0; c < clusters; ++c) nearest = std::max(nearest, cosine(j, c * tokens / clusters));
        if (!(cosine(j, labels[static_cast<std::size_t>(j)] * tokens / clusters) > nearest - 1e-5)) return false;
      }
      return true;
    });
    if (is_right) r.time(call);
  });
}

/// The last 64 queries' columns and diagonals: 1000 of each, for 8 heads.
template <class Data>
void add_estimators(Data const& data) {
  workload{.op = "sparse_attention", .name = "last_queries_h8_n4096_d128", .flops = 4.0 * 64 * heads * tokens * dim}.add(
      "tern", [data](run& r) {
        tensors& t = data();
        std::vector<std::int32_t> columns(heads * 1000), slashes(heads * 1000), counts(2 * heads);
        index_lists const c{view(columns.data(), heads, 1000), view(counts.data(), heads)};
        index_lists const s{view(slashes.data(), heads, 1000), view(counts.data() + heads, heads)};
        std::vector<vertical_slash_budget> const budgets(heads, {1000, 1000});
        r.time([&](index) { estimate_vertical_slash(r.policy(), t.of(t.q), t.of(t.k), budgets.data(), c, s); });
      });
  workload{.op = "sparse_attention", .name = "pooled_blocks_n4096_d128", .bytes = 8.0 * tokens * dim}.add("tern", [data](run& r) {
    tensors& t = data();
    std::vector<std::int32_t> ids(64 * 8), counts(64);
    index_lists const to{view(ids.data(), 64, 8), view(counts.data(), 64)};
    r.time([&](index) { estimate_blocks(r.policy(), t.of(t.q)[0], t.of(t.k)[0], 8, to); });
  });
  workload{.op = "sparse_attention", .name = "page_scores_h8_n4096_d128", .bytes = 8.0 * heads * tokens / 16 * dim}.add(
      "tern", [data](run& r) {
        tensors& t = data();
        constexpr index logical = 4, page = 64, pages = tokens / page;
        std::vector<float> low(heads * tokens / 16 * dim), high(low), scores(heads * pages);
        for (index h = 0; h < heads; ++h) {
          auto const part = [&](std::vector<float>& x) { return view(x.data() + h * tokens / 16 * dim, 1, tokens / 16, dim); };
          page_bounds(r.policy(), t.of(t.k).slice(0, h, h + 1), 16, part(low), part(high));
        }
        // (pages, heads, logical pages, dim) where heads are outermost.
        auto const bounds = [&](std::vector<float>& x) {
          return tensor_view<float const, 4>(x.data(), {pages, heads, logical, dim}, {logical * dim, tokens / 16 * dim, dim, 1});
        };
        std::vector<std::int32_t> table(pages);
        for (index p = 0; p < pages; ++p) table[static_cast<std::size_t>(p)] = static_cast<std::int32_t>(p);
        auto const q = tensor_view<float const, 2>(t.q.data(), {heads, dim}, {tokens * dim, 1});
        r.time([&](index) {
          page_scores(r.policy(), q, bounds(low), bounds(high), tensor_view<std::int32_t const, 1>(table.data(), {pages}), page, tokens,
                      view(scores.data(), heads, pages));
        });
      });
  workload{.op = "sparse_attention", .name = "centroid_scores_c204_d128", .flops = 2.0 * 8 * 204 * dim}.add("tern", [data](run& r) {
    tensors& t = data();
    std::vector<float> counts(204, 20.f), scores(204);
    auto const q = tensor_view<float const, 2>(t.q.data(), {8, dim}), centroids = tensor_view<float const, 2>(t.k.data(), {204, dim});
    r.time([&](index) {
      centroid_scores(r.policy(), q, centroids, tensor_view<float const, 1>(counts.data(), {204}), view(scores.data(), 204));
    });
  });
}

}  // namespace

void register_benchmarks() {
  auto const data = lazy([] { return tensors(); });
  for (index step : {1, 2, 4, 8, 16}) add_lists(data, step);
  add_estimators(data);
  add_page_bounds(data);
  add_k_means(data);
}

}  // namespace tern::bench
