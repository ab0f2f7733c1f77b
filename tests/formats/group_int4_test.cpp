// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "coded.hpp"
#include "message.hpp"

#include <tern/formats/group_int4.hpp>

namespace tern::test {
namespace {

/// Encoded weights that own their memory.
template <class W>
struct stored {
  matrix_of<std::uint8_t> codes;
  matrix_of<f16> scales;
  matrix_of<typename W::zero_type> zeros;

  template <class T>
  stored(tensor_view<T, 2> const& w, index group)
      : codes(w.extent(0), w.extent(1) / 2), scales(w.extent(0), w.extent(1) / group), zeros(w.extent(0), w.extent(1) / group) {
    if constexpr (std::is_same_v<W, group_int4>)
      W::encode(cpu, w, codes.view, scales.view);
    else
      W::encode(cpu, w, codes.view, scales.view, zeros.view);
  }
  W weights() const {
    if constexpr (std::is_same_v<W, group_int4>)
      return W(codes.view, scales.view);
    else
      return W(codes.view, scales.view, zeros.view);
  }
};
template <class W>
double error_of(std::vector<float> const& x, index rows, index group) {
  stored<W> const s(view(x.data(), rows, static_cast<index>(x.size()) / rows), group);
  return relative_error(x, decoded(s.weights()));
}

}  // namespace

TEST_CASE("group_int4: the layout is what its page says") {
  constexpr index n = 3, k = 128, group = 64;
  rng r(91);
  matrix_of<std::uint8_t> codes(n, k / 2), zeros(n, k / group);
  matrix_of<f16> scales(n, k / group), minima(n, k / group);
  for (auto& x : codes.memory) x = static_cast<std::uint8_t>(r.bits());
  for (auto& x : zeros.memory) x = static_cast<std::uint8_t>(r.integer(0, 16));
  r.fill(std::span(scales.memory));
  r.fill(std::span(minima.memory));
  auto const plain = decoded(group_int4(codes.view, scales.view));
  group_int4_zeros const z(codes.view, scales.view, zeros.view);
  auto const with_zeros = decoded(z);
  CHECK(within_seven_bits(z));
  auto const with_minima = decoded(group_int4_minima(codes.view, scales.view, minima.view));
  for (index i = 0; i < n; ++i)
    for (index j = 0; j < k; ++j) {
      std::uint8_t const byte = codes.view(i, j / 32 * 16 + j % 16);
      int const q = j % 32 < 16 ? byte & 15 : byte >> 4;
      float const s = scales.view(i, j / group);
      auto const at = static_cast<std::size_t>(i * k + j);
      REQUIRE(plain[at] == s * static_cast<float>(q - 8));
      REQUIRE(with_zeros[at] == s * static_cast<float>(q - zeros.view(i, j / group)));
      REQUIRE(with_minima[at] == s * static_cast<float>(q) + float{minima.view(i, j / group)});
    }
}

TEST_CASE("group_int4: rows may be apart") {
  rng r(92);
  auto const x = r.normal(4 * 64);
  stored<group_int4> const s(view(x.data(), 4, 64), 32);
  std::vector<std::uint8_t> wide(4 * 50);
  for (std::size_t i = 0; i < 4; ++i)
    std::copy_n(s.codes.memory.begin() + static_cast<index>(32 * i), 32, wide.begin() + static_cast<index>(50 * i));
  tensor_view<std::uint8_t const, 2> const apart(wide.data(), shape<2>{{4, 32}}, shape<2>{{50, 1}});
  CHECK(decoded(group_int4(apart, s.scales.view)) == decoded(s.weights()));
}

TEST_CASE("group_int4: encoding errs no more than rounding by the largest magnitude, and as theory says for normal numbers") {
  rng r(93);
  constexpr index rows = 16, k = 1024;
  auto const x = r.normal(rows * k);
  // The best 16 even levels for normal numbers err by 0.1074 (Max 1960: 0.01154, squared). What a row has may be less lucky by some.
  for (index const group : {32, 64, 128, 1024}) {
    INFO("group " << group);
    double absmax = 0;
    for (index i = 0; i < rows * k; i += group) {
      float most = 0;
      for (index j = i; j < i + group; ++j) most = std::max(most, std::abs(x[static_cast<std::size_t>(j)]));
      for (index j = i; j < i + group; ++j) {
        float const v = x[static_cast<std::size_t>(j)], step = most / 7;
        absmax += std::pow(static_cast<double>(v - step * std::round(v / step)), 2);
      }
    }
    double square = 0;
    for (float v : x) square += static_cast<double>(v) * static_cast<double>(v);
    double const plain = error_of<group_int4>(x, rows, group);
    CHECK(plain < std::sqrt(absmax / square));
    CHECK(plain < 0.1155);
    CHECK(error_of<group_int4_zeros>(x, rows, group) < 0.1155);
    CHECK(error_of<group_int4_minima>(x, rows, group) < 0.1155);
  }
  CHECK(error_of<group_int4>(x, rows, 32) < error_of<group_int4>(x, rows, 128));
}

TEST_CASE("group_int4: zeros and minima pay for numbers of one sign") {
  rng r(94);
  std::vector<float> x(8 * 128);
  for (float& v : x) v = static_cast<float>(1 + r.uniform());
  // Sixteen levels across [1, 2]: a step of 1/15, an error of at most half of that, and of f16's minima.
  CHECK(error_of<group_int4_minima>(x, 8, 128) * std::sqrt(2.34) < 1. / 15 / std::sqrt(12.) * 1.02 + 0x1p-10);
  CHECK(error_of<group_int4_zeros>(x, 8, 128) < 0.6 * error_of<group_int4>(x, 8, 128) + 1e-3);
  for (float& v : x) v = -v;
  CHECK(error_of<group_int4_minima>(x, 8, 128) * std::sqrt(2.34) < 1. / 15 / std::sqrt(12.) * 1.02 + 0x1p-10);
  CHECK(error_of<group_int4_zeros>(x, 8, 128) < 0.05);
}

TEST_CASE("group_int4: what is already of four bits is kept") {
  rng r(95);
  std::vector<float> x(4 * 64), y(4 * 64);
  for (std::size_t i = 0; i < x.size(); ++i) {
    auto const q = static_cast<float>(i % 64 == 3 ? 0 : i % 64 == 7 ? 15 : r.integer(0, 15));
    x[i] = 0.25f * (q - 8.f);
    y[i] = 0.125f * (q - 3.f);
  }
  CHECK(error_of<group_int4>(x, 4, 64) == 0);
  CHECK(error_of<group_int4_zeros>(y, 4, 64) == 0);
  CHECK(error_of<group_int4_minima>(y, 4, 64) == 0);
}

TEST_CASE("group_int4: odd inputs") {
  auto const check = [](auto const& x, float bound) {
    auto const wanted = [&](float v) { return std::isnan(v) ? 0.f : v; };
    auto const near = [&](std::vector<float> const& y) {
      for (std::size_t i = 0; i < x.size(); ++i)
        if (!(std::abs(y[i] - wanted(x[i])) <= bound)) {
          UNSCOPED_INFO("element " << i << ": got " << y[i] << ", want " << wanted(x[i]));
          return false;
        }
      return true;
    };
    CHECK(near(decoded(stored<group_int4>(view(x.data(), 1, 64), 64).weights())));
    CHECK(near(decoded(stored<group_int4_zeros>(view(x.data(), 1, 64), 64).weights())));
    CHECK(near(decoded(stored<group_int4_minima>(view(x.data(), 1, 64), 64).weights())));
  };
  check(std::vector<float>(64, 0.f), 0.f);
  check(std::vector<float>(64, 1e-30f), 1e-29f);
  check(std::vector<float>(64, 3.f), 0.01f);
  check(std::vector<float>(64, -3.f), 0.01f);
  std::vector<float> x(64, 0.f);
  x[5] = NAN;
  x[9] = 4.f;
  check(x, 0.01f);
  x[9] = INFINITY;
  for (float const y : decoded(stored<group_int4>(view(x.data(), 1, 64), 64).weights())) CHECK(std::isfinite(y));
  for (float const y : decoded(stored<group_int4_zeros>(view(x.data(), 1, 64), 64).weights())) CHECK(std::isfinite(y));
  for (float const y : decoded(stored<group_int4_minima>(view(x.data(), 1, 64), 64).weights())) CHECK(std::isfinite(y));
}

TEST_CASE("group_int4: f16, bf16 and strided weights, on any number of threads") {
  rng r(96);
  auto const half = r.normal<f16>(6 * 64);
  std::vector<float> plain;
  for (f16 const x : half) plain.push_back(x);
  stored<group_int4> const a(view(half.data(), 6, 64), 32), b(view(plain.data(), 6, 64), 32);
  CHECK(a.codes.memory == b.codes.memory);
  std::vector<float> turned(plain.size());
  for (std::size_t i = 0; i < 6; ++i)
    for (std::size_t j = 0; j < 64; ++j) turned[j * 6 + i] = plain[i * 64 + j];
  stored<group_int4> const c(view(turned.data(), 64, 6).transposed(0, 1), 32);
  CHECK(c.codes.memory == b.codes.memory);
  matrix_of<std::uint8_t> codes(6, 32);
  matrix_of<f16> scales(6, 2);
  group_int4::encode(cpu.on(serial), view(plain.data(), 6, 64), codes.view, scales.view);
  CHECK(codes.memory == b.codes.memory);
}

TEST_CASE("GLM-130B: one scale a row") {
  rng r(97);
  constexpr index rows = 5, k = 768;
  auto const x = r.normal(rows * k);
  stored<group_int4> const s(view(x.data(), rows, k), k);
  CHECK(s.weights().group == k);
  CHECK(relative_error(x, decoded(s.weights())) < 0.13);
}

TEST_CASE("FineQuant: groups are as large as the error allows") {
  rng r(98);
  constexpr index rows = 8, k = 1024;
  auto x = r.normal(rows * k);
  auto const w = view(x.data(), rows, k);
  CHECK(choose_group_size(cpu, w, 0.13f) == k);
  // Parts of 64 columns that differ in size by far: only groups within them do.
  for (std::size_t i = 0; i < x.size(); ++i) x[i] *= std::pow(4.f, static_cast<float>(i / 64 % 4));
  for (float const tolerance : {0.11f, 0.12f}) {
    index const group = choose_group_size(cpu, w, tolerance);
    double const got = error_of<group_int4>(x, rows, group);
    INFO("group " << group << ", error " << got);
    CHECK(got <= static_cast<double>(tolerance) * 1.0001);
    CHECK((group == k || error_of<group_int4>(x, rows, group == 128 ? k : 2 * group) > static_cast<double>(tolerance)));
  }
  CHECK(choose_group_size(cpu, w, 0.f) == 32);
  CHECK(choose_group_size(cpu, view(x.data(), 8, 96), 1e-6f) == 32);
  CHECK_THROWS_WITH(choose_group_size(cpu, view(x.data(), 8, 100), 0.1f),
                    "choose_group_size: the number of columns is 100, expected a multiple of 32");
}

TEST_CASE("group_int4: parts that do not fit") {
  std::vector<std::uint8_t> bytes(4096);
  std::vector<f16> halves(1024);
  auto const codes = [&](index n, index half) { return view(std::as_const(bytes).data(), n, half); };
  auto const scales = [&](index n, index groups) { return view(std::as_const(halves).data(), n, groups); };
  auto const make = [&](auto const& c, auto const& s) { return message_of([&] { group_int4(c, s); }); };
  CHECK(make(codes(4, 64), scales(4, 2)) == "no error");
  CHECK(make(codes(4, 0), scales(4, 0)) == "no error");
  CHECK(make(codes(4, 40), scales(4, 2)) == "group_int4: the number of columns is 80, expected a multiple of 32");
  CHECK(make(codes(4, 64), scales(3, 2)) == "group_int4: scales.extent(0) is 3, expected the number of rows = 4");
  CHECK(make(codes(4, 64), scales(4, 8)) ==
        "group_int4: scales.extent(1) is 8, expected the number of groups in a row, each of a multiple of 32 columns");
  CHECK(make(codes(4, 64), scales(4, 0)) ==
        "group_int4: scales.extent(1) is 0, expected the number of groups in a row, each of a multiple of 32 columns");
  CHECK(make(codes(64, 64).transposed(0, 1), scales(64, 2)) == "group_int4: codes.stride(1) is 64, expected 1");
  bytes[1] = 17;
  CHECK(message_of([&] { group_int4_zeros(codes(4, 64), scales(4, 2), codes(4, 2)); }) == "group_int4: a zero is 17, expected at most 16");
  CHECK(message_of([&] { group_int4_zeros(codes(4, 64), scales(4, 2), codes(4, 1)); }) ==
        "group_int4: zeros.extent(1) is 1, expected scales.extent(1) = 2");
  std::vector<float> x(256);
  matrix_of<std::uint8_t> to(4, 32);
  matrix_of<f16> to_scales(4, 2);
  CHECK(message_of([&] { group_int4::encode(cpu, view(x.data(), 3, 64), to.view, to_scales.view); }) ==
        "group_int4::encode: codes.extent(0) is 4, expected the number of rows = 3");
  CHECK(message_of([&] { group_int4::encode(cpu, view(x.data(), 4, 32), to.view, to_scales.view); }) ==
        "group_int4::encode: codes.extent(1) is 32, expected half the number of columns = 16");
}

}  // namespace tern::test
