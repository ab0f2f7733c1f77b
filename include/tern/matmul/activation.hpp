// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/activation.hpp
/// Epilogues of a matmul that apply a function to each y:
///
///     act::silu   z / (1 + e^-z)        act::gelu        z (1 + erf(z / sqrt 2)) / 2
///     act::relu   max(z, 0)             act::gelu_tanh   z (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))) / 2
///     act::sigmoid, act::tanh, act::squared_relu
///
///     matmul(policy, x, w, y, act::gelu{})
///     matmul(policy, x, up, y, gate{gate_weights, act::silu{}})   y = silu(x gate^T) * (x up^T): GLU, GEGLU, SwiGLU, by function
///     matmul(policy, x, w, y, each{[](simd::pack<float> z) { return z * z; }})   a function of one's own
///
/// Errors of the functions: simd/math.hpp. NaN stays NaN.
/// Source: Shazeer, "GLU Variants Improve Transformer", 2020 (the gates); So et al., "Primer", 2021 (squared_relu).

#include <tern/matmul/operations.hpp>
#include <tern/pointwise/rows.hpp>
#include <tern/simd/math.hpp>

namespace tern {
inline namespace TERN_ABI {

/// y = f(y) for a function of a register.
template <class F>
struct each {
  F f;
  TERN_INLINE explicit each(F const& function) : f(function) {}
  TERN_INLINE void check(index, index) const {}
  void finish(float* y, index, index n0, index n1) const {
    detail::each_pack(0, n1 - n0, [&](index i, auto part) TERN_LAMBDA { detail::store(y + i, f(detail::load(y + i, part)), part); });
  }
};

/// Functions of z, as epilogues and for `gate`.
namespace act {
/// What the functions share: each is an epilogue.
template <class F>
struct function {
  TERN_INLINE void check(index, index) const {}
  void finish(float* y, index row, index n0, index n1) const { each<F>(F{}).finish(y, row, n0, n1); }
};
/// z / (1 + e^-z)
struct silu : function<silu> {
  TERN_INLINE simd::pack<float> operator()(simd::pack<float> z) const { return simd::silu(z); }
};
/// z (1 + erf(z / sqrt 2)) / 2
struct gelu : function<gelu> {
  TERN_INLINE simd::pack<float> operator()(simd::pack<float> z) const { return simd::gelu(z); }
};
/// z (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))) / 2
struct gelu_tanh : function<gelu_tanh> {
  TERN_INLINE simd::pack<float> operator()(simd::pack<float> z) const { return simd::gelu_tanh(z); }
};
/// max(z, 0)
struct relu : function<relu> {
  TERN_INLINE simd::pack<float> operator()(simd::pack<float> z) const {
    return simd::select(z < simd::pack<float>(0.f), simd::pack<float>(0.f), z);
  }
};
/// max(z, 0)^2
struct squared_relu : function<squared_relu> {
  TERN_INLINE simd::pack<float> operator()(simd::pack<float> z) const {
    auto const r = relu{}(z);
    return r * r;
  }
};
/// 1 / (1 + e^-z)
struct sigmoid : function<sigmoid> {
  TERN_INLINE simd::pack<float> operator()(simd::pack<float> z) const { return simd::sigmoid(z); }
};
/// (e^z - e^-z) / (e^z + e^-z)
struct tanh : function<tanh> {
  TERN_INLINE simd::pack<float> operator()(simd::pack<float> z) const { return simd::tanh(z); }
};
}  // namespace act

/// y = f(x w_gate^T) * (x w^T). The gate's product is computed first, into scratch memory of rows n floats.
template <class W, class F = act::silu>
struct gate {
  W weights;  // (n, k)
  F f;
  template <class Weights>
  TERN_INLINE explicit gate(Weights const& w, F const& function = {}) : weights(detail::hold_weights(w)), f(function) {}
};
template <class Weights>
gate(Weights const&) -> gate<detail::held_weights<Weights>>;
template <class Weights, class F>
gate(Weights const&, F const&) -> gate<detail::held_weights<Weights>, F>;

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {
/// y = f(z) * y, z (rows, n).
template <class F>
struct multiply_by {
  F const& f;
  float const* z = nullptr;
  index stride = 0;
  TERN_INLINE void check(index, index) const {}
  void finish(float* y, index row, index n0, index n1) const {
    float const* const g = z + row * stride + n0;
    each_pack(0, n1 - n0, [&](index i, auto part) TERN_LAMBDA { store(y + i, f(load(g + i, part)) * load(y + i, part), part); });
  }
};
}  // namespace TERN_ABI
}  // namespace detail
}  // namespace tern
