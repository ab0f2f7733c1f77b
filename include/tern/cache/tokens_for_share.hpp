// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/tokens_for_share.hpp
/// How many tokens have most of the scores.
///
///     tokens_for_share(scores, share)      the least p for which the p largest of the scores have `share` of their sum
///
/// Shapes    scores (tokens) f32, none negative. Sums are made in f64. A share of 0 takes none, one of 1 all above 2^-40 of the sum.
/// NaN       takes all.
/// Cost      6 passes over the scores for each bit of p.
/// Source    top-p as in ZipVL (arXiv:2410.08584).

#include <tern/attention/index_lists.hpp>

namespace tern {
namespace detail {

/// The sum of the p largest.
TERN_INLINE double sum_of_largest(tensor_view<float const, 1> const& scores, index p) {
  if (p == 0) return 0;
  kth_score const last(scores, p);
  double sum = 0, value = 0;
  for (index j = 0; j < scores.extent(0); ++j) {
    std::uint32_t const x = order_of(scores[j]);
    if (x > last.order) sum += static_cast<double>(scores[j]);
    if (x == last.order) value = static_cast<double>(scores[j]);
  }
  return sum + static_cast<double>(last.equal) * value;
}

}  // namespace detail

/// See the top of this file.
TERN_INLINE index tokens_for_share(tensor_view<float const, 1> const& scores, double share) {
  detail::expect(share >= 0 && share <= 1, "tokens_for_share", "share in percent", static_cast<index>(share * 100), "0 to 100");
  double sum = 0;
  for (index j = 0; j < scores.extent(0); ++j) sum += static_cast<double>(scores[j]);
  index none = -1, enough = scores.extent(0);  // `none` are too few
  while (enough - none > 1) {
    index const p = (none + enough) / 2;
    if (detail::sum_of_largest(scores, p) >= share * sum * (1 - 0x1p-40))  // whatever the order of the sum
      enough = p;
    else
      none = p;
  }
  return enough;
}

}  // namespace tern
