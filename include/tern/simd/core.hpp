// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file simd/core.hpp
/// What the core is, where instructions do not say it: how far ahead memory is best asked for, how large a cache is, whether shuffles cost
/// little. Three were measured: Intel's Sapphire Rapids, known by its matrix registers, AMD's Zen 3, which whatever has AVX2 and no AVX-512
/// is assumed to be like, and AMD's Zen 4, for all others, of any number of lanes.

#include <tern/simd/tiles.hpp>

namespace tern {
inline namespace TERN_ABI {
namespace simd {

/// Otherwise on Zen 3 or Zen 4.
inline constexpr bool on_sapphire_rapids = tiles::exist;
/// Otherwise on one of the others.
inline constexpr bool on_zen3 =
#if defined(TERN_SIMD_AVX2)
    true;
#else
    false;
#endif
/// Of the second cache, which each core has for itself.
inline constexpr index second_cache_bytes = index{1} << (on_sapphire_rapids ? 21 : on_zen3 ? 19 : 20);

}  // namespace simd
}  // namespace TERN_ABI
}  // namespace tern
