// SPDX-License-Identifier: Apache-2.0
// Few queries against float64 where products<bf16> are asked for, within the errors that tile_bf16.hpp states for operands that are
// rounded: q and the weights, where keys and values are of bf16.
#include "call.hpp"

#include <limits>

namespace tern::test {
namespace {

/// At most u = 2^-8 of q and of a weight, and what f32 adds.
template <class K, class V>
void check_rounding(case_of const& of, double of_score, double of_weight) {
  rng r(static_cast<std::uint64_t>(of.keys + 7 * of.dim));
  call<float, K, V> x(r, of);
  x(cpu.on(serial), causal{}, products<bf16>{});
  auto const e = x.want([&](index i, index j) { return j <= i + of.keys - of.tokens; });
  std::vector<double> allowed, sum_allowed;
  for (std::size_t row = 0; row < e.lse.size(); ++row) {
    using a = attention_accuracy;
    double const f32 = 0x1p-24 * (a::b0 + a::b1 * std::sqrt(static_cast<double>(of.dim)) * e.growth[row] +
                                  a::b2 * std::sqrt(static_cast<double>(of.keys)) + 2 * std::abs(e.lse[row]));
    double const score = of_score * 0x1p-8 * e.growth[row];
    sum_allowed.push_back(score + f32);
    for (index d = 0; d < of.dim_v; ++d)
      allowed.push_back((std::expm1(2 * score) + of_weight * 0x1p-8 + f32) *
                        e.magnitude[row * static_cast<std::size_t>(of.dim_v) + static_cast<std::size_t>(d)]);
  }
  INFO(of.keys << " keys, dims " << of.dim << ' ' << of.dim_v);
  CHECK(compare(x.out.view, e.value, allowed, 1));
  CHECK(compare(x.lse, e.lse, sum_allowed, 1));
  CHECK(x.out.memory.untouched_outside(x.out.view));
}

}  // namespace

TEST_CASE("few queries: products of bf16 round q and the weights", "[attention]") {
  for (index keys : {1, 7, 50, 1201})
    for (index dim : {16, 33, 128}) {
      case_of const of{.heads = 6, .kv_heads = 2, .tokens = keys < 3 ? keys : 3, .keys = keys, .dim = dim, .dim_v = dim + 3};
      check_rounding<bf16, bf16>(of, 1, 1);
      check_rounding<bf16, float>(of, 1, 0);
      check_rounding<float, bf16>(of, 0, 1);
      check_rounding<f16, f16>(of, 0, 0);
    }
}

TEMPLATE_TEST_CASE("few queries: a hidden value may be no number, and changes no bit", "[attention]", bf16, f16, float) {
  rng r(5);
  case_of const of{.heads = 4, .kv_heads = 2, .tokens = 3, .keys = 45, .dim = 33, .dim_v = 37};
  call<float, TestType, TestType> x(r, of);
  auto const results = [&](float last) {
    for (index h = 0; h < of.kv_heads; ++h)
      for (index d = 0; d < of.dim_v; ++d) x.v.view(h, of.keys - 1, d) = TestType(last);
    x(cpu.on(serial), causal{}, products<bf16>{});
    return x.out.values();
  };
  auto const want = results(1);
  for (float odd : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    auto const got = results(odd);
    for (std::size_t i = 0; i < got.size(); ++i) {
      bool const sees = static_cast<index>(i) / of.dim_v % of.tokens == of.tokens - 1;  // the last query alone
      if (sees)
        CHECK(!std::isfinite(got[i]));
      else
        CHECK(got[i] == want[i]);
    }
  }
}

}  // namespace tern::test
