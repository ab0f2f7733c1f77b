// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/stochastic_int8.hpp
/// Activations (batch, heads, tokens, dim) in 8 bits, rounded at random so that the mean is right, with a scale and a zero for each head:
///
///     q = floor((x - zero_h) / scale_h + u), in [0, 255],  u uniform in [0, 1)
///     x' = scale_h q + zero_h
///
///     update_head_ranges(x, scale, zero, keep)     zero = min, scale = (max - min) / 255 over a head; min and max may be running
///                                                  means: keep times what (scale, zero) say, and 1 - keep of x's own
///     encode_stochastic_int8(x, seed, codes, scale, zero)
///     decode_stochastic_int8(codes, scale, zero, out)
///
/// Where x lies in the head's range, |x' - x| < scale and the mean of x' over u is x, to 2^-24 scale and f32's rounding; beyond, x is
/// clipped. u of an element depends on the seed and the element's place alone (core/random.hpp), so that results repeat in any order
/// of work. NaN counts as zero_h. A head of equal elements decodes to itself.
///
/// Source: "Mesa: A Memory-saving Training Framework for Transformers", from knowledge.

#include <tern/core/error.hpp>
#include <tern/core/random.hpp>
#include <tern/core/tensor_view.hpp>

#include <cstdint>

namespace tern::formats {
inline namespace TERN_ABI {

namespace detail {

TERN_INLINE void expect_heads(char const* op, index heads, tensor_view<float const, 1> const& scale,
                              tensor_view<float const, 1> const& zero) {
  tern::detail::expect_equal(op, "scale.extent(0)", scale.extent(0), "the heads", heads);
  tern::detail::expect_equal(op, "zero.extent(0)", zero.extent(0), "the heads", heads);
}
template <class A, class B>
TERN_INLINE void expect_same(char const* op, char const* argument, tensor_view<A, 4> const& a, tensor_view<B, 4> const& b) {
  for (int d = 0; d < 4; ++d) tern::detail::expect_equal(op, argument, a.extent(d), "the other's extent", b.extent(d));
}
/// Calls f(indices, the number of the element) in row-major order.
template <class T, class F>
TERN_INLINE void each_element(tensor_view<T, 4> const& x, F&& f) {
  std::uint64_t number = 0;
  for (index b = 0; b < x.extent(0); ++b)
    for (index h = 0; h < x.extent(1); ++h)
      for (index t = 0; t < x.extent(2); ++t)
        for (index e = 0; e < x.extent(3); ++e) f(b, h, t, e, number++);
}
/// t rounded up with the probability of its fraction. 24 random bits are as fine as a fraction of f32 gets above 1/2.
TERN_INLINE std::uint8_t round_at_random(float t, std::uint64_t bits) {
  if (!(t > 0.f)) return 0;
  if (t >= 255.f) return 255;
  int const down = static_cast<int>(t);
  float const fraction = t - static_cast<float>(down);
  return static_cast<std::uint8_t>(down + (static_cast<float>(static_cast<std::int32_t>(bits >> 40)) < fraction * 0x1p24f));
}

}  // namespace detail

/// The range of each head of x; keep in [0, 1): how much of the range that (scale, zero) describe stays.
inline void update_head_ranges(tensor_view<float const, 4> const& x, tensor_view<float, 1> const& scale, tensor_view<float, 1> const& zero,
                               float keep = 0.f) {
  detail::expect_heads("update_head_ranges", x.extent(1), scale, zero);
  tern::detail::expect(keep >= 0.f && keep < 1.f, "update_head_ranges", "keep (in thousandths)", static_cast<index>(keep * 1000.f),
                       "at least 0, less than 1000");
  if (x.size() == 0) return;
  for (index h = 0; h < x.extent(1); ++h) {
    float least = __builtin_inff(), most = -least;
    detail::each_element(x.slice(1, h, h + 1), [&](index b, index, index t, index e, std::uint64_t) TERN_LAMBDA {
      float const v = x(b, h, t, e);
      least = v < least ? v : least;
      most = v > most ? v : most;
    });
    if (!(least <= most)) least = most = 0.f;  // no numbers at all
    if (keep > 0.f) {
      most = keep * (zero[h] + 255.f * scale[h]) + (1.f - keep) * most;
      least = keep * zero[h] + (1.f - keep) * least;
    }
    scale[h] = most / 255.f - least / 255.f;
    zero[h] = least;
  }
}

/// Codes of x under each head's scale and zero.
inline void encode_stochastic_int8(tensor_view<float const, 4> const& x, std::uint64_t seed, tensor_view<std::uint8_t, 4> const& codes,
                                   tensor_view<float const, 1> const& scale, tensor_view<float const, 1> const& zero) {
  detail::expect_heads("encode_stochastic_int8", x.extent(1), scale, zero);
  detail::expect_same("encode_stochastic_int8", "codes.extent", codes, x);
  detail::each_element(x, [&](index b, index h, index t, index e, std::uint64_t number) TERN_LAMBDA {
    codes(b, h, t, e) = detail::round_at_random((x(b, h, t, e) - zero[h]) / scale[h], random::at(seed, number));
  });
}

/// x' of codes: the exact scale q + zero, rounded to f64 and to f32.
inline void decode_stochastic_int8(tensor_view<std::uint8_t const, 4> const& codes, tensor_view<float const, 1> const& scale,
                                   tensor_view<float const, 1> const& zero, tensor_view<float, 4> const& out) {
  detail::expect_heads("decode_stochastic_int8", codes.extent(1), scale, zero);
  detail::expect_same("decode_stochastic_int8", "out.extent", out, codes);
  detail::each_element(codes, [&](index b, index h, index t, index e, std::uint64_t) TERN_LAMBDA {
    out(b, h, t, e) = static_cast<float>(static_cast<double>(scale[h]) * codes(b, h, t, e) + static_cast<double>(zero[h]));
  });
}

}  // namespace TERN_ABI
}  // namespace tern::formats
