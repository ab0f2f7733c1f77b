// SPDX-License-Identifier: Apache-2.0
// Masks over the keys of a text: sink_window, prefix_lm, document_ids, tree, dense_mask, and additive_mask.
#include "by_definition.hpp"

#include <tern/attention/additive_mask.hpp>
#include <tern/attention/dense_mask.hpp>
#include <tern/attention/dilated.hpp>
#include <tern/attention/document_ids.hpp>
#include <tern/attention/prefix_lm.hpp>
#include <tern/attention/sink_window.hpp>
#include <tern/attention/tree.hpp>

namespace tern::test {
namespace {

TEST_CASE("sink_window: the first keys and the last ones") {
  rng r(101);
  for (auto [heads, tokens, keys] : {std::array<index, 3>{4, 1, 700}, {2, 3, 41}, {4, 301, 301}, {2, 150, 433}}) {
    call<float> c(r, {heads, 2, tokens, keys, 20, 17, 1});
    index const at = keys - tokens;
    for (auto [sinks, length] : {std::array<index, 2>{4, 9}, {0, 5}, {130, 64}, {3, 0}, {1, keys}, {keys, 1}}) {
      CAPTURE(sinks, length);
      c(cpu, sink_window{sinks, length});
      c.check(where(c, [at, n = sinks, m = length](index, index i, index j) { return j <= i + at && (j < n || i + at - j < m); }));
    }
    c(cpu, sink_window{4, 9, 5});
    c.check(where(c, [=](index, index i, index j) { return j <= i + 5 && (j < 4 || i + 5 - j < 9); }));
    // Keys between may be NaN: they are not computed where nobody sees them, and masked where somebody does.
    for (index j = 4; j < keys - tokens - 9; ++j) c.v.view(0, j, 0) = c.k.view(0, j, 0) = poison<float>();
    c(cpu, sink_window{4, 9});
    for (index i = 0; i < tokens; ++i) REQUIRE(std::isfinite(c.out.view(0, i, 0)));
  }
}

TEST_CASE("prefix_lm: all see the prefix") {
  rng r(102);
  for (auto [heads, tokens, keys] : {std::array<index, 3>{4, 2, 300}, {2, 160, 160}, {4, 70, 223}}) {
    call<float> c(r, {heads, 2, tokens, keys, 16, 16, 1});
    index const at = keys - tokens;
    for (index prefix : {index{0}, index{5}, index{131}, keys, keys + 7}) {
      std::vector<std::int32_t> const one{static_cast<std::int32_t>(prefix)};
      c(cpu, prefix_lm_by_batch(one));
      c.check(where(c, [=](index, index i, index j) { return j < prefix || j <= i + at; }));
    }
  }
  // A batch of two, with prefixes of their own.
  call<float> c(r, {2, 2, 40, 40, 16, 16, 1});
  std::vector<std::int32_t> const prefixes{3, 37};
  auto apart = [](auto const& x) {
    auto const s = x.view;
    return tensor_view(s.data(), shape<4>{{2, 1, s.extent(1), s.extent(2)}}, shape<4>{{s.stride(0), 0, s.stride(1), 1}});
  };
  tensor_view<float, 3> const lse(c.lse.data(), shape<3>{{2, 1, 40}}, shape<3>{{c.lse.stride(0), 0, c.lse.stride(1)}});
  attention(cpu, apart(c.q), apart(c.k), apart(c.v), apart(c.out), log_sum_exp{lse}, prefix_lm_by_batch(prefixes));
  c.check(where(c, [&](index h, index i, index j) { return j < prefixes[static_cast<std::size_t>(h)] || j <= i; }));
  c(cpu, prefix_lm{11} & causal{3});
  c.check(where(c, [](index, index i, index j) { return j <= i + 3; }));
}

TEST_CASE("document_ids: documents with a shared anchor") {
  rng r(103);
  for (auto [tokens, keys] : {std::array<index, 2>{300, 300}, {4, 90}, {140, 500}}) {
    std::vector<std::int32_t> ids;
    for (index j = 0, id = 0; j < keys; ++j) {
      if (r.integer(0, 40) == 0) id += r.integer(1, 3);
      ids.push_back(static_cast<std::int32_t>(id));
    }
    call<float> c(r, {4, 2, tokens, keys, 24, 16, 1});
    index const at = keys - tokens;
    auto const own = std::span(ids).subspan(static_cast<std::size_t>(at));
    for (index anchor : {index{0}, index{1}, index{150}, keys}) {
      c(cpu, document_ids(own, ids, anchor), causal{});
      c.check(where(c, [&](index, index i, index j) {
        return j <= i + at && (j < anchor || ids[static_cast<std::size_t>(i + at)] == ids[static_cast<std::size_t>(j)]);
      }));
    }
  }
  std::vector<std::int32_t> const falling{0, 1, 0};
  call<float> c(r, {1, 1, 3, 3, 8, 8, 1});
  CHECK(message_of([&] { c(cpu, document_ids(falling), causal{}); }) == "attention: a document id is 0, expected at least the one before");
}

TEST_CASE("tree: draft tokens see the context and their ancestors") {
  rng r(104);
  for (auto [tokens, context] : {std::array<index, 2>{6, 250}, {70, 130}, {1, 3}, {150, 0}}) {
    std::vector<std::int32_t> parents;
    index const words = (tokens + 63) / 64;
    std::vector<std::uint64_t> bits(static_cast<std::size_t>(tokens * words));
    std::vector<std::vector<bool>> sees(static_cast<std::size_t>(tokens), std::vector<bool>(static_cast<std::size_t>(tokens)));
    for (index i = 0; i < tokens; ++i) {
      index const parent = r.integer(-1, i - 1);
      parents.push_back(static_cast<std::int32_t>(parent));
      auto& mine = sees[static_cast<std::size_t>(i)];
      if (parent >= 0) mine = sees[static_cast<std::size_t>(parent)];
      mine[static_cast<std::size_t>(i)] = true;
      for (index d = 0; d < tokens; ++d)
        if (mine[static_cast<std::size_t>(d)]) bits[static_cast<std::size_t>(i * words + d / 64)] |= std::uint64_t{1} << (d % 64);
    }
    call<float> c(r, {4, 2, tokens, context + tokens, 16, 20, 1});
    auto const want = where(c, [&](index, index i, index j) {
      return j < context || sees[static_cast<std::size_t>(i)][static_cast<std::size_t>(j - context)];
    });
    c(cpu, tree(parents));
    c.check(want);
    c(cpu, ancestors(view(bits.data(), tokens, words)));
    c.check(want);
  }
  // A chain is causal.
  call<float> c(r, {2, 2, 20, 50, 16, 16, 1});
  std::vector<std::int32_t> chain;
  for (std::int32_t i = 0; i < 20; ++i) chain.push_back(i - 1);
  c(cpu, tree(chain));
  auto const drafts = c.results();
  c(cpu, causal{});
  CHECK(same_bits(c.results(), drafts));
  chain[3] = 3;
  CHECK(message_of([&] { c(cpu, tree(chain)); }) == "attention: a parent of tree is 3, expected -1, or a token before its child");
}

TEST_CASE("dense_mask: a matrix by head, and its tiles") {
  rng r(105);
  for (auto [tokens, keys] : {std::array<index, 2>{2, 700}, {150, 301}}) {
    call<float> c(r, {4, 2, tokens, keys, 16, 16, 1});
    std::vector<unsigned char> m(static_cast<std::size_t>(4 * tokens * keys));
    auto const at = [&](index h, index i, index j) -> unsigned char& { return m[static_cast<std::size_t>((h * tokens + i) * keys + j)]; };
    for (index h = 0; h < 4; ++h)
      for (index i = 0; i < tokens; ++i)
        for (index j = 0; j < keys; ++j)
          // Blocks that are hidden, blocks that are seen, and blocks of both; any number but zero sees.
          at(h, i, j) = static_cast<unsigned char>((j / 128 + h) % 3 == 0 ? 0 : (j / 128 + h) % 3 == 1 ? 0x80 : r.integer(0, 1));
    at(1, 0, keys - 1) = 0;
    auto const want = where(c, [&](index h, index i, index j) { return at(h, i, j) != 0; });
    c(cpu, dense_mask(view(m.data(), 4, tokens, keys)));
    c.check(want);
    // Keys outermost: the same through strides.
    std::vector<unsigned char> turned(m.size());
    for (index h = 0; h < 4; ++h)
      for (index i = 0; i < tokens; ++i)
        for (index j = 0; j < keys; ++j) turned[static_cast<std::size_t>((h * keys + j) * tokens + i)] = at(h, i, j);
    c(cpu, dense_mask(view(turned.data(), 4, keys, tokens).transposed(1, 2)));
    c.check(want);
    std::unique_ptr<bool[]> const one(new bool[static_cast<std::size_t>(tokens * keys)]);
    for (index i = 0; i < tokens * keys; ++i) one[static_cast<std::size_t>(i)] = i % keys <= i / keys + 3 && i % 7 != 0;
    c(cpu, dense_mask(view(one.get(), tokens, keys)), window{60, 60});
    c.check(where(c, [&](index, index i, index j) {
      index const p = i + keys - tokens;
      return one[static_cast<std::size_t>(i * keys + j)] && j > p - 60 && j <= p + 60;
    }));
  }
}

TEST_CASE("additive_mask: added to scores, -inf allowed") {
  rng r(106);
  for (auto [tokens, keys] : {std::array<index, 2>{2, 300}, {90, 147}}) {
    call<float> c(r, {4, 2, tokens, keys, 16, 16, 1});
    auto m = r.normal<float>(4 * tokens * keys, 2);
    for (float& x : m)
      if (r.integer(0, 3) == 0) x = -std::numeric_limits<float>::infinity();
    for (index j = 0; j < keys; ++j) m[static_cast<std::size_t>(j)] = -std::numeric_limits<float>::infinity();  // head 0, token 0
    auto const of = view(m.data(), 4, tokens, keys);
    c(cpu, additive_mask(of));
    auto const want = by_definition(c, [&](index h, index i, index j, double s) { return s + static_cast<double>(of(h, i, j)); });
    c.check(want);
    CHECK(c.lse(0, 0) == -std::numeric_limits<float>::infinity());
    c(cpu, additive_mask(of), dilated{3});
    c.check(by_definition(c, [&, at = keys - tokens](index h, index i, index j, double s) {
      return (i + at - j) % 3 == 0 ? s + static_cast<double>(of(h, i, j)) : hidden;
    }));
    // Elements that are not contiguous.
    std::vector<float> wide(static_cast<std::size_t>(8 * tokens * keys), poison<float>());
    tensor_view<float const, 3> const apart(wide.data(), shape<3>{{4, tokens, keys}}, shape<3>{{2 * tokens * keys, 2 * keys, 2}});
    for (index h = 0; h < 4; ++h)
      for (index i = 0; i < tokens; ++i)
        for (index j = 0; j < keys; ++j) wide[static_cast<std::size_t>(h * 2 * tokens * keys + i * 2 * keys + 2 * j)] = of(h, i, j);
    c(cpu, additive_mask(apart));
    c.check(want);
  }
}

}  // namespace
}  // namespace tern::test
