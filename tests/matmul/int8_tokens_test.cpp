// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "random_weights.hpp"

#include <algorithm>
#include <cmath>

namespace tern::test::tokens {

namespace {
/// Eight bits with a scale a row.
struct row_codes {
  static constexpr index granule = 32;
  static constexpr int offset = 128;
  static constexpr bool has_min = false;
  static constexpr bool row_scale = true;
  index rows, columns;
  std::vector<std::uint8_t> const& u;
  std::vector<float> const& s;
  void unpack(index row, index g, std::uint8_t* out) const { std::memcpy(out, u.data() + row * columns + 32 * g, 32); }
  void scales(index row, index, float* scale, float*) const { scale[0] = s[static_cast<std::size_t>(row)]; }
};

/// x as d q with one d a row: what the compute type is defined to take.
std::vector<double> rounded_tokens(std::vector<float> const& x, index k) {
  std::vector<double> out;
  for (std::size_t r = 0; r < x.size(); r += static_cast<std::size_t>(k)) {
    float amax = 0;
    for (index j = 0; j < k; ++j) amax = std::max(amax, std::abs(x[r + static_cast<std::size_t>(j)]));
    float const inverse = amax != 0.f ? 127.f / amax : 0.f;
    for (index j = 0; j < k; ++j)
      out.push_back(static_cast<double>(amax / 127.f) * std::nearbyint(static_cast<double>(x[r + static_cast<std::size_t>(j)] * inverse)));
  }
  return out;
}
}  // namespace

TEST_CASE("int8_tokens without columns: zeros, whatever the scratch holds") {
  std::vector<std::byte> memory(1 << 22, std::byte{0xff});
  workspace scratch(memory.data(), memory.size());
  std::vector<std::uint8_t> const none(1);
  std::vector<float> const scales(40, 1.f), x(1);
  std::vector<float> y(3 * 40, 7.f);
  matmul(cpu.with(scratch), view(x.data(), 3, 0), row_codes{40, 0, none, scales}, view(y.data(), 3, 40), compute::int8_tokens);
  CHECK(std::all_of(y.begin(), y.end(), [](float v) { return v == 0.f; }));
}

TEST_CASE("int8_tokens: bytes that are multiplied where they lie give what codes give") {
  rng r(23);
  for (index k : {64, 96, 192, 1088, 4224})
    for (index n : {index{1}, index{37}, index{100}}) {
      // Rows further apart than long, with what must not be read as a weight between them.
      index const stride = k + 7;
      std::vector<std::uint8_t> u(static_cast<std::size_t>(n * k));
      std::vector<std::int8_t> q(static_cast<std::size_t>(n * stride), 99);
      for (index i = 0; i < n; ++i)
        for (index j = 0; j < k; ++j) {
          auto& e = u[static_cast<std::size_t>(i * k + j)];
          e = static_cast<std::uint8_t>(r.bits());
          q[static_cast<std::size_t>(i * stride + j)] = static_cast<std::int8_t>(e - 128);
        }
      auto const s = r.normal(n);
      int8_rows const lying(tensor_view<std::int8_t const, 2>(q.data(), shape{n, k}, shape{stride, index{1}}), view(s.data(), n));
      row_codes const codes{n, k, u, s};
      for (index rows : {1, 2, 4, 7, 15, 16, 17, 31, 32, 33})
        for (bool add : {false, true}) {
          INFO("rows " << rows << " n " << n << " k " << k << " add " << add);
          auto const x = r.normal(rows * k), start = r.normal(rows * n);
          auto const run = [&](auto const& w) {
            std::vector<float> y = start;
            auto const to = view(y.data(), rows, n);
            add ? matmul(cpu, view(x.data(), rows, k), w, to, compute::int8_tokens, accumulate{})
                : matmul(cpu, view(x.data(), rows, k), w, to, compute::int8_tokens);
            return y;
          };
          CHECK(run(lying) == run(codes));
        }
    }
}

TEST_CASE("int8_tokens: whole rows in integers") {
  rng r(17);
  thread_pool pool(3);
  for (index k : {32, 96, 2080})
    for (index n : {index{1}, index{37}, index{100}}) {
      std::vector<std::uint8_t> u(static_cast<std::size_t>(n * k));
      for (auto& e : u) e = static_cast<std::uint8_t>(r.bits());
      auto const s = r.normal(n);
      row_codes const w{n, k, u, s};
      std::vector<double> elements;
      for (index i = 0; i < n * k; ++i)
        elements.push_back((static_cast<double>(u[static_cast<std::size_t>(i)]) - 128) *
                           static_cast<double>(s[static_cast<std::size_t>(i / k)]));
      for (index rows : {1, 3, 5, 12, 29}) {
        INFO("rows " << rows << " n " << n << " k " << k);
        auto const x = r.normal(rows * k);
        auto const want = oracle::matmul(rounded_tokens(x, k), elements, rows, n, k);
        guarded<float> y(rows * n, 1);
        matmul(cpu, view(x.data(), rows, k), w, view(y.data(), rows, n), compute::int8_tokens);
        // Integer sums are exact: what is left are their conversion, the scales and the products.
        CHECK(compare(y.span(), want.value, want.magnitude, 6 * 0x1p-24));
        CHECK(y.intact());
        std::vector<float> other(static_cast<std::size_t>(rows * n));
        matmul(cpu.on(pool), view(x.data(), rows, k), w, view(other.data(), rows, n), compute::int8_tokens);
        CHECK(std::memcmp(other.data(), y.data(), other.size() * 4) == 0);
        matmul(cpu, view(x.data(), rows, k), w, view(other.data(), rows, n), compute::int8_tokens, accumulate{});
        std::vector<double> twice = want.value;
        for (double& e : twice) e *= 2;
        CHECK(compare(std::span<float const>(other), twice, want.magnitude, 20 * 0x1p-24));
      }
    }
}

TEST_CASE("int8_tokens: more rows than sums are kept for, and weights with blocks") {
  rng r(18);
  index const rows = 530, n = 40, k = 256;
  std::vector<std::uint8_t> u(static_cast<std::size_t>(n * k));
  for (auto& e : u) e = static_cast<std::uint8_t>(r.bits());
  auto const s = r.normal(n);
  row_codes const w{n, k, u, s};
  auto x = r.normal(rows * k);
  std::vector<float> y(static_cast<std::size_t>(rows * n)), one(static_cast<std::size_t>(n));
  matmul(cpu.on(serial), view(x.data(), rows, k), w, view(y.data(), rows, n), compute::int8_tokens);
  for (index i : {0, 11, 511, 512, 529}) {
    matmul(cpu, view(x.data() + i * k, 1, k), w, view(one.data(), 1, n), compute::int8_tokens);
    CHECK(std::memcmp(one.data(), y.data() + i * n, one.size() * 4) == 0);
  }
  random_weights const blocks(r, weight_type::q4_0, n, k), minima(r, weight_type::q4_k, n, k);
  for (auto const* b : {&blocks, &minima}) {
    auto const rounded = rounded_tokens(x, k);
    auto const want = oracle::matmul(rounded, b->decoded, rows, n, k);
    matmul(cpu, view(x.data(), rows, k), b->m, view(y.data(), rows, n), compute::int8_tokens);
    auto magnitude = want.magnitude;
    for (std::size_t i = 0; i < magnitude.size(); ++i) {
      double sums = 0;  // minima meet the sums of x, which are larger than what they leave
      for (index j = 0; j < k; ++j)
        sums += std::abs(rounded[i / static_cast<std::size_t>(n) * static_cast<std::size_t>(k) + static_cast<std::size_t>(j)]);
      double largest = 0;
      for (double m : b->mins) largest = std::max(largest, std::abs(m));
      magnitude[i] += 2 * sums * largest;
    }
    CHECK(compare(std::span<float const>(y), want.value, magnitude, tolerance(k)));
  }
  x[5] = std::numeric_limits<float>::infinity();
  matmul(cpu, view(x.data(), 2, k), w, view(y.data(), 2, n), compute::int8_tokens);
  for (index i = 0; i < 2 * n; ++i) CHECK(std::isnan(y[static_cast<std::size_t>(i)]) == (i < n));
}

TEST_CASE("LLM.int8(): whole rows in eight bits, outlier columns in f32") {
  rng r(19);
  index const rows = 6, n = 40, k = 256;
  auto x = r.normal(rows * k);
  for (index c : {7, 100, 255}) x[static_cast<std::size_t>(3 * k + c)] = 40.f;
  auto const dense = r.normal(n * k);
  std::vector<std::int8_t> q(dense.size());
  std::vector<float> scales(static_cast<std::size_t>(n)), y(static_cast<std::size_t>(rows * n));
  int8_rows::encode(cpu, view(dense.data(), n, k), view(q.data(), n, k), view(scales));
  std::vector<double> elements, outside(x.size());
  for (index i = 0; i < n * k; ++i)
    elements.push_back(static_cast<double>(q[static_cast<std::size_t>(i)]) * static_cast<double>(scales[static_cast<std::size_t>(i / k)]));
  auto rest = x;
  for (index c : {7, 100, 255})
    for (index i = 0; i < rows; ++i)
      outside[static_cast<std::size_t>(i * k + c)] = static_cast<double>(std::exchange(rest[static_cast<std::size_t>(i * k + c)], 0.f));
  auto want = oracle::matmul(rounded_tokens(rest, k), elements, rows, n, k);
  auto const exact = oracle::matmul(outside, elements, rows, n, k);
  for (std::size_t i = 0; i < want.value.size(); ++i) {
    want.value[i] += exact.value[i];
    want.magnitude[i] += exact.magnitude[i];
  }
  matmul(cpu, view(x.data(), rows, k), int8_rows(view(q.data(), n, k), view(scales)), view(y.data(), rows, n), compute::int8_tokens,
         split_outliers{6.f});
  CHECK(compare(std::span<float const>(y), want.value, want.magnitude, tolerance(k)));
}

}  // namespace tern::test::tokens
