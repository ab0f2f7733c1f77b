// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file simd/tiles.hpp
/// Matrix registers: eight of up to 16 rows of 64 bytes, and one instruction that multiplies two of them and adds to a third (Intel AMX).
///
///     dot_bytes<C, A, B>()   C(i, j) += sum over k of A(i, k) B(k, j)        A (rows, 64) s8, B (16, 16, 4) u8, C (rows, 16) s32
///     dot_signed<C, A, B>()  the same                                        B s8
///     dot_bf16<C, A, B>()    the same                                        A (rows, 32) bf16, B (16, 16, 2) bf16, C (rows, 16) f32
///
/// bf16: exact products, each sum rounded to nearest; subnormal numbers count as zero. `tiles::ready()` says whether there are such
/// registers and the system lets this process have them; the rest may be called only then.
///
/// The permission is the process's: its signal frames grow by 8 KB, and alternate signal stacks must have room for that.
///
/// Cost: a product takes a cycle for each row of A, a load half of one for each of its rows.

#include <tern/simd/arch.hpp>

#if defined(TERN_SIMD_AVX512) && defined(__AMX_TILE__) && defined(__AMX_INT8__) && defined(__AMX_BF16__) && defined(__linux__)
#define TERN_SIMD_TILES 1
#endif

#include <cstdint>

namespace tern {
inline namespace TERN_ABI {
namespace simd {
namespace tiles {

/// Rows of a tile.
inline constexpr index rows = 16;

/// The shapes of the registers. Tiles C: 0 to 3, A: 4 and 5, B: 6 and 7; tiles 0, 1 and 4 have `upper` rows, tiles 2, 3 and 5 `lower`. A's
/// rows have `bytes` bytes, a multiple of 4 up to 64, which B's rows take by four.
struct shape {
  std::uint8_t palette = 1, start = 0, reserved[14] = {};
  std::uint16_t column_bytes[16] = {};
  std::uint8_t row_count[16] = {};
  TERN_INLINE shape(index upper, index lower, index bytes = 64) {
    row_count[0] = row_count[1] = row_count[4] = static_cast<std::uint8_t>(upper);
    row_count[2] = row_count[3] = row_count[5] = static_cast<std::uint8_t>(lower);
    row_count[6] = row_count[7] = static_cast<std::uint8_t>(bytes / 4);
    for (int t = 0; t < 8; ++t) column_bytes[t] = row_count[t] == 0 ? 0 : static_cast<std::uint16_t>(t == 4 || t == 5 ? bytes : 64);
  }
};
static_assert(sizeof(shape) == 64);

#if defined(TERN_SIMD_TILES)
/// Whether this code may use them.
inline constexpr bool exist = true;
inline bool ready() noexcept {
  static bool const granted = [] {
    std::uint32_t eax = 7, ebx, ecx = 0, edx;
    asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    constexpr std::uint32_t needed = 1u << 22 | 1u << 24 | 1u << 25;  // AMX-BF16, AMX-TILE, AMX-INT8
    if ((edx & needed) != needed) return false;
    // arch_prctl(ARCH_REQ_XCOMP_PERM, the state of tile data), once a process; kernels that have no such thing refuse.
    long result;
    asm volatile("syscall" : "=a"(result) : "a"(158L), "D"(0x1023L), "S"(18L) : "rcx", "r11", "memory");
    return result == 0;
  }();
  return granted;
}

// Of the compilers' own intrinsics gcc 12's lose stores to the shape, so the instructions are written out.

/// Before the first use in a function; the registers are zero then.
TERN_INLINE void configure(shape const& s) { asm volatile("ldtilecfg %0" ::"m"(s)); }
/// After the last use in a function: the registers cost a thread's switches time while they are in use.
TERN_INLINE void release() { asm volatile("tilerelease"); }
template <int T>
TERN_INLINE void zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(T));
}
template <int T>
TERN_INLINE void load(void const* p, index stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride), "i"(T) : "memory");
}
template <int T>
TERN_INLINE void store(void* p, index stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(stride), "i"(T) : "memory");
}
template <int C, int A, int B>
TERN_INLINE void dot_bytes() {
  asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}
template <int C, int A, int B>
TERN_INLINE void dot_signed() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}
template <int C, int A, int B>
TERN_INLINE void dot_bf16() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}
#else
inline constexpr bool exist = false;
inline constexpr bool ready() noexcept { return false; }
TERN_INLINE void configure(shape const&) {}
TERN_INLINE void release() {}
template <int T>
TERN_INLINE void zero() {}
template <int T>
TERN_INLINE void load(void const*, index) {}
template <int T>
TERN_INLINE void store(void*, index) {}
template <int C, int A, int B>
TERN_INLINE void dot_bytes() {}
template <int C, int A, int B>
TERN_INLINE void dot_signed() {}
template <int C, int A, int B>
TERN_INLINE void dot_bf16() {}
#endif

}  // namespace tiles
}  // namespace simd
}  // namespace TERN_ABI
}  // namespace tern
