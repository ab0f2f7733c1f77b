// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/matmul/random_weights.hpp
/// Random weights of every format, and what a product with them is by definition.
#include "compare.hpp"
#include "oracle/matmul.hpp"

#include <tern/matmul.hpp>

#include <cstring>
#include <numeric>
#include <vector>

namespace tern::test {

/// Random weights of any format: random codes, scales of about 1/16.
struct random_weights {
  guarded<std::uint8_t> bytes;
  block_matrix m;
  std::vector<double> decoded;  // (n, k)
  std::vector<double> mins;     // (n, k / part)
  index part = 32;

  /// byte: of all codes, if not negative.
  random_weights(rng& r, weight_type type, index n, index k, int byte = -1)
      : bytes(n * (k / info(type).elements) * info(type).bytes, 2 * info(type).alignment), m(bytes.data(), type, n, k) {
    for (std::size_t i = 0; i < bytes.size(); ++i)
      bytes.data()[i] = static_cast<std::uint8_t>(byte < 0 ? r.bits() : static_cast<std::uint64_t>(byte));
    index const unit = info(type).bytes, blocks = n * (k / info(type).elements);
    for (index b = 0; b < blocks; ++b) shape_scales(r, type, bytes.data() + b * unit);
    std::vector<float> row(static_cast<std::size_t>(k));
    for (index i = 0; i < n; ++i) {
      decode(m, i, row.data());
      for (float x : row) decoded.push_back(static_cast<double>(x));
      find_minima(type, i);
    }
  }

 private:
  static void put(std::uint8_t* at, double x) {
    f16 const h(static_cast<float>(x));
    std::memcpy(at, &h, 2);
  }
  static void shape_scales(rng& r, weight_type type, std::uint8_t* b) {
    float const plain = static_cast<float>(r.normal());
    f16 const half(plain);
    bf16 const brain(plain);
    switch (type) {
      case weight_type::f32:
        std::memcpy(b, &plain, 4);
        return;
      case weight_type::f16:
        std::memcpy(b, &half, 2);
        return;
      case weight_type::bf16:
        std::memcpy(b, &brain, 2);
        return;
      case weight_type::q6_k:
        put(b + 208, r.normal() / 2048);
        return;
      case weight_type::q2_k:
        put(b + 80, r.normal() / 128);
        put(b + 82, r.normal() / 64);
        return;
      case weight_type::q3_k:
        put(b + 108, r.normal() / 256);
        return;
      case weight_type::iq4_nl:
        put(b, r.normal() / 512);
        return;
      case weight_type::iq4_xs:
        put(b, r.normal() / 8192);
        return;
      case weight_type::tq1_0:
        put(b + 52, r.normal() / 4);
        return;
      case weight_type::tq2_0:
        put(b + 64, r.normal() / 4);
        return;
      case weight_type::mxfp4:
        b[0] = static_cast<std::uint8_t>(120 + b[0] % 8);
        return;
      case weight_type::q5_k:
      case weight_type::q4_k:
        put(b, r.normal() / 512);
        put(b + 2, r.normal() / 64);
        return;
      case weight_type::q4_1:
      case weight_type::q5_1:
        put(b + 2, r.normal() / 2);
        [[fallthrough]];
      default:
        put(b, r.normal() / 16);
    }
  }
  void find_minima(weight_type type, index i) {
    tern::detail::with_block_format(type, [&]<class Format>(Format) {
      if constexpr (Format::has_min) {
        part = Format::granule;
        auto const* b = reinterpret_cast<typename Format::block const*>(m.row(i));
        for (index g = 0; g < m.columns / 32; ++g) {
          float scale[32 / Format::granule], min[32 / Format::granule];
          Format::scales(b[g / (Format::elements / 32)], g % (Format::elements / 32), scale, min);
          for (float e : min) mins.push_back(static_cast<double>(e));
        }
      }
    });
    mins.resize(static_cast<std::size_t>((i + 1) * m.columns / part));
  }
};

inline std::vector<double> rounded_to_bf16(std::vector<double> x) {
  for (double& e : x) e = static_cast<double>(bf16(static_cast<float>(e)));
  return x;
}

/// What each compute type is defined to give.
inline oracle::product expected(std::vector<float> const& x, random_weights const& w, index rows, compute mode) {
  index const n = w.m.rows, k = w.m.columns;
  std::vector<double> const wide = widened(x);
  if (mode == compute::bf16) return oracle::matmul(rounded_to_bf16(wide), rounded_to_bf16(w.decoded), rows, n, k);
  if (mode == compute::f32 || info(w.m.type).elements == 1) return oracle::matmul(wide, w.decoded, rows, n, k);
  std::vector<double> rounded(x.size()), sums;
  for (std::size_t b = 0; b < x.size() / 32; ++b) {
    double const sum = oracle::round_activations(x.data() + 32 * b, rounded.data() + 32 * b);
    auto const at = rounded.begin() + static_cast<std::ptrdiff_t>(32 * b);
    if (w.part == 32)
      sums.push_back(sum);
    else
      for (index j = 0; j < 32; j += 16) sums.push_back(std::accumulate(at + j, at + j + 16, 0.));
  }
  return oracle::matmul_int8(rounded, sums, w.decoded, w.mins, rows, n, k);
}

inline double tolerance(index k) { return matmul_fn::accuracy(k) * 0x1p-24; }

}  // namespace tern::test
