// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file core/dlpack.hpp
/// Views of tensors that come through DLPack (https://dmlc.github.io/dlpack/latest/c_api.html), from Python's array libraries
/// for one. The structs are recognized by their members, so that dlpack.h is not needed here:
///
///     DLTensor                  data, device, ndim, dtype, shape, strides, byte_offset
///     DLManagedTensor           dl_tensor
///     DLManagedTensorVersioned  version, flags, dl_tensor
///
/// The view borrows: the caller keeps the managed tensor and calls its deleter.

#include <tern/core/float16.hpp>
#include <tern/core/tensor_view.hpp>

namespace tern {

namespace detail {

template <class X>
concept shaped_like_dltensor = requires(X const& x) {
  static_cast<void*>(x.data);
  { x.device.device_type };
  { x.ndim } -> std::convertible_to<int>;
  { x.dtype.code } -> std::convertible_to<int>;
  { x.dtype.bits } -> std::convertible_to<int>;
  { x.dtype.lanes } -> std::convertible_to<int>;
  { *x.shape } -> std::convertible_to<index>;
  { *x.strides } -> std::convertible_to<index>;
  { x.byte_offset } -> std::convertible_to<std::uint64_t>;
};
template <class X>
concept shaped_like_managed_dltensor = requires(X const& x) { requires shaped_like_dltensor<std::remove_cvref_t<decltype(x.dl_tensor)>>; };
template <class X>
concept shaped_like_versioned_dltensor = shaped_like_managed_dltensor<X> && requires(X const& x) {
  { x.version.major } -> std::convertible_to<std::uint32_t>;
  { x.flags } -> std::convertible_to<std::uint64_t>;
};

// Codes of dlpack.h.
enum dlpack_code : int { dlpack_int = 0, dlpack_uint = 1, dlpack_float = 2, dlpack_bfloat = 4, dlpack_bool = 6 };
enum dlpack_device : int { dlpack_cpu = 1, dlpack_cuda_host = 3, dlpack_rocm_host = 11 };
inline constexpr std::uint64_t dlpack_read_only = 1;

template <class T>
TERN_INLINE constexpr dlpack_code dlpack_code_of() {
  if constexpr (std::same_as<T, bf16>)
    return dlpack_bfloat;
  else if constexpr (std::same_as<T, bool>)
    return dlpack_bool;
  else if constexpr (std::signed_integral<T>)
    return dlpack_int;
  else if constexpr (std::unsigned_integral<T>)
    return dlpack_uint;
  else
    return dlpack_float;
}
template <class T>
TERN_INLINE constexpr char const* dlpack_code_name() {
  constexpr dlpack_code code = dlpack_code_of<T>();
  return code == dlpack_bfloat ? "4 (bfloat)"
         : code == dlpack_bool ? "6 (bool)"
         : code == dlpack_int  ? "0 (int)"
         : code == dlpack_uint ? "1 (unsigned int)"
                               : "2 (float)";
}

}  // namespace detail

/// A view of a DLPack tensor on the CPU. Null strides mean row-major. Fails when the element type, the rank, the device or the
/// alignment is not what the view needs, when the struct's major version is not 1, and when T is mutable but the tensor is
/// marked read-only.
template <class T, int Rank, detail::shaped_like_dltensor X>
TERN_INLINE tensor_view<T, Rank> from_dlpack(X const& x) {
  using element = std::remove_const_t<T>;
  static constexpr char const op[] = "from_dlpack";
  static_assert(float_storage<T> || std::is_arithmetic_v<element>, "tern: DLPack has no element type for this T");
  index const device = static_cast<index>(x.device.device_type);
  detail::expect(device == detail::dlpack_cpu || device == detail::dlpack_cuda_host || device == detail::dlpack_rocm_host, op,
                 "device.device_type", device, "1, 3 or 11 (memory of the host)");
  index const code = static_cast<index>(x.dtype.code), bits = static_cast<index>(x.dtype.bits);
  detail::expect(code == detail::dlpack_code_of<element>(), op, "dtype.code", code, detail::dlpack_code_name<element>());
  detail::expect_equal(op, "dtype.bits", bits, "8 * sizeof(T)", static_cast<index>(8 * sizeof(T)));
  detail::expect(x.dtype.lanes == 1, op, "dtype.lanes", static_cast<index>(x.dtype.lanes), "1");
  detail::expect_equal(op, "ndim", static_cast<index>(x.ndim), "Rank", Rank);
  detail::expect(x.shape != nullptr, op, "shape", 0, "not null");

  shape<Rank> extents{}, strides{};
  bool empty = false;
  for (int d = 0; d < Rank; ++d) {
    extents.extents[d] = static_cast<index>(x.shape[d]);
    detail::expect(extents.extents[d] >= 0, op, "shape[d]", extents.extents[d], "at least 0");
    empty = empty || extents.extents[d] == 0;
  }
  auto const address = reinterpret_cast<std::uintptr_t>(x.data) + static_cast<std::uintptr_t>(x.byte_offset);
  detail::expect(empty || x.data != nullptr, op, "data", 0, "not null");
  detail::expect(address % alignof(T) == 0, op, "(data + byte_offset) % alignof(T)", static_cast<index>(address % alignof(T)), "0");
  T* const data = reinterpret_cast<T*>(address);
  if (x.strides == nullptr) return {data, extents};
  for (int d = 0; d < Rank; ++d) strides.extents[d] = static_cast<index>(x.strides[d]);
  return {data, extents, strides};
}
template <class T, int Rank, detail::shaped_like_managed_dltensor X>
TERN_INLINE tensor_view<T, Rank> from_dlpack(X const& x) {
  if constexpr (detail::shaped_like_versioned_dltensor<X>) {
    detail::expect(x.version.major == 1, "from_dlpack", "version.major", static_cast<index>(x.version.major), "1");
    bool const read_only = (static_cast<std::uint64_t>(x.flags) & detail::dlpack_read_only) != 0;
    detail::expect(std::is_const_v<T> || !read_only, "from_dlpack", "flags & 1 (read-only)", 1, "0, or a view of const elements");
  }
  return tern::from_dlpack<T, Rank>(x.dl_tensor);
}

}  // namespace tern
