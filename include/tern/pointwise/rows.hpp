// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file pointwise/rows.hpp
/// What the pointwise kernels share: a tensor seen as rows of contiguous elements, walking a row by packs, and the decision to
/// use threads. The last dimension is the row; leading dimensions have any strides.
///
/// Work is cut into pieces of about `grain` elements, by shape alone. Less than two of them run on the calling thread: one
/// row of a language model's activations costs less than waking a thread.

#include <tern/core/parallel_for.hpp>
#include <tern/core/tensor_view.hpp>
#include <tern/simd/convert.hpp>
#include <tern/simd/pack.hpp>

#include <type_traits>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// Elements that a thread takes at a time: a few microseconds of work.
inline constexpr index pointwise_grain = 16384;

[[noreturn]] TERN_COLD inline void fail_stride(char const* op, char const* argument, int dimension, index was) {
  (message() << op << ": " << argument << ".stride(" << dimension << ") is " << was << ", expected 1: rows are contiguous").fail();
}
[[noreturn]] TERN_COLD inline void fail_extent(char const* op, char const* argument, int dimension, index was, char const* other,
                                               int other_dimension, index wanted) {
  (message() << op << ": " << argument << ".extent(" << dimension << ") is " << was << ", expected " << other << ".extent("
             << other_dimension << ") = " << wanted)
      .fail();
}

/// Fails unless the last dimension of `v` is contiguous.
template <class T, int Rank>
TERN_INLINE void expect_rows(char const* op, char const* argument, tensor_view<T, Rank> const& v) {
  static_assert(float_storage<T>, "tern: elements are float, tern::f16 or tern::bf16");
  if (v.extent(Rank - 1) > 1 && v.stride(Rank - 1) != 1) [[unlikely]]
    fail_stride(op, argument, Rank - 1, v.stride(Rank - 1));
}
/// Fails unless dimension `d` of `v` is as long as dimension `e` of `w`.
template <class T, int Rank, class U, int OtherRank>
TERN_INLINE void expect_extent(char const* op, char const* argument, tensor_view<T, Rank> const& v, int d, char const* other,
                               tensor_view<U, OtherRank> const& w, int e) {
  if (v.extent(d) != w.extent(e)) [[unlikely]]
    fail_extent(op, argument, d, v.extent(d), other, e, w.extent(e));
}
/// Fails unless `v` has contiguous rows and the extents of `w`.
template <class T, class U, int Rank, int OtherRank>
TERN_INLINE void expect_like(char const* op, char const* argument, tensor_view<T, Rank> const& v, char const* other,
                             tensor_view<U, OtherRank> const& w) {
  static_assert(Rank == OtherRank, "tern: these tensors need the same number of dimensions");
  expect_rows(op, argument, v);
  for (int d = 0; d < Rank; ++d) expect_extent(op, argument, v, d, other, w, d);
}

/// A tensor as `count` rows of `n` elements, in row-major order of the leading indices.
template <class T, int Rank>
struct row_list {
  tensor_view<T, Rank> v;
  index n;
  index count;

  TERN_INLINE explicit row_list(tensor_view<T, Rank> const& x) : v(x), n(x.extent(Rank - 1)), count(1) {
    for (int d = 0; d < Rank - 1; ++d) count *= x.extent(d);
  }
  TERN_INLINE T* operator[](index row) const {
    if constexpr (Rank == 1) {
      return v.data();
    } else if constexpr (Rank == 2) {
      return v.data() + row * v.stride(0);
    } else {
      T* p = v.data();
      for (int d = Rank - 2; d > 0; --d) {
        p += row % v.extent(d) * v.stride(d);
        row /= v.extent(d);
      }
      return p + row * v.stride(0);
    }
  }
};

/// Calls body(row) for each of `rows` rows that cost as much as `n` elements each, on threads where that pays.
template <class Body>
TERN_INLINE void for_rows(cpu_policy const& policy, index rows, index n, Body&& body) {
  index const cost = n > 0 ? n : 1;
  index const chunk = rows * cost < 2 * pointwise_grain ? rows : (pointwise_grain + cost - 1) / cost;
  if (chunk >= rows) {
    for (index r = 0; r < rows; ++r) body(r);
    return;
  }
  parallel_for(policy, (rows + chunk - 1) / chunk, [&](index item, index) TERN_LAMBDA {
    index const end = (item + 1) * chunk < rows ? (item + 1) * chunk : rows;
    for (index r = item * chunk; r < end; ++r) body(r);
  });
}

/// Calls body(row, begin, end) for pieces of rows of `n` elements, where elements do not depend on each other.
template <class Body>
TERN_INLINE void for_pieces(cpu_policy const& policy, index rows, index n, Body&& body) {
  index const pieces = n < 2 * pointwise_grain ? 1 : n / pointwise_grain;
  index const length = (n / pieces + simd::lanes) / simd::lanes * simd::lanes;  // pieces * length > n
  for_rows(policy, rows * pieces, n / pieces, [&](index item) TERN_LAMBDA {
    index const begin = item % pieces * length;
    index const end = begin + length < n ? begin + length : n;
    if (begin < end) body(item / pieces, begin, end);
  });
}

/// A whole register of elements, or its first n.
struct whole_pack {};
struct part_pack {
  index n;
};
template <class T>
TERN_INLINE simd::pack<float> load(T const* p, whole_pack) {
  return simd::load(p);
}
template <class T>
TERN_INLINE simd::pack<float> load(T const* p, part_pack part) {
  return simd::load_n(p, part.n);
}
template <class T>
TERN_INLINE void store(T* p, simd::pack<float> x, whole_pack) {
  simd::store(p, x);
}
template <class T>
TERN_INLINE void store(T* p, simd::pack<float> x, part_pack part) {
  simd::store_n(p, x, part.n);
}

/// x in the lanes that exist, `other` in those past the end.
TERN_INLINE simd::pack<float> or_else(simd::pack<float> x, float, whole_pack) { return x; }
TERN_INLINE simd::pack<float> or_else(simd::pack<float> x, float other, part_pack part) {
  return simd::select(simd::iota<float>() < simd::pack<float>(static_cast<float>(part.n)), x, simd::pack<float>(other));
}

/// What n elements leave for a part of a register: written so that the compiler sees its range.
TERN_INLINE index rest_of(index n) { return static_cast<index>(static_cast<std::size_t>(n) % static_cast<std::size_t>(simd::lanes)); }

/// Calls body(i, which) for i = begin, begin + lanes, ...: the last call may stand for a part of a register.
template <class Body>
TERN_INLINE void each_pack(index begin, index end, Body&& body) {
  index i = begin;
  for (; i + simd::lanes <= end; i += simd::lanes) body(i, whole_pack{});
  if (i < end) body(i, part_pack{rest_of(end - begin)});
}

/// y = x, with rounding where y's type is narrower.
template <class X, class Y>
TERN_INLINE void convert_row(X const* x, Y* y, index n) {
  each_pack(0, n, [&](index i, auto part) TERN_LAMBDA { store(y + i, load(x + i, part), part); });
}

/// The sum over a row of term(i, which), a pack that is zero past the end. Four sums run side by side, so a sum of n terms
/// of one sign is within (n / (4 lanes) + 3 + log2(lanes)) 2^-24 of exact, relatively.
template <class Term>
TERN_INLINE float sum_packs(index n, Term&& term) {
  using simd::lanes;
  simd::pack<float> a(0.f), b(0.f), c(0.f), d(0.f);
  index i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    a += term(i, whole_pack{});
    b += term(i + lanes, whole_pack{});
    c += term(i + 2 * lanes, whole_pack{});
    d += term(i + 3 * lanes, whole_pack{});
  }
  for (; i + lanes <= n; i += lanes) a += term(i, whole_pack{});
  if (i < n) b += term(i, part_pack{rest_of(n)});
  return simd::reduce_add((a + b) + (c + d));
}
/// The sum of the squares of n elements.
template <class T>
TERN_INLINE float sum_squares(T const* x, index n) {
  return sum_packs(n, [&](index i, auto part) TERN_LAMBDA {
    simd::pack<float> const e = load(x + i, part);
    return e * e;
  });
}
/// The relative error of `sum_packs` over n terms of one sign, whatever the lane count (it is largest for the narrowest).
constexpr double sum_error(index n) { return 0x1p-24 * (static_cast<double>(n) / 8 + 8); }

}  // namespace TERN_ABI
}  // namespace detail
}  // namespace tern
