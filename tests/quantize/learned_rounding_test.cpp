// SPDX-License-Identifier: Apache-2.0
#include "layer.hpp"

namespace tern::test::learned_codes {
namespace {

/// The error with one element of the layer's first row replaced, for all single flips.
double error_with(layer const& l, std::vector<float> q, std::size_t i, float value) {
  q[i] = value;
  return naive_error(l, q);
}

}  // namespace

TEST_CASE("learned rounding never loses more than rounding, and clearly less where inputs are correlated") {
  rng r(101);
  layer const l(r, 8, 256, 500);
  for (weight_type type : quantized_types) {
    auto const rounded = round_to_nearest(cpu, l.weights(), type);
    double const start = naive_error(l, rounded), end = naive_error(l, learned_rounding(cpu, l.weights(), l.inputs(), type));
    INFO(info(type).name << ": " << start << " to " << end);
    CHECK(end < 0.8 * start);
    CHECK(bytes_of(learned_rounding(cpu, l.weights(), l.inputs(), type, {.sweeps = 0})) == bytes_of(rounded));
    double last = start;
    for (index sweeps : {1, 2, 4}) {
      double const error = naive_error(l, learned_rounding(cpu, l.weights(), l.inputs(), type, {.sweeps = sweeps}));
      CHECK(error <= last * (1 + 1e-6));
      last = error;
    }
  }
}

TEST_CASE("where learned rounding ends, no single flip is better") {
  rng r(102);
  layer const l(r, 1, 64, 100);
  auto const q = learned_rounding(cpu, l.weights(), l.inputs(), weight_type::q4_1, {.sweeps = 1000});
  auto const values = decoded(q);
  double const error = naive_error(l, values);
  using grid = tern::detail::code_grid<formats::q4_1>;
  for (index b = 0; b < 2; ++b) {
    formats::q4_1::block block;
    std::memcpy(&block, q.view().row(0) + b * 20, 20);
    tern::detail::element_scale scale[32];
    grid::scales(block, scale);
    for (index j = 0; j < 32; ++j) {
      auto const i = static_cast<std::size_t>(32 * b + j);
      int choice[2];
      grid::around(l.w[i], scale[j], choice[0], choice[1]);
      for (int code : choice) CHECK(error_with(l, values, i, grid::value(code, scale[j])) >= error * (1 - 1e-6));
    }
  }
}

TEST_CASE("learned rounding does not depend on threads, and checks its arguments") {
  rng r(103);
  layer l(r, 9, 64, 100);
  thread_pool pool(3);
  auto const type = weight_type::q4_0;
  CHECK(bytes_of(learned_rounding(cpu.on(serial), l.weights(), l.inputs(), type)) ==
        bytes_of(learned_rounding(cpu.on(pool), l.weights(), l.inputs(), type)));
  CHECK_THROWS_WITH(learned_rounding(cpu, l.weights(), l.inputs().slice(1, 0, 32), type),
                    "learned_rounding: x.extent(1) is 32, expected w.extent(1) = 64");
  CHECK_THROWS_WITH(learned_rounding(cpu, l.weights(), l.inputs(), type, {.sweeps = -1}),
                    "learned_rounding: sweeps is -1, expected at least 0");
  l.w[0] = std::numeric_limits<float>::infinity();
  CHECK_THROWS_WITH(learned_rounding(cpu, l.weights(), l.inputs(), type),
                    "learned_rounding: w: a row that holds NaN or infinity is 0, expected finite weights");
}

}  // namespace tern::test::learned_codes
