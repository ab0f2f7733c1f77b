// SPDX-License-Identifier: Apache-2.0
#include "vectors/blocks.hpp"
#include "catch.hpp"
#include "compare.hpp"

#include <tern/formats/decode.hpp>

namespace tern::test {
namespace {

template <std::size_t Bytes, std::size_t Floats>
void check_decode(weight_type type, std::uint8_t const (&blocks)[Bytes], std::uint32_t const (&want)[Floats]) {
  INFO(info(type).name);
  guarded<std::uint8_t> stored(Bytes, 2);
  std::memcpy(stored.data(), blocks, Bytes);
  index const columns = static_cast<index>(Floats);
  REQUIRE(block_matrix(stored.data(), type, 1, columns).row_bytes == static_cast<index>(Bytes));
  // As two rows, of which the second is asked for.
  index const half = columns / 2 / info(type).elements * info(type).elements;
  if (half * 2 == columns) {
    guarded<float> out(half);
    decode(block_matrix(stored.data(), type, 2, half), 1, out.data());
    CHECK(std::memcmp(out.data(), want + half, static_cast<std::size_t>(half) * 4) == 0);
    CHECK(out.intact());
  }
  guarded<float> out(columns, 1);
  decode(block_matrix(stored.data(), type, 1, columns), 0, out.data());
  for (std::size_t i = 0; i < Floats; ++i) {
    INFO(i);
    REQUIRE(std::bit_cast<std::uint32_t>(out.data()[i]) == want[i]);
  }
  CHECK(out.intact());
}

/// Integers, scales and minima must give what decoding gives.
template <class Format, std::size_t Bytes, std::size_t Floats>
void check_integers(std::uint8_t const (&blocks)[Bytes], std::uint32_t const (&want)[Floats]) {
  for (std::size_t b = 0; b < Bytes / sizeof(typename Format::block); ++b) {
    typename Format::block block;
    std::memcpy(&block, blocks + b * sizeof(block), sizeof(block));
    for (index g = 0; g < Format::elements / 32; ++g) {
      std::uint8_t u[32];
      float scale[32 / Format::granule], min[32 / Format::granule] = {};
      Format::unpack(block, g, u);
      Format::scales(block, g, scale, min);
      for (index j = 0; j < 32; ++j) {
        index const part = j / Format::granule;
        float const value = scale[part] * static_cast<float>(u[j] - Format::offset) + min[part];
        CHECK(u[j] <= (Format::offset == 128 ? 255 : 127));  // what the integer products take
        REQUIRE(value == std::bit_cast<float>(want[b * static_cast<std::size_t>(Format::elements) + static_cast<std::size_t>(32 * g + j)]));
      }
    }
  }
}

template <class Format, std::size_t Bytes>
void check_encode(std::uint8_t const (&want)[Bytes]) {
  constexpr auto n = static_cast<std::size_t>(Format::elements);
  for (std::size_t b = 0; b < 256 / n; ++b) {
    INFO("block " << b);
    float x[n];
    for (std::size_t j = 0; j < n; ++j) x[j] = std::bit_cast<float>(vectors::inputs[n * b + j]);
    auto const block = Format::encode(x);
    CHECK(std::memcmp(&block, want + b * sizeof(block), sizeof(block)) == 0);
  }
}

}  // namespace

TEST_CASE("decoding is exact to the bit") {
  check_decode(weight_type::q4_0, vectors::q4_0_blocks, vectors::q4_0_decoded);
  check_decode(weight_type::q4_1, vectors::q4_1_blocks, vectors::q4_1_decoded);
  check_decode(weight_type::q5_0, vectors::q5_0_blocks, vectors::q5_0_decoded);
  check_decode(weight_type::q5_1, vectors::q5_1_blocks, vectors::q5_1_decoded);
  check_decode(weight_type::q8_0, vectors::q8_0_blocks, vectors::q8_0_decoded);
  check_decode(weight_type::q4_k, vectors::q4_k_blocks, vectors::q4_k_decoded);
  check_decode(weight_type::q6_k, vectors::q6_k_blocks, vectors::q6_k_decoded);
  check_decode(weight_type::q2_k, vectors::q2_k_blocks, vectors::q2_k_decoded);
  check_decode(weight_type::q3_k, vectors::q3_k_blocks, vectors::q3_k_decoded);
  check_decode(weight_type::q5_k, vectors::q5_k_blocks, vectors::q5_k_decoded);
  check_decode(weight_type::iq4_nl, vectors::iq4_nl_blocks, vectors::iq4_nl_decoded);
  check_decode(weight_type::iq4_xs, vectors::iq4_xs_blocks, vectors::iq4_xs_decoded);
  check_decode(weight_type::tq1_0, vectors::tq1_0_blocks, vectors::tq1_0_decoded);
  check_decode(weight_type::tq2_0, vectors::tq2_0_blocks, vectors::tq2_0_decoded);
  check_decode(weight_type::mxfp4, vectors::mxfp4_blocks, vectors::mxfp4_decoded);
}

TEST_CASE("integers, scales and minima say the same as decoding") {
  check_integers<formats::q4_0>(vectors::q4_0_blocks, vectors::q4_0_decoded);
  check_integers<formats::q4_1>(vectors::q4_1_blocks, vectors::q4_1_decoded);
  check_integers<formats::q5_0>(vectors::q5_0_blocks, vectors::q5_0_decoded);
  check_integers<formats::q5_1>(vectors::q5_1_blocks, vectors::q5_1_decoded);
  check_integers<formats::q8_0>(vectors::q8_0_blocks, vectors::q8_0_decoded);
  check_integers<formats::q4_k>(vectors::q4_k_blocks, vectors::q4_k_decoded);
  check_integers<formats::q6_k>(vectors::q6_k_blocks, vectors::q6_k_decoded);
  check_integers<formats::q2_k>(vectors::q2_k_blocks, vectors::q2_k_decoded);
  check_integers<formats::q3_k>(vectors::q3_k_blocks, vectors::q3_k_decoded);
  check_integers<formats::q5_k>(vectors::q5_k_blocks, vectors::q5_k_decoded);
  check_integers<formats::iq4_nl>(vectors::iq4_nl_blocks, vectors::iq4_nl_decoded);
  check_integers<formats::iq4_xs>(vectors::iq4_xs_blocks, vectors::iq4_xs_decoded);
  check_integers<formats::tq1_0>(vectors::tq1_0_blocks, vectors::tq1_0_decoded);
  check_integers<formats::tq2_0>(vectors::tq2_0_blocks, vectors::tq2_0_decoded);
  check_integers<formats::mxfp4>(vectors::mxfp4_blocks, vectors::mxfp4_decoded);
}

TEST_CASE("encoding rounds as the reference does") {
  check_encode<formats::q4_0>(vectors::q4_0_encoded);
  check_encode<formats::q4_1>(vectors::q4_1_encoded);
  check_encode<formats::q5_0>(vectors::q5_0_encoded);
  check_encode<formats::q5_1>(vectors::q5_1_encoded);
  check_encode<formats::q8_0>(vectors::q8_0_encoded);
  check_encode<formats::tq1_0>(vectors::tq1_0_encoded);
  check_encode<formats::tq2_0>(vectors::tq2_0_encoded);
}

TEST_CASE("q8_0 encodes what has no scale") {
  float x[32] = {1e-40f, -1e-40f, 0.f};  // the inverse of the scale overflows
  auto const tiny = formats::q8_0::encode(x);
  CHECK((tiny.q[0] == 127 && tiny.q[1] == -127 && tiny.q[2] == 0));
  x[0] = NAN;
  x[1] = -2.f;
  auto const damaged = formats::q8_0::encode(x);
  CHECK((damaged.q[0] == 0 && damaged.q[1] == -127));
}

TEST_CASE("plain numbers decode to themselves, at any length and alignment") {
  for (index n : lengths_around(simd::lanes))
    for (index misalignment : misalignments(simd::lanes)) {
      rng r(41);
      auto const check = [&]<class T>(T) {
        guarded<T> const x(r.normal<T>(n), misalignment);
        guarded<float> out(n, misalignment);
        decode(block_matrix(view(x.data(), 1, n)), 0, out.data());
        for (index i = 0; i < n; ++i) REQUIRE(out[i] == static_cast<float>(x.data()[i]));
        CHECK(out.intact());
      };
      check(float{});
      check(f16{});
      check(bf16{});
    }
}

TEST_CASE("a block matrix checks what it is told") {
  alignas(4) std::uint8_t bytes[1024] = {};
  CHECK_THROWS_WITH(block_matrix(bytes, weight_type::q4_1, 1, 33), "block_matrix: columns is 33, expected a multiple of the format's 32");
  CHECK_THROWS_WITH(block_matrix(bytes, weight_type::q6_k, 1, 32), "block_matrix: columns is 32, expected a multiple of the format's 256");
  CHECK_THROWS_WITH(block_matrix(bytes, static_cast<weight_type>(16), 1, 256),
                    "block_matrix: type is 16, expected one of tern::weight_type");
  CHECK_THROWS_WITH(block_matrix(bytes, weight_type::q4_1, -1, 32), "block_matrix: rows is -1, expected at least 0");
  CHECK_THROWS_WITH(block_matrix(bytes + 1, weight_type::q4_1, 1, 32), "block_matrix: data's misalignment is 1, expected 0");
  CHECK_THROWS_AS(block_matrix(view(reinterpret_cast<float const*>(bytes), 4, 4).transposed(0, 1)), error);
  float out[32];
  block_matrix const m(bytes, weight_type::q4_1, 2, 32);
  CHECK_THROWS_AS(decode(m, 2, out), error);
  CHECK_THROWS_AS(decode(m, -1, out), error);
}

}  // namespace tern::test
