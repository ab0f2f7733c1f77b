// SPDX-License-Identifier: Apache-2.0
#include <tern/pointwise/swiglu.hpp>

#include "cases.hpp"

namespace tern::test {
namespace {

template <class G, class U, class Y>
void check(index n, index misalignment, double scale) {
  rng r(static_cast<std::uint64_t>(n));
  gapped<G> const gate(r, 2, 3, n, misalignment, scale);
  gapped<U> const up(r, 2, 3, n, misalignment);
  gapped<Y> y(2, 3, n, misalignment);
  swiglu(cpu, gate.view, up.view, y.view);
  auto const want = with_floor(tern::oracle::swiglu(gate.values(), up.values()), up.values(), 0x1p-119, swiglu.error);
  INFO("n " << n << " misalignment " << misalignment << " scale " << scale);
  CHECK(compare(y.view, want.value, want.magnitude, swiglu.error));
  CHECK(y.intact());
}

}  // namespace

TEST_CASE("swiglu: equals the oracle, all types and lengths", "[pointwise]") {
  each_row_length([](index n, index misalignment) {
    check<float, float, float>(n, misalignment, 3);
    check<f16, bf16, f16>(n, misalignment, 3);
    check<bf16, f16, float>(n, misalignment, 60);
  });
  check<float, float, float>(1536, 0, 100);
}

TEST_CASE("swiglu: special values follow the formula", "[pointwise]") {
  std::vector<float> const gate = {0.f, -0.f, INFINITY, -INFINITY, NAN, 1.f, 1.f};
  std::vector<float> const up = {5.f, 5.f, 2.f, 1.f, 1.f, NAN, -INFINITY};
  std::vector<float> y(7);
  swiglu(cpu, gate, up, y);
  CHECK(y[0] == 0.f);
  CHECK(y[1] == 0.f);
  CHECK(y[2] == INFINITY);
  CHECK((std::isnan(y[3]) && std::isnan(y[4]) && std::isnan(y[5])));
  CHECK(y[6] == -INFINITY);
}

TEST_CASE("swiglu: y may be gate or up; threads change no bit, also within one long row", "[pointwise]") {
  rng r(4);
  for (index rows : {1, 40}) {
    index const n = rows == 1 ? 100003 : 2001;
    auto const shape = [&](auto& v) { return tern::view(v.data(), rows, n); };
    auto gate = r.normal(rows * n), up = r.normal(rows * n);
    std::vector<float> one(gate.size()), many(gate.size(), NAN);
    swiglu(cpu.on(tern::serial), shape(gate), shape(up), shape(one));
    swiglu(cpu.on(several_threads()), shape(gate), shape(up), shape(many));
    CHECK(one == many);
    auto const saved = up;
    swiglu(cpu, shape(gate), shape(up), shape(up));
    CHECK(up == one);
    swiglu(cpu, shape(gate), shape(saved), shape(gate));
    CHECK(gate == one);
  }
}

TEST_CASE("swiglu: errors name what is wrong", "[pointwise]") {
  std::vector<float> x(32), y(31);
  CHECK(message_of([&] { swiglu(cpu, x, y, x); }) == "swiglu: up.extent(0) is 31, expected gate.extent(0) = 32");
  CHECK(message_of([&] { swiglu(cpu, x, x, y); }) == "swiglu: y.extent(0) is 31, expected gate.extent(0) = 32");
}

}  // namespace tern::test
