// SPDX-License-Identifier: Apache-2.0
#include "layer.hpp"

namespace tern::test::awq_scales {

TEST_CASE("awq is never worse than rounding, its error is that of the folded layer, and large channels gain") {
  rng r(111);
  layer const l(r, 24, 256, 400);
  for (weight_type type : quantized_types) {
    double const rounded = naive_error(l, round_to_nearest(cpu, l.weights(), type));
    auto const found = awq(cpu, l.weights(), l.inputs(), type);
    auto folded = decoded(found.blocks);
    for (std::size_t j = 0; j < 256; ++j) REQUIRE(found.input_scales[j] == 1.f / found.scales[j]);
    for (std::size_t i = 0; i < folded.size(); ++i) folded[i] /= found.scales[i % 256];
    double const error = naive_error(l, folded);
    INFO(info(type).name << ": " << rounded << " to " << error << " at " << found.alpha);
    CHECK(error <= rounded * (1 + 1e-4));
    CHECK(found.error == Approx(error).epsilon(1e-3));
    if (type == weight_type::q4_0) CHECK((found.alpha > 0 && error < 0.9 * rounded));
  }
}

TEST_CASE("awq's scales are powers of the mean magnitude, centred") {
  rng r(112);
  layer const l(r, 8, 64, 300);
  auto const found = awq(cpu, l.weights(), l.inputs(), weight_type::q4_0, {.steps = 4});
  REQUIRE(found.alpha > 0);
  std::vector<double> s;
  for (index j = 0; j < l.k; ++j) {
    double sum = 0;
    for (index i = 0; i < l.samples; ++i) sum += static_cast<double>(std::abs(l.inputs()(i, j))) / static_cast<double>(l.samples);
    s.push_back(std::pow(sum, found.alpha));
  }
  double const centre = std::sqrt(*std::max_element(s.begin(), s.end()) * *std::min_element(s.begin(), s.end()));
  for (std::size_t j = 0; j < s.size(); ++j) CHECK(static_cast<double>(found.scales[j]) == Approx(s[j] / centre).epsilon(1e-5));
}

TEST_CASE("without inputs awq is rounding; it does not depend on threads, and checks its arguments") {
  rng r(113);
  layer l(r, 8, 64, 20);
  thread_pool pool(3);
  auto const type = weight_type::q4_0;
  std::vector<float> const nothing(64);
  auto const still = awq(cpu, l.weights(), view(nothing.data(), 1, 64), type);
  CHECK((still.alpha == 0 && still.error == 0));
  CHECK(bytes_of(still.blocks) == bytes_of(round_to_nearest(cpu, l.weights(), type)));
  CHECK(bytes_of(awq(cpu.on(serial), l.weights(), l.inputs(), type).blocks) ==
        bytes_of(awq(cpu.on(pool), l.weights(), l.inputs(), type).blocks));
  CHECK_THROWS_WITH(awq(cpu, l.weights(), l.inputs(), type, {.steps = 0}), "awq: steps is 0, expected at least 1");
  CHECK_THROWS_WITH(awq(cpu, l.weights(), l.inputs().slice(1, 0, 32), type), "awq: x.extent(1) is 32, expected w.extent(1) = 64");
  l.w[0] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH(awq(cpu, l.weights(), l.inputs(), type), "awq: w: a row that holds NaN or infinity is 0, expected finite weights");
}

}  // namespace tern::test::awq_scales
