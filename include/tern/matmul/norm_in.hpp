// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/norm_in.hpp
/// Prologues of a matmul that normalize the rows of x, as pointwise/rms_norm.hpp and pointwise/layer_norm.hpp do:
///
///     rms_norm_in{weight, eps}           x_j / sqrt(mean x^2 + eps) * weight_j
///     layer_norm_in{weight, bias, eps}   (x_j - mean x) / sqrt(var x + eps) * weight_j + bias_j
///     scale_in{s}                        x_j s_j     (weights were divided by s: awq_result's input_scales, SmoothQuant)
///     clip_in{limit}                     x_j cut to [-limit, limit]; NaN stays NaN
///
/// weight, bias, s (k): f32, contiguous.
/// Source: Aminabadi et al., "DeepSpeed Inference", 2022 (norm and product in one call; from knowledge); Zhang et al., "Dual Grained
/// Quantization" and Xu et al., "mllm-NPU" (clipping; from knowledge).

#include <tern/pointwise/layer_norm.hpp>
#include <tern/pointwise/rms_norm.hpp>

namespace tern {
inline namespace TERN_ABI {

/// x_j / sqrt(mean x^2 + eps) * weight_j
struct rms_norm_in {
  tensor_view<float const, 1> weight;
  float eps = 1e-6f;

  template <tensor_like V>
  TERN_INLINE explicit rms_norm_in(V const& w, float e = 1e-6f) : weight(tern::view(w)), eps(e) {}
  void check(index, index k) const {
    detail::expect_equal("matmul", "rms_norm_in.weight.extent(0)", weight.extent(0), "x.extent(1)", k);
    detail::expect_rows("matmul", "rms_norm_in.weight", weight);
  }
  void prepare(float* x, index, index k) const { detail::rms_norm_row(x, weight.data(), x, k, eps); }
};

/// (x_j - mean x) / sqrt(var x + eps) * weight_j + bias_j
struct layer_norm_in {
  tensor_view<float const, 1> weight, bias;
  float eps = 1e-5f;

  template <tensor_like V, tensor_like B>
  TERN_INLINE layer_norm_in(V const& w, B const& b, float e = 1e-5f) : weight(tern::view(w)), bias(tern::view(b)), eps(e) {}
  void check(index, index k) const {
    detail::expect_equal("matmul", "layer_norm_in.weight.extent(0)", weight.extent(0), "x.extent(1)", k);
    detail::expect_equal("matmul", "layer_norm_in.bias.extent(0)", bias.extent(0), "x.extent(1)", k);
    detail::expect_rows("matmul", "layer_norm_in.weight", weight);
    detail::expect_rows("matmul", "layer_norm_in.bias", bias);
  }
  void prepare(float* x, index, index k) const { detail::layer_norm_row(x, weight.data(), bias.data(), x, k, eps); }
};

/// x_j s_j
struct scale_in {
  tensor_view<float const, 1> scales;

  template <tensor_like V>
  TERN_INLINE explicit scale_in(V const& s) : scales(tern::view(s)) {}
  void check(index, index k) const {
    detail::expect_equal("matmul", "scale_in.extent(0)", scales.extent(0), "x.extent(1)", k);
    detail::expect_rows("matmul", "scale_in", scales);
  }
  void prepare(float* x, index, index k) const {
    float const* const s = scales.data();
    detail::each_pack(
        0, k, [&](index i, auto part) TERN_LAMBDA { detail::store(x + i, detail::load(x + i, part) * detail::load(s + i, part), part); });
  }
};

/// x_j cut to [-limit, limit]
struct clip_in {
  float limit;

  TERN_INLINE explicit clip_in(float l) : limit(l) {}
  void check(index, index) const {
    if (!(limit >= 0.f)) detail::fail("matmul: clip_in.limit is negative or NaN, expected at least 0");
  }
  void prepare(float* x, index, index k) const {
    simd::pack<float> const high(limit), low(-limit);
    detail::each_pack(0, k, [&](index i, auto part) TERN_LAMBDA {
      auto const v = detail::load(x + i, part);
      detail::store(x + i, simd::select(v > high, high, simd::select(v < low, low, v)), part);
    });
  }
};

}  // namespace TERN_ABI
}  // namespace tern
