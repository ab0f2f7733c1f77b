// SPDX-License-Identifier: Apache-2.0
// Codes that are put into a block, and the memory that blocks lie in.
#include "catch.hpp"
#include "compare.hpp"

#include <tern/formats/block_array.hpp>
#include <tern/formats/block_formats.hpp>

#include <array>
#include <utility>

namespace tern::test {
namespace {

constexpr weight_type types[] = {weight_type::q4_0,  weight_type::q4_1,  weight_type::q5_0,   weight_type::q5_1,   weight_type::q8_0,
                                 weight_type::q2_k,  weight_type::q3_k,  weight_type::q4_k,   weight_type::q5_k,   weight_type::q6_k,
                                 weight_type::tq1_0, weight_type::tq2_0, weight_type::iq4_nl, weight_type::iq4_xs, weight_type::mxfp4};

template <class Format>
std::array<float, 16> scales_of(typename Format::block const& block) {
  constexpr index parts = 32 / Format::granule;
  std::array<float, 16> all{};
  for (index g = 0; g < Format::elements / 32; ++g) {
    float min[2] = {};
    Format::scales(block, g, all.data() + g * parts, min);
  }
  return all;
}

/// Random codes over a block whose codes are random, and whose scales are those of numbers.
template <class Format>
void check_put(rng& r) {
  constexpr auto n = static_cast<std::size_t>(Format::elements);
  auto const x = r.normal(Format::elements);
  typename Format::block block = Format::encode(x.data());
  auto const before = scales_of<Format>(block);
  std::uint8_t code[n];
  for (int round = 0; round < 20; ++round) {
    for (std::uint8_t& c : code) c = static_cast<std::uint8_t>(r.integer(0, Format::codes - 1));
    Format::put(block, code);
    CHECK(scales_of<Format>(block) == before);
    for (std::size_t g = 0; g < n / 32; ++g) {
      std::uint8_t u[32];
      Format::unpack(block, static_cast<index>(g), u);
      for (std::size_t j = 0; j < 32; ++j) {
        std::uint8_t const c = code[32 * g + j];
        if constexpr (requires { Format::levels; })
          REQUIRE(int(u[j]) == int(Format::levels[c]));
        else
          REQUIRE(int(u[j]) == int(c));
      }
    }
  }
}

}  // namespace

TEST_CASE("codes that are put come back, and scales stay") {
  rng r(61);
  for (weight_type type : types) {
    INFO(info(type).name);
    CHECK(tern::detail::with_block_format(type, [&]<class Format>(Format) { check_put<Format>(r); }));
  }
}

TEST_CASE("a block array owns what its view shows") {
  block_array a(weight_type::q4_0, 3, 64);
  CHECK(a.size() == 3 * 2 * 18);
  CHECK(a.view().rows == 3);
  CHECK(a.view().row(2) == a.row(2));
  for (index i = 0; i < a.size(); ++i) REQUIRE(a.row(0)[i] == 0);
  a.row(1)[5] = 7;
  block_array b(std::move(a));
  CHECK(b.row(1)[5] == 7);
  CHECK(a.size() == 0);
  CHECK(a.view().data == nullptr);
  a = std::move(b);
  CHECK(a.row(1)[5] == 7);
  CHECK(b.view().data == nullptr);
  block_matrix const& m = a;
  CHECK(m.data == a.row(0));
  CHECK_THROWS_WITH(block_array(weight_type::q4_0, 1, 33), "block_matrix: columns is 33, expected a multiple of the format's 32");
}

}  // namespace tern::test
