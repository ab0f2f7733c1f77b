// SPDX-License-Identifier: Apache-2.0
// The E8P codebook against its definition, nearest codewords against all 65536 of them in f64, and what blocks lose.
#include "cache/bounds.hpp"
#include "catch.hpp"

#include <array>
#include <map>

namespace tern::test {
namespace {

using formats::e8p;
using vector8 = std::array<double, 8>;
using pattern = std::array<int, 8>;  // 2 p

int norm_of(pattern const& p) {
  int sum = 0;
  for (int e : p) sum += e * e;
  return sum / 4;
}

/// The patterns by their number, as the header's text says.
std::vector<pattern> patterns() {
  std::vector<pattern> few, tall, longest;
  for (int code = 0; code < 6561; ++code) {  // in lexicographic order
    pattern p{};
    int fives = 0;
    for (int i = 7, rest = code; i >= 0; --i, rest /= 3) {
      p[static_cast<std::size_t>(i)] = 2 * (rest % 3) + 1;
      fives += rest % 3 == 2;
    }
    if (norm_of(p) <= 10) (fives > 0 ? tall : few).push_back(p);
    if (norm_of(p) == 12) longest.push_back(p);
  }
  auto const number = [](pattern const& p) {
    int n = 0, five = -1, three = -1;
    for (int i = 0; i < 8; ++i) {
      if (p[static_cast<std::size_t>(i)] == 3) n += 1 << (three = i);
      if (p[static_cast<std::size_t>(i)] == 5) five = i;
    }
    return five < 0 ? n : 8 * five + (three < 0 ? five : three);
  };
  auto const before = [&](pattern const& a, pattern const& b) { return number(a) < number(b); };
  std::sort(few.begin(), few.end(), before);
  std::sort(tall.begin(), tall.end(), before);
  REQUIRE((few.size() == 163 && tall.size() == 64 && longest.size() == 224));
  few.insert(few.end(), tall.begin(), tall.end());
  for (std::size_t i = 0; i < 29; ++i) few.push_back(longest[7 * i]);
  return few;
}

/// All codewords' vectors q / 4: s p + t with the eighth sign that makes the sum of s p even.
std::vector<vector8> const& codebook() {
  static std::vector<vector8> const all = [] {
    auto const p = patterns();
    std::vector<vector8> v(65536);
    for (std::size_t code = 0; code < v.size(); ++code) {
      pattern x = p[code & 255];
      int sum = 0;
      for (std::size_t i = 0; i < 8; ++i) {
        if (i < 7 && code >> (8 + i) & 1) x[i] = -x[i];
        if (i == 7 && (sum + x[i]) % 4 != 0) x[i] = -x[i];  // twice the sum is a multiple of 4
        sum += x[i];
      }
      REQUIRE(sum % 4 == 0);
      for (std::size_t i = 0; i < 8; ++i) v[code][i] = x[i] / 2. + (code >> 15 ? 0.25 : -0.25);
    }
    return v;
  }();
  return all;
}
double distance(float const* x, vector8 const& v) {
  double sum = 0;
  for (std::size_t i = 0; i < 8; ++i) sum += (static_cast<double>(x[i]) - v[i]) * (static_cast<double>(x[i]) - v[i]);
  return sum;
}
double least_distance(float const* x) {
  double least = std::numeric_limits<double>::infinity();
  for (vector8 const& v : codebook()) least = std::min(least, distance(x, v));
  return least;
}
/// Squared, over the squared numbers.
double relative_error(std::vector<float> const& x) {
  double error = 0, all = 0;
  for (std::size_t i = 0; i < x.size(); i += 32) {
    float y[32];
    e8p::decode(e8p::encode(x.data() + i), y);
    for (std::size_t j = 0; j < 32; ++j) {
      error += std::pow(static_cast<double>(x[i + j]) - static_cast<double>(y[j]), 2);
      all += std::pow(static_cast<double>(x[i + j]), 2);
    }
  }
  return error / all;
}

}  // namespace

TEST_CASE("e8p: the codebook is 227 patterns of D8 + 1/2 up to norm 10 and 29 of norm 12, all even signs, up or down a quarter") {
  std::map<vector8, int> seen;
  std::map<int, int> norms;
  for (vector8 const& v : codebook()) ++seen[v];
  CHECK(seen.size() == 65536);
  for (pattern const& p : patterns()) ++norms[norm_of(p)];
  CHECK(norms == std::map<int, int>{{2, 1}, {4, 8}, {6, 28}, {8, 64}, {10, 126}, {12, 29}});
}

TEST_CASE("e8p: every codeword decodes to d times its vector, exactly, however it is read") {
  float const d = 0.3701171875f;
  for (std::size_t code = 0; code < 65536; code += 4) {
    e8p::block b{f16(d), {}};
    for (std::size_t g = 0; g < 4; ++g) {
      b.code[2 * g] = static_cast<std::uint8_t>((code + g) & 255);
      b.code[2 * g + 1] = static_cast<std::uint8_t>((code + g) >> 8);
    }
    float y[32], scale, least[1] = {};
    std::uint8_t u[32];
    e8p::decode(b, y);
    e8p::unpack(b, 0, u);
    e8p::scales(b, 0, &scale, least);
    index wrong = scale != d;
    for (std::size_t i = 0; i < 32; ++i) {
      double const q = 4 * codebook()[code + i / 8][i % 8];
      wrong += static_cast<double>(y[i]) != static_cast<double>(d) * q || u[i] - e8p::offset != static_cast<int>(q);
    }
    REQUIRE(wrong == 0);
  }
}

TEST_CASE("e8p: the codeword is the nearest of all") {
  rng r(61);
  for (int i = 0; i < 120; ++i) {
    bool const on_grid = i % 2 == 0;  // where f32 is exact, and ties are many
    double const size = i % 3 == 0 ? 0.4 : i % 3 == 1 ? 1 / 0.95 : 3;
    auto x = r.normal(8, size);
    if (i % 7 == 0) x[static_cast<std::size_t>(i / 7 % 8)] *= 6;
    if (i % 11 == 0) std::fill(x.begin() + 2, x.end(), x[1]);
    if (on_grid)
      for (float& e : x) e = std::nearbyint(e * 8) / 8;
    double const got = distance(x.data(), codebook()[formats::detail::nearest_e8p(x.data())]), want = least_distance(x.data());
    INFO(i << ": " << got << " against " << want);
    // Sums of 8 products of numbers below 20 and 3.
    CHECK(got <= want + (on_grid ? 0 : 0x1p-24 * 16 * 8 * 60));
  }
}

TEST_CASE("e8p: blocks hold the nearest codewords and the scale of least squares") {
  rng r(62);
  for (int i = 0; i < 12; ++i) {
    auto const x = r.normal(32, std::pow(10., i % 6 - 3));
    auto const b = e8p::encode(x.data());
    double squares = 0, xq = 0, qq = 0;
    for (float e : x) squares += static_cast<double>(e) * static_cast<double>(e);
    double const unit = 0.95 * std::sqrt(squares / 32);
    for (std::size_t g = 0; g < 4; ++g) {
      float y[8];
      vector8 const& v = codebook()[static_cast<std::size_t>(b.code[2 * g] | b.code[2 * g + 1] << 8)];
      for (std::size_t j = 0; j < 8; ++j) {
        y[j] = static_cast<float>(static_cast<double>(x[8 * g + j]) / unit);
        xq += static_cast<double>(x[8 * g + j]) * 4 * v[j];
        qq += 16 * v[j] * v[j];
      }
      CHECK(distance(y, v) <= least_distance(y) + 1e-4);
    }
    CHECK(std::abs(static_cast<double>(static_cast<float>(b.d)) - xq / qq) <= 0x1p-11 * 1.001 * xq / qq + 0x1p-25);
  }
}

TEST_CASE("e8p: normal numbers lose a twelfth of their variance") {
  rng r(63);
  double const error = relative_error(r.normal(32 * 4000));
  INFO(error);
  CHECK(error <= 0.0836 * 1.01);  // another sample
  CHECK(error >= 0.0625);         // what 2 bits can reach
}

TEST_CASE("e8p: no block loses more than is stated") {
  rng r(64);
  for (int i = 0; i < 3000; ++i) {
    auto x = r.normal(32);
    float const size = std::pow(10.f, static_cast<float>(i % 7 - 3));
    for (float& e : x) e = size * (i % 5 == 1 ? std::pow(e, 5.f) : e);
    if (i % 5 == 2) x[static_cast<std::size_t>(i % 32)] *= 100;
    if (i % 5 == 3) std::fill(x.begin(), x.begin() + 24, 0.f);
    if (i % 5 == 4) std::fill(x.begin(), x.end(), x[0]);
    float y[32];
    e8p::decode(e8p::encode(x.data()), y);
    INFO(i);
    REQUIRE(e8p_stored_well(x.data(), y));
  }
}

TEST_CASE("e8p: zeros stay, what is not finite fills its block, twice the block is twice the result") {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  rng r(65);
  auto const stored = [](std::vector<float> x) {
    e8p::decode(e8p::encode(x.data()), x.data());
    return x;
  };
  for (float e : stored(std::vector<float>(32, 0.f))) CHECK(e == 0);
  for (float e : stored(std::vector<float>(32, -1e-30f))) CHECK(e == 0);
  auto x = r.normal(32);
  auto twice = x;
  for (float& e : twice) e *= 2;
  auto const y = stored(x), z = stored(twice);
  for (std::size_t i = 0; i < 32; ++i) CHECK(z[i] == 2 * y[i]);
  for (float odd : {inf, -inf, 1e30f, 1e7f}) {
    x[9] = odd;
    for (float e : stored(x)) CHECK(std::isinf(e));
  }
  x[20] = inf;
  for (float e : stored(x)) CHECK(std::isinf(e));
  x[20] = nan;
  for (float e : stored(x)) CHECK(std::isnan(e));
}

}  // namespace tern::test
