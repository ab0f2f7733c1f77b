// SPDX-License-Identifier: Apache-2.0
// f16 and bf16 through packs: the bits of the scalar conversions, which tests/core/float16_test.cpp holds against the definition.
#include "catch.hpp"
#include "lanes.hpp"

#include <tern/simd/convert.hpp>

#include <bit>
#include <cmath>

namespace {
using namespace tern::test;
using tern::bf16;
using tern::f16;
using tern::simd::lanes;
using tern::simd::pack;
namespace simd = tern::simd;
using size = tern::index;
constexpr auto width = static_cast<std::size_t>(lanes);

/// Exact bits, of NaN too.
template <class T>
long widening_errors() {
  long bad = 0;
  for (std::uint32_t start = 0; start < 0x10000; start += static_cast<std::uint32_t>(lanes)) {
    std::array<T, width> stored;
    for (std::size_t i = 0; i < width; ++i) stored[i] = T::from_bits(static_cast<std::uint16_t>(start + i));
    auto const x = lanes_of(simd::load(static_cast<T const*>(stored.data())));
    for (std::size_t i = 0; i < width; ++i)
      bad += std::bit_cast<std::uint32_t>(x[i]) != std::bit_cast<std::uint32_t>(static_cast<float>(stored[i]));
  }
  return bad;
}
template <class T, class Bits>
void narrow_block(Bits bits, long& bad) {
  lane_array<float> x;
  for (float& lane : x) lane = std::bit_cast<float>(bits());
  std::array<T, width> stored;
  simd::store(stored.data(), pack_of<float>(x));
  for (std::size_t i = 0; i < width; ++i) bad += stored[i].bits != T(x[i]).bits;
}
template <class T>
long narrowing_errors(std::uint32_t step) {
  long bad = 0;
  for (std::uint64_t b = 0; b < std::uint64_t{1} << 32;)
    narrow_block<T>([&] { return static_cast<std::uint32_t>((b += step) - step); }, bad);
  // Ties and their neighbors: every stored value and the two halves beside it.
  std::uint32_t n = 0;
  auto next = [&] {
    std::uint32_t const wide = std::bit_cast<std::uint32_t>(static_cast<float>(T::from_bits(static_cast<std::uint16_t>(n / 8))));
    std::uint32_t const half = std::is_same_v<T, bf16> ? 0x8000u : 0x1000u;
    std::uint32_t const beside[] = {0u, 1u, half - 1, half, half + 1, 0u - 1, 0u - half, 2 * half - 1};
    return wide + beside[n++ % 8];
  };
  while (n < 8 * 0x10000) narrow_block<T>(next, bad);
  return bad;
}
}  // namespace

TEMPLATE_TEST_CASE("convert: every 16-bit pattern widens to the scalar conversion's bits", "[simd]", f16, bf16) {
  CHECK(widening_errors<TestType>() == 0);
}

TEMPLATE_TEST_CASE("convert: f32 narrows to the scalar conversion's bits", "[simd]", f16, bf16) {
  CHECK(narrowing_errors<TestType>(1021) == 0);
}
TEMPLATE_TEST_CASE("convert: every f32 narrows to the scalar conversion's bits", "[simd][.slow]", f16, bf16) {
  CHECK(narrowing_errors<TestType>(1) == 0);
}

TEMPLATE_TEST_CASE("convert: load_n and store_n of 16-bit types touch n elements", "[simd]", f16, bf16) {
  using T = TestType;
  for (size n = 0; n <= lanes; ++n) {
    at_page_end<T> memory(n);
    for (size i = 0; i < n; ++i) memory.data()[i] = T(static_cast<float>(i + 1));
    auto const x = lanes_of(simd::load_n(static_cast<T const*>(memory.data()), n));
    for (size i = 0; i < lanes; ++i) CHECK(x[static_cast<std::size_t>(i)] == (i < n ? static_cast<float>(i + 1) : 0.f));
    simd::store_n(memory.data(), simd::iota<float>() + pack<float>(5.f), n);
    for (size i = 0; i < n; ++i) CHECK(static_cast<float>(memory.data()[i]) == static_cast<float>(i + 5));
    guarded<T> out(n, 1);
    simd::store_n(out.data(), simd::iota<float>(), n);
    CHECK(out.intact());
  }
}

TEMPLATE_TEST_CASE("convert: loads and stores of lanes stay within them", "[simd]", f16, bf16) {
  at_page_end<TestType> memory(lanes);
  simd::store(memory.data(), simd::iota<float>());
  CHECK(lanes_of(simd::load(static_cast<TestType const*>(memory.data()))) == lanes_of(simd::iota<float>()));
}

TEMPLATE_TEST_CASE("convert: bytes widen", "[simd]", std::uint8_t, std::int8_t) {
  for (int start = 0; start < 256; start += int(lanes)) {
    at_page_end<TestType> memory(lanes);
    for (size i = 0; i < lanes; ++i) memory.data()[i] = static_cast<TestType>(start + i);
    auto const x = lanes_of(simd::load_widened(static_cast<TestType const*>(memory.data())));
    for (size i = 0; i < lanes; ++i) CHECK(x[static_cast<std::size_t>(i)] == memory.data()[i]);
  }
}

TEST_CASE("convert: bytes of words widen", "[simd]") {
  std::uint64_t word[simd::words_of_bytes];
  for (size i = 0; i < simd::words_of_bytes; ++i) word[i] = 0xfedcba9876543210u + static_cast<std::uint64_t>(i) * 0x0101010101010101u;
  auto const x = lanes_of(simd::widen_bytes(word));
  for (size i = 0; i < lanes; ++i) CHECK(x[static_cast<std::size_t>(i)] == static_cast<std::int32_t>(word[i / 8] >> 8 * (i % 8) & 255));
}

TEST_CASE("convert: one f16 in every lane", "[simd]") {
  for (std::uint32_t bits = 0; bits < 0x10000; bits += 7) {
    f16 const x = f16::from_bits(static_cast<std::uint16_t>(bits));
    float const want = x;
    for (float lane : lanes_of(simd::splat(&x))) CHECK((std::isnan(want) ? std::isnan(lane) : lane == want));
  }
}
