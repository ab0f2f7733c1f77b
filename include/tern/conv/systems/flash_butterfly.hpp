// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/systems/flash_butterfly.hpp
/// FlashButterfly's learned extension: the Fourier transform of a long convolution is a product of block-diagonal matrices, and any such
/// product may stand in its place.
///
///     y = B^-1 (k_f . (B u))                                    . by place
///
///     flash_butterfly(policy, u, k_f, b, back, y)               b and back: monarch_plan (conv/monarch.hpp), forward and inverse
///     flash_butterfly(policy, u, k_f, b, back, y, compute::bf16)
///
/// `back` undoes B where it does so by its factors: B^-1 is learned too, or made from B. With exact transforms, and k_f = monarch(k), it is
/// the circular convolution of N samples, or, n samples being followed by zeros up to N >= 2 n - 1, the causal one: tern::long_conv is
/// that, faster by far. The squashed and smoothed kernels of the paper are filters for either.
///
/// Shapes  u, y (batch, channels, n), n <= N, samples contiguous, f32; k_f complex (channels, N) in the order of the plan. y may be u.
/// Errors  extents that do not fit; plans of other sizes, or the wrong way around.
/// Memory, cost, error  as in conv/monarch.hpp, twice. A row of 4096 samples takes 100 us where the two factors of 64 have a block for
///         each place, 68 us where blocks are shared (AVX-512, one thread).
/// Source  Fu et al., "Simple Hardware-Efficient Long Convolutions for Sequence Modeling", 2023, arXiv:2302.06646, abstract.

#include <tern/conv/monarch.hpp>
#include <tern/pointwise/rows.hpp>

namespace tern {
inline namespace TERN_ABI {

/// flash_butterfly(policy, u, k_f, b, back, y, mode = compute::f32): see the top of this file.
inline constexpr struct flash_butterfly_fn {
  template <tensor_like K>
  void operator()(cpu_policy const& policy, tensor_view<float const, 3> const& u, K const& k_f, monarch_plan const& b,
                  monarch_plan const& back, tensor_view<float, 3> const& y, compute mode = compute::f32) const {
    constexpr char const* op = "flash_butterfly";
    static_assert(detail::complex_storage<typename view_of<K const>::element_type>, "tern: flash_butterfly takes a complex k_f");
    auto const spectra = detail::rows_of(op, "k_f", tern::view(k_f), 2);
    detail::expect_direction(op, b, fft_direction::forward);
    detail::expect_direction(op, back, fft_direction::inverse);
    detail::expect_equal(op, "the factors of back", back.factors(), "those of b", b.factors());
    for (int s = 0; s < b.factors(); ++s) detail::expect_equal(op, "a size of back", back.stage(s).n, "that of b", b.stage(s).n);
    detail::expect_like(op, "y", y, "u", u);
    detail::expect_rows(op, "u", u);
    detail::expect(u.extent(2) <= b.size(), op, "u.extent(2)", u.extent(2), "at most b.size()");
    detail::expect_complex(op, "k_f.extent(0)", "k_f.extent(1)", "k_f.stride(1)", spectra, "u.extent(1)", u.extent(1), b.size());
    index const channels = u.extent(1);
    detail::monarch_stage const& last = b.stage(b.factors() - 1);
    for (index batch = 0; batch < u.extent(0); ++batch)
      detail::each_monarch_rows(policy, b, mode, back.matmul_bytes(mode), channels,
                                [&](cpu_policy const& one, index first, index end, float* from, float* other) TERN_LAMBDA {
                                  detail::load_real(b.stage(0), u[batch].slice(0, first, end), from);
                                  float* const z = b.run(one, end - first, mode, from, other);
                                  detail::each_complex(last, end - first, z, [&](index row, index place, float* pair) TERN_LAMBDA {
                                    float const* const k = spectra.data + (first + row) * spectra.row_stride + 2 * place;
                                    float const re = pair[0] * k[0] - pair[1] * k[1];
                                    pair[1] = pair[0] * k[1] + pair[1] * k[0];
                                    pair[0] = re;
                                  });
                                  detail::store_real(back.stage(0), back.run(one, end - first, mode, z, z == from ? other : from),
                                                     y[batch].slice(0, first, end));
                                });
  }
} flash_butterfly{};

}  // namespace TERN_ABI
}  // namespace tern
