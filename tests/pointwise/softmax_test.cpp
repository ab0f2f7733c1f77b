// SPDX-License-Identifier: Apache-2.0
#include <tern/pointwise/softmax.hpp>

#include "cases.hpp"

namespace tern::test {
namespace {

template <class X, class Y>
void check(index n, index misalignment, float scale, double deviation) {
  rng r(static_cast<std::uint64_t>(n));
  gapped<X> const x(r, 2, 3, n, misalignment, deviation);
  gapped<Y> y(2, 3, n, misalignment);
  softmax(cpu, x.view, y.view, scale);
  double t = 0;
  for (double e : x.values()) t = std::max(t, std::abs(e * static_cast<double>(scale)));
  double const tolerance = softmax.error(n, t);
  auto const want = with_floor(tern::oracle::softmax(x.values(), n, scale), std::vector<double>(static_cast<std::size_t>(6 * n), 1.0),
                               0x1p-125, tolerance);
  INFO("n " << n << " misalignment " << misalignment << " scale " << scale);
  CHECK(compare(y.view, want.value, want.magnitude, tolerance));
  CHECK(y.intact());
}

}  // namespace

TEST_CASE("softmax: equals the oracle, all types and lengths", "[pointwise]") {
  each_row_length([](index n, index misalignment) {
    check<float, float>(n, misalignment, 1.f, 3);
    check<f16, bf16>(n, misalignment, 0.125f, 8);
    check<bf16, f16>(n, misalignment, -2.f, 1);
  });
  check<float, float>(576, 0, 1.f, 1e3);
  check<float, float>(576, 0, 0.f, 1);
}

TEST_CASE("softmax: adding a constant changes nothing", "[pointwise]") {
  std::vector<float> x(50), shifted(50), y(50), z(50);
  for (std::size_t i = 0; i < x.size(); ++i) shifted[i] = (x[i] = static_cast<float>(i % 7)) - 1e6f;
  softmax(cpu, x, y);
  softmax(cpu, shifted, z);
  CHECK(y == z);
}

TEST_CASE("softmax: -infinity has no share, a row of it gives zeros, NaN and infinity give NaN", "[pointwise]") {
  for (index n : {1, 5, 40}) {
    std::vector<float> x(static_cast<std::size_t>(n), -INFINITY);
    guarded<float> y(n);
    softmax(cpu, x, y);
    for (float e : y.span()) CHECK(e == 0.f);
    guarded<f16> half(n);
    softmax(cpu, x, half);
    for (f16 e : half.span()) CHECK(e.bits == 0);
    x.back() = 3.f;
    softmax(cpu, x, y);
    for (index i = 0; i < n; ++i) CHECK(y[i] == (i == n - 1 ? 1.f : 0.f));
    for (float special : {NAN, INFINITY}) {
      x.back() = special;
      softmax(cpu, x, y);
      for (float e : y.span()) CHECK(std::isnan(e));
      softmax(cpu, x, half);
      for (f16 e : half.span()) CHECK(std::isnan(static_cast<float>(e)));
    }
    CHECK(y.intact());
  }
  std::vector<float> x = {1.f, NAN, 2.f, 4.f, 4.f, 4.f, 4.f, 4.f, 4.f}, y(9);
  softmax(cpu, x, y);
  for (float e : y) CHECK(std::isnan(e));
}

TEST_CASE("softmax: in place", "[pointwise]") {
  rng r(3);
  gapped<float> x(r, 2, 2, 101);
  gapped<bf16> z(r, 2, 2, 101);
  gapped<float> y(2, 2, 101);
  gapped<bf16> w(2, 2, 101);
  softmax(cpu, x.view, y.view, 2.f);
  softmax(cpu, x.view, x.view, 2.f);
  CHECK(same_bits(x.view, y.view));
  softmax(cpu, z.view, w.view);
  softmax(cpu, z.view, z.view);
  CHECK(same_bits(z.view, w.view));
}

TEST_CASE("softmax: threads change no bit", "[pointwise]") {
  rng r(5);
  index const n = 577;
  auto const x = r.normal(200 * n);
  std::vector<float> one(x.size()), many(x.size());
  softmax(cpu.on(tern::serial), tern::view(x.data(), 200, n), tern::view(one.data(), 200, n));
  softmax(cpu.on(several_threads()), tern::view(x.data(), 200, n), tern::view(many.data(), 200, n));
  CHECK(one == many);
}

TEST_CASE("softmax: errors name what is wrong", "[pointwise]") {
  std::vector<float> x(32), y(31);
  CHECK(message_of([&] { softmax(cpu, x, y); }) == "softmax: y.extent(0) is 31, expected x.extent(0) = 32");
}

}  // namespace tern::test
