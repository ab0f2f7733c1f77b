// SPDX-License-Identifier: Apache-2.0
#include "layer.hpp"

namespace tern::test::sums_of_products {

TEST_CASE("a calibration holds the sums of products, squares and magnitudes") {
  rng r(71);
  index const k = 300, samples = 700;
  auto const x = r.normal(samples * k);
  calibration seen(k);
  auto const all = view(x.data(), samples, k);
  seen.add(cpu, all.slice(0, 0, 450));
  seen.add(cpu, all.slice(0, 450, samples));
  CHECK(seen.samples() == samples);
  for (index i = 0; i < k; i += 7)
    for (index j = 0; j < k; ++j) {
      double want = 0, size = 0;
      for (index s = 0; s < samples; ++s) {
        double const product = static_cast<double>(all(s, i)) * static_cast<double>(all(s, j));
        want += product;
        size += std::abs(product);
      }
      REQUIRE(std::abs(seen.products(i)[j] - want) <= matmul.accuracy(256) * 0x1p-24 * size);
      REQUIRE(seen.products(i)[j] == seen.products(j)[i]);
    }
  double square = 0, magnitude = 0;
  for (index s = 0; s < samples; ++s) {
    square += static_cast<double>(all(s, 5)) * static_cast<double>(all(s, 5)) / static_cast<double>(samples);
    magnitude += static_cast<double>(std::abs(all(s, 5))) / static_cast<double>(samples);
  }
  CHECK(seen.mean_square(5) == Approx(square).epsilon(1e-5));
  CHECK(seen.mean_magnitude(5) == Approx(magnitude).epsilon(1e-12));
}

TEST_CASE("a calibration does not depend on threads, nor on how inputs lie") {
  rng r(72);
  index const k = 96, samples = 300;
  auto const x = r.normal(samples * k);
  std::vector<float> turned(x.size());
  for (index s = 0; s < samples; ++s)
    for (index j = 0; j < k; ++j) turned[static_cast<std::size_t>(j * samples + s)] = x[static_cast<std::size_t>(s * k + j)];
  thread_pool pool(3);
  calibration a(k), b(k);
  a.add(cpu.on(serial), view(x.data(), samples, k));
  b.add(cpu.on(pool), view(turned.data(), k, samples).transposed(0, 1));
  for (index i = 0; i < k; ++i)
    for (index j = 0; j < k; ++j) REQUIRE(a.products(i)[j] == b.products(i)[j]);
}

TEST_CASE("a layer's error is that of its outputs") {
  rng r(73);
  layer const l(r, 24, 256, 400);
  for (weight_type type : {weight_type::q8_0, weight_type::q4_0, weight_type::q2_k}) {
    INFO(info(type).name);
    auto const q = round_to_nearest(cpu, l.weights(), type);
    double const want = naive_error(l, q);
    CHECK(layer_error(cpu, l.weights(), q, l.inputs()) == Approx(want).epsilon(1e-4));
    calibration seen(l.k);
    seen.add(cpu, l.inputs());
    CHECK(layer_error(cpu, l.weights(), q, seen) == Approx(want).epsilon(1e-4));
  }
}

TEST_CASE("calibrations check what they are shown") {
  CHECK_THROWS_WITH(calibration(0), "calibration: k is 0, expected more than 0");
  calibration seen(32);
  std::vector<float> x(64);
  CHECK_THROWS_WITH(seen.add(cpu, view(x.data(), 4, 16)), "calibration: x.extent(1) is 16, expected k = 32");
  x[33] = std::numeric_limits<float>::infinity();
  CHECK_THROWS_WITH(seen.add(cpu, view(x.data(), 2, 32)),
                    "calibration: x: a column that holds NaN or infinity is 1, expected finite inputs");
  std::vector<float> w(64);
  auto const q = round_to_nearest(cpu, view(w.data(), 2, 32), weight_type::q4_0);
  CHECK_THROWS_WITH(layer_error(cpu, view(w.data(), 2, 32), q, calibration(32)),
                    "layer_error: the calibration's samples is 0, expected at least 1");
  CHECK_THROWS_WITH(layer_error(cpu, view(w.data(), 1, 32), q, view(w.data(), 2, 32)),
                    "layer_error: q's rows is 2, expected w.extent(0) = 1");
}

}  // namespace tern::test::sums_of_products
