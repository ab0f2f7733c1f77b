// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "coded.hpp"
#include "message.hpp"

#include <tern/formats/bit_planes.hpp>

namespace tern::test {
namespace {

template <bit_code code>
struct stored {
  std::vector<std::uint64_t> memory;
  tensor_view<std::uint64_t, 3> words;
  std::vector<float> scales;
  index columns;

  stored(index planes, index rows, index k)
      : memory(static_cast<std::size_t>(planes * rows * ((k + 63) / 64))),
        words(memory.data(), shape<3>{{planes, rows, (k + 63) / 64}}),
        scales(static_cast<std::size_t>(rows), 1.f),
        columns(k) {}
  bit_planes<code> planes() const { return {words, columns, view(scales)}; }

  /// By the definition: the sum over planes of what a bit stands for.
  int value(index row, index k) const {
    int sum = 0;
    for (index i = 0; i < words.extent(0); ++i) {
      int const bit = static_cast<int>(words(i, row, k / 64) >> (k % 64) & 1), weight = 1 << i;
      if (code == bit_code::bipolar)
        sum += weight * (2 * bit - 1);
      else
        sum += i + 1 == words.extent(0) ? -weight * bit : weight * bit;
    }
    return sum;
  }
  std::vector<float> decoded_by_definition() const {
    std::vector<float> all;
    for (index row = 0; row < words.extent(1); ++row)
      for (index k = 0; k < columns; ++k) all.push_back(static_cast<float>(value(row, k)) * scales[static_cast<std::size_t>(row)]);
    return all;
  }
};

template <bit_code code>
void check_weights(int planes) {
  rng r(141);
  stored<code> s(planes, 3, 160);
  for (index i = 0; i < s.words.size(); ++i)
    s.memory[static_cast<std::size_t>(i)] = r.bits() & (i % 3 == 2 ? 0xffffffffu : ~std::uint64_t{0});
  r.fill(std::span(s.scales));
  CHECK(decoded(bit_plane_weights<code>(s.planes())) == s.decoded_by_definition());
}

}  // namespace

TEST_CASE("Bipolar-INT: planes as weights are what the formula says") {
  for (int planes = 1; planes <= 7; ++planes) check_weights<bit_code::bipolar>(planes);
  for (int planes = 1; planes <= 8; ++planes) check_weights<bit_code::binary>(planes);
}

TEST_CASE("Bipolar-INT: numbers are rounded to the nearest odd one") {
  for (int planes : {1, 2, 3, 4, 8}) {
    INFO("planes " << planes);
    int const most = (1 << planes) - 1;
    stored<bit_code::bipolar> s(planes, 1, 70);
    std::vector<float> x;
    for (int i = 0; i < 70; ++i) x.push_back(0.25f * static_cast<float>(most - 2 * (i % (most + 1))));
    bipolar_planes::encode(cpu, view(x.data(), 1, 70), s.words, view(s.scales));
    CHECK(s.scales[0] == Approx(0.25f).epsilon(1e-6));
    for (index k = 0; k < 70; ++k) REQUIRE(s.value(0, k) == static_cast<int>(x[static_cast<std::size_t>(k)] * 4));
  }
  // One bit: signs and the mean magnitude, which is the best there is.
  stored<bit_code::bipolar> s(1, 1, 64);
  rng r(142);
  auto const x = r.normal(64);
  bipolar_planes::encode(cpu, view(x.data(), 1, 64), s.words, view(s.scales));
  double mean = 0;
  for (float v : x) mean += std::abs(static_cast<double>(v)) / 64;
  CHECK(static_cast<double>(s.scales[0]) == Approx(mean).epsilon(1e-5));
  for (index k = 0; k < 64; ++k) CHECK((s.value(0, k) > 0) == (x[static_cast<std::size_t>(k)] >= 0));
}

TEST_CASE("bit planes: errors fall by half a bit, and more ranges err less") {
  rng r(143);
  constexpr index n = 4, k = 1000;
  auto const x = r.normal(n * k);
  auto const error = [&]<bit_code code>(stored<code> s, int ranges) {
    bit_planes<code>::encode(cpu, view(x.data(), n, k), s.words, view(s.scales), ranges);
    return relative_error(x, s.decoded_by_definition());
  };
  // The best even levels for normal numbers err by 0.6028, 0.3447, 0.1934, 0.1074 with 1, 2, 3, 4 bits (Max 1960).
  double const best[] = {0.6028, 0.3447, 0.1934, 0.1074};
  for (int planes = 1; planes <= 8; ++planes) {
    INFO("planes " << planes);
    double const one = error(stored<bit_code::bipolar>(planes, n, k), 1), many = error(stored<bit_code::bipolar>(planes, n, k), 24);
    CHECK(many <= one * 1.00001);
    if (planes <= 4) CHECK(many < best[planes - 1] * 1.05);
    // A step is twice the scale: an error of at most that over the root of 12 (and the ends, where it is at most the scale).
    CHECK(one < 2. * 4.2 / ((1 << planes) - 1) / std::sqrt(12.));
    if (planes >= 2) {
      double const binary = error(stored<bit_code::binary>(planes, n, k), 24);
      CHECK(binary < (planes == 2 ? 0.5 : 1.25 * many));
    }
  }
}

TEST_CASE("bit planes: odd inputs") {
  std::vector<float> x(2 * 70, 0.f);
  x[3] = NAN;
  x[5] = -2.f;
  x[75] = INFINITY;
  stored<bit_code::binary> s(4, 2, 70);
  binary_planes::encode(cpu, view(x.data(), 2, 70), s.words, view(s.scales));
  auto const y = s.decoded_by_definition();
  CHECK(y[3] == 0.f);
  CHECK(std::abs(y[5] + 2.f) < 1e-6f);
  CHECK(std::isfinite(y[75]));
  stored<bit_code::bipolar> zero(4, 1, 70);
  bipolar_planes::encode(cpu, view(x.data() + 6, 1, 64), tensor_view<std::uint64_t, 3>(zero.memory.data(), shape<3>{{4, 1, 1}}),
                         view(zero.scales));
  CHECK(zero.scales[0] == 0.f);
}

TEST_CASE("bit planes: parts that do not fit") {
  std::vector<std::uint64_t> memory(1024);
  std::vector<float> scales(16), x(1024);
  auto const make = [&](index planes, index rows, index words, index columns, index count) {
    return message_of([&] {
      bipolar_planes(view(std::as_const(memory).data(), planes, rows, words), columns, view(std::as_const(scales).data(), count));
    });
  };
  CHECK(make(3, 4, 2, 100, 4) == "no error");
  CHECK(make(0, 4, 2, 100, 4) == "bit_planes: words.extent(0) is 0, expected 1 to 8 planes");
  CHECK(make(9, 4, 2, 100, 4) == "bit_planes: words.extent(0) is 9, expected 1 to 8 planes");
  CHECK(make(3, 4, 2, 129, 4) == "bit_planes: words.extent(2) is 2, expected the number of columns / 64, rounded up = 3");
  CHECK(make(3, 4, 2, 100, 5) == "bit_planes: row_scales.extent(0) is 5, expected the number of rows = 4");
  memory[2 * 8 + 2 * 3 + 1] = std::uint64_t{1} << 36;
  CHECK(make(3, 4, 2, 100, 4) == "bit_planes: the number of a row with a bit beyond the columns is 3, expected none");
  CHECK(make(3, 4, 2, 101, 4) == "no error");
  bipolar_planes const eight(view(std::as_const(memory).data(), 8, 4, 2), 128, view(std::as_const(scales).data(), 4));
  CHECK(message_of([&] { bit_plane_weights<bit_code::bipolar>{eight}; }) ==
        "bit_plane_weights: the number of bipolar planes is 8, expected at most 7");
  bipolar_planes const narrow(view(std::as_const(memory).data(), 3, 4, 2), 101, view(std::as_const(scales).data(), 4));
  CHECK(message_of([&] { bit_plane_weights<bit_code::bipolar>{narrow}; }) ==
        "bit_plane_weights: the number of columns is 101, expected a multiple of 32");
  CHECK(message_of([&] { bipolar_planes::encode(cpu, view(x.data(), 3, 128), view(memory.data(), 3, 4, 2), view(scales.data(), 4)); }) ==
        "bit_planes::encode: words.extent(1) is 4, expected x.extent(0) = 3");
  CHECK(message_of([&] { bipolar_planes::encode(cpu, view(x.data(), 4, 128), view(memory.data(), 3, 4, 2), view(scales.data(), 4), 0); }) ==
        "bit_planes::encode: ranges is 0, expected at least 1");
}

}  // namespace tern::test
