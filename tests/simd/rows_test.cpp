// SPDX-License-Identifier: Apache-2.0
#include <tern/simd/rows.hpp>

#include "catch.hpp"
#include "lanes.hpp"

#include <cstring>

namespace tern::test {
namespace {

constexpr index W = simd::lanes;

// Bytes with a stride that is no multiple of a register.
std::vector<std::uint8_t> random_rows(index rows, index stride) {
  rng r(5);
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(rows * stride));
  for (std::uint8_t& b : bytes) b = static_cast<std::uint8_t>(r.bits());
  return bytes;
}

}  // namespace

TEST_CASE("sixteen bytes of each row, and of one row again and again") {
  if constexpr (W % 4 == 0) {
    index const stride = 37;
    auto const bytes = random_rows(W, stride);
    auto const* const one = reinterpret_cast<std::int8_t const*>(bytes.data() + 3);
    auto const repeated = lanes_of(simd::repeat16(one));
    bool right = true;
    for (index i = 0; i < 4 * W; ++i) {
      right = right && repeated[static_cast<std::size_t>(i)] == one[i % 16];
    }
    CHECK(right);

    simd::pack<std::uint8_t> four[4];
    simd::load_rows16(bytes.data(), stride, four);
    for (index r = 0; r < 4; ++r) {
      auto const lanes = lanes_of(four[r]);
      for (index i = 0; i < 4 * W; ++i)
        right = right && lanes[static_cast<std::size_t>(i)] == bytes[static_cast<std::size_t>((i / 16 * 4 + r) * stride + i % 16)];
    }
    CHECK(right);
  }
}

TEST_CASE("a word and an f16 of each row, up to the end of memory") {
  constexpr index stride = 37;
  auto const bytes = random_rows(W, stride);
  simd::row_places const places(bytes.data(), stride);
  for (index at : {index{4}, stride}) {
    auto const words = lanes_of(places.load_words(at - 4));
    auto const halves = lanes_of(places.load_f16(at - 2));
    for (index i = 0; i < W; ++i) {
      std::int32_t word;
      std::uint16_t half;
      std::memcpy(&word, bytes.data() + i * stride + at - 4, 4);
      std::memcpy(&half, bytes.data() + i * stride + at - 2, 2);
      auto const f = static_cast<float>(f16::from_bits(half));
      CHECK(words[static_cast<std::size_t>(i)] == word);
      CHECK((halves[static_cast<std::size_t>(i)] == f || f != f));
    }
  }
}

TEST_CASE("sums of quads") {
  if constexpr (W % 4 == 0) {
    auto const value = [](index r, index i) { return static_cast<std::int32_t>(1000 * r + i * i); };
    simd::pack<std::int32_t> a[4];
    for (index r = 0; r < 4; ++r) a[r] = make_pack<std::int32_t>([&](index i) { return value(r, i); });
    auto const sums = lanes_of(simd::sum_quads(a));
    for (index i = 0; i < W; i += 4)
      for (index r = 0; r < 4; ++r)
        CHECK(sums[static_cast<std::size_t>(i + r)] == value(r, i) + value(r, i + 1) + value(r, i + 2) + value(r, i + 3));
  }
}

TEST_CASE("quads are transposed in tiles, twice is nothing") {
  if constexpr (W % 4 == 0) {
    auto const bytes = random_rows(4, 4 * W);
    simd::pack<std::uint8_t> a[4];
    for (index r = 0; r < 4; ++r) a[r] = simd::load(bytes.data() + r * 4 * W);
    simd::transpose_quads(a);
    bool right = true;
    for (index r = 0; r < 4; ++r) {
      auto const row = lanes_of(a[r]);
      for (index i = 0; i < W; ++i)  // word 4 t + j of row r was word 4 t + r of row j
        for (index b = 0; b < 4; ++b)
          right =
              right && row[static_cast<std::size_t>(4 * i + b)] == bytes[static_cast<std::size_t>(i % 4 * 4 * W + 4 * (i / 4 * 4 + r) + b)];
    }
    CHECK(right);
    simd::transpose_quads(a);
    CHECK(std::memcmp(lanes_of(a[2]).data(), bytes.data() + 8 * W, static_cast<std::size_t>(4 * W)) == 0);
  }
}

TEST_CASE("four packs are stored as bytes, one after the other") {
  guarded<std::int8_t> to(4 * W);
  auto const number = [](index i) { return static_cast<std::int32_t>(i * 37 % 256 - 128); };
  simd::pack<std::int32_t> a[4];
  for (index j = 0; j < 4; ++j) a[j] = make_pack<std::int32_t>([&](index i) { return number(j * W + i); });
  simd::store_as_bytes(to.data(), a);
  CHECK(lanes_of(simd::in_register(simd::load(std::as_const(to).data()))) == lanes_of(simd::load(std::as_const(to).data())));
  for (index i = 0; i < 4 * W; ++i) CHECK(to[i] == number(i));
  CHECK(to.intact());
}

TEST_CASE("halves of words are widened") {
  auto const half = [](index i) { return f16(static_cast<float>(i) - 2.5f); };
  auto const pairs = make_pack<std::int32_t>(
      [&](index i) { return static_cast<std::int32_t>(half(i).bits | static_cast<std::uint32_t>(half(10 * i).bits) << 16); });
  auto const low = lanes_of(simd::low_f16(pairs)), high = lanes_of(simd::high_f16(pairs));
  for (index i = 0; i < W; ++i) {
    CHECK(low[static_cast<std::size_t>(i)] == float(half(i)));
    CHECK(high[static_cast<std::size_t>(i)] == float(half(10 * i)));
  }
}

}  // namespace tern::test
