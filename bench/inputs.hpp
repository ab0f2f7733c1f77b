// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file bench/inputs.hpp
/// Inputs that are made quickly, the same in each run, and the places where large results are looked at.

#include "compare.hpp"

#include <cmath>
#include <cstring>
#include <vector>

namespace tern::bench {

/// n numbers, nearly normal (the sum of four uniform ones), with mean 0 and this deviation. Another seed gives others.
inline std::vector<float> fast_normal(index n, double deviation = 1, std::uint64_t seed = 1) {
  test::rng random(seed);
  std::vector<float> x(static_cast<std::size_t>(n));
  auto const scale = static_cast<float>(deviation * std::sqrt(3.0) / 65536);
  for (float& e : x) {
    std::uint64_t const b = random.bits();
    auto const sum = static_cast<std::int32_t>((b & 0xffff) + (b >> 16 & 0xffff) + (b >> 32 & 0xffff) + (b >> 48));
    e = scale * static_cast<float>(sum - 2 * 65535);
  }
  return x;
}

inline void fill_bytes(std::uint8_t* out, std::size_t n) {
  test::rng random(2);
  for (std::size_t i = 0; i < n; i += 8) {
    std::uint64_t const b = random.bits();
    std::memcpy(out + i, &b, n - i < 8 ? n - i : 8);
  }
}

/// About `count` indices of [0, n), the first and the last among them.
inline std::vector<index> sample(index n, index count) {
  std::vector<index> at;
  for (index i = 0; i < count && i < n; ++i) at.push_back(n <= count ? i : i * (n - 1) / (count - 1));
  return at;
}

}  // namespace tern::bench
