// SPDX-License-Identifier: Apache-2.0
#include <tern/pointwise/argmax.hpp>

#include "cases.hpp"

namespace tern::test {
namespace {

index argmax_of(guarded<float>& x, float& largest) {
  return tern::detail::argmax_packs(
      static_cast<index>(x.size()), [&](index i, auto part) { return tern::detail::load(static_cast<float const*>(x.data()) + i, part); },
      largest);
}

}  // namespace

TEST_CASE("argmax: the first of the largest, whatever the length", "[pointwise]") {
  rng r(81);
  each_row_length([&](index n, index misalignment) {
    for (int repeat = 0; repeat < 5; ++repeat) {
      guarded<float> x(n, misalignment);
      index want = 0;
      for (index i = 0; i < n; ++i) {
        x[i] = static_cast<float>(r.integer(-9, repeat)) / 4;  // many are equal
        if (x[i] > x[want]) want = i;
      }
      float largest;
      index const at = argmax_of(x, largest);
      CHECK(at == want);
      CHECK(largest == (n > 0 ? x[want] : -INFINITY));
    }
  });
}

TEST_CASE("argmax: NaN is not counted", "[pointwise]") {
  for (index n : {1, 5, 16, 70}) {
    guarded<float> x(n);
    for (index i = 0; i < n; ++i) x[i] = std::nanf("");
    float largest;
    CHECK(argmax_of(x, largest) == 0);
    CHECK(largest == -INFINITY);
    x[n - 1] = -3.f;
    CHECK(argmax_of(x, largest) == n - 1);
    CHECK(largest == -3.f);
    x[n / 2] = INFINITY;
    CHECK(argmax_of(x, largest) == n / 2);
  }
}

}  // namespace tern::test
