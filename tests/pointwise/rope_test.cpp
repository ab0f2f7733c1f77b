// SPDX-License-Identifier: Apache-2.0
#include <tern/pointwise/rope.hpp>

#include "cases.hpp"

namespace tern::test {
namespace {

template <class X, class Y>
void check(index n, index d, index misalignment, rope_pairing pairing) {
  rng r(static_cast<std::uint64_t>(n));
  gapped<X> const x(r, 3, 2, n, misalignment);  // (heads, tokens, n)
  gapped<Y> y(3, 2, n, misalignment);
  rope_options const options{.pairing = pairing, .dimensions = d, .magnitude = 1.5f};
  rope(cpu, x.view, y.view, 1000, options);
  tern::oracle::rope_spec const spec{.half = pairing == rope_pairing::half, .n = n, .d = d, .magnitude = 1.5};
  auto const want = tern::oracle::rope(x.values(), {1000, 1001, 1000, 1001, 1000, 1001}, spec);
  INFO("n " << n << " d " << d << " misalignment " << misalignment << " half " << spec.half);
  CHECK(compare(y.view, want.value, want.magnitude, rope.error + rope_table.error(1001)));
  CHECK(y.intact());
}

}  // namespace

TEST_CASE("rope: equals the oracle, both pairings, whole and partial rows", "[pointwise]") {
  for (auto pairing : {rope_pairing::interleaved, rope_pairing::half})
    for (index misalignment : misalignments(tern::simd::lanes)) {
      for (index d : row_lengths()) {
        if (d % 2 != 0 || d == 0) continue;
        check<float, float>(d, d, misalignment, pairing);
        check<f16, bf16>(d + 5, d, misalignment, pairing);
        check<bf16, float>(d + 1, d, misalignment, pairing);
      }
      check<float, float>(64, 64, misalignment, pairing);
      check<float, float>(128, 32, misalignment, pairing);
    }
}

TEST_CASE("rope: start, list and table say the same; in place or not", "[pointwise]") {
  rng r(3);
  std::vector<std::int32_t> const positions = {40, 41, 42, 43};
  std::vector<float> memory(4 * 32);
  auto const table = tern::view(memory.data(), 4, 32);
  for (auto pairing : {rope_pairing::interleaved, rope_pairing::half}) {
    rope_options const options{.pairing = pairing, .base = 1e6f, .dimensions = 32};
    rope_table(cpu, 40, table, options);
    gapped<float> x(r, 5, 4, 40);
    gapped<float> y(5, 4, 40), z(5, 4, 40), w(5, 4, 40);
    rope(cpu, x.view, y.view, 40, options);
    rope(cpu, x.view, z.view, positions, options);
    rope(cpu, x.view, w.view, table, options);
    CHECK(same_bits(y.view, z.view));
    CHECK(same_bits(y.view, w.view));
    rope(cpu, x.view[1], w.view[1], table, options);
    CHECK(same_bits(y.view, w.view));
    rope(cpu, x.view, table, options);
    CHECK(same_bits(y.view, x.view));
    CHECK(x.intact());
  }
}

TEST_CASE("rope: keeps inner products of equal distance", "[pointwise]") {
  rng r(6);
  auto const q = r.normal(64), k = r.normal(64);
  auto const score = [&](index at, index back) {
    auto a = q, b = k;
    rope(cpu, tern::view(a.data(), 1, 64), at);
    rope(cpu, tern::view(b.data(), 1, 64), at - back);
    double sum = 0;
    for (std::size_t i = 0; i < 64; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    return sum;
  };
  for (index at : {100, 5000, 131071}) CHECK(std::abs(score(at, 7) - score(7, 7)) < 1e-4);
}

TEST_CASE("rope: threads change no bit, scratch is what was asked for", "[pointwise]") {
  rng r(5);
  auto const x = r.normal(9 * 300 * 64);
  std::vector<float> one(x.size()), many(x.size());
  auto const shape = [](auto& v) { return tern::view(v.data(), 9, 300, 64); };
  rope(cpu.on(tern::serial), shape(x), shape(one), 3);
  std::size_t const bytes = tern::workspace_size(rope, cpu, shape(x), shape(many), 3);
  CHECK(bytes == 300 * 64 * sizeof(float) + 63);
  std::vector<char> memory(bytes + 1);
  tern::workspace w(memory.data() + 1, bytes);
  rope(cpu.on(several_threads()).with(w), shape(x), shape(many), 3);
  CHECK(one == many);
}

TEST_CASE("rope: errors name what is wrong", "[pointwise]") {
  std::vector<float> x(2 * 64), memory(3 * 64);
  auto const rows = tern::view(x.data(), 2, 64);
  CHECK(message_of([&] { rope(cpu, rows, tern::view(memory.data(), 3, 64)); }) == "rope: table.extent(0) is 3, expected x.extent(0) = 2");
  CHECK(message_of([&] { rope(cpu, rows, tern::view(memory.data(), 2, 66)); }) ==
        "rope: table.extent(1) is 66, expected an even number, at most the extent of x's rows");
  CHECK(message_of([&] { rope(cpu, rows, 0, {.dimensions = 66}); }) ==
        "rope: options.dimensions is 66, expected at most the extent of x's rows");
  CHECK(message_of([&] { rope(cpu, rows, 0, {.dimensions = 33}); }) ==
        "rope: the number of rotated dimensions is 33, expected an even number");
  CHECK(message_of([&] { rope(cpu, rows, tern::view(memory.data(), 1, 64), 0); }) == "rope: y.extent(0) is 1, expected x.extent(0) = 2");
}

}  // namespace tern::test
