// SPDX-License-Identifier: Apache-2.0
#include <tern/pointwise/select_top.hpp>

#include "cases.hpp"

#include <algorithm>
#include <functional>
#include <numeric>

namespace tern::test {
namespace {

/// By sorting: NaN first, then the largest; of equal ones the first.
std::vector<std::int32_t> sorted_top(std::vector<float> const& x, index k) {
  std::vector<std::int32_t> ids;
  for (std::size_t i = 0; i < x.size(); ++i)
    if (!(x[i] == -INFINITY)) ids.push_back(static_cast<std::int32_t>(i));
  auto const key = [&](std::int32_t i) {
    double const v = static_cast<double>(x[static_cast<std::size_t>(i)]);
    return std::isnan(v) ? std::pair{1, 0.0} : std::pair{0, v};
  };
  std::stable_sort(ids.begin(), ids.end(), [&](std::int32_t a, std::int32_t b) { return key(a) > key(b); });
  ids.resize(std::min(ids.size(), static_cast<std::size_t>(k)));
  std::sort(ids.begin(), ids.end());
  return ids;
}
void check(std::vector<float> const& x, index k, index stride = 1) {
  std::vector<float> spread(x.size() * static_cast<std::size_t>(stride));
  for (std::size_t i = 0; i < x.size(); ++i) spread[i * static_cast<std::size_t>(stride)] = x[i];
  index const n = static_cast<index>(x.size());
  guarded<std::int32_t> ids(k, 1);
  tensor_view<float const, 1> const scores(spread.data(), shape<1>{{n}}, shape<1>{{stride}});
  index const count = select_top(scores, k, tern::view(ids.data(), k));
  INFO("n " << n << " k " << k << " stride " << stride);
  CHECK(std::vector<std::int32_t>(ids.data(), ids.data() + count) == sorted_top(x, k));
  CHECK(ids.intact());
}

using distribution = std::function<float(rng&, index i)>;
std::vector<float> draw(rng& r, index n, distribution const& of) {
  std::vector<float> x;
  for (index i = 0; i < n; ++i) x.push_back(of(r, i));
  return x;
}

std::vector<distribution> const distributions = {
    [](rng& r, index) { return static_cast<float>(r.normal()); },
    [](rng& r, index) { return static_cast<float>(std::exp(8 * r.normal())); },
    [](rng& r, index) { return static_cast<float>(r.integer(0, 3)); },                          // few values
    [](rng& r, index) { return r.integer(0, 9) < 6 ? 0.f : static_cast<float>(r.uniform()); },  // mostly equal
    [](rng&, index) { return 1.f; },                                                            // all equal
    [](rng&, index i) { return static_cast<float>(i); },                                        // sorted: a sample sees all of it
    [](rng& r, index i) { return i % 3 == 0 ? static_cast<float>(r.normal()) : -INFINITY; },    // two thirds hidden
    [](rng& r, index) { return r.integer(0, 2) == 0 ? std::nanf("") : static_cast<float>(r.normal()); },
    [](rng& r, index i) { return i % 32 == 16 ? 1e3f : static_cast<float>(r.normal()); },  // what a sample may see alone
    [](rng& r, index i) { return static_cast<float>(i < 9000 ? 100 + r.normal() : r.normal()); },
    [](rng& r, index) { return r.integer(0, 1) == 0 ? 0.f : -0.f; },
};

}  // namespace

TEST_CASE("select_top: as by sorting, for all kinds of scores", "[pointwise]") {
  rng r(7);
  for (auto const& of : distributions) {
    for (index n : {1, 15, 16, 17, 250, 8170, 8200, 65536})
      for (double share : {0.0, 0.01, 0.1, 0.5, 0.9, 1.0}) check(draw(r, n, of), static_cast<index>(share * static_cast<double>(n)));
    check(draw(r, 300, of), 40, 3);
    check(draw(r, 9000, of), 4000, 2);
  }
  check(draw(r, 300001, distributions[0]), 150000);
  check(draw(r, 300001, distributions[3]), 150000);
}

TEST_CASE("select_top: where the sample misleads, the result does not", "[pointwise]") {
  rng r(8);
  index const n = 65536;
  for (index step : {16, 32, 64}) {  // what stands where samples are taken is larger, or smaller, than all else
    auto const large = draw(r, n, [&](rng& g, index i) { return static_cast<float>(g.normal() + (i % step == step / 2 ? 50 : 0)); });
    auto const small = draw(r, n, [&](rng& g, index i) { return static_cast<float>(g.normal() - (i % step == step / 2 ? 50 : 0)); });
    for (index k : {1, 1000, 20000, 65000}) {
      check(large, k);
      check(small, k);
    }
  }
}

TEST_CASE("select_top: at most what the list holds; indices of a list with a stride", "[pointwise]") {
  rng r(9);
  auto const x = draw(r, 1000, distributions[0]);
  std::vector<std::int32_t> ids(100, -1);
  tensor_view<std::int32_t, 1> const every_other(ids.data(), shape<1>{{50}}, shape<1>{{2}});
  CHECK(select_top(tern::view(x), 80, every_other) == 50);
  auto const want = sorted_top(x, 50);
  for (std::size_t i = 0; i < 50; ++i) CHECK((ids[2 * i] == want[i] && ids[2 * i + 1] == -1));
}

TEST_CASE("select_above: those above, NaN, never -inf", "[pointwise]") {
  rng r(10);
  for (auto const& of : distributions)
    for (index n : {1, 40, 1003}) {
      auto const x = draw(r, n, of);
      for (float threshold : {-INFINITY, -0.5f, 0.f, 2.f, INFINITY}) {
        std::vector<std::int32_t> want;
        for (index i = 0; i < n; ++i) {
          float const e = x[static_cast<std::size_t>(i)];
          if (e > threshold || std::isnan(e)) want.push_back(static_cast<std::int32_t>(i));
        }
        for (index room : {n, index{3}}) {
          guarded<std::int32_t> ids(room, 1);
          index const count = select_above(tern::view(x), threshold, tern::view(ids.data(), room));
          auto some = want;
          some.resize(std::min(some.size(), static_cast<std::size_t>(room)));
          CHECK(std::vector<std::int32_t>(ids.data(), ids.data() + count) == some);
          CHECK(ids.intact());
        }
      }
    }
}

}  // namespace tern::test
