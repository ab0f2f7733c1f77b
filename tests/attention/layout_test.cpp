// SPDX-License-Identifier: Apache-2.0
// Layouts over the tokens of texts: varlen, key_lengths, even_groups, shifted_groups, dilated, block_list, gather_list.
#include "by_definition.hpp"

#include <tern/attention/block_list.hpp>
#include <tern/attention/dilated.hpp>
#include <tern/attention/even_groups.hpp>
#include <tern/attention/gather_list.hpp>
#include <tern/attention/varlen.hpp>

namespace tern::test {
namespace {

TEST_CASE("varlen: each sequence by itself, aligned to its own end") {
  rng r(201);
  std::vector<index> const q_lengths{3, 0, 140, 1, 7, 33, 4}, k_lengths{3, 5, 170, 300, 0, 20, 4};
  auto const cu_q = running_sums(q_lengths), cu_k = running_sums(k_lengths);
  call<float> c(r, {4, 2, cu_q.back(), cu_k.back(), 24, 16, 1});
  auto const of = [](std::vector<std::int32_t> const& cu, index i) {
    return static_cast<std::size_t>(std::upper_bound(cu.begin(), cu.end(), static_cast<std::int32_t>(i)) - cu.begin() - 1);
  };
  for (index length : {index{1}, index{40}, index{1000}}) {
    c(cpu.on(several_threads()), varlen(cu_q, cu_k), causal{}, window{length});
    c.check(where(c, [&](index, index i, index j) {
      std::size_t const s = of(cu_q, i);
      if (s != of(cu_k, j)) return false;
      index const p = i - cu_q[s] + k_lengths[s] - q_lengths[s], own = j - cu_k[s];
      return own <= p && own > p - length;
    }));
  }
  // One sequence is dense, and sequences alone give the same bits.
  std::vector<std::int32_t> const all_q{0, cu_q.back()}, all_k{0, cu_k.back()};
  c(cpu, varlen(all_q, all_k), causal{}, window{1000});
  auto const whole = c.results();
  c(cpu, causal{}, window{1000});
  CHECK(same_bits(c.results(), whole));
  auto fails = [&](std::vector<std::int32_t> const& q, std::vector<std::int32_t> const& k) {
    return message_of([&] { c(cpu, varlen(q, k), causal{}, window{1}); });
  };
  CHECK(fails({0, 5}, all_k) == "attention: the span of cu_q is 5, expected the tokens of q = 188");
  CHECK(fails({0, 50, 40, 188}, {0, 1, 2, cu_k.back()}) == "attention: an element of cu_q is 40, expected at least the element before");
  CHECK(fails({1, 188}, all_k) == "attention: the span of cu_q is 187, expected the tokens of q = 188");
}

/// Heads as a batch of single heads.
template <class X>
auto as_batch(X const& x) {
  auto const s = x.view;
  return tensor_view(s.data(), shape<4>{{s.extent(0), 1, s.extent(1), s.extent(2)}}, shape<4>{{s.stride(0), 0, s.stride(1), 1}});
}

TEST_CASE("key_lengths: padding is not read, and each batch ends where it ends") {
  rng r(202);
  std::vector<std::int32_t> const n{37, 0, 200, 5};
  for (index tokens : {index{1}, index{30}}) {
    call<float> c(r, {4, 4, tokens, 200, 16, 16, 1});
    auto const want = where(c, [&](index h, index i, index j) {
      return j <= i + n[static_cast<std::size_t>(h)] - tokens && j < n[static_cast<std::size_t>(h)];
    });
    for (index h = 0; h < 4; ++h)
      for (index j = n[static_cast<std::size_t>(h)]; j < 200; ++j)
        for (index d = 0; d < 16; ++d) c.k.view(h, j, d) = c.v.view(h, j, d) = poison<float>();
    tensor_view<float, 3> const lse(c.lse.data(), shape<3>{{4, 1, tokens}}, shape<3>{{c.lse.stride(0), 0, c.lse.stride(1)}});
    attention(cpu, as_batch(c.q), as_batch(c.k), as_batch(c.v), as_batch(c.out), log_sum_exp{lse}, causal{}, key_lengths(n));
    c.check(want);
  }
}

TEST_CASE("even_groups: groups meet their own keys") {
  rng r(203);
  for (auto [tokens, keys, queries, own] : {std::array<index, 4>{100, 50, 8, 4}, {7, 90, 1, 13}, {300, 300, 70, 0}, {5, 3, 9, 9}}) {
    call<float> c(r, {4, 2, tokens, keys, 16, 16, 1});
    c(cpu, even_groups{queries, own});
    c.check(where(c, [n = queries, m = own > 0 ? own : queries](index, index i, index j) { return i / n == j / m; }));
  }
  call<float> c(r, {2, 1, 10, 10, 8, 8, 1});
  CHECK(message_of([&] { c(cpu, even_groups{4, 3}); }) == "attention: the number of groups of keys is 4, expected that of queries = 3");
}

TEST_CASE("dilated: distances that the stride divides") {
  rng r(204);
  for (auto [tokens, keys, stride] : {std::array<index, 3>{1, 300, 7}, {100, 100, 3}, {50, 331, 1}, {333, 500, 4}, {4, 3, 5}}) {
    call<float> c(r, {4, 2, tokens, keys, 16, 16, 1});
    index const at = keys - tokens;
    c(cpu, dilated{stride}, window{90, 11});
    c.check(where(c, [=, n = stride](index, index i, index j) { return (i + at - j) % n == 0 && j > i + at - 90 && j <= i + at + 11; }));
  }
}

TEST_CASE("block_list: listed blocks by head, causal by key index") {
  rng r(205);
  for (auto [tokens, keys, query_block, key_block] :
       {std::array<index, 4>{300, 300, 64, 64}, {150, 411, 32, 48}, {3, 500, 1, 16}, {100, 90, 200, 1000}}) {
    call<float> c(r, {4, 2, tokens, keys, 16, 20, 1});
    index const rows = (tokens + query_block - 1) / query_block, columns = (keys + key_block - 1) / key_block;
    std::vector<std::int32_t> starts, blocks(static_cast<std::size_t>(4 * (rows * columns + 3)), -77);
    std::vector<bool> listed(static_cast<std::size_t>(4 * rows * columns));
    for (index h = 0; h < 4; ++h) {
      std::int32_t at = 2;  // rows may begin anywhere
      for (index n = 0; n < rows; ++n) {
        starts.push_back(at);
        for (index b = 0; b < columns; ++b)
          if (h == 0 || r.integer(0, 2) == 0) {
            blocks[static_cast<std::size_t>(h * (rows * columns + 3) + at++)] = static_cast<std::int32_t>(b);
            listed[static_cast<std::size_t>((h * rows + n) * columns + b)] = true;
          }
      }
      starts.push_back(at);
    }
    block_list const list(query_block, key_block, view(starts.data(), 4, rows + 1), view(blocks.data(), 4, rows * columns + 3));
    c(cpu.on(several_threads()), list, causal{});
    c.check(where(c, [&, n = query_block, m = key_block, at = keys - tokens](index h, index i, index j) {
      return j <= i + at && listed[static_cast<std::size_t>((h * rows + i / n) * columns + j / m)];
    }));
    blocks[2] = static_cast<std::int32_t>(columns);
    CHECK(message_of([&] { c(cpu.on(several_threads()), list, causal{}); }).find("expected more than the one before") != std::string::npos);
  }
}

TEST_CASE("gather_list: each block of queries has its own keys, repeated or not") {
  rng r(206);
  for (auto [heads, tokens, keys, block] : {std::array<index, 4>{4, 40, 500, 1}, {2, 77, 60, 16}, {16, 6, 900, 2}}) {
    call<float> c(r, {heads, 2, tokens, keys, 16, 16, 1});
    index const rows = (tokens + block - 1) / block;
    std::vector<std::int32_t> starts{0}, list;
    std::vector<int> count(static_cast<std::size_t>(rows * keys));
    for (index n = 0; n < rows; ++n) {
      for (index e = n == 1 ? 0 : r.integer(1, 200); e > 0; --e) {
        index const j = r.integer(0, keys - 1);
        list.push_back(static_cast<std::int32_t>(j));
        ++count[static_cast<std::size_t>(n * keys + j)];
      }
      starts.push_back(static_cast<std::int32_t>(list.size()));
    }
    c(cpu, gather_list(starts, list, block));
    c.check(by_definition(c, [&, m = block, n = keys](index, index i, index j, double s) {
      int const times = count[static_cast<std::size_t>(i / m * n + j)];
      return times == 0 ? hidden : s + std::log(static_cast<double>(times));
    }));
    list[0] = static_cast<std::int32_t>(keys);
    CHECK(message_of([&, n = block] { c(cpu, gather_list(starts, list, n)); }) ==
          "attention: a key of a list is " + std::to_string(keys) + ", expected a key of k");
  }
}

}  // namespace
}  // namespace tern::test
