// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/dilated.hpp
/// Every stride-th key: a query meets the keys whose distance from it is a multiple of the stride.
///
///     dilated{stride}      (i + offset - j) % stride == 0                          offset = keys - tokens (bottom-right)
///
/// A layout: tokens and keys of the same residue make a group, and pairs of different residues are never touched. Masks and positions
/// count by token and key index: with causal{} it is the strided half of a sparse transformer, with window{stride n} the dilated window
/// of n keys.
/// Limits    stride 1 is dense.
/// Errors    a stride below 1.
/// Cost      tokens keys / stride.
/// Source    Child et al. 2019, Sparse Transformers (arXiv:1904.10509); Beltagy et al. 2020, Longformer (arXiv:2004.05150), section 3.1.

#include <tern/attention/layout.hpp>
#include <tern/attention/options.hpp>

namespace tern {
namespace detail {

/// Tokens and keys of one residue.
struct residue_group {
  static constexpr bool local = false;
  index queries, keys;
  index first_query, first_key, stride;
  TERN_INLINE constexpr index query(index i) const { return first_query + i * stride; }
  TERN_INLINE constexpr index key(index j) const { return first_key + j * stride; }
};

struct bound_dilated {
  static constexpr bool per_head = false;
  index stride, tokens, keys;
  TERN_INLINE constexpr index groups(index, index) const { return stride; }
  TERN_INLINE constexpr residue_group group(index, index, index g) const {
    index const rest = (g - (keys - tokens)) % stride, first = rest < 0 ? rest + stride : rest;
    return {count_from(first, tokens), count_from(g, keys), first, g, stride};
  }

 private:
  TERN_INLINE constexpr index count_from(index first, index n) const { return first < n ? (n - first + stride - 1) / stride : 0; }
};

}  // namespace detail

/// Keys at distances that are multiples of `stride`.
struct dilated {
  index stride;
  TERN_INLINE constexpr detail::bound_dilated over(attention_shape const& n) const { return {stride, n.tokens, n.keys}; }
  TERN_INLINE void check(attention_shape const&) const {
    detail::expect(stride >= 1, "attention", "the stride of dilated", stride, "at least 1");
  }
};

}  // namespace tern
