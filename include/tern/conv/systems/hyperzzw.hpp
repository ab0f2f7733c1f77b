// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/systems/hyperzzw.hpp
/// The HyperZZW operator: a hidden activation Z times a hyper-kernel W, element by element, is the kernel that Z is convolved with.
///
///     y_bc = (w_c .* z_bc) * z_bc
///
///     hyperzzw(policy, z, w, y, options...)          sequences: a causal convolution; long_mode and other options of long_conv
///     hyperzzw(policy, z, w, y)                      images: zeros around, tap ((height - 1) / 2, (width - 1) / 2) on each position
///     hyperzzw_product(policy, z, w, y)              square images: the product of the matrices w_c .* z_bc and z_bc
///     hyperzzw_local(policy, z, w, y, options...)    small kernels: w_c .* z_bc, z_bc averaged over as many parts as the kernel has
///                                                    taps; same_padding; other options of depthwise_conv, which correlates: taps
///                                                    are not turned around, as in all convolutions of neural networks
///
/// An image is convolved by depthwise_conv, with a kernel of its own that is turned around: by transforms where they are faster. W comes
/// from a network of positions, such as implicit_filter (conv/long_implicit.hpp).
///
/// Shapes  z, y (batch, channels, n) or (batch, channels, height, width), w (channels, n) or (channels, height, width); hyperzzw_local: w
///         (channels, taps) or (channels, rows, columns). f32, any strides.
/// Errors  extents that do not fit; y that is z.
/// Error   of long_conv, matmul and depthwise_conv, for kernels w .* z that are rounded once.
/// Memory  scratch from the policy: the kernels, as much as z, or the local ones; of hyperzzw_product a channel's.
/// Source  Zhang 2024, "HyperZ.Z.W Operator Connects Slow-Fast Networks for Full Context Interaction", arXiv:2401.17948, for the operator;
///         github.com/hyperevolnet/Terminator, models/modules/hyperzzw.py, whose global one is hyperzzw_product, and magnet.py (MAGNet_L),
///         where local kernels see z as its average by taps. There the average is over the batch too, and passes through layers; and
///         each layer of positions is multiplied with sines of them, where implicit_filter takes sines of it.

#include <tern/conv/depthwise_conv.hpp>
#include <tern/conv/long_conv.hpp>
#include <tern/matmul/matmul.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// The mean of z over part (i, j) of (rows, columns): of whole positions, parts may share their borders.
inline float zzw_mean(tensor_view<float const, 2> const& z, index rows, index columns, index i, index j) {
  index const i0 = i * z.extent(0) / rows, i1 = divide_up((i + 1) * z.extent(0), rows);
  index const j0 = j * z.extent(1) / columns, j1 = divide_up((j + 1) * z.extent(1), columns);
  double sum = 0;
  for (index a = i0; a < i1; ++a)
    for (index b = j0; b < j1; ++b) sum += static_cast<double>(z(a, b));
  return static_cast<float>(sum / static_cast<double>((i1 - i0) * (j1 - j0)));
}

/// A view with an image's height of 1.
template <class T, int Rank>
TERN_INLINE tensor_view<T, Rank + 1> one_row(tensor_view<T, Rank> const& v) {
  shape<Rank + 1> extents{}, strides{};
  for (int d = 0; d < Rank; ++d) {
    int const to = d < Rank - 1 ? d : Rank;
    extents.extents[to] = v.extent(d);
    strides.extents[to] = v.stride(d);
  }
  extents.extents[Rank - 1] = 1;
  return {v.data(), extents, strides};
}

/// Fails unless y is like z and w like one sample of it.
template <int Rank>
inline void check_zzw(char const* op, tensor_view<float const, Rank> const& z, tensor_view<float const, Rank - 1> const& w,
                      tensor_view<float, Rank> const& y) {
  for (int d = 1; d < Rank; ++d) expect_extent(op, "w", w, d - 1, "z", z, d);
  for (int d = 0; d < Rank; ++d) expect_extent(op, "y", y, d, "z", z, d);
  expect_own_memory(op, "y", y, "z", z);
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// hyperzzw(policy, z, w, y, options...): see the top of this file.
inline constexpr struct hyperzzw_fn {
  template <detail::long_option... Options>
  void operator()(cpu_policy const& policy, tensor_view<float const, 3> const& z, tensor_view<float const, 2> const& w,
                  tensor_view<float, 3> const& y, Options const&... options) const {
    detail::check_zzw("hyperzzw", z, w, y);
    if (z.size() == 0) return;
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(z.size()) * sizeof(float));
    auto const kernels = tern::view(reinterpret_cast<float*>(memory.data()), z.extent(0), z.extent(1), z.extent(2));
    detail::parallel_for(policy, z.extent(0) * z.extent(1), [&](index row, index) TERN_LAMBDA {
      index const b = row / z.extent(1), c = row % z.extent(1);
      for (index i = 0; i < z.extent(2); ++i) kernels(b, c, i) = w(c, i) * z(b, c, i);
    });
    long_conv(policy, z, kernels, y, options...);
  }
  void operator()(cpu_policy const& policy, tensor_view<float const, 4> const& z, tensor_view<float const, 3> const& w,
                  tensor_view<float, 4> const& y) const {
    detail::check_zzw("hyperzzw", z, w, y);
    if (z.size() == 0) return;
    index const batch = z.extent(0), channels = z.extent(1), rows = z.extent(2), columns = z.extent(3);
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(z.size()) * sizeof(float));
    auto const turned = tern::view(reinterpret_cast<float*>(memory.data()), batch, channels, rows, columns);
    detail::parallel_for(policy, batch * channels, [&](index row, index) TERN_LAMBDA {
      index const b = row / channels, c = row % channels;
      for (index i = 0; i < rows; ++i)
        for (index j = 0; j < columns; ++j) turned(b, c, rows - 1 - i, columns - 1 - j) = w(c, i, j) * z(b, c, i, j);
    });
    depthwise_conv(policy, z, turned, y, channels_first{}, padding{{rows / 2, (rows - 1) / 2}, {columns / 2, (columns - 1) / 2}});
  }
} hyperzzw{};

/// hyperzzw_product(policy, z, w, y): see the top of this file.
inline constexpr struct hyperzzw_product_fn {
  void operator()(cpu_policy const& policy, tensor_view<float const, 4> const& z, tensor_view<float const, 3> const& w,
                  tensor_view<float, 4> const& y) const {
    detail::check_zzw("hyperzzw_product", z, w, y);
    index const side = z.extent(2);
    detail::expect_equal("hyperzzw_product", "z.extent(3)", z.extent(3), "z.extent(2)", side);
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(side * side) * sizeof(float));
    auto const kernel = tern::view(reinterpret_cast<float*>(memory.data()), side, side);
    for (index b = 0; b < z.extent(0); ++b)
      for (index c = 0; c < z.extent(1); ++c) {
        auto const from = z[b][c], with = w[c];
        for (index i = 0; i < side; ++i)
          for (index j = 0; j < side; ++j) kernel(i, j) = with(i, j) * from(i, j);
        matmul(policy, from.transposed(0, 1), kernel, y[b][c].transposed(0, 1));  // weights lie in rows: z is not the weights
      }
  }
} hyperzzw_product{};

/// hyperzzw_local(policy, z, w, y, options...): see the top of this file.
inline constexpr struct hyperzzw_local_fn {
  template <detail::depthwise_option<2>... Options>
  void operator()(cpu_policy const& policy, tensor_view<float const, 4> const& z, tensor_view<float const, 3> const& w,
                  tensor_view<float, 4> const& y, Options const&... options) const {
    constexpr char const* op = "hyperzzw_local";
    detail::expect_extent(op, "w", w, 0, "z", z, 1);
    for (int d = 1; d < 3; ++d) detail::expect(w.extent(d) > 0, op, "an extent of w's kernels", w.extent(d), "at least 1");
    for (int d = 0; d < 2; ++d) detail::expect_extent(op, "y", y, d, "z", z, d);
    index const batch = z.extent(0), channels = z.extent(1), rows = w.extent(1), columns = w.extent(2);
    if (z.size() == 0) return;
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(batch * w.size()) * sizeof(float));
    auto const kernels = tern::view(reinterpret_cast<float*>(memory.data()), batch, channels, rows, columns);
    detail::parallel_for(policy, batch * channels, [&](index row, index) TERN_LAMBDA {
      index const b = row / channels, c = row % channels;
      for (index i = 0; i < rows; ++i)
        for (index j = 0; j < columns; ++j) kernels(b, c, i, j) = w(c, i, j) * detail::zzw_mean(z[b][c], rows, columns, i, j);
    });
    depthwise_conv(policy, z, kernels, y, channels_first{}, same_padding{}, options...);
  }
  template <detail::depthwise_option<2>... Options>
  void operator()(cpu_policy const& policy, tensor_view<float const, 3> const& z, tensor_view<float const, 2> const& w,
                  tensor_view<float, 3> const& y, Options const&... options) const {
    (*this)(policy, detail::one_row(z), detail::one_row(w), detail::one_row(y), options...);
  }
} hyperzzw_local{};

}  // namespace TERN_ABI
}  // namespace tern
