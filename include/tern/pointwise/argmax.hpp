// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file pointwise/argmax.hpp
/// Where the largest of some numbers is.
///
///     index const at = argmax_packs(n, value)        value(i, which): numbers i, i + 1, ... as a pack (each_pack in pointwise/rows.hpp)
///     argmax_packs(n, value, largest)                and which number that is
///
/// Of equal ones the first. NaN is not counted; where there is nothing else, the place is 0 and the largest is -inf. Two passes, of which
/// the second stops where it finds the number: `value` has to give the same twice.

#include <tern/pointwise/rows.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// See the top of this file.
template <class Value>
TERN_INLINE index argmax_packs(index n, Value const& value, float& largest) {
  using pack = simd::pack<float>;
  constexpr float nothing = -__builtin_inff();
  pack most[4] = {pack(nothing), pack(nothing), pack(nothing), pack(nothing)};
  index i = 0;
  for (; i + 4 * simd::lanes <= n; i += 4 * simd::lanes) {
    TERN_UNROLL
    for (index r = 0; r < 4; ++r) most[r] = simd::max(value(i + r * simd::lanes, whole_pack{}), most[r]);
  }
  for (; i + simd::lanes <= n; i += simd::lanes) most[0] = simd::max(value(i, whole_pack{}), most[0]);
  if (i < n) most[1] = simd::max(or_else(value(i, part_pack{n - i}), nothing, part_pack{n - i}), most[1]);
  largest = simd::reduce_max(simd::max(simd::max(most[0], most[1]), simd::max(most[2], most[3])));
  if (!(largest > nothing)) return 0;
  index at = 0;
  while (at + simd::lanes <= n && !simd::any(value(at, whole_pack{}) == pack(largest))) at += simd::lanes;
  float lane[simd::lanes];
  if (at + simd::lanes <= n)
    simd::store(static_cast<float*>(lane), value(at, whole_pack{}));
  else
    simd::store(static_cast<float*>(lane), or_else(value(at, part_pack{n - at}), nothing, part_pack{n - at}));
  index l = 0;
  while (!(lane[l] == largest)) ++l;
  return at + l;
}
template <class Value>
TERN_INLINE index argmax_packs(index n, Value const& value) {
  float largest;
  return argmax_packs(n, value, largest);
}

}  // namespace TERN_ABI
}  // namespace tern::detail
