// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "compare.hpp"
#include "message.hpp"

#include <tern/formats/stochastic_int8.hpp>

namespace tern::test {
namespace {

using namespace tern::formats;

struct activations {
  index batch = 2, heads = 3, tokens = 7, dim = 5;
  std::vector<float> x, scale, zero, out;
  std::vector<std::uint8_t> codes;

  explicit activations(std::uint64_t seed) : scale(3), zero(3) {
    rng r(seed);
    x = r.normal(batch * heads * tokens * dim, 0.7);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += static_cast<float>(head_of(i)) * 4;
    out.resize(x.size());
    codes.resize(x.size());
  }
  std::size_t head_of(std::size_t i) const { return i / static_cast<std::size_t>(tokens * dim) % static_cast<std::size_t>(heads); }
  template <class T>
  tensor_view<T, 4> shaped(T* p) const {
    return {p, shape<4>{{batch, heads, tokens, dim}}};
  }
  void range(float keep = 0.f) { update_head_ranges(shaped<float const>(x.data()), view(scale), view(zero), keep); }
  void encode(std::uint64_t seed) {
    encode_stochastic_int8(shaped<float const>(x.data()), seed, shaped(codes.data()), view(std::as_const(scale)),
                           view(std::as_const(zero)));
  }
  void decode() {
    decode_stochastic_int8(shaped<std::uint8_t const>(codes.data()), view(std::as_const(scale)), view(std::as_const(zero)),
                           shaped(out.data()));
  }
};

}  // namespace

TEST_CASE("stochastic int8: heads have the range of their elements, and every code is a neighbour") {
  activations a(131);
  a.range();
  for (std::size_t h = 0; h < 3; ++h) {
    float least = 1e30f, most = -1e30f;
    for (std::size_t i = 0; i < a.x.size(); ++i)
      if (a.head_of(i) == h) {
        least = std::min(least, a.x[i]);
        most = std::max(most, a.x[i]);
      }
    CHECK(a.zero[h] == least);
    CHECK(a.scale[h] == Approx((most - least) / 255).epsilon(1e-6));
  }
  a.encode(5);
  a.decode();
  for (std::size_t i = 0; i < a.x.size(); ++i) {
    std::size_t const h = a.head_of(i);
    double const t = (static_cast<double>(a.x[i]) - static_cast<double>(a.zero[h])) / static_cast<double>(a.scale[h]);
    INFO("element " << i << " at " << t);
    REQUIRE(std::abs(a.codes[i] - t) < 1 + 1e-4);
    double const want = static_cast<double>(a.scale[h]) * a.codes[i] + static_cast<double>(a.zero[h]);
    REQUIRE(a.out[i] == static_cast<float>(want));
  }
  auto const first = a.codes;
  a.encode(5);
  CHECK(a.codes == first);
  a.encode(6);
  CHECK(a.codes != first);
}

TEST_CASE("stochastic int8: the mean over seeds is the number itself") {
  activations a(132);
  a.range();
  std::vector<double> sum(a.x.size()), want;
  constexpr int draws = 20000;
  for (int s = 0; s < draws; ++s) {
    a.encode(static_cast<std::uint64_t>(s) * 1000003);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += a.codes[i];
  }
  // A code has deviation at most 1/2, so by Hoeffding |mean - t| > d has probability at most 2 exp(-2 draws d^2): with d = 0.032, for
  // all 210 elements together, less than 1e-15.
  for (std::size_t i = 0; i < sum.size(); ++i) {
    std::size_t const h = a.head_of(i);
    double const t = (static_cast<double>(a.x[i]) - static_cast<double>(a.zero[h])) / static_cast<double>(a.scale[h]);
    REQUIRE(std::abs(sum[i] / draws - t) < 0.032 + 1e-4);
  }
  // Over all elements errors are independent: 4.2 million draws, 2 exp(-2 n d^2) < 1e-14 at d = 0.002.
  double all = 0;
  for (std::size_t i = 0; i < sum.size(); ++i) {
    std::size_t const h = a.head_of(i);
    all += sum[i] / draws - (static_cast<double>(a.x[i]) - static_cast<double>(a.zero[h])) / static_cast<double>(a.scale[h]);
  }
  CHECK(std::abs(all / static_cast<double>(sum.size())) < 0.002 + 2e-5);
}

TEST_CASE("stochastic int8: running ranges, and what lies beyond them") {
  activations a(133);
  a.range();
  auto const scale = a.scale, zero = a.zero;
  for (float& e : a.x) e *= 2;
  a.range(0.9f);
  for (std::size_t h = 0; h < 3; ++h) {
    float const most = zero[h] + 255 * scale[h];
    CHECK(a.zero[h] == Approx(0.9 * static_cast<double>(zero[h]) + 0.2 * static_cast<double>(zero[h])).epsilon(1e-5));
    CHECK(a.zero[h] + 255 * a.scale[h] == Approx(1.1 * static_cast<double>(most)).epsilon(1e-5));
  }
  a.encode(1);
  for (std::size_t i = 0; i < a.x.size(); ++i) {
    std::size_t const h = a.head_of(i);
    if (a.x[i] < a.zero[h]) CHECK(a.codes[i] == 0);
    if (a.x[i] > a.zero[h] + 256 * a.scale[h]) CHECK(a.codes[i] == 255);
  }
}

TEST_CASE("stochastic int8: equal elements, NaN and wrong extents") {
  activations a(134);
  std::fill(a.x.begin(), a.x.end(), 1.25f);
  a.range();
  a.encode(1);
  a.decode();
  for (float e : a.out) CHECK(e == 1.25f);
  a.x[0] = std::numeric_limits<float>::quiet_NaN();
  std::fill(a.scale.begin(), a.scale.end(), 0.01f);
  a.encode(1);
  CHECK(a.codes[0] == 0);
  a.zero.resize(2);
  CHECK(message_of([&] { a.encode(1); }) == "encode_stochastic_int8: zero.extent(0) is 2, expected the heads = 3");
  CHECK(message_of([&] { a.decode(); }) == "decode_stochastic_int8: zero.extent(0) is 2, expected the heads = 3");
  a.zero.resize(3);
  CHECK(message_of([&] { a.range(1.f); }) == "update_head_ranges: keep (in thousandths) is 1000, expected at least 0, less than 1000");
}

}  // namespace tern::test
