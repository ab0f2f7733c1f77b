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

/// What formats/e8p.hpp states: a bound on the squared errors of a block together, and beside it what f16 rounds of its scale.
inline double e8p_error(float const* given) {
  double part[4] = {}, all = 0, sum = 0;
  for (int i = 0; i < 32; ++i) part[i / 8] += std::pow(static_cast<double>(given[i]), 2);
  for (double p : part) all += p;
  double const unit = 0.95 * std::sqrt(all / 32);
  for (double p : part) sum += std::pow(unit + std::max(0., std::sqrt(p) - 1.9 * unit), 2);
  return std::sqrt(sum) * 1.00001 + 0x1p-11 * std::sqrt(all) + 0x1p-18;
}
inline bool e8p_stored_well(float const* given, float const* stored) {
  double sum = 0;
  for (int i = 0; i < 32; ++i) sum += std::pow(static_cast<double>(given[i]) - static_cast<double>(stored[i]), 2);
  return std::sqrt(sum) <= e8p_error(given);
}

/// Whether a row as stored is what was given, within the format's error.
template <class F>
bool stored_well(std::vector<float> const& given, std::vector<float> const& stored) {
  constexpr auto block = static_cast<std::ptrdiff_t>(page_format<F>::granule);
  for (auto first = given.begin(); first < given.end(); first += block) {
    if constexpr (std::is_same_v<F, formats::e8p>) {
      if (!e8p_stored_well(&*first, &stored[static_cast<std::size_t>(first - given.begin())])) return false;
      continue;
    }
    auto const [low, high] = std::minmax_element(first, first + block);
    for (auto x = first; x < first + block; ++x) {
      double const error = std::abs(static_cast<double>(stored[static_cast<std::size_t>(x - given.begin())]) - static_cast<double>(*x));
      if (!(error <= stored_error<F>(static_cast<double>(*low), static_cast<double>(*high), static_cast<double>(*x)))) return false;
    }
  }
  return true;
}

}  // namespace tern::test
