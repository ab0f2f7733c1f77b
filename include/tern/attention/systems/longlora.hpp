// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/longlora.hpp
/// LongLoRA's S2-Attn: causal attention within groups of the text, which half of the heads shift by half a group, so that information
/// passes from group to group.
///
///     heads below heads / 2:    groups [g n, (g + 1) n)
///     the other heads:          groups [g n + n / 2, (g + 1) n + n / 2), and what lies before the first
///
///     tern::attention(policy, q, k, v, out, tern::longlora{n}, tern::causal{});
///
/// The first half group of shifted heads stands alone, as in the authors' kernel path; in their other path, and with `rolls`, it follows
/// the end of the text in one group, as if q, k and v were rolled by -n / 2: the first tokens then see the last ones.
/// Limits    n >= tokens and one head is causal attention.
/// Errors    a size below 1; tokens that are not as many as keys.
/// Cost      heads tokens n / 2 pairs.
/// Source    Chen et al. 2024 (arXiv:2309.12307), section 3.2 and algorithm 1, and the authors' llama_attn_replace for both paths.

#include <tern/attention/even_groups.hpp>

namespace tern {
namespace detail {

/// Half a group in the second half of the heads.
struct half_shift {
  index first_head, shift;
  TERN_INLINE constexpr index operator()(index head) const { return head >= first_head ? shift : 0; }
};

}  // namespace detail

/// Groups of `size` tokens, shifted by half in the second half of the heads.
struct longlora {
  index size;
  bool rolls = false;
  TERN_INLINE constexpr auto over(attention_shape const& n) const { return groups(n).over(n); }
  TERN_INLINE void check(attention_shape const& n) const { groups(n).check(n); }

 private:
  TERN_INLINE constexpr shifted_groups<detail::half_shift> groups(attention_shape const& n) const {
    return {size, {n.heads / 2, size / 2}, rolls};
  }
};

}  // namespace tern
