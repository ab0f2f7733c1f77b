// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file core/random.hpp
/// A small random generator: SplitMix64, a counter that steps by a constant and is mixed. The same seed gives the same
/// numbers on every machine and compiler. Its state is eight bytes: copy it to repeat, keep it to go on.
///
/// Any generator of uniform 64-bit numbers, std::mt19937_64 for one, stands in its place wherever tern draws.
/// Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014. Not for cryptography.

#include <tern/core/config.hpp>

#include <concepts>
#include <cstdint>

namespace tern {

/// A generator of uniform 64-bit numbers.
template <class G>
concept random_generator = requires(G& g) {
  { g() } -> std::unsigned_integral;
  requires sizeof(g()) == 8;
  requires G::min() == 0 && G::max() == ~std::uint64_t{0};
};

/// SplitMix64.
class random {
 public:
  using result_type = std::uint64_t;

  TERN_INLINE constexpr explicit random(std::uint64_t seed = 0) : state_(seed) {}

  TERN_INLINE static constexpr std::uint64_t min() { return 0; }
  TERN_INLINE static constexpr std::uint64_t max() { return ~std::uint64_t{0}; }

  /// The next 64 bits.
  TERN_INLINE constexpr std::uint64_t operator()() {
    std::uint64_t z = (state_ += step);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  /// What random(seed) gives after n numbers before it: in any order, from any thread.
  TERN_INLINE static constexpr std::uint64_t at(std::uint64_t seed, std::uint64_t n) { return random(seed + n * step)(); }

 private:
  static constexpr std::uint64_t step = 0x9e3779b97f4a7c15u;
  std::uint64_t state_;
};

/// A uniform number in [0, 1): the upper 53 of the generator's next 64 bits.
template <random_generator G>
TERN_INLINE constexpr double uniform(G& g) {
  return static_cast<double>(g() >> 11) * 0x1p-53;
}

}  // namespace tern
