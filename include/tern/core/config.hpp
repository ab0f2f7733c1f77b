// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file core/config.hpp
/// Version, attributes, and the inline namespace that keeps code for different architectures apart.
///
/// Everything whose machine code depends on compiler flags lives in `inline namespace TERN_ABI`. Its name lists the
/// instruction sets of the including file, so two files with different flags never share a symbol. What has to be one
/// type across files (views, errors, workspaces) lives in `tern` itself and is TERN_INLINE throughout: it has no symbols.

#define TERN_VERSION_MAJOR 0
#define TERN_VERSION_MINOR 1
#define TERN_VERSION_PATCH 0

#if defined(__GNUC__) || defined(__clang__)
// For sanitizers there is TERN_NO_FORCED_INLINE: an engine inlined into one function and instrumented there compiles for minutes. A
// program defines it in all files or in none, as the types of `tern` then have symbols.
#if defined(TERN_NO_FORCED_INLINE)
#define TERN_INLINE inline
#define TERN_LAMBDA
#define TERN_UNROLL
#else
#define TERN_INLINE [[gnu::always_inline]] inline
#define TERN_LAMBDA __attribute__((always_inline))
#define TERN_UNROLL _Pragma("GCC unroll 16")
#endif
#define TERN_COLD [[gnu::cold, gnu::noinline]]
#define TERN_RESTRICT __restrict
#define TERN_TRAP() __builtin_trap()
#elif defined(_MSC_VER)
#define TERN_INLINE __forceinline
#define TERN_LAMBDA
#define TERN_COLD __declspec(noinline)
#define TERN_RESTRICT __restrict
#define TERN_TRAP() __fastfail(7)
#define TERN_UNROLL
#endif

#if defined(__cpp_exceptions)
#define TERN_EXCEPTIONS 1
#else
#define TERN_EXCEPTIONS 0
#endif

// Each instruction set that the compiler may use adds its name; an absent one adds nothing.
#if defined(TERN_EMULATE_LANES)
#define TERN_ABI_BASE_(n) emulated##n
#define TERN_ABI_BASE__(n) TERN_ABI_BASE_(n)
#define TERN_ABI_BASE TERN_ABI_BASE__(TERN_EMULATE_LANES)
#elif defined(__aarch64__)
#define TERN_ABI_BASE arm64
#elif defined(__x86_64__) || defined(_M_X64)
#define TERN_ABI_BASE x86_64
#else
#define TERN_ABI_BASE generic
#endif
#if defined(__SSE4_2__)
#define TERN_ABI_SSE42 _sse42
#else
#define TERN_ABI_SSE42
#endif
#if defined(__AVX__)
#define TERN_ABI_AVX _avx
#else
#define TERN_ABI_AVX
#endif
#if defined(__AVX2__)
#define TERN_ABI_AVX2 _avx2
#else
#define TERN_ABI_AVX2
#endif
#if defined(__FMA__) || defined(__FMA4__)
#define TERN_ABI_FMA _fma
#else
#define TERN_ABI_FMA
#endif
#if defined(__F16C__)
#define TERN_ABI_F16C _f16c
#else
#define TERN_ABI_F16C
#endif
#if defined(__BMI2__)
#define TERN_ABI_BMI2 _bmi2
#else
#define TERN_ABI_BMI2
#endif
#if defined(__AVXVNNI__)
#define TERN_ABI_AVXVNNI _avxvnni
#else
#define TERN_ABI_AVXVNNI
#endif
#if defined(__AVX512F__)
#define TERN_ABI_AVX512F _avx512f
#else
#define TERN_ABI_AVX512F
#endif
#if defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define TERN_ABI_AVX512BW _bwdqvl
#else
#define TERN_ABI_AVX512BW
#endif
#if defined(__AVX512VBMI__) || defined(__AVX512VBMI2__)
#define TERN_ABI_VBMI _vbmi
#else
#define TERN_ABI_VBMI
#endif
#if defined(__AVX512VNNI__)
#define TERN_ABI_VNNI _vnni
#else
#define TERN_ABI_VNNI
#endif
#if defined(__AVX512BF16__)
#define TERN_ABI_BF16 _bf16
#else
#define TERN_ABI_BF16
#endif
#if defined(__AVX512FP16__) || defined(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC)
#define TERN_ABI_FP16 _fp16
#else
#define TERN_ABI_FP16
#endif
#if defined(__AMX_TILE__) && defined(__AMX_INT8__) && defined(__AMX_BF16__)
#define TERN_ABI_AMX _amx
#else
#define TERN_ABI_AMX
#endif
#if defined(__ARM_FEATURE_DOTPROD)
#define TERN_ABI_DOTPROD _dotprod
#else
#define TERN_ABI_DOTPROD
#endif
#if defined(__ARM_FEATURE_SVE)
#define TERN_ABI_SVE _sve
#else
#define TERN_ABI_SVE
#endif
#if defined(__FAST_MATH__)
#define TERN_ABI_FAST _fastmath
#else
#define TERN_ABI_FAST
#endif
#if TERN_EXCEPTIONS
#define TERN_ABI_EXCEPTIONS
#else
#define TERN_ABI_EXCEPTIONS _noexcept
#endif
// An architecture's object of a dispatched program has other errors and other threads than a file that stands alone (tern/dispatch.hpp).
#if defined(TERN_DISPATCH_OBJECT)
#define TERN_ABI_OBJECT _object
#else
#define TERN_ABI_OBJECT
#endif
// Instructions that tern does not ask for, but that the compiler may use on its own, are one letter each.
#if defined(__SSE3__)
#define TERN_ABI_A a
#else
#define TERN_ABI_A
#endif
#if defined(__SSSE3__)
#define TERN_ABI_B b
#else
#define TERN_ABI_B
#endif
#if defined(__SSE4_1__)
#define TERN_ABI_C c
#else
#define TERN_ABI_C
#endif
#if defined(__POPCNT__)
#define TERN_ABI_D d
#else
#define TERN_ABI_D
#endif
#if defined(__LZCNT__)
#define TERN_ABI_E e
#else
#define TERN_ABI_E
#endif
#if defined(__BMI__)
#define TERN_ABI_F f
#else
#define TERN_ABI_F
#endif
#if defined(__MOVBE__)
#define TERN_ABI_G g
#else
#define TERN_ABI_G
#endif
#if defined(__AVX512CD__)
#define TERN_ABI_H h
#else
#define TERN_ABI_H
#endif
#if defined(__AVX512IFMA__)
#define TERN_ABI_I i
#else
#define TERN_ABI_I
#endif
#if defined(__AVX512VPOPCNTDQ__) || defined(__AVX512BITALG__)
#define TERN_ABI_J j
#else
#define TERN_ABI_J
#endif
#if defined(__GFNI__)
#define TERN_ABI_K k
#else
#define TERN_ABI_K
#endif
#if defined(__XOP__)
#define TERN_ABI_L l
#else
#define TERN_ABI_L
#endif
#if defined(__APX_F__)
#define TERN_ABI_M m
#else
#define TERN_ABI_M
#endif
#if defined(__ARM_FEATURE_ATOMICS)
#define TERN_ABI_N n
#else
#define TERN_ABI_N
#endif
#if defined(__ARM_FEATURE_MATMUL_INT8)
#define TERN_ABI_O o
#else
#define TERN_ABI_O
#endif
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define TERN_ABI_P p
#else
#define TERN_ABI_P
#endif
#if defined(__ARM_FEATURE_SVE2)
#define TERN_ABI_Q q
#else
#define TERN_ABI_Q
#endif
#if defined(__ARM_FEATURE_SHA3)
#define TERN_ABI_R r
#else
#define TERN_ABI_R
#endif
#define TERN_ABI_LETTERS_(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r) _##a##b##c##d##e##f##g##h##i##j##k##l##m##n##o##p##q##r
#define TERN_ABI_LETTERS__(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r) \
  TERN_ABI_LETTERS_(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r)
#define TERN_ABI_LETTERS                                                                                                         \
  TERN_ABI_LETTERS__(TERN_ABI_A, TERN_ABI_B, TERN_ABI_C, TERN_ABI_D, TERN_ABI_E, TERN_ABI_F, TERN_ABI_G, TERN_ABI_H, TERN_ABI_I, \
                     TERN_ABI_J, TERN_ABI_K, TERN_ABI_L, TERN_ABI_M, TERN_ABI_N, TERN_ABI_O, TERN_ABI_P, TERN_ABI_Q, TERN_ABI_R)
#define TERN_ABI_PASTE_(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u) \
  abi_##a##b##c##d##e##f##g##h##i##j##k##l##m##n##o##p##q##r##s##t##u
#define TERN_ABI_PASTE(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u) \
  TERN_ABI_PASTE_(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u)
/// The namespace of everything that depends on flags, e.g. `abi_x86_64_sse42_avx_avx2_fma_f16c_bmi2_abcdefg`.
#define TERN_ABI                                                                                                                           \
  TERN_ABI_PASTE(TERN_ABI_BASE, TERN_ABI_SSE42, TERN_ABI_AVX, TERN_ABI_AVX2, TERN_ABI_FMA, TERN_ABI_F16C, TERN_ABI_BMI2, TERN_ABI_AVXVNNI, \
                 TERN_ABI_AVX512F, TERN_ABI_AVX512BW, TERN_ABI_VBMI, TERN_ABI_VNNI, TERN_ABI_BF16, TERN_ABI_FP16, TERN_ABI_AMX,            \
                 TERN_ABI_DOTPROD, TERN_ABI_SVE, TERN_ABI_FAST, TERN_ABI_EXCEPTIONS, TERN_ABI_LETTERS, TERN_ABI_OBJECT)

#include <cstddef>

namespace tern {
/// Extents, strides and counts, everywhere.
using index = std::ptrdiff_t;
}  // namespace tern
