// SPDX-License-Identifier: Apache-2.0
#include "elements.hpp"
#include "message.hpp"

#include <tern/formats/nf4.hpp>

#include <algorithm>

namespace tern::test {
namespace {

using namespace tern::formats;

double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.)); }

std::vector<float> dynamic_table() {
  std::vector<float> table(256);
  dynamic_map(table.data());
  return table;
}

template <class Codebook>
std::vector<double> decoded(std::vector<std::uint8_t> const& packed, std::vector<float> const& absmax) {
  std::vector<double> all;
  for (std::size_t i = 0; i < 2 * packed.size(); ++i) {
    int const code = i % 2 == 0 ? packed[i / 2] >> 4 : packed[i / 2] & 15;
    all.push_back(static_cast<double>(Codebook::values[code]) * static_cast<double>(absmax[i / 64]));
  }
  return all;
}

template <class Codebook>
void check_decode() {
  rng r(81);
  index const rows = 3, columns = 192;
  std::vector<std::uint8_t> packed(static_cast<std::size_t>(rows * columns / 2));
  for (auto& b : packed) b = static_cast<std::uint8_t>(r.bits());
  auto const absmax = r.normal(rows * columns / 64, 0.1);
  auto const got = elements(codebook_weights<Codebook>(matrix(packed, rows), matrix(absmax, rows)));
  auto const want = decoded<Codebook>(packed, absmax);
  for (std::size_t i = 0; i < got.size(); ++i) REQUIRE(got[i] == static_cast<float>(want[i]));
}

template <class Codebook>
void check_encode(double worst) {
  rng r(82);
  index const rows = 4, columns = 256;
  auto x = r.normal(rows * columns);
  std::fill(x.begin() + 64, x.begin() + 128, 0.f);
  std::vector<std::uint8_t> packed(static_cast<std::size_t>(rows * columns / 2));
  std::vector<float> absmax(static_cast<std::size_t>(rows * columns / 64));
  encode_codebook<Codebook>(matrix(x, rows), matrix(packed, rows), matrix(absmax, rows));
  auto const got = elements(codebook_weights<Codebook>(matrix(std::as_const(packed), rows), matrix(std::as_const(absmax), rows)));
  for (std::size_t b = 0; b < absmax.size(); ++b) {
    float most = 0;
    for (std::size_t i = 64 * b; i < 64 * b + 64; ++i) most = std::max(most, std::abs(x[i]));
    REQUIRE(absmax[b] == most);
    for (std::size_t i = 64 * b; i < 64 * b + 64; ++i) {
      double nearest = 1e30;
      for (float v : Codebook::values)
        nearest = std::min(nearest, std::abs(static_cast<double>(v) * static_cast<double>(most) - static_cast<double>(x[i])));
      double const error = std::abs(static_cast<double>(got[i]) - static_cast<double>(x[i]));
      REQUIRE(error <= nearest + 0x1p-22 * static_cast<double>(most));
      REQUIRE(error <= worst * static_cast<double>(most));
    }
  }
}

}  // namespace

TEST_CASE("NF4's values are quantiles of a normal distribution") {
  double const first = static_cast<double>(0.9677083f);
  // v over the largest quantile: its probability lies on even steps from `first` to 1/2, 8 above and 7 below.
  double low = 0, high = 4;
  for (int i = 0; i < 100; ++i) (normal_cdf((low + high) / 2) < first ? low : high) = (low + high) / 2;
  for (int i = 0; i < 8; ++i) {
    double const above = normal_cdf(static_cast<double>(nf4::values[15 - i]) * low);
    CHECK(std::abs(above - (first - (first - 0.5) * i / 8)) < 1e-6);
    if (i < 7) CHECK(std::abs(1 - normal_cdf(static_cast<double>(nf4::values[i]) * low) - (first - (first - 0.5) * i / 7)) < 1e-6);
  }
  CHECK(nf4::values[7] == 0.f);
}

TEST_CASE("FP4's values are those of a float with bias 3 over 12, sorted by bits") {
  double const twelfths[8] = {0, 0.0625, 8, 12, 4, 6, 2, 3};
  for (int i = 0; i < 8; ++i) {
    CHECK(std::abs(static_cast<double>(fp4::values[i]) - twelfths[i] / 12) <= 0x1p-24);
    CHECK(fp4::values[i + 8] == -fp4::values[i]);
  }
}

TEST_CASE("the dynamic map has seven decades of ever finer fractions") {
  auto const table = dynamic_table();
  CHECK(std::is_sorted(table.begin(), table.end()));
  std::vector<double> want = {0, 1};
  for (int i = 0; i < 7; ++i)
    for (int j = 0; j < std::pow(2, i); ++j) {
      double const a = 0.1 + 0.9 * j / std::pow(2, i), b = 0.1 + 0.9 * (j + 1) / std::pow(2, i);
      want.push_back(std::pow(10., i - 6) * (a + b) / 2);
      want.push_back(-want.back());
    }
  std::sort(want.begin(), want.end());
  REQUIRE(want.size() == 256);
  for (std::size_t i = 0; i < 256; ++i) CHECK(std::abs(static_cast<double>(table[i]) - want[i]) <= 0x1p-24 * std::abs(want[i]) * 1.001);
}

TEST_CASE("weights of 16 values decode exactly, the first element from the high half") {
  check_decode<nf4>();
  check_decode<fp4>();
  std::vector<std::uint8_t> packed(32, 0x77);
  packed[0] = 0x0f;  // -1, then 1
  std::vector<float> const absmax = {2.f};
  auto const got = elements(codebook_weights<nf4>(matrix(std::as_const(packed), 1), matrix(absmax, 1)));
  CHECK((got[0] == -2.f && got[1] == 2.f && got[2] == 0.f));
}

TEST_CASE("encoding goes to the nearest of the 16 values") {
  check_encode<nf4>(0.152);
  check_encode<fp4>(1. / 6 + 1e-6);
  for (int c = 0; c < 16; ++c) {
    CHECK(nf4::encode(nf4::values[c]) == c);
    if (c != 8) CHECK(fp4::encode(fp4::values[c]) == c);
  }
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> x(64, 0.f), absmax(1);
  std::vector<std::uint8_t> packed(32);
  x[0] = nan;
  x[1] = -std::numeric_limits<float>::infinity();
  encode_codebook<nf4>(matrix(std::as_const(x), 1), matrix(packed, 1), matrix(absmax, 1));
  CHECK(absmax[0] == std::numeric_limits<float>::max());
  CHECK(packed[0] == 0x70);
}

TEST_CASE("doubly quantized scales decode with both roundings, in blocks over all of the matrix") {
  rng r(83);
  index const rows = 5, columns = 64 * 60;  // 300 scales: two blocks, the second one short
  std::vector<std::uint8_t> packed(static_cast<std::size_t>(rows * columns / 2)), codes(300);
  for (auto& b : packed) b = static_cast<std::uint8_t>(r.bits());
  for (auto& b : codes) b = static_cast<std::uint8_t>(r.bits());
  auto const table = dynamic_table();
  std::vector<float> const nested = {0.37f, 0.011f};
  float const offset = 0.1234567f;
  nested_absmax const scales{matrix(std::as_const(codes), rows), view(nested), table.data(), offset};
  auto const got = elements(codebook_weights<nf4>(matrix(std::as_const(packed), rows), scales));
  std::vector<float> absmax;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    float const volatile product = table[codes[i]] * nested[i / 256];  // or a compiler fuses it with the sum
    absmax.push_back(static_cast<float>(static_cast<double>(product) + static_cast<double>(offset)));
  }
  auto const want = decoded<nf4>(packed, absmax);
  for (std::size_t i = 0; i < got.size(); ++i) REQUIRE(got[i] == static_cast<float>(want[i]));
}

TEST_CASE("double quantization finds the nearest entry of its table") {
  rng r(84);
  index const rows = 2, blocks = 150;
  std::vector<float> absmax;
  for (index i = 0; i < rows * blocks; ++i) absmax.push_back(static_cast<float>(0.1 + 0.02 * r.normal()));
  auto const table = dynamic_table();
  std::vector<std::uint8_t> codes(absmax.size());
  std::vector<float> nested(2);
  float const offset = encode_absmax(matrix(std::as_const(absmax), rows), table.data(), matrix(codes, rows), view(nested));
  double mean = 0;
  for (float e : absmax) mean += static_cast<double>(e) / static_cast<double>(absmax.size());
  CHECK(offset == Approx(mean).epsilon(1e-6));
  for (std::size_t i = 0; i < absmax.size(); ++i) {
    double const scale = static_cast<double>(nested[i / 256]), x = static_cast<double>(absmax[i]) - static_cast<double>(offset);
    double nearest = 1e30;
    for (float t : table) nearest = std::min(nearest, std::abs(static_cast<double>(t) * scale - x));
    REQUIRE(std::abs(static_cast<double>(table[codes[i]]) * scale - x) <= nearest + 1e-8);
    REQUIRE(std::abs(x) <= scale * (1 + 0x1p-20));
  }
  std::vector<float> const equal(64, 0.5f);
  codes.resize(64);
  CHECK(encode_absmax(matrix(equal, 1), table.data(), matrix(codes, 1), view(nested.data(), 1)) == 0.5f);
  CHECK((nested[0] == 0.f && codes[0] == 127));
}

TEST_CASE("weights of 16 values check what they are told") {
  std::vector<std::uint8_t> const bytes(512);
  std::vector<float> const floats(256);
  auto const plain = [&](index row_bytes, index scale_rows, index scales) {
    return message_of([&] { codebook_weights<nf4>(view(bytes.data(), 2, row_bytes), view(floats.data(), scale_rows, scales)); });
  };
  CHECK(plain(64, 2, 2) == "no error");
  CHECK(plain(40, 2, 2) == "codebook_weights: packed.extent(1) is 40, expected a multiple of 32: whole blocks of 64 elements");
  CHECK(plain(64, 1, 2) == "codebook_weights: absmax is 1, expected as many rows as packed has");
  CHECK(plain(64, 2, 3) == "codebook_weights: absmax is 3, expected one column for each 64 elements");
  auto const nested = [&](index blocks, float const* table) {
    nested_absmax const scales{view(bytes.data(), 2, 2), view(floats.data(), blocks), table, 0.f};
    return message_of([&] { codebook_weights<nf4>(view(bytes.data(), 2, 64), scales); });
  };
  CHECK(nested(1, floats.data()) == "no error");
  CHECK(nested(2, floats.data()) == "codebook_weights: absmax.nested.extent(0) is 2, expected the blocks of 256 of absmax.codes = 1");
  CHECK(nested(1, nullptr) == "codebook_weights: absmax.table is 0, expected not null");
  CHECK(message_of([&] { codebook_weights<nf4>(view(static_cast<std::uint8_t const*>(nullptr), 2, 64), view(floats.data(), 2, 2)); }) ==
        "codebook_weights: packed.data() is 0, expected not null");
}

}  // namespace tern::test
