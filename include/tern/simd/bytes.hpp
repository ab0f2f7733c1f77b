// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file simd/bytes.hpp
/// Packs whose lanes are narrower than 32 bits: the operands of dot.hpp and shuffle.hpp. They fill one register, so
/// pack<std::uint8_t> and pack<std::int8_t> have 4 * lanes elements and pack<bf16> has 2 * lanes. They load, store, split into
/// fields of bits and change type; but for sums and means of bytes, arithmetic happens in pack<std::int32_t> and pack<float>.
///
/// `load(bf16 const*)` of convert.hpp widens to f32; `load_narrow(bf16 const*)` here keeps 16 bits.

#include <tern/core/float16.hpp>
#include <tern/simd/pack.hpp>

namespace tern {
inline namespace TERN_ABI {
namespace simd {

/// Lanes of one byte.
template <class T>
concept byte_lane = std::is_same_v<T, std::uint8_t> || std::is_same_v<T, std::int8_t>;
/// Lanes of one or two bytes.
template <class T>
concept narrow_lane = byte_lane<T> || std::is_same_v<T, bf16>;

namespace detail {
#if defined(TERN_SIMD_EMULATED)
template <class T>
struct register_of {
  struct type {
    T lane[4 * lanes / index{sizeof(T)}];
  };
};
#elif defined(TERN_SIMD_NEON)
template <class T>
struct register_of;
template <>
struct register_of<std::uint8_t> {
  using type = uint8x16_t;
};
template <>
struct register_of<std::int8_t> {
  using type = int8x16_t;
};
template <>
struct register_of<bf16> {
  using type = uint16x8_t;
};
#else
template <class T>
struct register_of {
#if defined(TERN_SIMD_AVX512)
  using type = __m512i;
#elif defined(TERN_SIMD_AVX2)
  using type = __m256i;
#else
  using type = __m128i;
#endif
};
#endif
/// Reads or writes all of a register at any address.
template <class Register>
TERN_INLINE Register read(void const* p) {
  Register r;
  __builtin_memcpy(&r, p, sizeof(r));
  return r;
}
}  // namespace detail

template <narrow_lane T>
struct pack<T> {
  static constexpr index size = 4 * lanes / index{sizeof(T)};
  using native = typename detail::register_of<T>::type;
  native v;
  pack() = default;
  TERN_INLINE pack(native x) : v(x) {}
  /// x in every lane.
  TERN_INLINE pack(T x) {
#if defined(TERN_SIMD_EMULATED)
    for (index i = 0; i < size; ++i) v.lane[i] = x;
#else
    if constexpr (byte_lane<T>) {
#if defined(TERN_SIMD_AVX512)
      v = _mm512_set1_epi8(static_cast<char>(x));
#elif defined(TERN_SIMD_AVX2)
      v = _mm256_set1_epi8(static_cast<char>(x));
#elif defined(TERN_SIMD_SSE)
      v = _mm_set1_epi8(static_cast<char>(x));
#else
      v = __builtin_bit_cast(native, vdupq_n_u8(static_cast<std::uint8_t>(x)));
#endif
    } else {
#if defined(TERN_SIMD_AVX512)
      v = _mm512_set1_epi16(static_cast<short>(x.bits));
#elif defined(TERN_SIMD_AVX2)
      v = _mm256_set1_epi16(static_cast<short>(x.bits));
#elif defined(TERN_SIMD_SSE)
      v = _mm_set1_epi16(static_cast<short>(x.bits));
#else
      v = vdupq_n_u16(x.bits);
#endif
    }
#endif
  }
};

/// x, kept in a register, as register.hpp's.
template <narrow_lane T>
TERN_INLINE pack<T> in_register(pack<T> x) {
#if defined(TERN_SIMD_AVX512)
  __asm__("" : "+v"(x.v));
#elif defined(TERN_SIMD_AVX2) || defined(TERN_SIMD_SSE)
  __asm__("" : "+x"(x.v));
#endif
  return x;
}

// ---- loads and stores ----------------------------------------------------------------------------------------------

template <byte_lane T>
TERN_INLINE pack<T> load(T const* p) {
  return detail::read<typename pack<T>::native>(p);
}
template <narrow_lane T>
TERN_INLINE pack<T> load_narrow(T const* p) {
  return detail::read<typename pack<T>::native>(p);
}
template <narrow_lane T>
TERN_INLINE void store(T* p, pack<T> x) {
  __builtin_memcpy(static_cast<void*>(p), &x.v, sizeof(x.v));
}

/// The first n elements (0 <= n <= size); the other lanes are zero.
template <narrow_lane T>
TERN_INLINE pack<T> load_narrow_n(T const* p, index n) {
#if defined(TERN_SIMD_AVX512)
  auto const mask = n == pack<T>::size ? ~std::uint64_t{0} : (std::uint64_t{1} << n) - 1;
  if constexpr (byte_lane<T>)
    return _mm512_maskz_loadu_epi8(mask, p);
  else
    return _mm512_maskz_loadu_epi16(static_cast<__mmask32>(mask), p);
#else
  T lane[pack<T>::size] = {};
  for (index i = 0; i < n; ++i) lane[i] = p[i];
  return load_narrow(static_cast<T const*>(lane));
#endif
}
template <byte_lane T>
TERN_INLINE pack<T> load_n(T const* p, index n) {
  return load_narrow_n(p, n);
}
/// Writes the first n lanes and nothing else.
template <narrow_lane T>
TERN_INLINE void store_n(T* p, pack<T> x, index n) {
#if defined(TERN_SIMD_AVX512)
  auto const mask = n == pack<T>::size ? ~std::uint64_t{0} : (std::uint64_t{1} << n) - 1;
  if constexpr (byte_lane<T>)
    _mm512_mask_storeu_epi8(p, mask, x.v);
  else
    _mm512_mask_storeu_epi16(p, static_cast<__mmask32>(mask), x.v);
#else
  T lane[pack<T>::size];
  store(static_cast<T*>(lane), x);
  for (index i = 0; i < n; ++i) p[i] = lane[i];
#endif
}

// ---- changes of type -------------------------------------------------------------------------------------------------

/// The same register as lanes of another width.
template <class To, class From>
  requires(narrow_lane<To> || narrow_lane<From>)
TERN_INLINE pack<To> bit_cast(pack<From> a) {
  return __builtin_bit_cast(pack<To>, a);
}

/// The 4 bytes of `group`, in memory order, in every group of 4 lanes.
template <byte_lane T>
TERN_INLINE pack<T> splat4(std::int32_t group) {
  return bit_cast<T>(pack<std::int32_t>(group));
}
template <byte_lane T>
TERN_INLINE pack<T> splat4(T const* p) {
  return splat4<T>(detail::read<std::int32_t>(p));
}
/// p[0], p[1] in every pair of lanes.
TERN_INLINE pack<bf16> splat2(bf16 const* p) { return bit_cast<bf16>(pack<std::int32_t>(detail::read<std::int32_t>(p))); }

/// The lanes 0, 2, 4, ... widened.
TERN_INLINE pack<float> even(pack<bf16> a) { return bit_cast<float>(shift_left<16>(bit_cast<std::int32_t>(a))); }
/// The lanes 1, 3, 5, ... widened.
TERN_INLINE pack<float> odd(pack<bf16> a) {
#if defined(TERN_SIMD_EMULATED)
  return lanewise<float>([&](index i) { return static_cast<float>(a.v.lane[2 * i + 1]); });
#elif defined(TERN_SIMD_NEON)
  return pack<float>(vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_u16(a.v), vdupq_n_u32(0xffff0000u))));
#else
  return bit_cast<float>(pack<std::int32_t>(bit_cast<std::int32_t>(a).v & pack<std::int32_t>(-65536).v));
#endif
}

// ---- bits --------------------------------------------------------------------------------------------------------------

#if defined(TERN_SIMD_EMULATED)
#define TERN_SIMD_BITS(op)                                                                                        \
  template <byte_lane T>                                                                                          \
  TERN_INLINE pack<T> operator op(pack<T> a, pack<T> b) {                                                         \
    for (index i = 0; i < pack<T>::size; ++i) a.v.lane[i] = static_cast<T>(int(a.v.lane[i]) op int(b.v.lane[i])); \
    return a;                                                                                                     \
  }
#else
#define TERN_SIMD_BITS(op)                                \
  template <byte_lane T>                                  \
  TERN_INLINE pack<T> operator op(pack<T> a, pack<T> b) { \
    return pack<T>(a.v op b.v);                           \
  }
#endif
TERN_SIMD_BITS(&)
TERN_SIMD_BITS(|)
TERN_SIMD_BITS(^)
#undef TERN_SIMD_BITS

/// The bits of a where `which` has ones, of b elsewhere.
TERN_INLINE pack<std::int32_t> select_bits(pack<std::int32_t> which, pack<std::int32_t> a, pack<std::int32_t> b) {
#if defined(TERN_SIMD_AVX512)
  return pack<std::int32_t>(_mm512_ternarylogic_epi32(which.v, a.v, b.v, 0xca));
#else
  return (which & a) | (b & (which ^ pack<std::int32_t>(-1)));
#endif
}

/// Shifts every lane left by n bits.
TERN_INLINE pack<std::int32_t> shift_left(pack<std::int32_t> a, int n) {
#if defined(TERN_SIMD_EMULATED)
  return lanewise<std::int32_t>([&](index i) { return static_cast<std::int32_t>(static_cast<std::uint32_t>(a.v[i]) << n); });
#elif defined(TERN_SIMD_AVX512)
  return pack<std::int32_t>(_mm512_maskz_sll_epi32(0xffff, a.v, _mm_cvtsi32_si128(n)));
#elif defined(TERN_SIMD_AVX2)
  return pack<std::int32_t>(_mm256_slli_epi32(a.v, n));
#elif defined(TERN_SIMD_SSE)
  return pack<std::int32_t>(_mm_slli_epi32(a.v, n));
#else
  return pack<std::int32_t>(vshlq_s32(a.v, vdupq_n_s32(n)));
#endif
}

/// Moves every lane's bits up by n, or down by -n, -31 to 31. What is moved in has any value.
TERN_INLINE pack<std::int32_t> move_bits(pack<std::int32_t> a, int n) {
#if defined(TERN_SIMD_AVX512)
  return pack<std::int32_t>(_mm512_rolv_epi32(a.v, _mm512_set1_epi32(n)));
#else
  return n < 0 ? shift_right(a, -n) : shift_left(a, n);
#endif
}

/// Every byte shifted right by n bits, filled with zeros.
template <int n>
TERN_INLINE pack<std::uint8_t> shift_right(pack<std::uint8_t> a) {
  static_assert(0 <= n && n < 8);
  [[maybe_unused]] pack<std::uint8_t> const kept(static_cast<std::uint8_t>(0xff >> n));
#if defined(TERN_SIMD_EMULATED)
  for (index i = 0; i < pack<std::uint8_t>::size; ++i) a.v.lane[i] = static_cast<std::uint8_t>(a.v.lane[i] >> n);
  return a;
#elif defined(TERN_SIMD_NEON)
  if constexpr (n == 0)
    return a;
  else
    return pack<std::uint8_t>(vshrq_n_u8(a.v, n));
#elif defined(TERN_SIMD_AVX512)
  return pack<std::uint8_t>(_mm512_srli_epi16(a.v, n)) & kept;
#elif defined(TERN_SIMD_AVX2)
  return pack<std::uint8_t>(_mm256_srli_epi16(a.v, n)) & kept;
#else
  return pack<std::uint8_t>(_mm_srli_epi16(a.v, n)) & kept;
#endif
}
/// Every byte shifted left by n bits.
template <int n>
TERN_INLINE pack<std::uint8_t> shift_left(pack<std::uint8_t> a) {
  static_assert(0 <= n && n < 8);
  [[maybe_unused]] pack<std::uint8_t> const kept(static_cast<std::uint8_t>(0xff << n));
#if defined(TERN_SIMD_EMULATED)
  for (index i = 0; i < pack<std::uint8_t>::size; ++i) a.v.lane[i] = static_cast<std::uint8_t>(a.v.lane[i] << n);
  return a;
#elif defined(TERN_SIMD_NEON)
  return pack<std::uint8_t>(vshlq_n_u8(a.v, n));
#elif defined(TERN_SIMD_AVX512)
  return pack<std::uint8_t>(_mm512_slli_epi16(a.v, n)) & kept;
#elif defined(TERN_SIMD_AVX2)
  return pack<std::uint8_t>(_mm256_slli_epi16(a.v, n)) & kept;
#else
  return pack<std::uint8_t>(_mm_slli_epi16(a.v, n)) & kept;
#endif
}

// ---- sums ----------------------------------------------------------------------------------------------------------------

/// a + b modulo 256.
TERN_INLINE pack<std::uint8_t> add_bytes(pack<std::uint8_t> a, pack<std::uint8_t> b) {
#if defined(TERN_SIMD_EMULATED)
  for (index i = 0; i < pack<std::uint8_t>::size; ++i) a.v.lane[i] = static_cast<std::uint8_t>(a.v.lane[i] + b.v.lane[i]);
  return a;
#elif defined(TERN_SIMD_NEON)
  return pack<std::uint8_t>(vaddq_u8(a.v, b.v));
#elif defined(TERN_SIMD_AVX512)
  return pack<std::uint8_t>(_mm512_add_epi8(a.v, b.v));
#elif defined(TERN_SIMD_AVX2)
  return pack<std::uint8_t>(_mm256_add_epi8(a.v, b.v));
#else
  return pack<std::uint8_t>(_mm_add_epi8(a.v, b.v));
#endif
}
/// (a + b) / 2, halves up.
TERN_INLINE pack<std::uint8_t> mean_bytes(pack<std::uint8_t> a, pack<std::uint8_t> b) {
#if defined(TERN_SIMD_EMULATED)
  for (index i = 0; i < pack<std::uint8_t>::size; ++i) a.v.lane[i] = static_cast<std::uint8_t>((a.v.lane[i] + b.v.lane[i] + 1) / 2);
  return a;
#elif defined(TERN_SIMD_NEON)
  return pack<std::uint8_t>(vrhaddq_u8(a.v, b.v));
#elif defined(TERN_SIMD_AVX512)
  return pack<std::uint8_t>(_mm512_avg_epu8(a.v, b.v));
#elif defined(TERN_SIMD_AVX2)
  return pack<std::uint8_t>(_mm256_avg_epu8(a.v, b.v));
#else
  return pack<std::uint8_t>(_mm_avg_epu8(a.v, b.v));
#endif
}

}  // namespace simd
}  // namespace TERN_ABI
}  // namespace tern
