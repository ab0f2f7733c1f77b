// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/halo.hpp
/// Blocks of an image that see themselves and a halo around: the queries of a block x block square see the keys of a
/// (block + 2 reach) x (block + 2 reach) one.
///
///     halo{shape{height, width}, shape{8, 8}, shape{3, 3}}
///     halo{shape{height, width}, shape{8, 8}, shape{3, 3}, shape{2, 2}}     only every second query along each axis
///
/// The halo ends at the borders of the image; nothing stands for what would lie outside.
///
/// Shapes  k holds the tokens of `image`, row-major; q those at multiples of `stride`, ceil(extent / stride) along each axis. Masks
///         and distances count tokens, which with a stride are not the same for q and k.
/// Errors  a block that is no multiple of the stride, extents below 1, and an image that k does not have.

#include <tern/attention/box.hpp>

namespace tern {
inline namespace TERN_ABI {

/// A layout: see the top of this file.
template <int N>
struct halo {
  static constexpr bool per_head = false;
  shape<N> image, block, reach;
  shape<N> stride = detail::same_extents<N>(1);

  /// The extents of the image of queries.
  TERN_INLINE constexpr shape<N> query_image() const { return over(image, stride); }
  TERN_INLINE constexpr index groups(index, index) const { return detail::tokens_of(over(image, block)); }
  TERN_INLINE constexpr detail::box_group<N> group(index, index, index g) const {
    shape<N> const blocks = over(image, block), coarse = query_image();
    shape<N> begin{}, end{}, from{}, to{};
    detail::digits which{g};
    for (int a = N - 1; a >= 0; --a) {
      index const at = which.next(blocks.extents[a]) * block.extents[a], behind = at + block.extents[a];
      begin.extents[a] = at / stride.extents[a];
      end.extents[a] = detail::smaller(behind / stride.extents[a], coarse.extents[a]);
      from.extents[a] = detail::larger(at - reach.extents[a], 0);
      to.extents[a] = detail::smaller(behind + reach.extents[a], image.extents[a]);
    }
    return {detail::box_of(coarse, begin, end), detail::box_of(image, from, to)};
  }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_at_least("an extent of halo", image, 0);
    detail::expect_at_least("a block of halo", block, 1);
    detail::expect_at_least("the reach of halo", reach, 0);
    detail::expect_at_least("a stride of halo", stride, 1);
    for (int a = 0; a < N; ++a)
      detail::expect(block.extents[a] % stride.extents[a] == 0, "attention", "a block of halo", block.extents[a],
                     "a multiple of its stride");
    detail::expect_equal("attention", "the image of halo", detail::tokens_of(image), "the keys of k", n.keys);
    detail::expect_equal("attention", "the image of halo's queries", detail::tokens_of(query_image()), "the tokens of q", n.tokens);
  }

 private:
  TERN_INLINE static constexpr shape<N> over(shape<N> const& n, shape<N> const& by) {
    shape<N> all{};
    for (int a = 0; a < N; ++a) all.extents[a] = (n.extents[a] + by.extents[a] - 1) / by.extents[a];
    return all;
  }
};
template <int N>
halo(shape<N>, shape<N>, shape<N>) -> halo<N>;
template <int N>
halo(shape<N>, shape<N>, shape<N>, shape<N>) -> halo<N>;

}  // namespace TERN_ABI
}  // namespace tern
