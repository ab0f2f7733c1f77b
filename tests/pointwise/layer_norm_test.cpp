// SPDX-License-Identifier: Apache-2.0
#include <tern/pointwise/layer_norm.hpp>

#include "cases.hpp"

namespace tern::test {
namespace {

template <class X, class Y>
void check(index n, index misalignment, double mean, double scale = 1) {
  rng r(static_cast<std::uint64_t>(n));
  gapped<X> const x(r, 2, 3, n, misalignment, scale, mean);
  auto const weight = r.normal<float>(n);
  auto const bias = r.normal<X>(n);
  gapped<Y> y(2, 3, n, misalignment);
  layer_norm(cpu, x.view, weight, bias, y.view, 1e-5f);
  auto const want = tern::oracle::layer_norm(x.values(), widened(weight), widened(bias), 1e-5f);
  INFO("n " << n << " misalignment " << misalignment << " mean " << mean << " scale " << scale);
  CHECK(compare(y.view, want.value, want.magnitude, layer_norm.error(n)));
  CHECK(y.intact());
}

}  // namespace

TEST_CASE("layer_norm: equals the oracle, all types and lengths", "[pointwise]") {
  each_row_length([](index n, index misalignment) {
    check<float, float>(n, misalignment, 0);
    check<f16, bf16>(n, misalignment, 0.5);
    check<bf16, f16>(n, misalignment, 1);
  });
}

TEST_CASE("layer_norm: a mean far above the deviation costs nothing", "[pointwise]") {
  for (double mean : {1e3, -1e5, 1e6})
    for (index n : {9, 64, 576, 5000}) check<float, float>(n, 0, mean);
  check<float, float>(576, 0, 3e5, 1e-1);
}

TEST_CASE("layer_norm: in place; equal elements give the bias; NaN fills its row", "[pointwise]") {
  rng r(3);
  gapped<float> x(r, 2, 2, 100);
  auto const weight = r.normal(100), bias = r.normal(100);
  gapped<float> y(2, 2, 100);
  layer_norm(cpu, x.view, weight, bias, y.view);
  layer_norm(cpu, x.view, weight, bias, x.view);
  CHECK(same_bits(x.view, y.view));

  std::vector<float> flat(100, 1234.5678f), out(100);
  layer_norm(cpu, flat, weight, bias, out);
  CHECK(out == bias);
  for (float special : {NAN, INFINITY}) {
    flat[99] = special;
    layer_norm(cpu, flat, weight, bias, out);
    for (float e : out) CHECK(std::isnan(e));
  }
}

TEST_CASE("layer_norm: threads change no bit", "[pointwise]") {
  rng r(5);
  index const n = 577;
  auto const x = r.normal(200 * n), weight = r.normal(n);
  std::vector<float> one(x.size()), many(x.size());
  layer_norm(cpu.on(tern::serial), tern::view(x.data(), 200, n), weight, weight, tern::view(one.data(), 200, n));
  layer_norm(cpu.on(several_threads()), tern::view(x.data(), 200, n), weight, weight, tern::view(many.data(), 200, n));
  CHECK(one == many);
}

TEST_CASE("layer_norm: errors name what is wrong", "[pointwise]") {
  std::vector<float> x(32), y(32), weight(32), short_one(31);
  CHECK(message_of([&] { layer_norm(cpu, x, weight, short_one, y); }) == "layer_norm: bias.extent(0) is 31, expected x.extent(0) = 32");
  CHECK(message_of([&] { layer_norm(cpu, x, short_one, weight, y); }) == "layer_norm: weight.extent(0) is 31, expected x.extent(0) = 32");
}

}  // namespace tern::test
