// SPDX-License-Identifier: Apache-2.0
// What the page at the top of attention.hpp says about empty rows. One type of call, as mutants are compiled with it.
#include "call.hpp"

namespace tern::test {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();

TEST_CASE("attention semantics: rows that see nothing have their sink alone") {
  rng r(3);
  std::vector<float> const z = {0.75f, -inf};
  for (path const& p : paths) {
    call<float> c(r, {2, 2, p.tokens, p.keys, 16, 16, 1});
    std::vector<float> most(static_cast<std::size_t>(2 * p.tokens), nan);
    attention(cpu, c.q.view, c.k.view, c.v.view, c.out.view, causal{-2}, sinks{z}, log_sum_exp{c.lse},
              row_max{view(most.data(), 2, p.tokens)});
    for (index i = 0; i < 2; ++i) {
      for (index d = 0; d < 16; ++d) REQUIRE((c.out.view(0, i, d) == 0.f && c.out.view(1, i, d) == 0.f));
      REQUIRE(detail::close(c.lse(0, i), 0.75, 0.75, 0x1p-22));
      REQUIRE(detail::close(most[static_cast<std::size_t>(i)], 0.75, 0.75, 0x1p-22));
      REQUIRE(c.lse(1, i) == -inf);
      REQUIRE(most[static_cast<std::size_t>(p.tokens + i)] == -inf);
    }
    oracle::attention_spec spec{2, 2, p.tokens, p.keys, 16, 16, 0.25};
    spec.visible = [](index i, index j) { return j <= i - 2; };
    spec.sinks = widened(z);
    c.check(oracle::attention(c.q.values(), c.k.values(), c.v.values(), spec));
  }
}

}  // namespace
}  // namespace tern::test
