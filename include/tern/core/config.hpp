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
#define TERN_INLINE [[gnu::always_inline]] inline
#define TERN_LAMBDA __attribute__((always_inline))
#define TERN_COLD [[gnu::cold, gnu::noinline]]
#define TERN_RESTRICT __restrict
#define TERN_TRAP() __builtin_trap()
#define TERN_UNROLL _Pragma("GCC unroll 16")
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
#define TERN_ABI_PASTE_(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r) abi_##a##b##c##d##e##f##g##h##i##j##k##l##m##n##o##p##q##r
#define TERN_ABI_PASTE(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r) \
  TERN_ABI_PASTE_(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r)
/// The namespace of everything that depends on flags, e.g. `abi_x86_64_sse42_avx_avx2_fma_f16c_bmi2`.
#define TERN_ABI                                                                                                                           \
  TERN_ABI_PASTE(TERN_ABI_BASE, TERN_ABI_SSE42, TERN_ABI_AVX, TERN_ABI_AVX2, TERN_ABI_FMA, TERN_ABI_F16C, TERN_ABI_BMI2, TERN_ABI_AVXVNNI, \
                 TERN_ABI_AVX512F, TERN_ABI_AVX512BW, TERN_ABI_VBMI, TERN_ABI_VNNI, TERN_ABI_BF16, TERN_ABI_FP16, TERN_ABI_DOTPROD,        \
                 TERN_ABI_SVE, TERN_ABI_FAST, TERN_ABI_EXCEPTIONS)

#include <cstddef>

namespace tern {
/// Extents, strides and counts, everywhere.
using index = std::ptrdiff_t;
}  // namespace tern
