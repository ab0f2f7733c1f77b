// SPDX-License-Identifier: Apache-2.0
// Scales that are no numbers, where each format has them, are found before anything is multiplied.
#include "catch.hpp"
#include "compare.hpp"

#include <tern/core/thread_pool.hpp>
#include <tern/formats.hpp>

namespace tern::test {
namespace {

/// The bytes of a block's f16 scales, as the formats' pages have them.
struct scale_place {
  weight_type type;
  std::vector<index> bytes;
};

std::vector<scale_place> all_scales() {
  using enum weight_type;
  return {{f16, {0}},     {q4_0, {0}},    {q4_1, {0, 2}}, {q5_0, {0}},   {q5_1, {0, 2}}, {q8_0, {0}},   {q2_k, {80, 82}}, {q3_k, {108}},
          {q4_k, {0, 2}}, {q5_k, {0, 2}}, {q6_k, {208}},  {iq4_nl, {0}}, {iq4_xs, {0}},  {tq1_0, {52}}, {tq2_0, {64}}};
}

std::string place(index row, index column) {
  return "check_finite: w(" + std::to_string(row) + ", " + std::to_string(column) +
         ") is NaN or infinite, expected a number; is a scale of the file damaged?";
}

}  // namespace

TEST_CASE("check_finite: a scale that is no number is found in every format") {
  rng r(71);
  thread_pool pool(3);
  constexpr index rows = 21, columns = 1536;
  for (scale_place const& s : all_scales()) {
    weight_info const i = info(s.type);
    index const row_bytes = columns / i.elements * i.bytes;
    // A plain number in every f16: 0x2c2c is 0.0652.
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(rows * row_bytes), 0x2c);
    block_matrix const w(bytes.data(), s.type, rows, columns);
    CHECK_NOTHROW(check_finite(cpu, w));
    for (index const at : s.bytes)
      for (std::uint16_t const bad : {std::uint16_t{0x7e00}, std::uint16_t{0xfc00}, std::uint16_t{0x7c00}}) {
        index const row = r.integer(0, rows - 1), block = r.integer(0, columns / i.elements - 1);
        INFO(i.name << " byte " << at << " of block " << block << " of row " << row);
        auto damaged = bytes;
        for (index const of : {row, std::min(row + 5, rows - 1)})  // the first of several is named
          std::memcpy(damaged.data() + of * row_bytes + block * i.bytes + at, &bad, 2);
        block_matrix const d(damaged.data(), s.type, rows, columns);
        for (int n = 0; n < 3; ++n) CHECK_THROWS_WITH(check_finite(cpu.on(pool), d), place(row, block * i.elements));
        CHECK_THROWS_AS(check_finite(cpu, d), error);
      }
  }
}

TEST_CASE("check_finite: numbers, interleaved matrices, weights of other kinds, and nothing") {
  std::vector<float> x(3 * 1100, 1.f);
  block_matrix const plain(view(x.data(), 3, 1100));
  CHECK_NOTHROW(check_finite(cpu, plain));
  x[2 * 1100 + 1087] = std::numeric_limits<float>::infinity();
  CHECK_THROWS_WITH(check_finite(cpu, plain), place(2, 1087));
  CHECK_NOTHROW(check_finite(cpu, block_matrix(x.data(), weight_type::f32, 0, 1100)));
  CHECK_NOTHROW(check_finite(cpu, block_matrix(x.data(), weight_type::f32, 3, 0)));

  index const rows = 2 * simd::lanes + 1;
  std::vector<formats::q8_0::block> blocks(static_cast<std::size_t>(2 * rows)), memory = blocks;
  for (auto& b : blocks) b.d = f16(1.f);
  auto const interleaved = [&] {
    return interleave(cpu, block_matrix(blocks.data(), weight_type::q8_0, rows, 64), reinterpret_cast<std::uint8_t*>(memory.data()));
  };
  CHECK_NOTHROW(check_finite(cpu, interleaved()));
  blocks[2 * 3 + 1].d = f16(std::numeric_limits<float>::infinity());
  CHECK_THROWS_WITH(check_finite(cpu, interleaved()), place(3, 32));

  std::vector<std::int8_t> q(8 * 64, 3);
  std::vector<float> scales(8, 1.f);
  int8_rows const w(view(q.data(), 8, 64), view(scales));
  CHECK_NOTHROW(check_finite(cpu, w));
  scales[6] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH(check_finite(cpu, w), place(6, 0));
}

}  // namespace tern::test
