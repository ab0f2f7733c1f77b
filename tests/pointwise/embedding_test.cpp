// SPDX-License-Identifier: Apache-2.0
#include <tern/pointwise/embedding.hpp>

#include "cases.hpp"

namespace tern::test {
namespace {

template <class T, class Y>
void check(index n, index misalignment) {
  rng r(static_cast<std::uint64_t>(n));
  gapped<T> const table(r, 1, 11, n, misalignment);
  std::vector<std::int32_t> const tokens = {10, 0, 3, 3, 7};
  gapped<Y> y(1, 5, n, misalignment), want(1, 5, n);
  embedding(cpu, tokens, table.view[0], y.view[0]);
  for (index t = 0; t < 5; ++t)
    for (index k = 0; k < n; ++k)
      want.view(0, t, k) = static_cast<Y>(static_cast<float>(table.view(0, tokens[static_cast<std::size_t>(t)], k)));
  INFO("n " << n << " misalignment " << misalignment);
  CHECK(same_bits(y.view, want.view));
  CHECK(y.intact());
}

}  // namespace

TEST_CASE("embedding: rows of a dense table", "[pointwise]") {
  each_row_length([](index n, index misalignment) {
    check<float, float>(n, misalignment);
    check<f16, float>(n, misalignment);
    check<bf16, f16>(n, misalignment);
  });
}

TEST_CASE("embedding: rows in blocks, to f32 exactly and to other types rounded once", "[pointwise]") {
  rng r(9);
  index const n = 320, rows = 50;
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(rows * n / 32 * 34));
  for (auto& b : bytes) b = static_cast<std::uint8_t>(r.bits());
  for (std::size_t i = 0; i < bytes.size(); i += 34) bytes[i + 1] = 0x2c;  // the scale of each block, an f16, is about 1/16
  tern::block_matrix const table(bytes.data(), tern::weight_type::q8_0, rows, n);
  std::vector<std::int32_t> tokens;
  for (index t = 0; t < 200; ++t) tokens.push_back(static_cast<std::int32_t>(r.integer(0, rows - 1)));
  guarded<float> y(200 * n);
  guarded<f16> h(200 * n);
  embedding(cpu.on(several_threads()), tokens, table, tern::view(y.data(), 200, n));
  embedding(cpu.on(several_threads()), tokens, table, tern::view(h.data(), 200, n));
  bool same = true;
  for (index t = 0; t < 200; ++t)
    for (index k = 0; k < n; ++k) {
      std::uint8_t const* const block = table.row(tokens[static_cast<std::size_t>(t)]) + k / 32 * 34;
      float const d = tern::detail::f32_from_f16(static_cast<std::uint16_t>(block[0] | block[1] << 8));
      float const want = d * static_cast<float>(static_cast<std::int8_t>(block[2 + k % 32]));
      same = same && y[t * n + k] == want && h[t * n + k].bits == f16(want).bits;
    }
  CHECK(same);
  CHECK((y.intact() && h.intact()));
}

TEST_CASE("embedding: errors name what is wrong", "[pointwise]") {
  std::vector<float> table(64), y(16);
  auto const rows = tern::view(table.data(), 4, 16);
  std::vector<std::int32_t> tokens = {4};
  auto const out = tern::view(y.data(), 1, 16);
  CHECK(message_of([&] { embedding(cpu, tokens, rows, out); }) ==
        "embedding: tokens[0] is 4, expected at least 0 and less than the table's 4 rows");
  tokens[0] = -1;
  CHECK(message_of([&] { embedding(cpu, tokens, rows, out); }) ==
        "embedding: tokens[0] is -1, expected at least 0 and less than the table's 4 rows");
  tokens[0] = 3;
  CHECK(message_of([&] { embedding(cpu, tokens, rows, out); }) == "no error");
  CHECK(message_of([&] { embedding(cpu, tokens, rows, tern::view(y.data(), 1, 8)); }) ==
        "embedding: y.extent(1) is 8, expected the table's columns = 16");
  CHECK(message_of([&] { embedding(cpu, tokens, rows, tern::view(y.data(), 2, 8)); }) ==
        "embedding: y.extent(0) is 2, expected tokens.extent(0) = 1");
  CHECK(message_of([&] { embedding(cpu, std::vector<std::int32_t>{}, rows, tern::view(y.data(), 0, 16)); }) == "no error");
}

}  // namespace tern::test
