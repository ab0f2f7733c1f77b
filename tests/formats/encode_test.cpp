// SPDX-License-Identifier: Apache-2.0
// Encoders that choose: what they lose, on ordinary numbers and on those that were picked against them.
#include "catch.hpp"
#include "compare.hpp"

#include <tern/formats/block_formats.hpp>

#include <algorithm>

namespace tern::test {
namespace {

/// What the docstrings promise: the root mean square error is at most `bound` times the largest magnitude M, and what f16 rounds of
/// scales: 2^-10 M, or `reach` (the most that multiplies d) times half of f16's least number. `normal`: the error of ggml's
/// reference quantizers for normal numbers.
struct promise {
  weight_type type;
  double bound, reach, normal;
};
constexpr promise promises[] = {
    {weight_type::q2_k, 1. / 3 + 1.5 / 15, 4 * 15, 0.2967},
    {weight_type::q3_k, 1. / 6 + 1. / 62, 4 * 32, 0.1507},
    {weight_type::q4_k, 1. / 15 + 1.5 / 63, 16 * 63, 0.0716},
    {weight_type::q5_k, 1. / 31 + 1.5 / 63, 32 * 63, 0.0361},
    {weight_type::q6_k, 1. / 62 + 1. / 254, 32 * 128, 0.01774},
    {weight_type::iq4_nl, 12. / 113, 127, 0.0784},
    {weight_type::iq4_xs, 12. / 113 + 1. / 62, 127 * 32, 0.0766},
    {weight_type::tq1_0, 0.5, 1, 0.8088},
    {weight_type::tq2_0, 0.5, 1, 0.8088},
    {weight_type::mxfp4, 0.25, 1, 0.1155},
};

/// Encoded and decoded.
std::vector<float> stored(weight_type type, std::vector<float> const& x) {
  std::vector<float> y(x.size());
  tern::detail::with_block_format(type, [&]<class Format>(Format) {
    if constexpr (requires { Format::encode(x.data()); })
      for (std::size_t i = 0; i < x.size(); i += static_cast<std::size_t>(Format::elements))
        Format::decode(Format::encode(x.data() + i), y.data() + i);
  });
  return y;
}
double rms_error(std::vector<float> const& x, std::vector<float> const& y) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += std::pow(static_cast<double>(x[i]) - static_cast<double>(y[i]), 2);
  return std::sqrt(sum / static_cast<double>(x.size()));
}

/// Blocks of 256, each with a trap in it.
std::vector<std::vector<float>> adversaries() {
  rng r(52);
  std::vector<std::vector<float>> all;
  auto const add = [&](auto&& f) {
    std::vector<float> x(256);
    for (int i = 0; i < 256; ++i) x[static_cast<std::size_t>(i)] = static_cast<float>(f(i));
    all.push_back(x);
  };
  for (double scale : {1e-30, 1e-9, 1e-6, 1e-3, 1., 30.}) {
    add([&](int) { return scale * r.normal(); });
    add([&](int) { return scale * (2 * r.uniform() - 1); });
    add([&](int) { return scale * std::pow(r.normal(), 5); });
    add([&](int) { return scale * (100 + r.uniform()); });
    add([&](int) { return -scale * (100 + r.uniform()); });
    add([&](int) { return scale; });
    add([&](int i) { return i % 2 == 0 ? scale : -scale; });
    add([&](int i) { return i == 77 ? -100 * scale : scale * r.normal(); });
    add([&](int i) { return i == 255 ? scale : 0; });
    add([&](int i) { return scale * std::pow(0.5, i / 16); });
    add([&](int i) { return scale * (i % 32 < 16 ? 1 : 1e-3) * r.normal(); });
    add([&](int i) { return scale * (i - 128) / 128.; });
    add([&](int i) { return i % 5 == 0 ? -scale : i % 5 == 1 ? 0.87 * scale : 1e-8 * scale; });
  }
  add([](int) { return 0; });
  add([](int) { return -0.; });
  return all;
}

}  // namespace

TEST_CASE("encoding loses no more than each format promises") {
  auto const cases = adversaries();
  for (promise const& p : promises)
    for (std::size_t c = 0; c < cases.size(); ++c) {
      auto const unit = static_cast<std::size_t>(info(p.type).elements);
      for (std::size_t i = 0; i < 256; i += unit) {
        INFO(info(p.type).name << " case " << c << " element " << i);
        std::vector<float> const x(cases[c].begin() + static_cast<index>(i), cases[c].begin() + static_cast<index>(i + unit));
        auto const y = stored(p.type, x);
        double largest = 0;
        for (float e : x) largest = std::max(largest, static_cast<double>(std::abs(e)));
        REQUIRE(rms_error(x, y) <= p.bound * largest + std::max(0x1p-10 * largest, 0x1p-25 * p.reach));
        if (p.type == weight_type::tq1_0 || p.type == weight_type::tq2_0 || p.type == weight_type::mxfp4)  // each element's promise
          for (std::size_t j = 0; j < unit; ++j)
            REQUIRE(std::abs(static_cast<double>(x[j]) - static_cast<double>(y[j])) <= p.bound * largest * (1 + 0x1p-10) + 0x1p-25);
      }
    }
}

TEST_CASE("normal numbers lose no more than under the reference quantizers") {
  rng r(51);
  auto const x = r.normal(256 * 200);
  for (promise const& p : promises) {
    double const error = rms_error(x, stored(p.type, x));
    INFO(info(p.type).name << ": " << error << " against " << p.normal);
    CHECK(error <= 1.005 * p.normal);  // 1.005: another sample
  }
}

TEST_CASE("twice the block is twice the result") {
  rng r(53);
  auto const x = r.normal(256 * 8);
  auto twice = x;
  for (float& e : twice) e *= 2;
  for (promise const& p : promises) {
    INFO(info(p.type).name);
    auto const y = stored(p.type, x), z = stored(p.type, twice);
    for (std::size_t i = 0; i < x.size(); ++i) REQUIRE(z[i] == 2 * y[i]);
  }
}

TEST_CASE("NaN is stored as zero, infinity as the largest, and neither spoils the block's other numbers") {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  rng r(54);
  for (promise const& p : promises) {
    INFO(info(p.type).name);
    auto const plain = r.normal(256);
    auto with_nan = plain, with_zero = plain;
    for (std::size_t i = 3; i < 256; i += 7) {
      with_nan[i] = nan;
      with_zero[i] = 0;
    }
    CHECK(stored(p.type, with_nan) == stored(p.type, with_zero));
    auto const nothing = stored(p.type, std::vector<float>(256, nan));
    for (float e : nothing) CHECK(e == 0.f);
    for (float sign : {1.f, -1.f}) {
      auto endless = plain;
      endless[200] = sign * inf;
      auto const y = stored(p.type, endless);
      for (float e : y) REQUIRE(std::isfinite(e));
      CHECK(sign * y[200] >= 65504.f);
      CHECK(y[200] == (sign > 0 ? *std::max_element(y.begin(), y.end()) : *std::min_element(y.begin(), y.end())));
    }
    for (float e : stored(p.type, std::vector<float>(256, inf))) REQUIRE((std::isfinite(e) && e >= 65504.f));
  }
}

TEST_CASE("what ternary formats and mxfp4 hold is stored as it is") {
  for (float d : {0.75f, 3.f, 0x1p-14f}) {
    std::vector<float> ternary(256), floats(256);
    float const levels[] = {0.f, 0.5f, 1.f, 1.5f, 2.f, 3.f, 4.f, 6.f};
    for (std::size_t i = 0; i < 256; ++i) {
      ternary[i] = d * static_cast<float>(static_cast<int>(i * i % 13) % 3 - 1);
      floats[i] = 0x1p-20f * levels[i % 8] * (i % 32 < 16 ? 1.f : -1.f);
    }
    CHECK(stored(weight_type::tq1_0, ternary) == ternary);
    CHECK(stored(weight_type::tq2_0, ternary) == ternary);
    CHECK(stored(weight_type::mxfp4, floats) == floats);
  }
}

TEST_CASE("mxfp4 rounds ties to even codes, and its exponent is the largest's less 2") {
  auto const code = [](float x, float largest) {
    float block[32] = {x, largest};
    auto const b = formats::mxfp4::encode(block);
    CHECK(b.e == 127);
    return b.q[0] & 15;
  };
  for (float largest : {4.f, 6.f, 7.99f, -5.f}) {
    float const midpoints[] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f};
    for (int i = 0; i < 6; ++i) {
      float const m = midpoints[i];
      CHECK(code(m, largest) == (i % 2 == 0 ? i : i + 1));
      CHECK(code(std::nextafter(m, 0.f), largest) == i);
      CHECK(code(std::nextafter(m, 9.f), largest) == i + 1);
      CHECK((code(-m, largest) & 7) == code(m, largest));
    }
  }
  CHECK(code(5.f, 6.f) == 6);
  CHECK(code(std::nextafter(5.f, 6.f), 6.f) == 7);
  CHECK(code(7.9f, 7.99f) == 7);
  CHECK(code(-0.f, 4.f) == 0);
  float tiny[32] = {0x1p-149f};
  CHECK(formats::mxfp4::encode(tiny).e == 0);
  float huge[32] = {std::numeric_limits<float>::max()};
  CHECK(formats::mxfp4::encode(huge).e == 252);
}

}  // namespace tern::test
