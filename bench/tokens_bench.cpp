// SPDX-License-Identifier: Apache-2.0
// Tokens that are scored, chosen, gathered, merged and put back, in the shapes of vision encoders: 4096 tokens of 768 channels, and
// scores of 65536 tokens. Peers choose and sort with the standard library, and match with Eigen's product and a maximum of each row.
#include "harness.hpp"
#include "inputs.hpp"
#include "peers.hpp"

#include <tern/pointwise/select_top.hpp>

#include <algorithm>
#include <numeric>
#include <string>

namespace tern::bench {
namespace {

/// Scores, and the indices of the k largest, ascending.
struct top_problem {
  index k;
  buffer<float> scores;
  buffer<std::int32_t> ids;
  std::vector<std::int32_t> want, order;

  top_problem(index n, index count) : k(count), scores(fast_normal(n)), ids(n), order(static_cast<std::size_t>(n)) {
    take([&](auto first, auto middle, auto last, auto before) { std::partial_sort(first, middle, last, before); });
    want.assign(ids.begin(), ids.begin() + k);
  }
  /// What a peer does: indices, brought into order as far as is needed by `partition`, and the first k of them sorted.
  template <class Partition>
  void take(Partition&& partition) {
    std::iota(order.begin(), order.end(), 0);
    auto const before = [this](std::int32_t a, std::int32_t b) { return scores[a] > scores[b] || (scores[a] == scores[b] && a < b); };
    partition(order.begin(), order.begin() + k, order.end(), before);
    std::copy_n(order.begin(), k, ids.begin());
    std::sort(ids.begin(), ids.begin() + k);
  }
  bool right() const { return std::equal(want.begin(), want.end(), ids.begin()); }
};

void add_top_k(index n, index k) {
  auto data = lazy([=] { return top_problem(n, k); });
  workload const w{.op = "tokens",
                   .name = "top_k_n" + std::to_string(n) + "_k" + std::to_string(k),
                   .bytes = 4.0 * static_cast<double>(n + k),
                   .threads = {1}};
  auto const add = [&](std::string const& name, auto call) {
    w.add(name, [=](run& r) {
      top_problem& p = data();
      std::fill(p.ids.begin(), p.ids.end(), -1);
      r.check([&] {
        call(p);
        return p.right();
      });
      r.time([&](index) { call(p); });
    });
  };
  add("tern", [](top_problem& p) { select_top(tern::view(p.scores), p.k, tern::view(p.ids)); });
  add("std_partial_sort", [](top_problem& p) {
    p.take([](auto first, auto middle, auto last, auto before) { std::partial_sort(first, middle, last, before); });
  });
  add("std_nth_element", [](top_problem& p) {
    p.take([](auto first, auto middle, auto last, auto before) { std::nth_element(first, middle, last, before); });
  });
}

}  // namespace

void register_benchmarks() {
  for (index k : {655, 6554, 32768}) add_top_k(65536, k);
}

}  // namespace tern::bench
