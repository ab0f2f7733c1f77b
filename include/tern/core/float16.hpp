// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file core/float16.hpp
/// The two 16-bit floating-point storage types. They hold bits and convert; arithmetic happens in f32.
///
///     type   sign exponent fraction   largest    smallest normal   relative spacing
///     f16    1    5        10         65504      6.1e-5            2^-10
///     bf16   1    8        7          3.4e38     1.2e-38           2^-7
///
/// Conversion from f32 rounds to nearest, ties to even; too large becomes infinity; NaN stays NaN (quiet); subnormals are kept.

#include <tern/core/config.hpp>

#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace tern {

struct f16;
struct bf16;

/// Names the tern type that has the same bits as T (`f16`, `bf16`), or `void`. Found through `std::numeric_limits`
/// (Eigen's types) and for the compiler's own types; specialize it for another library's type.
template <class T>
struct same_bits_as {
  static constexpr bool two_bytes = sizeof(T) == 2 && std::numeric_limits<T>::is_specialized;
  using type = std::conditional_t<two_bytes && std::numeric_limits<T>::digits == 11, f16,
                                  std::conditional_t<two_bytes && std::numeric_limits<T>::digits == 8, bf16, void>>;
};
template <std::integral T>
struct same_bits_as<T> {
  using type = void;
};
template <>
struct same_bits_as<f16> {
  using type = void;
};
template <>
struct same_bits_as<bf16> {
  using type = void;
};
#if defined(__FLT16_MAX__) && !(defined(__aarch64__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13)  // gcc 12: in C only
template <>
struct same_bits_as<_Float16> {
  using type = f16;
};
#endif

namespace detail {

// __builtin_bit_cast and not std::bit_cast: unoptimized, the latter is a function, which all architectures of a program would share.

TERN_INLINE constexpr float f32_from_f16(std::uint16_t h) {
  std::uint32_t const sign = std::uint32_t{h & 0x8000u} << 16;
  std::uint32_t const magnitude = h & 0x7fffu;
  if (magnitude >= 0x7c00u) {  // infinity or NaN, made quiet as the hardware does
    std::uint32_t const fraction = magnitude & 0x3ffu;
    return __builtin_bit_cast(float, sign | 0x7f800000u | (fraction << 13) | (fraction != 0 ? 0x400000u : 0u));
  }
  if (magnitude >= 0x400u) return __builtin_bit_cast(float, sign | ((magnitude << 13) + 0x38000000u));
  float const value = static_cast<float>(magnitude) * 0x1p-24f;  // exact
  return sign != 0 ? -value : value;
}

TERN_INLINE constexpr std::uint16_t f16_from_f32(float x) {
  std::uint32_t const bits = __builtin_bit_cast(std::uint32_t, x);
  std::uint32_t const sign = (bits >> 16) & 0x8000u;
  std::uint32_t const magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x1ffu));
  if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // rounds past 65504
  if (magnitude >= 0x38800000u) {                                                   // normal: round on bit 13
    std::uint32_t const rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
  }
  // Subnormal: adding 0.5 leaves the value's 2^-24 multiple, correctly rounded, in the low bits of the sum.
  float const shifted = __builtin_bit_cast(float, magnitude) + 0.5f;
  return static_cast<std::uint16_t>(sign | (__builtin_bit_cast(std::uint32_t, shifted) - 0x3f000000u));
}

TERN_INLINE constexpr std::uint16_t bf16_from_f32(float x) {
  std::uint32_t const bits = __builtin_bit_cast(std::uint32_t, x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace detail

/// IEEE 754 binary16.
struct f16 {
  std::uint16_t bits;

  f16() = default;
  TERN_INLINE constexpr explicit f16(float x) : bits(detail::f16_from_f32(x)) {}
  template <class T>
    requires std::same_as<typename same_bits_as<T>::type, f16>
  TERN_INLINE f16(T x) : bits(__builtin_bit_cast(std::uint16_t, x)) {}

  TERN_INLINE constexpr operator float() const { return detail::f32_from_f16(bits); }
  template <class T>
    requires std::same_as<typename same_bits_as<T>::type, f16>
  TERN_INLINE operator T() const {
    return __builtin_bit_cast(T, bits);
  }

  TERN_INLINE static constexpr f16 from_bits(std::uint16_t b) {
    f16 x;
    x.bits = b;
    return x;
  }
};

/// bfloat16: the upper half of an f32.
struct bf16 {
  std::uint16_t bits;

  bf16() = default;
  TERN_INLINE constexpr explicit bf16(float x) : bits(detail::bf16_from_f32(x)) {}
  template <class T>
    requires std::same_as<typename same_bits_as<T>::type, bf16>
  TERN_INLINE bf16(T x) : bits(__builtin_bit_cast(std::uint16_t, x)) {}

  TERN_INLINE constexpr operator float() const { return __builtin_bit_cast(float, std::uint32_t{bits} << 16); }
  template <class T>
    requires std::same_as<typename same_bits_as<T>::type, bf16>
  TERN_INLINE operator T() const {
    return __builtin_bit_cast(T, bits);
  }

  TERN_INLINE static constexpr bf16 from_bits(std::uint16_t b) {
    bf16 x;
    x.bits = b;
    return x;
  }
};

/// The types whose elements kernels read and write: f32, f16, bf16.
template <class T>
concept float_storage =
    std::same_as<std::remove_const_t<T>, float> || std::same_as<std::remove_const_t<T>, f16> || std::same_as<std::remove_const_t<T>, bf16>;

}  // namespace tern
