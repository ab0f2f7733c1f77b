// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/dlgsanet.hpp
/// Sparse global self-attention (SparseGSA): channels, not pixels, are what attends, and a ReLU leaves only similarities above zero.
///
///     out = relu(t_h qn kn^T) v,   qn, kn: each row of q and k divided by its length;  c x c for each head, no softmax
///
///     dlgsanet(policy, q, k, v, out, divisors)         divisors = 1 / t_h
///
/// Shapes  q, k, v, out (heads, channels of a head, pixels), or with a batch in front: what a feature map (channels, height, width)
///         is already, as a view. A map that stores the channels of a pixel together has to be transposed first, since the
///         pixels of a channel have to be contiguous here. divisors (heads), f32: the model learns t_h.
/// Notes   the module's convolutions are the caller's, and so are the overlapping tiles of 48 to 96 pixels that the authors' code
///         cuts large images into when it tests: one call for each.
///
/// The paper's other half, local dynamic attention (MHDLSA): each pixel has a kernel of its own, which the channels of a head share and
/// which the caller's convolutions predict. Nothing stands for what lies outside of the image.
///
///     out_p = sum over offsets (y, x) of weights_p(y, x) v_(p + (y, x)),   |y|, |x| <= kernel / 2
///
///     dlgsanet_local(policy, weights, v, out, shape{height, width}, kernel)
///
/// Shapes  v, out (heads, pixels, channels of a head), pixels row-major; weights (heads, pixels, kernel^2), f32, row-major.
/// Cost    (8 + kernel - 1)^2 instead of kernel^2 products for each pixel and channel: the engine takes 8 x 8 pixels together.
/// Errors  a kernel that is even or below 1; weights and images that do not fit.
///
/// Source  Li et al. 2023, arXiv:2301.02031; github.com/NeonLeexiang/DLGSANet, SparseAttention.

#include <tern/attention/attention.hpp>
#include <tern/attention/cosine.hpp>
#include <tern/attention/halo.hpp>
#include <tern/attention/relative_table.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// A score modifier: the query's own weight of a key's offset in place of the score, -inf out of its kernel's reach.
struct local_weights {
  tensor_view<float const, 3> weights;  // (heads, pixels, kernel^2)
  token_places<2> places;
  index kernel;

  TERN_INLINE floats operator()(floats, score_at const& at) const {
    ints of[2] = {}, x[2] = {};
    places.split(ints(static_cast<std::int32_t>(at.query)), of);
    places.split(at.key(), x);
    auto const reach = static_cast<std::int32_t>(kernel / 2), row = static_cast<std::int32_t>(kernel);
    ints const dy = x[0] - of[0], dx = x[1] - of[1];
    float const* const own = weights.data() + at.head * weights.stride(0) + at.query * weights.stride(1);
    floats const w = add_entries(floats(0.f), own, (dy + ints(reach)) * ints(row) + dx + ints(reach), row * row - 1);
    floats const far = simd::max(simd::abs(simd::to_float(dy)), simd::abs(simd::to_float(dx)));
    return simd::select(far > floats(static_cast<float>(reach)), floats(negative_infinity), w);
  }
  TERN_INLINE void check(attention_shape const& n) const {
    expect(kernel >= 1 && kernel % 2 == 1, "attention", "the kernel of dlgsanet_local", kernel, "an odd number");
    expect_table_tokens(n);
    expect_equal("attention", "the batch of v", n.batch, "that of dlgsanet_local", 1);
    expect_equal("attention", "the heads of dlgsanet_local's weights", weights.extent(0), "the heads of v", n.heads);
    expect_equal("attention", "the pixels of dlgsanet_local's weights", weights.extent(1), "the pixels of v", n.tokens);
    expect_equal("attention", "the last extent of dlgsanet_local's weights", weights.extent(2), "kernel^2", kernel * kernel);
    expect(weights.extent(2) <= 1 || weights.stride(2) == 1, "attention", "the last stride of dlgsanet_local's weights", weights.stride(2),
           "1 (contiguous rows)");
  }
};

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// dlgsanet(policy, q, k, v, out, divisors, options...): see the top of this file.
inline constexpr struct dlgsanet_fn {
  template <tensor_like Q, detail::key_source K, detail::key_source V, tensor_like O, tensor_like T, detail::attention_option... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, T&& divisors, Options const&... options) const {
    attention(policy, q, k, v, out, cosine{divisors}, scale{1}, relu{}, options...);
  }
} dlgsanet{};

/// dlgsanet_local(policy, weights, v, out, image, kernel): see the top of this file.
inline constexpr struct dlgsanet_local_fn {
  template <tensor_like W, tensor_like V, tensor_like O>
  void operator()(cpu_policy const& policy, W&& weights, V&& v, O&& out, shape<2> const& image, index kernel) const {
    auto const of = tern::view(v);
    auto const none = of.slice(2, 0, 0);  // no products: (heads, pixels, 0)
    index const reach = kernel / 2;
    attention(policy, none, none, of, out, identity{}, halo<2>{image, detail::same_extents<2>(8), detail::same_extents<2>(reach)},
              detail::local_weights{tern::view(weights), detail::token_places<2>(image), kernel});
  }
} dlgsanet_local{};

}  // namespace TERN_ABI
}  // namespace tern
