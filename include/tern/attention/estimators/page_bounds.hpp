// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/estimators/page_bounds.hpp
/// Which pages of a cache may hold keys that matter to a query: an upper bound of its scores, from the smallest and the largest
/// element of each page's keys.
///
///     low_d = min_j k_jd,  high_d = max_j k_jd                over the keys of a logical page
///     bound = sum_d max(q_d low_d, q_d high_d)               >= q . k_j for all of them
///     score of a physical page = the largest bound of its logical pages and of the heads that share its key head
///
///     page_bounds(policy, k, logical, low, high)                       k (k_heads, rows, dim); low, high (k_heads, pages, dim)
///     page_scores(policy, q, low, high, table, page, keys, scores)     q (heads, dim); low, high (pages, k_heads, logical pages, dim)
///
/// Shapes    page_bounds: low and high f32 or bf16, one row for each `logical` keys, the last maybe for fewer; k f32, f16 or bf16. For a
///           page of a pool, k is its rows so far: k = pool[page].slice(1, 0, rows). page_scores: `table` has the pool page of each page
///           of the sequence (in any stride), `page` counts the keys of a physical page and `keys` those of the sequence; scores
///           (k_heads, pages of the sequence) f32. Logical pages that have no key yet are not read.
/// NaN       a NaN among a page's keys may be missed; one in q makes its scores NaN, which selection takes first.
/// Cost      page_bounds one pass over k. page_scores 4 heads dim flop and 8 k_heads dim bytes for each logical page, 4 of them in bf16.
/// Error     |score - exact| <= (dim / lanes + 5) u sum_d |q_d| max(|low_d|, |high_d|), u = 2^-24; bounds are exact in f32. In bf16 they
///           are rounded away from the keys, by less than 2^-7 of themselves (and 2^-133): the score still is a bound.
/// Source    Quest (arXiv:2406.10774), one page a level; LServe (arXiv:2502.14866), logical pages within physical ones, and the largest
///           over the heads of a group.

#include <tern/attention/rows.hpp>
#include <tern/core/tensor_view.hpp>
#include <tern/pointwise/rows.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// The least of the numbers that B has, f32 or bf16, which is not below x.
template <class B>
TERN_INLINE simd::pack<float> rounded_up(simd::pack<float> x) {
  if constexpr (std::is_same_v<B, float>) return x;
  using packi = simd::pack<std::int32_t>;
  packi const bits = simd::bit_cast<std::int32_t>(x), rest(0xffff);
  // Without its last bits a negative number is larger already. Infinity stays.
  packi const up = simd::select(bits < packi(0), bits, bits + rest);
  return simd::bit_cast<float>(up & packi(~0xffff));
}

/// The smallest and the largest of each element of `count` rows.
template <class T, class B>
TERN_INLINE void bound_rows(T const* x, index stride, index count, index dim, B* low, B* high) {
  constexpr index W = simd::lanes;
  using packf = simd::pack<float>;
  for (index d = 0; d < dim; d += W) {
    index const some = dim - d < W ? dim - d : W;
    packf least(-negative_infinity), most(negative_infinity);
    for (index r = 0; r < count; ++r) {
      packf const v = some == W ? simd::load(x + r * stride + d) : simd::load_n(x + r * stride + d, some);
      least = simd::min(v, least);
      most = simd::max(v, most);
    }
    least = -rounded_up<B>(-least);
    most = rounded_up<B>(most);
    if (some == W) {
      simd::store(low + d, least);
      simd::store(high + d, most);
    } else {
      simd::store_n(low + d, least, some);
      simd::store_n(high + d, most, some);
    }
  }
}

/// to[r] = sum_d max(q_rd low_d, q_rd high_d) for R rows of q: by the sign of q it is known which of both is larger.
template <int R, class T, class B>
TERN_INLINE void bounds_of(T const* q, index stride, B const* low, B const* high, index dim, float* to) {
  constexpr index W = simd::lanes;
  using packf = simd::pack<float>;
  packf sum[R];
  TERN_UNROLL
  for (index r = 0; r < R; ++r) sum[r] = packf(0.f);
  auto const add = [&](packf least, packf most, auto const& row) TERN_LAMBDA {
    TERN_UNROLL
    for (index r = 0; r < R; ++r) {
      packf const x = row(q + r * stride);
      sum[r] = simd::fma(x, simd::select(x < packf(0.f), least, most), sum[r]);
    }
  };
  index d = 0;
  for (; d + W <= dim; d += W)
    add(simd::load(low + d), simd::load(high + d), [&](T const* row) TERN_LAMBDA { return simd::load(row + d); });
  if (d < dim)
    add(simd::load_n(low + d, dim - d), simd::load_n(high + d, dim - d),
        [&](T const* row) TERN_LAMBDA { return simd::load_n(row + d, dim - d); });
  simd::reduce_add_each(sum, to);
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// page_bounds(policy, k, logical, low, high): see the top of this file.
inline constexpr struct page_bounds_fn {
  template <tensor_like K, tensor_like L, tensor_like H>
  void operator()(cpu_policy const& policy, K&& k, index logical, L&& low, H&& high) const {
    static_assert(view_of<K>::rank == 3 && view_of<L>::rank == 3 && view_of<H>::rank == 3, "tern: page_bounds takes views of rank 3");
    using stored = typename view_of<L>::value_type;
    static_assert(std::is_same_v<stored, float> || std::is_same_v<stored, bf16>, "tern: page_bounds writes f32 or bf16");
    static_assert(std::is_same_v<typename view_of<H>::value_type, stored>, "tern: low and high are of one type");
    auto const x = tern::view(k);
    auto const least = tern::view(low), most = tern::view(high);
    detail::expect(logical >= 1, "page_bounds", "logical", logical, "at least 1");
    index const heads = x.extent(0), rows = x.extent(1), dim = x.extent(2), pages = detail::divide_up(rows, logical);
    detail::expect(dim <= 1 || x.stride(2) == 1, "page_bounds", "the last stride of k", x.stride(2), "1 (contiguous rows)");
    for (auto const* bound : {&least, &most}) {
      detail::expect(dim <= 1 || bound->stride(2) == 1, "page_bounds", "the last stride of a bound", bound->stride(2),
                     "1 (contiguous rows)");
      detail::expect_equal("page_bounds", "the heads of a bound", bound->extent(0), "those of k", heads);
      detail::expect(bound->extent(1) >= pages, "page_bounds", "the pages of a bound", bound->extent(1),
                     "one for each `logical` rows of k");
      detail::expect_equal("page_bounds", "the dim of a bound", bound->extent(2), "that of k", dim);
    }
    detail::for_rows(policy, heads * pages, logical * dim, [&](index item) TERN_LAMBDA {
      index const h = item / pages, page = item % pages, first = page * logical, left = rows - first;
      detail::bound_rows(x[h].slice(0, first, first + 1).data(), x.stride(1), left < logical ? left : logical, dim,
                         least[h].slice(0, page, page + 1).data(), most[h].slice(0, page, page + 1).data());
    });
  }
} page_bounds{};

/// page_scores(policy, q, low, high, table, page, keys, scores): see the top of this file.
inline constexpr struct page_scores_fn {
  template <tensor_like Q, tensor_like L, tensor_like H, tensor_like S>
  void operator()(cpu_policy const& policy, Q&& q, L&& lows, H&& highs, tensor_view<std::int32_t const, 1> const& table, index page,
                  index keys, S&& scores) const {
    static_assert(view_of<Q>::rank == 2 && view_of<S>::rank == 2, "tern: page_scores takes q (heads, dim) and scores (k_heads, pages)");
    static_assert(view_of<L>::rank == 4 && view_of<H>::rank == 4, "tern: page_scores takes bounds (pages, k_heads, logical pages, dim)");
    auto const x = tern::view(q);
    auto const low = tern::view(lows), high = tern::view(highs);
    auto const to = tern::view(scores);
    index const heads = x.extent(0), k_heads = low.extent(1), dim = x.extent(1), most = low.extent(2);
    detail::expect_divisor("page_scores", "low.extent(1)", k_heads, "a divisor of the heads of q", heads);
    detail::expect_equal("page_scores", "low.extent(3)", low.extent(3), "q.extent(1)", dim);
    for (int d = 0; d < 4; ++d) detail::expect_equal("page_scores", "an extent of high", high.extent(d), "that of low", low.extent(d));
    detail::expect(most >= 1 && page >= 1 && page % most == 0, "page_scores", "page", page, "a multiple of the logical pages");
    index const pages = detail::divide_up(keys, page), logical = page / most, shared = heads / k_heads;
    detail::expect(table.extent(0) >= pages, "page_scores", "table.extent(0)", table.extent(0), "a page for all keys");
    detail::expect_equal("page_scores", "scores.extent(0)", to.extent(0), "low.extent(1)", k_heads);
    detail::expect(to.extent(1) >= pages, "page_scores", "scores.extent(1)", to.extent(1), "one for each page");
    for (index p = 0; p < pages; ++p)
      detail::expect(table[p] >= 0 && table[p] < low.extent(0), "page_scores", "an entry of table", table[p], "a page of the pool");
    detail::for_rows(policy, k_heads * pages, most * shared * dim, [&](index item) TERN_LAMBDA {
      index const h = item / pages, p = item % pages, left = detail::divide_up(keys - p * page, logical), held = table[p];
      float best = detail::negative_infinity;
      for (index l = 0; l < most && l < left; ++l) {
        auto const take = [&](auto R, index i) TERN_LAMBDA {
          float bound[R.value];
          detail::bounds_of<R.value>(x[h * shared + i].data(), x.stride(0), low[held][h][l].data(), high[held][h][l].data(), dim,
                                     static_cast<float*>(bound));
          for (float b : bound) best = b > best || b != b ? b : best;
        };
        index i = 0;
        for (; i + 4 <= shared; i += 4) take(std::integral_constant<int, 4>{}, i);
        for (; i < shared; ++i) take(std::integral_constant<int, 1>{}, i);
      }
      to(h, p) = best;
    });
  }
} page_scores{};

}  // namespace TERN_ABI
}  // namespace tern
