// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/pvt.hpp
/// Spatial-reduction attention: all tokens of an image ask a smaller image.
///
///     r = layer_norm(conv_{R x R, stride R}(x)),   [k v] = W r + b,   out = softmax(q k^T / sqrt(dim)) v for each head
///
///     pvt(policy, q, x, shape{height, width}, ratio, weights, reduced, kv, out)
///
/// The convolution is a matrix product of patches: a row of a patch is contiguous in x, so matmul adds up `ratio` products of
/// (patches of a row of patches) x (ratio channels), used where they lie.
///
/// Shapes  q, out (heads, height width, dim), any strides with contiguous rows; x (height width, C) contiguous, C = heads dim; weights:
///         see pvt_weights. reduced (height width / R^2, C) and kv (height width / R^2, 2 C) are memory. f32. R divides both extents.
/// Cost    height width C^2 multiply-adds for the reduction, 1 / R^2 of full attention for the rest.
/// Source  Wang et al. 2021, arXiv:2102.12122; github.com/whai362/PVT, classification/pvt.py.

#include <tern/attention/attention.hpp>
#include <tern/matmul/matmul.hpp>
#include <tern/pointwise/add.hpp>
#include <tern/pointwise/layer_norm.hpp>

namespace tern {
inline namespace TERN_ABI {

/// The parameters of pvt.
struct pvt_weights {
  tensor_view<float const, 4> reduction;        ///< (C out, R, R, C in), contiguous
  tensor_view<float const, 1> reduction_bias;   ///< (C)
  tensor_view<float const, 1> norm, norm_bias;  ///< (C)
  tensor_view<float const, 2> kv;               ///< (2 C, C): keys, then values
  tensor_view<float const, 1> kv_bias;          ///< (2 C)
};

/// pvt(policy, q, x, image, ratio, weights, reduced, kv, out, options...): see the top of this file.
inline constexpr struct pvt_fn {
  template <tensor_like Q, tensor_like O, detail::attention_option... Options>
  void operator()(cpu_policy const& policy, Q&& q, tensor_view<float const, 2> const& x, shape<2> const& image, index ratio,
                  pvt_weights const& weights, tensor_view<float, 2> const& reduced, tensor_view<float, 2> const& kv, O&& out,
                  Options const&... options) const {
    static_assert(view_of<Q>::rank == 3, "tern: pvt takes q (heads, tokens, dim)");
    index const heads = tern::view(q).extent(0), dim = tern::view(q).extent(2), channels = x.extent(1);
    check(x, image, ratio, weights, heads * dim);
    reduce(policy, x, image, ratio, weights, reduced);
    layer_norm(policy, reduced, weights.norm, weights.norm_bias, reduced);
    matmul(policy, reduced, weights.kv, kv);
    add_bias(policy, kv, weights.kv_bias);
    auto const half = [&](index from) TERN_LAMBDA {
      return tensor_view<float const, 3>(kv.data() + from, shape<3>{{heads, kv.extent(0), dim}}, shape<3>{{dim, kv.stride(0), 1}});
    };
    attention(policy, q, half(0), half(channels), out, options...);
  }

 private:
  static void check(tensor_view<float const, 2> const& x, shape<2> const& image, index ratio, pvt_weights const& weights, index channels) {
    constexpr char const* op = "pvt";
    detail::expect(ratio >= 1, op, "the ratio", ratio, "at least 1");
    for (int a = 0; a < 2; ++a)
      detail::expect(image.extents[a] % ratio == 0, op, "an extent of the image", image.extents[a], "a multiple of the ratio");
    detail::expect_equal(op, "x.extent(0)", x.extent(0), "the tokens of the image", image.extents[0] * image.extents[1]);
    detail::expect_equal(op, "x.extent(1)", x.extent(1), "heads times dim", channels);
    detail::expect(x.is_contiguous(), op, "x.stride(0)", x.stride(0), "contiguous");
    detail::expect(weights.reduction.is_contiguous(), op, "a stride of the reduction", weights.reduction.stride(0), "contiguous");
    detail::expect_equal(op, "the elements of the reduction", weights.reduction.size(), "C R R C", channels * ratio * ratio * channels);
    detail::expect_equal(op, "the rows of kv", weights.kv.extent(0), "2 C", 2 * channels);
  }
  static void add_bias(cpu_policy const& policy, tensor_view<float, 2> const& y, tensor_view<float const, 1> const& bias) {
    add(policy, y, tensor_view<float const, 2>(bias.data(), shape<2>{{y.extent(0), bias.extent(0)}}, shape<2>{{0, bias.stride(0)}}), y);
  }
  static void reduce(cpu_policy const& policy, tensor_view<float const, 2> const& x, shape<2> const& image, index ratio,
                     pvt_weights const& weights, tensor_view<float, 2> const& reduced) {
    index const channels = x.extent(1), row = ratio * channels, across = image.extents[1] / ratio;
    for (index y = 0; y < image.extents[0]; ++y) {
      tensor_view<float const, 2> const patches(x.data() + y * across * row, shape<2>{{across, row}});
      tensor_view<float const, 2> const taps(weights.reduction.data() + y % ratio * row, shape<2>{{channels, row}},
                                             shape<2>{{ratio * row, 1}});
      auto const to = reduced.slice(0, y / ratio * across, (y / ratio + 1) * across);
      if (y % ratio == 0)
        matmul(policy, patches, taps, to);
      else
        matmul(policy, patches, taps, to, accumulate{});
    }
    add_bias(policy, reduced, weights.reduction_bias);
  }
} pvt{};

}  // namespace TERN_ABI
}  // namespace tern
