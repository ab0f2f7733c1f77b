// SPDX-License-Identifier: Apache-2.0
#include <tern/pointwise/rms_norm.hpp>

#include "cases.hpp"

namespace tern::test {
namespace {

template <class X, class W, class Y>
void check(index n, index misalignment, double scale) {
  rng r(static_cast<std::uint64_t>(n));
  gapped<X> const x(r, 2, 3, n, misalignment, scale);
  guarded<W> const weight(r.normal<W>(n), misalignment);
  gapped<Y> y(2, 3, n, misalignment);
  rms_norm(cpu, x.view, weight, y.view, 1e-5f);
  auto const want = tern::oracle::rms_norm(x.values(), widened(std::span<W const>(weight.data(), weight.size())), 1e-5f);
  INFO("n " << n << " misalignment " << misalignment << " scale " << scale);
  CHECK(compare(y.view, want.value, want.magnitude, rms_norm.error(n)));
  CHECK(y.intact());
}

}  // namespace

TEST_CASE("rms_norm: equals the oracle, all types and lengths", "[pointwise]") {
  each_row_length([](index n, index misalignment) {
    check<float, float, float>(n, misalignment, 1);
    check<f16, bf16, f16>(n, misalignment, 1);
    check<bf16, f16, float>(n, misalignment, 1e-4);
  });
}

TEST_CASE("rms_norm: squares may leave the range of f32", "[pointwise]") {
  check<float, float, float>(576, 0, 1e30);
  check<bf16, float, float>(33, 1, 1e25);
  check<float, float, float>(576, 0, 1e-30);
}

TEST_CASE("rms_norm: in place, and the same for one row", "[pointwise]") {
  rng r(3);
  gapped<float> x(r, 2, 2, 100);
  auto const weight = r.normal(100);
  gapped<float> y(2, 2, 100);
  rms_norm(cpu, x.view, weight, y.view);
  std::vector<float> row(100);
  rms_norm(cpu, x.view[1][1], weight, row);
  CHECK(same_bits(tern::view(row), y.view[1][1]));
  rms_norm(cpu, x.view, weight, x.view);
  CHECK(same_bits(x.view, y.view));
}

TEST_CASE("rms_norm: NaN and infinity follow the formula", "[pointwise]") {
  std::vector<float> x(40, 2.f), y(40), weight(40, 1.f);
  x[7] = NAN;
  rms_norm(cpu, x, weight, y);
  for (float e : y) CHECK(std::isnan(e));
  x[7] = INFINITY;
  rms_norm(cpu, x, weight, y);
  for (std::size_t i = 0; i < y.size(); ++i) CHECK((i == 7 ? std::isnan(y[i]) : y[i] == 0.f));
  std::fill(x.begin(), x.end(), 0.f);
  rms_norm(cpu, x, weight, y);
  for (float e : y) CHECK(e == 0.f);
}

TEST_CASE("rms_norm: threads change no bit", "[pointwise]") {
  rng r(5);
  index const n = 577;
  auto const x = r.normal(200 * n), weight = r.normal(n);
  std::vector<float> one(x.size()), many(x.size());
  rms_norm(cpu.on(tern::serial), tern::view(x.data(), 200, n), weight, tern::view(one.data(), 200, n));
  rms_norm(cpu.on(several_threads()), tern::view(x.data(), 200, n), weight, tern::view(many.data(), 200, n));
  CHECK(one == many);
}

TEST_CASE("rms_norm: errors name what is wrong", "[pointwise]") {
  std::vector<float> x(64), y(64), weight(32), short_weight(31);
  auto const xs = tern::view(x.data(), 2, 32);
  CHECK(message_of([&] { rms_norm(cpu, xs, short_weight, tern::view(y.data(), 2, 32)); }) ==
        "rms_norm: weight.extent(0) is 31, expected x.extent(1) = 32");
  CHECK(message_of([&] { rms_norm(cpu, xs, weight, tern::view(y.data(), 1, 32)); }) ==
        "rms_norm: y.extent(0) is 1, expected x.extent(0) = 2");
  CHECK(message_of([&] { rms_norm(cpu, tern::view(x.data(), 32, 2).transposed(0, 1), weight, xs); }) ==
        "rms_norm: x.stride(1) is 2, expected 1: rows are contiguous");
  CHECK(message_of([&] { rms_norm(cpu, tern::view(x.data(), 0, 32), weight, tern::view(y.data(), 0, 32)); }) == "no error");
}

}  // namespace tern::test
