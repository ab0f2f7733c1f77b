// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/options.hpp
/// What a matmul call may carry beside x, w and y, in any order: a compute type, `accumulate`, what happens to x before the product
/// (prologues, in the order in which they are given), and what happens to y after it (epilogues, likewise), while it is in cache.
///
///     struct my_prologue {
///       void check(index rows, index k) const;                  // fails where the shapes do not fit
///       void prepare(float* x, index row, index k) const;       // one row, in place
///     };
///     struct my_epilogue {
///       void check(index rows, index n) const;
///       void finish(float* y, index row, index n0, index n1) const;   // y[0] is y(row, n0), y[n1 - n0 - 1] is y(row, n1 - 1)
///     };
///
/// Both run on several threads, and must not throw. With prologues, x is copied once (rows k floats); epilogues cost no pass over memory.
/// Options hold views: what they refer to must live as long as the call.

#include <tern/matmul/types.hpp>

namespace tern {

/// Changes rows of x before a product.
template <class P>
concept matmul_prologue = requires(P const& p, index i, float* x) {
  p.check(i, i);
  p.prepare(x, i, i);
};
/// Changes rows of y after a product.
template <class E>
concept matmul_epilogue = requires(E const& e, index i, float* y) {
  e.check(i, i);
  e.finish(y, i, i, i);
};

namespace detail {
inline namespace TERN_ABI {

/// A prologue or an epilogue whose type only the caller knows.
struct any_prologue {
  void const* object;
  void (*check)(void const* object, index rows, index k);
  void (*prepare)(void const* object, float* x, index row, index k);
};
struct any_epilogue {
  void const* object;
  void (*check)(void const* object, index rows, index n);
  void (*finish)(void const* object, float* y, index row, index n0, index n1);
};
template <class P>
TERN_INLINE any_prologue prologue_of(P const& p) {
  return {&p, [](void const* o, index rows, index k) TERN_LAMBDA { static_cast<P const*>(o)->check(rows, k); },
          [](void const* o, float* x, index row, index k) TERN_LAMBDA { static_cast<P const*>(o)->prepare(x, row, k); }};
}
template <class E>
TERN_INLINE any_epilogue epilogue_of(E const& e) {
  return {&e, [](void const* o, index rows, index n) TERN_LAMBDA { static_cast<E const*>(o)->check(rows, n); },
          [](void const* o, float* y, index row, index n0, index n1) TERN_LAMBDA { static_cast<E const*>(o)->finish(y, row, n0, n1); }};
}

/// y += t b^T beside the main product, t (rows, rank): computed while a piece of y is in cache.
struct side_product {
  any_weights b;  // (n, rank)
  float const* t;
  index t_stride;
};

/// What follows when a piece of y has its sums.
struct matmul_finish {
  static constexpr index most = 8;
  side_product sides[2];
  index side_count = 0;
  any_epilogue epilogues[most];
  index epilogue_count = 0;

  TERN_INLINE void add(any_epilogue const& e) { epilogues[epilogue_count++] = e; }
};

}  // namespace TERN_ABI
}  // namespace detail
}  // namespace tern
