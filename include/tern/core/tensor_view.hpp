// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file core/tensor_view.hpp
/// A tensor that somebody else owns: a pointer, extents, and strides counted in elements.
///
/// Every kernel takes whatever `tern::view` understands: a `tensor_view`; a contiguous range (`std::span`, `std::vector`,
/// arrays); Eigen's `Matrix`, `Map`, `Ref` and `TensorMap`; `std::mdspan` and what is shaped like it. All are recognized by
/// their members, so no header of theirs is included. `core/dlpack.hpp` adds DLPack.
///
///     x(i, j, k)    x[i]: without the first extent    x.slice(dim, from, to)    x.transposed(0, 1)    x.expanded(): an extent of 1 in
///     front

#include <tern/core/error.hpp>

#include <concepts>
#include <cstdint>
#include <type_traits>

namespace tern {

/// Extents of a tensor, outermost first: `shape{heads, tokens, dim}`.
template <int Rank>
struct shape {
  index extents[Rank];
};
template <std::integral... I>
shape(I...) -> shape<static_cast<int>(sizeof...(I))>;

/// A view of `Rank` dimensions over elements of `T` (const for read-only). Copying copies the view, not the elements.
template <class T, int Rank>
class tensor_view {
  static_assert(Rank >= 1, "tern: a tensor_view has at least one dimension");

 public:
  using element_type = T;
  using value_type = std::remove_cv_t<T>;
  static constexpr int rank = Rank;

  TERN_INLINE tensor_view() = default;

  /// Row-major (the last index is contiguous).
  TERN_INLINE constexpr tensor_view(T* data, shape<Rank> const& extents) : data_(data) {
    index stride = 1;
    for (int d = Rank - 1; d >= 0; --d) {
      extents_[d] = extents.extents[d];
      strides_[d] = stride;
      stride *= extents_[d];
    }
  }
  /// Any strides, in elements; zero repeats, negative runs backwards.
  TERN_INLINE constexpr tensor_view(T* data, shape<Rank> const& extents, shape<Rank> const& strides) : data_(data) {
    for (int d = 0; d < Rank; ++d) {
      extents_[d] = extents.extents[d];
      strides_[d] = strides.extents[d];
    }
  }
  /// A view of mutable elements reads as one of const elements.
  template <class U>
    requires(std::same_as<T, U const> && !std::same_as<T, U>)
  TERN_INLINE constexpr tensor_view(tensor_view<U, Rank> const& other) : data_(other.data()) {
    for (int d = 0; d < Rank; ++d) {
      extents_[d] = other.extent(d);
      strides_[d] = other.stride(d);
    }
  }

  TERN_INLINE constexpr T* data() const { return data_; }
  TERN_INLINE constexpr index extent(int d) const { return extents_[d]; }
  TERN_INLINE constexpr index stride(int d) const { return strides_[d]; }
  /// The number of elements.
  TERN_INLINE constexpr index size() const {
    index n = 1;
    for (int d = 0; d < Rank; ++d) n *= extents_[d];
    return n;
  }
  /// Whether elements lie in row-major order without gaps.
  TERN_INLINE constexpr bool is_contiguous() const {
    index stride = 1;
    for (int d = Rank - 1; d >= 0; --d) {
      if (extents_[d] != 1 && strides_[d] != stride) return false;
      stride *= extents_[d];
    }
    return true;
  }

  /// The element at (i, j, ...). Not checked.
  template <std::integral... I>
    requires(sizeof...(I) == Rank)
  TERN_INLINE constexpr T& operator()(I... i) const {
    index const at[] = {static_cast<index>(i)...};
    index offset = 0;
    for (int d = 0; d < Rank; ++d) offset += at[d] * strides_[d];
    return data_[offset];
  }

  /// Fixes the outermost index: a view of one dimension less. Not checked.
  TERN_INLINE constexpr tensor_view<T, Rank - 1> operator[](index i) const
    requires(Rank > 1)
  {
    shape<Rank - 1> extents{}, strides{};
    for (int d = 1; d < Rank; ++d) {
      extents.extents[d - 1] = extents_[d];
      strides.extents[d - 1] = strides_[d];
    }
    return {data_ + i * strides_[0], extents, strides};
  }
  TERN_INLINE constexpr T& operator[](index i) const
    requires(Rank == 1)
  {
    return data_[i * strides_[0]];
  }

  /// Elements `begin` to `end` (exclusive) of dimension `d`. Not checked.
  TERN_INLINE constexpr tensor_view slice(int d, index begin, index end) const {
    tensor_view v = *this;
    v.data_ += begin * strides_[d];
    v.extents_[d] = end - begin;
    return v;
  }
  /// Dimensions `a` and `b` exchanged.
  TERN_INLINE constexpr tensor_view transposed(int a, int b) const {
    tensor_view v = *this;
    v.extents_[a] = extents_[b];
    v.extents_[b] = extents_[a];
    v.strides_[a] = strides_[b];
    v.strides_[b] = strides_[a];
    return v;
  }
  /// The same elements with a new outermost dimension of extent 1.
  TERN_INLINE constexpr tensor_view<T, Rank + 1> expanded() const {
    shape<Rank + 1> extents{}, strides{};
    extents.extents[0] = 1;
    strides.extents[0] = 0;
    for (int d = 0; d < Rank; ++d) {
      extents.extents[d + 1] = extents_[d];
      strides.extents[d + 1] = strides_[d];
    }
    return {data_, extents, strides};
  }

 private:
  T* data_ = nullptr;
  index extents_[Rank] = {};
  index strides_[Rank] = {};
};

namespace detail {

template <class X>
concept shaped_like_view = requires { []<class T, int R>(tensor_view<T, R> const&) {}(std::declval<X const&>()); };
// std::mdspan, Kokkos::mdspan
template <class X>
concept shaped_like_mdspan = requires(X const& x) {
  { *x.data_handle() };
  { X::rank() } -> std::convertible_to<std::size_t>;
  { x.extent(0) } -> std::convertible_to<index>;
  { x.stride(0) } -> std::convertible_to<index>;
};
// Eigen::Matrix, Map, Ref
template <class X>
concept shaped_like_matrix = requires(X& x) {
  { *x.data() };
  { x.rowStride() } -> std::convertible_to<index>;
  { x.colStride() } -> std::convertible_to<index>;
  { x.rows() } -> std::convertible_to<index>;
  { bool(X::IsVectorAtCompileTime) };
};
// Eigen::Tensor, TensorMap (Layout is 0 for column-major, 1 for row-major)
template <class X>
concept shaped_like_eigen_tensor = requires(X& x) {
  { *x.data() };
  { x.dimensions()[0] } -> std::convertible_to<index>;
  { int(X::NumDimensions) };
  { int(X::Layout) };
};
// std::span, std::vector, std::array, std::string, Eigen-free user types
template <class X>
concept shaped_like_range = requires(X& x) {
  { *x.data() };
  { x.size() } -> std::convertible_to<index>;
} && !shaped_like_view<X> && !shaped_like_matrix<X> && !shaped_like_eigen_tensor<X>;

template <class X>
using element_of = std::remove_reference_t<decltype(*std::declval<X&>().data())>;

}  // namespace detail

template <class T, int R>
TERN_INLINE constexpr tensor_view<T, R> view(tensor_view<T, R> const& x) {
  return x;
}
template <class X>
  requires detail::shaped_like_range<std::remove_reference_t<X>>
TERN_INLINE constexpr tensor_view<detail::element_of<X>, 1> view(X&& x) {
  return {x.data(), shape<1>{{static_cast<index>(x.size())}}};
}
template <class T, std::size_t N>
TERN_INLINE constexpr tensor_view<T, 1> view(T (&x)[N]) {
  return {x, shape<1>{{static_cast<index>(N)}}};
}
/// Matrices are (rows, columns) whatever their storage order; vectors have rank 1.
template <class X>
  requires detail::shaped_like_matrix<std::remove_reference_t<X>>
TERN_INLINE constexpr auto view(X&& x) {
  using element = detail::element_of<X>;
  if constexpr (std::remove_reference_t<X>::IsVectorAtCompileTime) {
    index const n = static_cast<index>(x.rows() * x.cols());
    index const stride = static_cast<index>(x.rows() == 1 ? x.colStride() : x.rowStride());
    return tensor_view<element, 1>(x.data(), shape<1>{{n}}, shape<1>{{stride}});
  } else {
    return tensor_view<element, 2>(x.data(), shape<2>{{static_cast<index>(x.rows()), static_cast<index>(x.cols())}},
                                   shape<2>{{static_cast<index>(x.rowStride()), static_cast<index>(x.colStride())}});
  }
}
/// Tensors keep the order of their indices; a column-major one has its first index contiguous.
template <class X>
  requires detail::shaped_like_eigen_tensor<std::remove_reference_t<X>>
TERN_INLINE constexpr auto view(X&& x) {
  using tensor = std::remove_reference_t<X>;
  constexpr int rank = tensor::NumDimensions;
  shape<rank> extents{}, strides{};
  index stride = 1;
  for (int i = 0; i < rank; ++i) {
    int const d = int(tensor::Layout) == 1 ? rank - 1 - i : i;
    extents.extents[d] = static_cast<index>(x.dimensions()[static_cast<std::size_t>(d)]);
    strides.extents[d] = stride;
    stride *= extents.extents[d];
  }
  return tensor_view<detail::element_of<X>, rank>(x.data(), extents, strides);
}
template <class X>
  requires detail::shaped_like_mdspan<std::remove_reference_t<X>>
TERN_INLINE constexpr auto view(X&& x) {
  constexpr int rank = static_cast<int>(std::remove_reference_t<X>::rank());
  shape<rank> extents{}, strides{};
  for (int d = 0; d < rank; ++d) {
    extents.extents[d] = static_cast<index>(x.extent(static_cast<std::size_t>(d)));
    strides.extents[d] = static_cast<index>(x.stride(static_cast<std::size_t>(d)));
  }
  return tensor_view<std::remove_reference_t<decltype(*x.data_handle())>, rank>(x.data_handle(), extents, strides);
}
/// A view of `data` with the given extents: `view(p, heads, tokens, dim)`.
template <class T, std::integral... I>
  requires(sizeof...(I) >= 1)
TERN_INLINE constexpr tensor_view<T, static_cast<int>(sizeof...(I))> view(T* data, I... extents) {
  return {data, shape<static_cast<int>(sizeof...(I))>{{static_cast<index>(extents)...}}};
}
/// A contiguous range in the given shape: `view(vector, heads, tokens, dim)`. Fails unless it has as many elements, or if an extent is
/// negative.
template <class X, std::integral... I>
  requires(detail::shaped_like_range<std::remove_reference_t<X>> && sizeof...(I) >= 1)
TERN_INLINE constexpr tensor_view<detail::element_of<X>, static_cast<int>(sizeof...(I))> view(X&& x, I... extents) {
  (detail::expect(static_cast<index>(extents) >= 0, "view", "an extent", static_cast<index>(extents), "at least 0"), ...);
  detail::expect_equal("view", "size()", static_cast<index>(x.size()), "the product of the extents",
                       (index{1} * ... * static_cast<index>(extents)));
  return view(x.data(), extents...);
}

/// What kernels accept as a tensor argument.
template <class X>
concept tensor_like = requires(X&& x) { tern::view(x); };

/// The view type that `tern::view` gives for X.
template <tensor_like X>
using view_of = decltype(tern::view(std::declval<X&>()));

}  // namespace tern
