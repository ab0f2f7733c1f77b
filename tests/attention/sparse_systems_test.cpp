// SPDX-License-Identifier: Apache-2.0
// Published systems of sparse layouts, each against its paper's formula: S2-Attention, LargeGT, FIT,
// Longformer, Byte2Word, iTransformer.
#include "by_definition.hpp"

#include <tern/attention/split_heads.hpp>
#include <tern/attention/systems/budget_longformer.hpp>
#include <tern/attention/systems/byte2word.hpp>
#include <tern/attention/systems/fit.hpp>
#include <tern/attention/systems/largegt.hpp>
#include <tern/attention/systems/s2_attention.hpp>
#include <tern/attention/varlen.hpp>

namespace tern::test {
namespace {

/// The block pattern of the paper's kernels.
bool s2_sees(index heads, index h, index q_block, index k_block, index local, index stride, index heads_per_shard) {
  index const shards = heads / heads_per_shard, step = std::max<index>(1, stride / shards);
  return k_block <= q_block && (q_block - k_block < local || (k_block + h / heads_per_shard * step + 1) % stride == 0);
}

TEST_CASE("s2_attention: local blocks and the head's shard") {
  rng r(401);
  struct pattern {
    index heads, tokens, keys, block, local, stride, heads_per_shard;
  };
  for (pattern p : {pattern{4, 400, 400, 16, 2, 8, 1},
                    {8, 3, 300, 16, 1, 4, 4},
                    {4, 150, 331, 10, 3, 3, 2},
                    {2, 1, 1000, 64, 4, 16, 1},
                    {4, 90, 90, 64, 0, 2, 1},
                    {4, 200, 200, 7, 1, 1, 1},
                    {2, 130, 130, 16, 40, 5, 1}}) {
    CAPTURE(p.heads, p.tokens, p.keys, p.block, p.local, p.stride);
    call<float> c(r, {p.heads, 2, p.tokens, p.keys, 16, 16, 1});
    index const before = p.keys - p.tokens;
    c(cpu.on(several_threads()), s2_attention{p.block, p.local, p.stride, p.heads_per_shard}, causal{});
    c.check(where(c, [&](index h, index i, index j) {
      return j <= i + before && s2_sees(p.heads, h, (i + before) / p.block, j / p.block, p.local, p.stride, p.heads_per_shard);
    }));
  }
  // Together, the heads see everything.
  s2_attention const s{16, 1, 8};
  for (index k = 0; k < 50; ++k) {
    bool kept = false;
    for (index h = 0; h < 4; ++h) kept = kept || s.keeps(4, h, k) || s.keeps(4, h, k + 1);
    CHECK(kept);  // step 2: every other block, and its neighbour
  }
}

TEST_CASE("s2_attention: decoding with nothing but the shard in the cache") {
  rng r(402);
  index const heads = 8, kv_heads = 4, block = 16, local = 2, stride = 8, dim = 16;
  s2_attention const pattern{block, local, stride, heads / kv_heads};
  for (index keys : {index{5}, index{300}, index{1025}}) {
    call<float> c(r, {heads, kv_heads, 1, keys, dim, dim, 1});
    index most = 0;
    std::vector<std::int32_t> lengths;
    for (index h = 0; h < kv_heads; ++h) {
      lengths.push_back(static_cast<std::int32_t>(pattern.shard(heads, 2 * h, keys - 1).keys));
      most = std::max<index>(most, lengths.back());
    }
    cache<float> k(kv_heads, most, dim), v(kv_heads, most, dim);  // NaN behind each head's rows
    for (index h = 0; h < kv_heads; ++h) {
      auto const kept = pattern.shard(heads, 2 * h, keys - 1);
      for (index j = 0; j < kept.keys; ++j)
        for (index d = 0; d < dim; ++d) {
          index const row = kept.keys - 1 - j;  // in any order
          k.view(h, row, d) = c.k.view(h, kept.key(j), d);
          v.view(h, row, d) = c.v.view(h, kept.key(j), d);
        }
    }
    attention(cpu, c.q.view, k.view, v.view, c.out.view, log_sum_exp{c.lse}, key_lengths(view(lengths.data(), 1, kv_heads)));
    c.check(where(c, [&](index h, index, index j) { return s2_sees(heads, h, (keys - 1) / block, j / block, local, stride, 2); }));
    if (keys == 1025) CHECK(most < keys / 5);
  }
}

TEST_CASE("largegt: sampled neighbours in three hops, and a codebook weighted by its counts") {
  rng r(403);
  index const nodes = 60, samples = 20, heads = 4, dim = 16;
  std::vector<std::int32_t> starts{0}, list;
  std::vector<std::vector<index>> sampled(static_cast<std::size_t>(nodes));
  for (index i = 0; i < nodes; ++i) {
    for (index s = 0; s < samples; ++s) {
      index const j = r.integer(0, nodes - 1);
      sampled[static_cast<std::size_t>(i)].push_back(j);
      for (index hop = 0; hop < 3; ++hop) list.push_back(static_cast<std::int32_t>(hop * nodes + j));
    }
    starts.push_back(static_cast<std::int32_t>(list.size()));
  }
  call<float> local(r, {heads, heads, nodes, 3 * nodes, dim, dim, 1});
  local(cpu, gather_list(starts, list));
  local.check(by_definition(local, [&](index, index i, index j, double s) {
    auto const& mine = sampled[static_cast<std::size_t>(i)];
    auto const times = std::count(mine.begin(), mine.end(), j % nodes);
    return times == 0 ? hidden : s + std::log(static_cast<double>(times));
  }));

  std::vector<std::int32_t> counts;
  for (index c = 0; c < 150; ++c) counts.push_back(static_cast<std::int32_t>(c % 5 == 0 ? 0 : r.integer(1, 1000)));
  std::vector<float> logs(150);
  log_counts(counts, logs);
  for (index tokens : {index{3}, nodes}) {
    call<float> global(r, {heads, heads, tokens, 150, dim, dim, 1});
    global(cpu, count_weighted(logs, tokens));
    global.check(by_definition(global, [&](index, index, index c, double s) {
      auto const count = static_cast<double>(counts[static_cast<std::size_t>(c)]);
      return count == 0 ? hidden : s + std::log(count);
    }));
  }
}

TEST_CASE("fit: groups, latents that read and write them") {
  rng r(404);
  for (auto [groups, n, m] : {std::array<index, 3>{7, 20, 3}, {3, 150, 9}, {1, 33, 1}}) {
    fit_groups const fit{n, m};
    auto check = [&, count = groups](even_groups layout, index queries, index keys) {
      call<float> c(r, {4, 2, count * queries, count * keys, 16, 16, 1});
      c(cpu, layout);
      c.check(where(c, [&](index, index i, index j) { return i / queries == j / keys; }));
    };
    check(fit.local(), n, n);
    check(fit.read(), m, n);
    check(fit.write(), n, m);
  }
}

TEST_CASE("budget_longformer: windows and global tokens, which have projections of their own") {
  rng r(405);
  for (auto [tokens, reach] : {std::array<index, 2>{400, 20}, {30, 3}, {7, 10}, {300, 0}}) {
    case_of const shape{4, 2, tokens, tokens, 16, 16, 1};
    call<float> local(r, shape), global(r, shape);
    std::vector<unsigned char> is_global(static_cast<std::size_t>(tokens));
    std::vector<std::int32_t> globals;
    for (index j : {index{0}, index{3}, tokens / 2, tokens - 1})
      if (globals.empty() || globals.back() < j) {
        globals.push_back(static_cast<std::int32_t>(j));
        is_global[static_cast<std::size_t>(j)] = 1;
      }
    local(cpu, longformer_local(reach, is_global));
    auto want = where(
        local, [&, n = reach](index, index i, index j) { return std::abs(i - j) <= n || is_global[static_cast<std::size_t>(j)] != 0; });
    local.check(want);
    // Global tokens see everything, with q', k', v'; other rows stay as they are.
    attention(cpu, global.q.view, global.k.view, global.v.view, local.out.view, log_sum_exp{local.lse}, query_list(globals));
    auto const all = where(global, [](index, index, index) { return true; });
    for (index h = 0; h < 4; ++h)
      for (std::int32_t i : globals) {
        auto const row = static_cast<std::size_t>(h * tokens + i);
        want.lse[row] = all.lse[row];
        want.growth[row] = all.growth[row];
        for (std::size_t d = 16 * row; d < 16 * row + 16; ++d) want.value[d] = all.value[d], want.magnitude[d] = all.magnitude[d];
      }
    local.check(want);
  }
}

TEST_CASE("byte2word: words from their bytes") {
  rng r(406);
  std::vector<index> lengths;
  for (index w = 0; w < 90; ++w) lengths.push_back(r.integer(0, 12));
  for (index queries : {1, 3}) {
    auto const offsets = running_sums(lengths), words = running_sums(std::vector<index>(90, queries));
    call<float> c(r, {4, 4, 90 * queries, offsets.back(), 16, 16, 1});
    c(cpu, byte2word(offsets, words));
    c.check(where(c, [&](index, index i, index j) {
      auto const w = static_cast<std::size_t>(i / queries);
      return offsets[w] <= j && j < offsets[w + 1];
    }));
  }
}

TEST_CASE("itransformer: attention over variates, in the memory that projections write") {
  rng r(407);
  index const batch = 2, variates = 70, heads = 4, dim = 16, n = heads * dim;
  std::vector<float> const q = r.normal<float>(batch * variates * n), k = r.normal<float>(batch * variates * n),
                           v = r.normal<float>(batch * variates * n);
  std::vector<float> out(q.size());
  auto split = [&](auto& x) { return split_heads(view(x.data(), batch, variates, n), heads); };
  attention(cpu, split(q), split(k), split(v), split(out));
  for (index b = 0; b < batch; ++b) {
    call<float> c(r, {heads, heads, variates, variates, dim, dim, 1});
    for (index h = 0; h < heads; ++h)
      for (index i = 0; i < variates; ++i)
        for (index d = 0; d < dim; ++d) {
          auto const from = static_cast<std::size_t>((b * variates + i) * n + h * dim + d);
          c.q.view(h, i, d) = q[from];
          c.k.view(h, i, d) = k[from];
          c.v.view(h, i, d) = v[from];
          c.out.view(h, i, d) = out[from];
        }
    auto const want = where(c, [](index, index, index) { return true; });
    for (index h = 0; h < heads; ++h)
      for (index i = 0; i < variates; ++i) c.lse(h, i) = static_cast<float>(want.lse[static_cast<std::size_t>(h * variates + i)]);
    c.check(want);
  }
  CHECK(message_of([&] { split_heads(view(out.data(), 2, 70, 64), 5); }) ==
        "split_heads: the last extent of x is 64, expected a multiple of the heads");
}

}  // namespace
}  // namespace tern::test
