// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file simd/arch.hpp
/// Which instruction set this file is compiled for, and xsimd's name for it. Narrower than what the flags allow is possible
/// (AVX without AVX2 uses SSE registers); wider is not.
///
///     TERN_SIMD_AVX512    AVX-512 F, BW, DQ and VL      16 lanes of f32
///     TERN_SIMD_AVX2      AVX2, FMA and F16C             8
///     TERN_SIMD_SSE       SSE2, better with SSE4.2       4
///     TERN_SIMD_NEON      AArch64                        4
///     TERN_SIMD_EMULATED  arrays and loops: other machines, and -DTERN_EMULATE_LANES=n (2, 4, 8 or 16) for tests

#include <tern/core/config.hpp>

#if defined(TERN_EMULATE_LANES)
#define TERN_SIMD_EMULATED 1
#elif defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define TERN_SIMD_AVX512 1
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define TERN_SIMD_AVX2 1
#elif defined(__x86_64__)
#define TERN_SIMD_SSE 1
#elif defined(__aarch64__)
#define TERN_SIMD_NEON 1
#else
#define TERN_SIMD_EMULATED 1
#define TERN_EMULATE_LANES 4
#endif

#if !defined(TERN_SIMD_EMULATED)
#if defined(__GNUC__) && !defined(__clang__)
// gcc 12 takes the undefined passthrough of its own AVX-512 intrinsics for a mistake of whoever calls them.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#pragma GCC diagnostic pop
#endif
// xsimd's functions are inline and not all of their names tell the flags, so two files of one program could be given each other's.
// Here its namespace gets the name of the flags, and is known as xsimd within the file. A program that reopens namespace xsimd
// includes it before tern, which then takes it as it is.
#if !defined(XSIMD_HPP)
#define TERN_XSIMD_PASTE_(abi) xsimd_##abi
#define TERN_XSIMD_PASTE(abi) TERN_XSIMD_PASTE_(abi)
#define xsimd TERN_XSIMD_PASTE(TERN_ABI)
#include <xsimd/xsimd.hpp>
#undef xsimd
namespace xsimd = TERN_XSIMD_PASTE(TERN_ABI);
#elif defined(TERN_DISPATCH_OBJECT)
#error "tern: include <xsimd/xsimd.hpp> after tern's headers in a source that is compiled for several architectures"
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace tern {
inline namespace TERN_ABI {
namespace simd {
#if defined(TERN_SIMD_AVX512)
/// The xsimd architecture that packs are made of; none when emulated.
using arch = xsimd::avx512bw;
#elif defined(TERN_SIMD_AVX2)
using arch = xsimd::fma3<xsimd::avx2>;
#elif defined(TERN_SIMD_SSE) && defined(__SSE4_2__)
using arch = xsimd::sse4_2;
#elif defined(TERN_SIMD_SSE)
using arch = xsimd::sse2;
#elif defined(TERN_SIMD_NEON)
using arch = xsimd::neon64;
#endif
}  // namespace simd
}  // namespace TERN_ABI
}  // namespace tern
#endif
