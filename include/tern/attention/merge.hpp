// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/merge.hpp
/// Attention over two sets of keys from the results over each. With a, b the two outputs and x, y their log-sum-exp:
///
///     lse = log(e^x + e^y),   out = e^(x - lse) a + e^(y - lse) b
///
/// and over any number of sets, with parts and their log-sum-exps stacked along a first dimension:
///
///     lse = log sum_p e^x_p,  out = sum_p e^(x_p - lse) a_p
///
/// Shapes  a, b, out (tokens, dim_v), (heads, tokens, dim_v) or (batch, heads, tokens, dim_v), any strides with contiguous rows;
///         x, y, lse one for each row. Stacked: (parts, ...) and (parts, ...), of one rank more than out and lse. out may be a part,
///         and lse that part's.
/// Empty   a side whose log-sum-exp is -inf is left out, whatever it holds; nothing but such sides gives zeros and -inf.
/// Error   |out - exact| <= 6 u (e^(x - lse) |a| + e^(y - lse) |b|) + u |x - y| min(e^(x - lse), e^(y - lse)) (|a| + |b|);
///         of n parts 6 + n in place of 6, and each part's distance from the largest x in place of |x - y|.
/// Source  state merging as in FlashInfer (arXiv:2501.01005), there to base 2; here all logarithms are natural.

#include <tern/attention/problem.hpp>
#include <tern/core/parallel_for.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// The weights of two sides, and the log-sum-exp of both.
struct merge_weights {
  float a, b, lse;
  TERN_INLINE merge_weights(float x, float y) {
    bool const none = x == negative_infinity && y == negative_infinity;
    float const top = none ? 0 : (x > y || x != x ? x : y);
    simd::pack<float> const log2e(log2_e);
    float ex[simd::lanes], ey[simd::lanes];
    simd::store(ex, exp2_of_nonpositive((simd::pack<float>(x) - simd::pack<float>(top)) * log2e));
    simd::store(ey, exp2_of_nonpositive((simd::pack<float>(y) - simd::pack<float>(top)) * log2e));
    float const sum = ex[0] + ey[0];
    a = none ? 0 : ex[0] / sum;
    b = none ? 0 : ey[0] / sum;
    lse = none ? negative_infinity : top + __builtin_log2f(sum) * ln_2;
  }
};

/// out = w.a a + w.b b; a side of weight zero is not read.
template <class A, class B, class O>
TERN_INLINE void merge_row(merge_weights const& w, A const* a, B const* b, index n, O* out) {
  using packf = simd::pack<float>;
  constexpr index W = simd::lanes;
  for (index d = 0; d < n; d += W) {
    index const some = n - d < W ? n - d : W;
    packf sum(0.f);
    if (!(w.a == 0)) sum = packf(w.a) * (some == W ? simd::load(a + d) : simd::load_n(a + d, some));
    if (!(w.b == 0)) sum = simd::fma(packf(w.b), some == W ? simd::load(b + d) : simd::load_n(b + d, some), sum);
    if (some == W)
      simd::store(out + d, sum);
    else
      simd::store_n(out + d, sum, some);
  }
}

/// The weight of a part relative to the largest log-sum-exp, in all lanes.
TERN_INLINE simd::pack<float> part_weight(float lse, float top) {
  return exp2_of_nonpositive((simd::pack<float>(lse) - simd::pack<float>(top)) * simd::pack<float>(log2_e));
}
/// Elements [d0, d0 + 8 lanes) of sum_p w_p a_p / sum; all parts are read before out is written.
template <class A, class O>
TERN_INLINE void merge_parts_columns(A const* a, index part_stride, float const* lse, index lse_stride, index parts, float top,
                                     simd::pack<float> sum, index n, O* out) {
  using packf = simd::pack<float>;
  constexpr index W = simd::lanes, columns = 8;
  packf acc[columns];
  for (packf& x : acc) x = packf(0.f);
  for (index p = 0; p < parts; ++p) {
    float const x = lse[p * lse_stride];
    if (x == negative_infinity) continue;
    packf const w = part_weight(x, top) / sum;
    for (index c = 0; c < columns && c * W < n; ++c) {
      A const* const from = a + p * part_stride + c * W;
      acc[c] = simd::fma(w, n - c * W < W ? simd::load_n(from, n - c * W) : simd::load(from), acc[c]);
    }
  }
  for (index c = 0; c < columns && c * W < n; ++c)
    if (n - c * W < W)
      simd::store_n(out + c * W, acc[c], n - c * W);
    else
      simd::store(out + c * W, acc[c]);
}
/// One row of all parts; returns its log-sum-exp.
template <class A, class O>
TERN_INLINE float merge_parts_row(A const* a, index part_stride, float const* lse, index lse_stride, index parts, index n, O* out) {
  float top = negative_infinity;
  for (index p = 0; p < parts; ++p) {
    float const x = lse[p * lse_stride];
    if (x > top || x != x) top = x;
  }
  simd::pack<float> sum(0.f);
  for (index p = 0; p < parts; ++p)
    if (lse[p * lse_stride] != negative_infinity) sum += part_weight(lse[p * lse_stride], top);
  for (index d = 0; d < n; d += 8 * simd::lanes) merge_parts_columns(a + d, part_stride, lse, lse_stride, parts, top, sum, n - d, out + d);
  float lane[simd::lanes];
  simd::store(static_cast<float*>(lane), sum);
  return top == negative_infinity ? top : top + __builtin_log2f(lane[0]) * ln_2;
}

template <class X, class Y>
TERN_INLINE void check_merge_extents(char const* name, X const& x, Y const& out, int dims) {
  for (int d = 0; d < dims; ++d) expect_equal("merge", name, x.extent(d), "the same extent of out", out.extent(d));
}
template <class X>
TERN_INLINE void check_merge_rows(char const* name, X const& x) {
  expect(x.extent(3) <= 1 || x.stride(3) == 1, "merge", name, x.stride(3), "1 (contiguous rows)");
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// merge(policy, a, a_lse, b, b_lse, out, out_lse): see the top of this file.
inline constexpr struct merge_fn {
  template <tensor_like A, tensor_like X, tensor_like B, tensor_like Y, tensor_like O, tensor_like Z>
  void operator()(cpu_policy const& policy, A&& a, X&& a_lse, B&& b, Y&& b_lse, O&& out, Z&& out_lse) const {
    constexpr int rank = view_of<O>::rank;
    static_assert(rank >= 2 && rank <= 4 && view_of<A>::rank == rank && view_of<B>::rank == rank && view_of<X>::rank == rank - 1 &&
                      view_of<Y>::rank == rank - 1 && view_of<Z>::rank == rank - 1,
                  "tern: merge takes outputs of rank 2, 3 or 4 and log-sum-exps of one rank less");
    auto const va = detail::with_batch(tern::view(a)), vb = detail::with_batch(tern::view(b));
    auto const vo = detail::with_batch(tern::view(out));
    auto const x = detail::with_batch_lse(tern::view(a_lse)), y = detail::with_batch_lse(tern::view(b_lse));
    auto const z = detail::with_batch_lse(tern::view(out_lse));
    detail::check_merge_extents("an extent of a", va, vo, 4);
    detail::check_merge_extents("an extent of b", vb, vo, 4);
    detail::check_merge_extents("an extent of a_lse", x, vo, 3);
    detail::check_merge_extents("an extent of b_lse", y, vo, 3);
    detail::check_merge_extents("an extent of out_lse", z, vo, 3);
    detail::check_merge_rows("the stride of a's last dimension", va);
    detail::check_merge_rows("the stride of b's last dimension", vb);
    detail::check_merge_rows("the stride of out's last dimension", vo);
    index const heads = vo.extent(1), tokens = vo.extent(2), n = vo.extent(3);
    detail::parallel_for(policy, vo.extent(0) * heads, [&](index item, index) TERN_LAMBDA {
      index const p = item / heads, h = item % heads;
      for (index i = 0; i < tokens; ++i) {
        detail::merge_weights const w(x(p, h, i), y(p, h, i));
        detail::merge_row(w, va[p][h].slice(0, i, i + 1).data(), vb[p][h].slice(0, i, i + 1).data(), n, vo[p][h].slice(0, i, i + 1).data());
        z(p, h, i) = w.lse;
      }
    });
  }

  /// merge(policy, parts, parts_lse, out, out_lse)
  template <tensor_like A, tensor_like X, tensor_like O, tensor_like Z>
  void operator()(cpu_policy const& policy, A&& parts, X&& parts_lse, O&& out, Z&& out_lse) const {
    constexpr int rank = view_of<O>::rank;
    static_assert(rank >= 2 && rank <= 4 && view_of<A>::rank == rank + 1 && view_of<X>::rank == rank && view_of<Z>::rank == rank - 1,
                  "tern: merge takes parts of rank 3, 4 or 5, an output of one rank less, and log-sum-exps of one rank less than theirs");
    auto const a = tern::view(parts);
    auto const x = tern::view(parts_lse);
    auto const vo = detail::with_batch(tern::view(out));
    auto const z = detail::with_batch_lse(tern::view(out_lse));
    index const count = a.extent(0), heads = vo.extent(1), tokens = vo.extent(2), n = vo.extent(3);
    detail::expect_equal("merge", "parts_lse.extent(0)", x.extent(0), "parts.extent(0)", count);
    auto const va = detail::with_batch(a[0]);
    auto const vx = detail::with_batch_lse(x[0]);
    detail::check_merge_extents("an extent of a part", va, vo, 4);
    detail::check_merge_extents("an extent of a part's log-sum-exp", vx, vo, 3);
    detail::check_merge_extents("an extent of out_lse", z, vo, 3);
    detail::check_merge_rows("the stride of parts' last dimension", va);
    detail::check_merge_rows("the stride of out's last dimension", vo);
    detail::parallel_for(policy, vo.extent(0) * heads, [&](index item, index) TERN_LAMBDA {
      index const p = item / heads, h = item % heads;
      for (index i = 0; i < tokens; ++i)
        z(p, h, i) = detail::merge_parts_row(va[p][h].slice(0, i, i + 1).data(), a.stride(0), &vx(p, h, i), x.stride(0), count, n,
                                             vo[p][h].slice(0, i, i + 1).data());
    });
  }
} merge{};

}  // namespace TERN_ABI
}  // namespace tern
