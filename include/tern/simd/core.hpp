// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file simd/core.hpp
/// What the core is, where instructions do not say it: how far ahead memory is best asked for, how large a cache is, whether shuffles cost
/// little. Two were measured: Intel's Sapphire Rapids, known by its matrix registers, and AMD's Zen 4, which all others, of any number of
/// lanes, are assumed to be like.

#include <tern/simd/tiles.hpp>

namespace tern {
inline namespace TERN_ABI {
namespace simd {

/// Otherwise on Zen 4.
inline constexpr bool on_sapphire_rapids = tiles::exist;
/// Of the second cache, which each core has for itself.
inline constexpr index second_cache_bytes = index{1} << (on_sapphire_rapids ? 21 : 20);

}  // namespace simd
}  // namespace TERN_ABI
}  // namespace tern
