// SPDX-License-Identifier: Apache-2.0
// What the page at the top of attention.hpp says about order, alignment and NaN, where options meet.
#include "call.hpp"

namespace tern::test {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();

TEST_CASE("attention semantics: scale, then modifiers as written, then masks, then sinks") {
  rng r(1);
  std::vector<float> const z = {0.5f, -1.f};
  for (path const& p : paths) {
    call<float> c(r, {2, 1, p.tokens, p.keys, 24, 20, 1});
    index const end = p.keys - p.tokens;
    // The second modifier makes NaN of what is hidden, and sees the first one's result; the sink sees neither.
    c(
        cpu, sinks{z}, causal{}, scale{0.25f}, [](floats s, score_at const&) { return s * floats(2.f) + floats(1.f); },
        [](floats s, score_at const& at) { return simd::select(at.distance() < floats(0.f), floats(nan), s * s * floats(0.125f)); });
    oracle::attention_spec spec{2, 1, p.tokens, p.keys, 24, 20, 0.25};
    spec.visible = [=](index i, index j) { return j <= i + end; };
    spec.modify = [](double s, index, index, index, index, double) { return (2 * s + 1) * (2 * s + 1) / 8; };
    spec.sinks = widened(z);
    auto want = oracle::attention(c.q.values(), c.k.values(), c.v.values(), spec);
    for (double& g : want.growth) g *= 4;  // the modifiers are steeper than 1: |2 s + 1| / 2 at most
    c.check(want);
  }
}

TEST_CASE("attention semantics: a window counts the query's own key, and the last query stands at the last key") {
  rng r(2);
  for (path const& p : paths) {
    call<float> c(r, {1, 1, p.tokens, p.keys, 16, 17, 1});
    c(cpu, window{1});
    for (index i = 0; i < p.tokens; ++i)
      for (index d = 0; d < 17; ++d) REQUIRE(c.out.view(0, i, d) == c.v.view(0, p.keys - p.tokens + i, d));
    c(cpu, window{0, 2});  // the two keys after one's own
    c.check(c.want([=](index i, index j) { return j > p.keys - p.tokens + i && j <= p.keys - p.tokens + i + 2; }));
    REQUIRE(c.out.view(0, p.tokens - 1, 3) == 0.f);
    REQUIRE(c.lse(0, p.tokens - 1) == -inf);
    for (index d = 0; d < 17; ++d) REQUIRE(c.out.view(0, p.tokens - 2, d) == c.v.view(0, p.keys - 1, d));
  }
}

TEST_CASE("attention semantics: what is hidden changes no bit of what is not, even if it is NaN") {
  for (path const& p : paths) {
    rng r(8);
    call<float> c(r, {2, 1, p.tokens, p.keys, 16, 21, 6});
    index const end = p.keys - p.tokens;
    for (index j = 128; j < p.keys; ++j)  // so that maxima rise in later blocks
      for (index d = 0; d < 16; ++d) c.k.view(0, j, d) *= 2;
    c(cpu, causal{});
    auto const finite = c.results();
    for (index j = end; j < p.keys; ++j) {  // the last keys, from the last back
      index const key = p.keys - 1 - (j - end);
      for (index d = 0; d < 21; ++d) c.v.view(0, key, d) = nan;
      c.k.view(0, key, 0) = nan;
      c(cpu, causal{});
      auto const odd = c.results();
      for (index h = 0; h < 2; ++h)
        for (index i = 0; i < key - end; ++i) {
          index const row = h * p.tokens + i;
          REQUIRE(std::memcmp(&odd[static_cast<std::size_t>(row * 21)], &finite[static_cast<std::size_t>(row * 21)], 21 * sizeof(double)) ==
                  0);
        }
    }
  }
}

TEST_CASE("attention semantics: a modifier may hide, and a row of -inf is empty") {
  rng r(4);
  for (path const& p : paths) {
    call<float> c(r, {2, 1, p.tokens, p.keys, 16, 16, 1});
    c(cpu, [](floats s, score_at const& at) {
      return simd::select(simd::to_float(at.key()) < floats(at.query == 1 ? 1e9f : 10.f), floats(-inf), s);
    });
    c.check(c.want([](index i, index j) { return i != 1 && j >= 10; }));
    REQUIRE(c.lse(1, 1) == -inf);
  }
}

TEST_CASE("attention semantics: a visible NaN reaches hard and row_max, a hidden one nobody") {
  for (path const& p : paths)
    for (index at : {index{0}, index{9}, p.keys / 2 + 1, p.keys - 2}) {
      rng r(7);
      call<float> c(r, {2, 2, p.tokens, p.keys, 16, 16, 1});
      c.k.view(0, at, 3) = nan;
      index const end = p.keys - p.tokens;
      std::vector<float> most(static_cast<std::size_t>(2 * p.tokens)), soft = most;
      attention(cpu, c.q.view, c.k.view, c.v.view, c.out.view, causal{}, row_max{view(soft.data(), 2, p.tokens)});
      attention(cpu, c.q.view, c.k.view, c.v.view, c.out.view, hard{}, causal{}, row_max{view(most.data(), 2, p.tokens)});
      for (index i = 0; i < p.tokens; ++i) {
        auto const row = static_cast<std::size_t>(i), other = static_cast<std::size_t>(p.tokens + i);
        bool const reached = at <= i + end;
        CAPTURE(p.tokens, p.keys, at, i, most[row], soft[row]);
        REQUIRE(std::isnan(c.out.view(0, i, 5)) == reached);
        REQUIRE(std::isnan(most[row]) == reached);
        REQUIRE(std::isnan(soft[row]) == reached);
        REQUIRE(std::isfinite(c.out.view(1, i, 5)));
        REQUIRE((std::isfinite(most[other]) && std::isfinite(soft[other])));
      }
    }
}

}  // namespace
}  // namespace tern::test
