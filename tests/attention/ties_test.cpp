// SPDX-License-Identifier: Apache-2.0
// What the page at the top of attention.hpp says about ties, in a file of its own, as mutants are compiled with it.
#include "call.hpp"

namespace tern::test {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();

TEST_CASE("attention semantics: of equal scores the first key, for hard and top_keys, in blocks and splits") {
  for (path const& p : paths) {
    rng r(5);
    call<float> c(r, {2, 1, p.tokens, p.keys, 16, 16, 1});
    index const count = 5, last = p.keys - 1;
    for (index j = 0; j < p.keys; ++j)
      for (index d = 0; d < 16; ++d) c.k.view(0, j, d) = 0;
    for (index i = 0; i < p.tokens; ++i)
      for (index h = 0; h < 2; ++h) c.q.view(h, i, 0) = 1;
    for (index j : {index{7}, index{8}, p.keys / 2, last}) c.k.view(0, j, 0) = 4;  // scores 1, the others 0
    std::vector<std::int32_t> ids(static_cast<std::size_t>(2 * p.tokens * count), 99);
    std::vector<float> scores(ids.size(), 99.f);
    attention(cpu, c.q.view, c.k.view, c.v.view, c.out.view, hard{},
              top_keys{view(ids.data(), 2, p.tokens, count), view(scores.data(), 2, p.tokens, count)});
    for (index row = 0; row < 2 * p.tokens; ++row) {
      auto const* const id = ids.data() + row * count;
      CAPTURE(row, id[0], id[1], id[2], id[3], id[4]);
      REQUIRE((id[0] == 7 && id[1] == 8 && id[2] == p.keys / 2 && id[3] == last && id[4] == 0));
      REQUIRE((scores[static_cast<std::size_t>(row * count)] == 1.f && scores[static_cast<std::size_t>(row * count + 4)] == 0.f));
    }
    for (index i = 0; i < p.tokens; ++i)
      for (index d = 0; d < 16; ++d) REQUIRE(c.out.view(1, i, d) == c.v.view(0, 7, d));
    std::vector<float> most(static_cast<std::size_t>(2 * p.tokens), nan);
    attention(cpu, c.q.view, c.k.view, c.v.view, c.out.view, hard{}, row_max{view(most.data(), 2, p.tokens)});
    for (index i = 0; i < p.tokens; ++i)
      for (index d = 0; d < 16; ++d) REQUIRE(c.out.view(1, i, d) == c.v.view(0, 7, d));
    c.k.view(0, last, 0) = 8;  // now in the last split
    attention(cpu, c.q.view, c.k.view, c.v.view, c.out.view, hard{}, row_max{view(most.data(), 2, p.tokens)});
    for (index i = 0; i < p.tokens; ++i)
      for (index d = 0; d < 16; ++d) REQUIRE(c.out.view(0, i, d) == c.v.view(0, last, d));
    REQUIRE(most == std::vector<float>(most.size(), 2.f));
  }
}

TEST_CASE("attention semantics: more top_keys than keys") {
  rng r(6);
  for (index tokens : {index{2}, index{30}}) {
    call<float> c(r, {1, 1, tokens, 3, 16, 16, 1});
    std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens * 5), 99);
    std::vector<float> scores(ids.size(), 99.f);
    attention(cpu, c.q.view, c.k.view, c.v.view, c.out.view, causal{0},
              top_keys{view(ids.data(), 1, tokens, 5), view(scores.data(), 1, tokens, 5)});
    CHECK((ids[0] == 0 && ids[1] == -1 && ids[4] == -1));
    CHECK((scores[1] == -inf && scores[4] == -inf));
    CHECK((ids[8] == -1 && ids[5] != ids[6] && ids[5] + ids[6] == 1));
  }
}

}  // namespace
}  // namespace tern::test
