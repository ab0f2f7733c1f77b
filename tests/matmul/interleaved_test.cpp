// SPDX-License-Identifier: Apache-2.0
// A repacked matrix gives the products of the matrix that it was made of, to the bit.
#include "catch.hpp"
#include "message.hpp"
#include "random_weights.hpp"

#include <cstring>

namespace tern::test::repacked {
namespace {

constexpr weight_type formats[] = {weight_type::q4_0,   weight_type::q4_1,   weight_type::q5_0,  weight_type::q5_1,  weight_type::q8_0,
                                   weight_type::q2_k,   weight_type::q3_k,   weight_type::q4_k,  weight_type::q5_k,  weight_type::q6_k,
                                   weight_type::iq4_nl, weight_type::iq4_xs, weight_type::tq1_0, weight_type::tq2_0, weight_type::mxfp4};

template <class W>
std::vector<float> product(std::vector<float> const& x, index rows, W const& w, compute mode) {
  std::vector<float> y(static_cast<std::size_t>(rows * w.rows), -1.f);
  matmul(cpu, view(x.data(), rows, w.columns), w, view(y.data(), rows, w.rows), mode);
  return y;
}
bool same_bits(std::vector<float> const& a, std::vector<float> const& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

}  // namespace

TEST_CASE("an interleaved matrix gives the same products, to the bit") {
  rng r(181);
  constexpr index n = 2 * simd::lanes * 3 + 5, k = 768;
  for (weight_type type : formats) {
    INFO(info(type).name);
    auto weights = random_weights(r, type, n, k);
    block_matrix const& w = weights.m;
    if (type == weight_type::mxfp4)  // the smallest scales too
      for (index i = 0; i < 3 * 2 * simd::lanes; ++i)
        weights.bytes.data()[17 * 24 * (i % n) + 17 * (i % 24)] = static_cast<std::uint8_t>(i % 3);
    std::vector<std::uint8_t> memory(static_cast<std::size_t>(n * w.row_bytes) + 1, 0xa5);
    interleaved_matrix const fast = interleave(cpu, w, memory.data());
    CHECK(memory.back() == 0xa5);
    for (index rows : {1, 3, 4, 19}) {
      auto const x = r.normal(rows * k);
      for (compute mode : {compute::f32, compute::bf16, compute::int8}) {
        INFO("rows " << rows << " mode " << static_cast<int>(mode));
        CHECK(same_bits(product(x, rows, fast, mode), product(x, rows, w, mode)));
      }
    }
  }
}

void check_numbers(rng& r, index n, index k) {
  auto const w = r.normal<bf16>(n * k);
  block_matrix const plain(view(w.data(), n, k));
  auto memory = w;
  interleaved_matrix const fast = interleave(cpu, block_matrix(view(memory.data(), n, k)), memory.data());
  auto const x = r.normal(45 * k);
  for (compute mode : {compute::f32, compute::bf16, compute::int8}) {
    INFO("n " << n << " mode " << static_cast<int>(mode));
    auto const many = product(x, 45, fast, mode);
    CHECK(same_bits(many, product(x, 45, plain, mode)));
    // However few rows there are, they are added up as many are.
    for (index rows : {1, 4, 17}) CHECK(same_bits(product(x, rows, fast, mode), std::vector<float>(many.begin(), many.begin() + rows * n)));
  }
  std::vector<float> row(static_cast<std::size_t>(k)), same(row);
  for (index i = 0; i < n; ++i) {
    decode(fast, i, row.data());
    decode(plain, i, same.data());
    REQUIRE(same_bits(row, same));
  }
}

TEST_CASE("interleaved bf16 gives the products of many rows, to the bit") {
  rng r(185);
  for (index n : {index{1}, 2 * simd::lanes, 2 * simd::lanes * 3 + 5})
    for (index k : {32, 544}) check_numbers(r, n, k);
  // What is rounded off line is what is rounded in the call.
  index const n = 4 * simd::lanes, k = 96;
  auto const w = r.normal(n * k), x = r.normal(3 * k);
  std::vector<bf16> halves(w.begin(), w.end());
  interleaved_matrix const fast = interleave(cpu, block_matrix(view(halves.data(), n, k)), halves.data());
  CHECK(same_bits(product(x, 3, fast, compute::bf16), product(x, 3, block_matrix(view(w.data(), n, k)), compute::bf16)));
}

TEST_CASE("interleaved matrices of few rows, of none, and by several threads") {
  rng r(183);
  constexpr index k = 256;
  for (index n : {index{0}, index{1}, simd::lanes - 1, simd::lanes, 9 * simd::lanes + 3}) {
    INFO("rows of w " << n);
    auto const weights = random_weights(r, weight_type::q5_1, n, k);
    std::vector<std::uint8_t> memory(static_cast<std::size_t>(n * weights.m.row_bytes) + 2);
    if (n > 0) std::memcpy(memory.data(), weights.m.data, memory.size() - 2);
    thread_pool pool(3);
    interleaved_matrix const fast = interleave(cpu.on(pool), block_matrix(memory.data(), weights.m.type, n, k), memory.data());
    auto const x = r.normal(3 * k);
    CHECK(same_bits(product(x, 3, fast, compute::int8), product(x, 3, weights.m, compute::int8)));
    std::vector<float> row(k), same(k);
    for (index i = 0; i < n; ++i) {
      decode(fast, i, row.data());
      decode(weights.m, i, same.data());
      REQUIRE(same_bits(row, same));
    }
  }
}

TEST_CASE("interleaved matrices in low-rank paths and beside outliers") {
  rng r(184);
  constexpr index n = 6 * simd::lanes, k = 96, rank = 64;
  auto const w = r.normal(n * k), a = r.normal(rank * k);
  auto const b = random_weights(r, weight_type::q8_0, n, rank), c = random_weights(r, weight_type::q4_0, n, k);
  std::vector<std::uint8_t> memory_b(b.bytes.size()), memory_c(c.bytes.size());
  interleaved_matrix const fast_b = interleave(cpu, b.m, memory_b.data()), fast_c = interleave(cpu, c.m, memory_c.data());
  auto x = r.normal(5 * k);
  x[7] = 40.f;
  auto const to = [&](std::vector<float>& y) { return view(y.data(), 5, n); };
  std::vector<float> plain(5 * n), fast(5 * n);
  matmul(cpu.on(serial), view(x.data(), 5, k), view(w.data(), n, k), to(plain), low_rank{view(a.data(), rank, k), b.m});
  matmul(cpu.on(serial), view(x.data(), 5, k), view(w.data(), n, k), to(fast), low_rank{view(a.data(), rank, k), fast_b});
  CHECK(same_bits(plain, fast));
  matmul(cpu, view(x.data(), 5, k), c.m, to(plain), compute::int8, split_outliers{6.f});
  matmul(cpu, view(x.data(), 5, k), fast_c, to(fast), compute::int8, split_outliers{6.f});
  CHECK(same_bits(plain, fast));
}

TEST_CASE("interleaving in place, as a gate, and what it refuses") {
  rng r(182);
  constexpr index n = 3 * simd::lanes + 1, k = 256;
  auto const weights = random_weights(r, weight_type::q4_k, n, k);
  block_matrix const& w = weights.m;
  auto const bytes = static_cast<std::size_t>(n * w.row_bytes);
  std::vector<std::uint8_t> apart(bytes), same(bytes);
  std::memcpy(same.data(), w.data, bytes);
  interleaved_matrix const a = interleave(cpu, w, apart.data());
  interleaved_matrix const b = interleave(cpu, block_matrix(same.data(), w.type, n, k), same.data());
  CHECK(apart == same);
  auto const x = r.normal(4 * k);
  CHECK(same_bits(product(x, 4, a, compute::int8), product(x, 4, b, compute::int8)));

  std::vector<float> y(4 * n), z(4 * n);
  matmul(cpu, view(x.data(), 4, k), a, view(y.data(), 4, n), compute::int8, gate{b, act::silu{}});
  matmul(cpu, view(x.data(), 4, k), w, view(z.data(), 4, n), compute::int8, gate{w, act::silu{}});
  CHECK(same_bits(y, z));

  // Several kinds in one call.
  std::vector<float> ya(4 * n), yw(4 * n);
  weights_ref const both[] = {a, w};
  matmul(cpu, view(x.data(), 4, k), both, {view(ya.data(), 4, n), view(yw.data(), 4, n)}, compute::int8);
  CHECK(same_bits(ya, product(x, 4, w, compute::int8)));
  CHECK(same_bits(yw, ya));

#if TERN_EXCEPTIONS
  float numbers[32] = {};
  CHECK(message_of([&] { interleave(cpu, block_matrix(numbers, weight_type::f32, 1, 32), numbers); }).find("holds f32") !=
        std::string::npos);
  CHECK(message_of([&] { interleave(cpu, block_matrix(numbers, weight_type::bf16, 1, 4), numbers); }).find("a multiple of 32") !=
        std::string::npos);
  CHECK(message_of([&] { interleave(cpu, w, nullptr); }).find("to") != std::string::npos);
  CHECK(message_of([&] { interleave(cpu, block_matrix(nullptr, w.type, n, k), apart.data()); }).find("w.data") != std::string::npos);
  block_matrix const there(same.data(), w.type, n - 1, k);
  CHECK(message_of([&] { interleave(cpu, there, same.data() + w.row_bytes); }).find("overlaps") != std::string::npos);
  interleaved_matrix other = a;
  other.type = weight_type::f16;
  CHECK(message_of([&] { product(x, 4, other, compute::int8); }).find("type") != std::string::npos);
  other = a;
  other.columns = 100;
  CHECK(message_of([&] { matmul(cpu, view(x.data(), 4, 100), other, view(y.data(), 4, n)); }).find("columns") != std::string::npos);
  other = a;
  other.lanes = simd::lanes + 1;
  CHECK(message_of([&] { product(x, 4, other, compute::int8); }).find("lanes") != std::string::npos);
#endif
}

}  // namespace tern::test::repacked
