// SPDX-License-Identifier: Apache-2.0
#include <tern/pointwise/add.hpp>

#include "cases.hpp"

namespace tern::test {
namespace {

template <class A, class B, class Y>
void check(index n, index misalignment) {
  rng r(static_cast<std::uint64_t>(n));
  gapped<A> const a(r, 2, 3, n, misalignment);
  gapped<B> const b(r, 2, 3, n, misalignment);
  gapped<Y> y(2, 3, n, misalignment), want(2, 3, n);
  add(cpu, a.view, b.view, y.view);
  for (index i = 0; i < 2; ++i)
    for (index j = 0; j < 3; ++j)
      for (index k = 0; k < n; ++k)
        want.view(i, j, k) = static_cast<Y>(static_cast<float>(a.view(i, j, k)) + static_cast<float>(b.view(i, j, k)));
  INFO("n " << n << " misalignment " << misalignment);
  CHECK(same_bits(y.view, want.view));
  CHECK(y.intact());
}

}  // namespace

TEST_CASE("add: rounds once to f32 and once to y's type", "[pointwise]") {
  each_row_length([](index n, index misalignment) {
    check<float, float, float>(n, misalignment);
    check<f16, float, bf16>(n, misalignment);
  });
}

TEST_CASE("add: in place, on threads", "[pointwise]") {
  rng r(4);
  index const n = 100003;
  auto a = r.normal(n), b = r.normal(n);
  std::vector<float> y(a.size());
  add(cpu.on(tern::serial), a, b, y);
  add(cpu.on(several_threads()), a, b, a);
  CHECK(a == y);
}

TEST_CASE("add: errors name what is wrong", "[pointwise]") {
  std::vector<float> x(32), y(31);
  CHECK(message_of([&] { add(cpu, x, y, x); }) == "add: b.extent(0) is 31, expected a.extent(0) = 32");
  CHECK(message_of([&] { add(cpu, x, x, y); }) == "add: y.extent(0) is 31, expected a.extent(0) = 32");
}

}  // namespace tern::test
