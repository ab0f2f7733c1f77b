// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "compare.hpp"

#include <tern/quantize/allocate_bits.hpp>

namespace tern::test::bit_budget {
namespace {

struct problem {
  index layers, formats;
  std::vector<double> costs;
  std::vector<index> sizes;

  problem(rng& r, index l, index f) : layers(l), formats(f) {
    for (index i = 0; i < l; ++i) {
      double const weight = std::exp(r.normal());
      index const unit = r.integer(1, 40);
      for (index j = 0; j < f; ++j) {
        sizes.push_back(unit * (j + 1) + r.integer(0, unit));
        costs.push_back(weight * std::exp(-static_cast<double>(j) + 0.5 * r.normal()));
      }
    }
  }
  bit_allocation solve(index budget, index most_states = 100000) const {
    return allocate_bits(view(costs.data(), layers, formats), view(sizes.data(), layers, formats), budget, most_states);
  }
  double cost_of(std::vector<index> const& choice, index& bytes) const {
    double cost = 0;
    bytes = 0;
    for (index l = 0; l < layers; ++l) {
      auto const at = static_cast<std::size_t>(l * formats + choice[static_cast<std::size_t>(l)]);
      cost += costs[at];
      bytes += sizes[at];
    }
    return cost;
  }
  /// Over all choices.
  double least(index budget) const {
    double best = std::numeric_limits<double>::infinity();
    std::vector<index> choice(static_cast<std::size_t>(layers));
    for (;;) {
      index bytes;
      double const cost = cost_of(choice, bytes);
      if (bytes <= budget) best = std::min(best, cost);
      std::size_t l = 0;
      while (l < choice.size() && ++choice[l] == formats) choice[l++] = 0;
      if (l == choice.size()) return best;
    }
  }
  index smallest() const {
    index sum = 0;
    for (index l = 0; l < layers; ++l) sum += *std::min_element(sizes.begin() + l * formats, sizes.begin() + (l + 1) * formats);
    return sum;
  }
};

}  // namespace

TEST_CASE("bits are allocated as a search of all choices would") {
  rng r(121);
  for (int round = 0; round < 60; ++round) {
    problem const p(r, r.integer(1, 6), r.integer(1, 5));
    index const low = p.smallest();
    for (index budget : {low, low + low / 4, 2 * low, 3 * low, 100 * low}) {
      INFO("round " << round << " budget " << budget);
      auto const found = p.solve(budget);
      index bytes;
      CHECK(found.cost == Approx(p.cost_of(found.formats, bytes)).epsilon(1e-12));
      CHECK(found.bytes == bytes);
      CHECK(bytes <= budget);
      CHECK(found.exact);
      CHECK(found.cost == Approx(p.least(budget)).epsilon(1e-9));
    }
  }
}

TEST_CASE("bits are allocated where the best costs are nothing beside the worst") {
  rng r(123);
  for (int round = 0; round < 200; ++round)
    for (double last : {0., 1e-9}) {
      problem p(r, 1 + round % 6, 3);
      for (index l = 0; l < p.layers; ++l) p.costs[static_cast<std::size_t>(3 * l + 2)] *= last;
      auto const found = p.solve(1000 * p.smallest());
      INFO("round " << round << " last " << last);
      CHECK(found.exact);
      CHECK(found.cost == Approx(p.least(1000 * p.smallest())).epsilon(1e-9));
    }
}

TEST_CASE("with few states the answer still fits, is near, and says that it may not be exact") {
  rng r(122);
  problem const p(r, 60, 8);
  index const budget = 4 * p.smallest();
  auto const exact = p.solve(budget), rough = p.solve(budget, 2);
  CHECK(exact.exact);
  CHECK(!rough.exact);
  CHECK(rough.bytes <= budget);
  CHECK(rough.cost >= exact.cost * (1 - 1e-12));
  CHECK(rough.cost <= 2 * exact.cost);
}

TEST_CASE("a format of infinite cost is never chosen, and wrong tables are refused") {
  double const inf = std::numeric_limits<double>::infinity();
  double costs[] = {inf, 1, 5, inf};
  index sizes[] = {1, 10, 3, 1};
  auto const c = view(costs, 2, 2);
  auto const s = view(sizes, 2, 2);
  CHECK(allocate_bits(c, s, 13).formats == std::vector<index>{1, 0});
  CHECK_THROWS_WITH(allocate_bits(c, s, 12), "allocate_bits: budget is 12, expected at least what the smallest formats take");
  CHECK_THROWS_WITH(allocate_bits(c, view(sizes, 1, 2), 13), "allocate_bits: sizes.extent(0) is 1, expected costs.extent(0) = 2");
  sizes[2] = -3;
  CHECK_THROWS_WITH(allocate_bits(c, s, 13), "allocate_bits: a size is -3, expected at least 0");
  sizes[2] = 3;
  costs[1] = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH(allocate_bits(c, s, 13), "allocate_bits: a cost that is negative or NaN, of layer is 0, expected costs of at least 0");
  costs[1] = inf;
  CHECK_THROWS_WITH(allocate_bits(c, s, 13), "allocate_bits: a layer without a format of finite cost is 0, expected one at least");
  CHECK(allocate_bits(view(costs, 0, 2), view(sizes, 0, 2), 0).formats.empty());
}

}  // namespace tern::test::bit_budget
