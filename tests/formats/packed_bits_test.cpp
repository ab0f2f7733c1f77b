// SPDX-License-Identifier: Apache-2.0
#include "../simd/lanes.hpp"
#include "catch.hpp"
#include "coded.hpp"

#include <tern/formats/binary.hpp>
#include <tern/formats/bit_planes.hpp>
#include <tern/formats/exmy.hpp>
#include <tern/formats/mid_rise.hpp>
#include <tern/formats/power_of_two.hpp>

namespace tern::test {
namespace {

using namespace tern::formats;
constexpr index L = simd::lanes;

struct group {
  simd::pack<std::uint8_t> u[2][4];
  simd::pack<float> scale[2], min[2];
};

/// What `walk` loads, in several orders, is what `unpack` and `scales` say. Both ends of the rows are at the end of memory.
template <class W>
void check_walk(W const& w) {
  REQUIRE(w.rows >= L);
  index const groups = w.columns / 32;
  for (index const first : {index{0}, w.rows - L}) {
    auto rows = w.walk(first);
    for (index step = 0; step < 3 * groups; ++step) {
      index const g = step < groups ? step : step < 2 * groups ? 2 * groups - 1 - step : step * 5 % groups;
      group got;
      rows.load(g, got);
      for (index i = 0; i < L; ++i) {
        std::uint8_t u[32];
        float scale[2] = {}, min[2];
        w.unpack(first + i, g, u);
        w.scales(first + i, g, scale, min);
        for (index j = 0; j < 32; ++j)
          REQUIRE(int{lanes_of(got.u[j / 16][j % 16 / 4])[static_cast<std::size_t>(4 * i + j % 4)]} == int{u[j]});
        for (index j = 0; j < 32 / W::granule; ++j) {
          float const have = lanes_of(got.scale[j])[static_cast<std::size_t>(i)];
          REQUIRE((std::isnan(scale[j]) ? std::isnan(have) : have == scale[j]));
        }
      }
    }
  }
}

/// Random bytes in rows `stride` apart, the last of which ends with the memory.
struct rows_at_end {
  index rows, bytes, stride;
  at_page_end<std::uint8_t> memory;
  rows_at_end(index n, index b, index gap) : rows(n), bytes(b), stride(b + gap), memory((n - 1) * stride + b) {
    rng r(5);
    for (index i = 0; i < (n - 1) * stride + b; ++i) memory.data()[i] = static_cast<std::uint8_t>(r.bits());
  }
  tensor_view<std::uint8_t const, 2> view() { return {memory.data(), shape<2>{{rows, bytes}}, shape<2>{{stride, 1}}}; }
};

template <int bits, class F>
void each_shape(F const& f) {
  INFO(bits << " bits");
  for (index const columns : {32, 64, 96, 160, 256})
    for (index const gap : {0, 3}) {
      INFO(columns << " columns, " << gap << " bytes between rows");
      f(rows_at_end(L + 1, packed_bytes<bits>(columns), gap), columns);
    }
}

template <int bits>
void check_mid_rise() {
  std::vector<float> scales;
  for (index i = 0; i < L + 1; ++i) scales.push_back(static_cast<float>(i + 1));
  each_shape<bits>([&](rows_at_end&& codes, index) {
    tensor_view<float const, 1> const view = tern::view(scales);
    check_walk(mid_rise_weights<bits>(codes.view(), view));
  });
}
template <int bits, index granule = 32>
void check_exmy() {
  using F = exmy<bits == 3 ? 1 : 2, bits == 3 ? 1 : bits - 3>;
  each_shape<bits>([&](rows_at_end&& codes, index columns) {
    matrix_of<e8m0> blocks(L + 1, columns / granule);
    for (std::size_t i = 0; i < blocks.memory.size(); ++i) blocks.memory[i].bits = static_cast<std::uint8_t>(i * 7 % 256);
    check_walk(exmy_weights<F, e8m0, granule>(codes.view(), blocks.view));
    matrix_of<f16> rows(L + 1, 1);
    for (std::size_t i = 0; i < rows.memory.size(); ++i) rows.memory[i] = f16(static_cast<float>(i + 1));
    check_walk(exmy_weights<F, f16, granule>(codes.view(), rows.view));
  });
}

}  // namespace

TEST_CASE("rows of packed codes in registers are the codes of each row") {
  if constexpr (L % 4 == 0) {
    check_mid_rise<1>();
    check_mid_rise<2>();
    check_mid_rise<3>();
    check_mid_rise<4>();
    check_mid_rise<5>();
    check_mid_rise<6>();
    check_mid_rise<7>();
  }
}

TEST_CASE("levels and scales of rows in registers are those of each row") {
  if constexpr (L % 4 == 0) {
    check_exmy<3>();
    check_exmy<4>();
    check_exmy<4, 16>();
    check_exmy<6>();
    each_shape<4>([&](rows_at_end&& codes, index columns) {
      matrix_of<float> scales(1, columns % 128 == 0 ? columns / 64 : 1);
      for (std::size_t i = 0; i < scales.memory.size(); ++i) scales.memory[i] = static_cast<float>(i + 1);
      check_walk(power_of_two_weights<4>(codes.view(), scales.view));
    });
    each_shape<3>([&](rows_at_end&& codes, index) {
      matrix_of<bf16> scales(L + 1, 1);
      for (std::size_t i = 0; i < scales.memory.size(); ++i) scales.memory[i] = bf16(static_cast<float>(i + 1));
      check_walk(power_of_two_weights<3, bf16>(codes.view(), scales.view));
    });
  }
}

TEST_CASE("bits and planes of bits in registers are those of each row") {
  if constexpr (L % 4 == 0) {
    rng r(9);
    std::vector<float> scales(static_cast<std::size_t>(L + 1), 0.5f);
    for (index const columns : {64, 128, 320}) {
      index const words = columns / 64;
      for (int const planes : {1, 3, 7, 8}) {
        std::vector<std::uint64_t> bits(static_cast<std::size_t>(planes * (L + 1) * words));
        for (auto& b : bits) b = r.bits();
        tensor_view<std::uint64_t const, 3> const view = tern::view(bits, planes, L + 1, words);
        tensor_view<float const, 1> const each = tern::view(scales);
        check_walk(bit_plane_weights(binary_planes(view, columns, each)));
        if (planes < 8) check_walk(bit_plane_weights(bipolar_planes(view, columns, each)));
        check_walk(binary_weights(view[0], columns, each));
        check_walk(binary_weights(view[0], columns));
      }
    }
  }
}

}  // namespace tern::test
