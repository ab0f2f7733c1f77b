// SPDX-License-Identifier: Apache-2.0
#include <tern/pointwise/rope_table.hpp>

#include "cases.hpp"

namespace tern::test {
TEST_CASE("rope_table: cosines and sines are right to the last bits at any position", "[pointwise]") {
  for (index d : {2, 64, 66, 128}) {
    std::vector<std::int32_t> const positions = {0, 1, 2, 77, 4095, 131071, -5, 131070, 65536, 33};
    auto const tokens = static_cast<index>(positions.size());
    guarded<float> memory(tokens * (d + 1));
    tern::tensor_view<float, 2> const table(memory.data(), tern::shape{tokens, d}, tern::shape{d + 1, index{1}});
    rope_table(cpu, positions, table, {.base = 500000.f, .scale = 0.25f, .magnitude = 1.25f});
    tern::oracle::rope_spec const spec{.half = false, .n = d, .d = d, .base = 500000, .scale = 0.25, .magnitude = 1.25};
    for (index t = 0; t < tokens; ++t) {
      double const position = positions[static_cast<std::size_t>(t)];
      auto const theta = tern::oracle::rope_angles(position, spec);
      std::vector<double> want(static_cast<std::size_t>(d)), magnitude(want.size(), 1.25);
      for (std::size_t i = 0; i < theta.size(); ++i) {
        want[i] = 1.25 * std::cos(theta[i]);
        want[theta.size() + i] = 1.25 * std::sin(theta[i]);
      }
      INFO("d " << d << " position " << position);
      CHECK(compare(table[t], want, magnitude, rope_table.error(std::abs(position))));
    }
    CHECK(memory.untouched_outside(table));
  }
}

TEST_CASE("rope_table: factors divide frequencies", "[pointwise]") {
  std::vector<float> const factors = {1.f, 2.f, 8.f};
  guarded<float> table(6);
  rope_table(cpu, 1000, tern::view(table.data(), 1, 6), {.factors = tern::view(factors)});
  auto const theta = tern::oracle::rope_angles(1000, {.half = false, .n = 6, .d = 6, .factors = {1, 2, 8}});
  for (index i = 0; i < 3; ++i) {
    CHECK(std::abs(static_cast<double>(table[i]) - std::cos(theta[static_cast<std::size_t>(i)])) <= rope_table.error(1000));
    CHECK(std::abs(static_cast<double>(table[3 + i]) - std::sin(theta[static_cast<std::size_t>(i)])) <= rope_table.error(1000));
  }
}

TEST_CASE("rope_table: an entry depends on its position alone, and on no thread", "[pointwise]") {
  std::vector<float> all(1000 * 64), one(64), list(64);
  rope_table(cpu.on(several_threads()), 7, tern::view(all.data(), 1000, 64));
  for (index p : {7, 8, 38, 39, 500, 1006}) {
    rope_table(cpu.on(tern::serial), p, tern::view(one.data(), 1, 64));
    rope_table(cpu, std::vector<std::int32_t>{static_cast<std::int32_t>(p)}, tern::view(list.data(), 1, 64));
    CHECK(same_bits(tern::view(all.data(), 1000, 64)[p - 7], tern::view(one)));
    CHECK(one == list);
  }
}

TEST_CASE("rope_table: errors name what is wrong", "[pointwise]") {
  std::vector<float> memory(130), factors(3);
  CHECK(message_of([&] { rope_table(cpu, 0, tern::view(memory.data(), 2, 65)); }) ==
        "rope_table: the number of rotated dimensions is 65, expected an even number");
  CHECK(message_of([&] { rope_table(cpu, 0, tern::view(memory.data(), 2, 64), {.factors = tern::view(factors)}); }) ==
        "rope_table: options.factors.extent(0) is 3, expected half of the rotated dimensions = 32");
  CHECK(message_of([&] { rope_table(cpu, 0, tern::view(memory.data(), 2, 64), {.dimensions = 32}); }) ==
        "rope_table: table.extent(1) is 64, expected options.dimensions = 32");
  CHECK(message_of([&] { rope_table(cpu, 0, tern::view(memory.data(), 2, 64), {.base = 0.f}); }) ==
        "rope_table: options.base is zero, negative or NaN, expected a positive number");
  CHECK(message_of([&] { rope_table(cpu, std::vector<std::int32_t>{1}, tern::view(memory.data(), 2, 64)); }) ==
        "rope_table: positions.extent(0) is 1, expected table.extent(0) = 2");
}

}  // namespace tern::test
