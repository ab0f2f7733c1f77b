// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/cache/bounds.hpp
/// How far a stored number may be from what was given, by the format it is stored in.

#include "compare.hpp"

#include <tern/cache/page_format.hpp>

#include <algorithm>

namespace tern::test {

/// The formats' own statements. low and high: the extremes of the block of x, which are x where there are no blocks.
template <class F>
double stored_error(double low, double high, double x) {
  double const most = std::max(std::abs(low), std::abs(high));
  double const scale_rounding = 0x1p-11 * most + 0x1p-18;  // of a scale in f16, times a code of up to 127
  if constexpr (std::is_same_v<F, formats::keys8> || std::is_same_v<F, formats::values8> || std::is_same_v<F, formats::q8_0>)
    return most / 254 * 1.00001 + scale_rounding;
  else if constexpr (std::is_same_v<F, formats::keys4> || std::is_same_v<F, formats::values4>)
    return most / 15 * 1.00001 + scale_rounding;
  else if constexpr (std::is_same_v<F, formats::q4_0>)
    return most / 8 * 1.00001 + scale_rounding;  // the far end of the side that has one code less
  else if constexpr (std::is_same_v<F, formats::values2>)
    return (high - low) / 6 * 1.00001 + 2 * scale_rounding;
  else
    return detail::storage_rounding<F> * std::abs(x) + detail::storage_least<F>;
}

/// Whether a row as stored is what was given, within the format's error.
template <class F>
bool stored_well(std::vector<float> const& given, std::vector<float> const& stored) {
  constexpr auto block = static_cast<std::ptrdiff_t>(page_format<F>::granule);
  for (auto first = given.begin(); first < given.end(); first += block) {
    auto const [low, high] = std::minmax_element(first, first + block);
    for (auto x = first; x < first + block; ++x) {
      double const error = std::abs(static_cast<double>(stored[static_cast<std::size_t>(x - given.begin())]) - static_cast<double>(*x));
      if (!(error <= stored_error<F>(static_cast<double>(*low), static_cast<double>(*high), static_cast<double>(*x)))) return false;
    }
  }
  return true;
}

}  // namespace tern::test
