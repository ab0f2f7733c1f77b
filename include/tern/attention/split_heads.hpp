// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/split_heads.hpp
/// What a projection writes, as attention reads it: heads side by side within a row become heads with rows of their own. A view, nothing
/// is copied.
///
///     split_heads(x, heads)      (tokens, heads dim) as (heads, tokens, dim); (batch, tokens, heads dim) as (batch, heads, tokens, dim)
///
/// Errors    rows that the heads do not divide, or that are not contiguous.

#include <tern/core/tensor_view.hpp>

namespace tern {

/// Rows of heads as heads of rows.
template <tensor_like X>
TERN_INLINE auto split_heads(X&& x, index heads) {
  auto const v = tern::view(x);
  constexpr int rank = decltype(v)::rank;
  static_assert(rank == 2 || rank == 3, "tern: split_heads takes (tokens, heads * dim) or (batch, tokens, heads * dim)");
  index const n = v.extent(rank - 1);
  detail::expect(heads > 0 && n % (heads > 0 ? heads : 1) == 0, "split_heads", "the last extent of x", n, "a multiple of the heads");
  detail::expect(n <= 1 || v.stride(rank - 1) == 1, "split_heads", "the last stride of x", v.stride(rank - 1), "1 (contiguous rows)");
  index const dim = n / (heads > 0 ? heads : 1);
  using element = typename decltype(v)::element_type;
  if constexpr (rank == 2)
    return tensor_view<element, 3>(v.data(), shape<3>{{heads, v.extent(0), dim}}, shape<3>{{dim, v.stride(0), 1}});
  else
    return tensor_view<element, 4>(v.data(), shape<4>{{v.extent(0), heads, v.extent(1), dim}},
                                   shape<4>{{v.stride(0), dim, v.stride(1), 1}});
}

}  // namespace tern
