// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/tokens_for_share.hpp
/// How many tokens have most of the scores, and which (top-p).
///
///     tokens_for_share(scores, share)                              the least p for which the p largest have `share` of the sum
///     select_tokens_for_share(policy, scores, share, protect{1}, kept)    these tokens, of each sample
///
/// Shapes    scores (tokens), or (samples, tokens), f32, none negative; kept as in select_tokens.hpp, as are ties and samples that end
///           with -inf. Sums are made in f64. A share of 0 takes none, one of 1 all above 2^-40 of the sum.
/// Protected tokens stay besides, and the share is that of the others.
/// NaN       takes all.
/// Cost      five passes over the scores, and those of select_top.
/// Source    top-p as in ZipVL (arXiv:2410.08584).

#include <tern/tokens/select_tokens.hpp>

namespace tern {
inline namespace TERN_ABI {

/// The least p for which the p largest of the scores have `share` of their sum: see the top of this file.
inline index tokens_for_share(tensor_view<float const, 1> const& scores, double share) {
  detail::expect_share("tokens_for_share", "share in percent", share);
  index const n = scores.extent(0);
  double sum = 0;
  for (index j = 0; j < n; ++j) sum += scores[j] > 0 || scores[j] != scores[j] ? static_cast<double>(scores[j]) : 0;
  if (sum != sum) return n;
  double const goal = share * sum * (1 - 0x1p-40);  // whatever the order of the sum
  double above = 0;                                 // the sum of those that are larger than what `order` stands for, and how many they are
  index count = 0;
  std::uint32_t order = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    double mass[256] = {};
    index histogram[256] = {};
    std::uint32_t const higher = shift == 24 ? 0 : ~std::uint32_t{0} << (shift + 8);
    for (index j = 0; j < n; ++j) {
      std::uint32_t const x = detail::order_of(scores[j]);
      if ((x & higher) != order) continue;
      mass[(x >> shift) & 255u] += scores[j] > 0 ? static_cast<double>(scores[j]) : 0;
      ++histogram[(x >> shift) & 255u];
    }
    std::uint32_t digit = 255;
    for (; digit > 0 && above + mass[digit] < goal; --digit) {
      above += mass[digit];
      count += histogram[digit];
    }
    order |= digit << shift;
  }
  std::uint32_t const bits = order + 0x007fffffu;
  auto const value = static_cast<double>(std::bit_cast<float>((bits >> 31) != 0 ? bits & 0x7fffffffu : ~bits));
  for (; above < goal && count < n && value > 0; ++count) above += value;
  return count;
}

/// See the top of this file.
inline constexpr struct select_tokens_for_share_fn {
  void operator()(cpu_policy const& policy, tensor_view<float const, 2> const& scores, double share, protect const& always,
                  index_lists const& kept) const {
    constexpr char const* op = "select_tokens_for_share";
    detail::expect_share(op, "share in percent", share);
    detail::check_room(op, scores.extent(0), kept);
    detail::check_protect(op, always);
    detail::for_rows(policy, scores.extent(0), 4 * scores.extent(1), [&](index b) TERN_LAMBDA {
      kept.counts[b] = static_cast<std::int32_t>(
          detail::select_between(scores[b], kept.most(), always, kept.room(b),
                                 [&](tensor_view<float const, 1> const& s, index room, tensor_view<std::int32_t, 1> const& to) TERN_LAMBDA {
                                   index const p = tokens_for_share(s, share);
                                   return select_top(s, p < room ? p : room, to);
                                 }));
    });
  }
} select_tokens_for_share{};

}  // namespace TERN_ABI
}  // namespace tern
