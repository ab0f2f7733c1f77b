// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file core/cpu_features.hpp
/// Which instruction sets this CPU and its operating system offer, and which ones a file was compiled for. Sets of features are bits of
/// a 64-bit number, so that a data member can say what an object file needs before any of its code runs.
///
/// x86: CPUID, and XGETBV for what the operating system saves of the registers (AVX and AVX-512 are usable only then).
/// AArch64: the kernel's hwcaps. Elsewhere nothing is detected beyond what the file was compiled for.

#include <tern/core/config.hpp>

#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace tern::detail {

using cpu_features = std::uint64_t;

// name of the feature, macro that the compiler defines when it may use it, and where x86's CPUID reports it: leaf, subleaf,
// register (0 eax, 1 ebx, 2 ecx, 3 edx), bit, and which registers the operating system must save (0 none, 1 AVX, 2 AVX-512).
#define TERN_X86_FEATURES(X)                            \
  X(sse3, __SSE3__, 1, 0, 2, 0, 0)                      \
  X(ssse3, __SSSE3__, 1, 0, 2, 9, 0)                    \
  X(sse41, __SSE4_1__, 1, 0, 2, 19, 0)                  \
  X(sse42, __SSE4_2__, 1, 0, 2, 20, 0)                  \
  X(popcnt, __POPCNT__, 1, 0, 2, 23, 0)                 \
  X(movbe, __MOVBE__, 1, 0, 2, 22, 0)                   \
  X(lzcnt, __LZCNT__, 0x80000001, 0, 2, 5, 0)           \
  X(bmi, __BMI__, 7, 0, 1, 3, 0)                        \
  X(bmi2, __BMI2__, 7, 0, 1, 8, 0)                      \
  X(avx, __AVX__, 1, 0, 2, 28, 1)                       \
  X(f16c, __F16C__, 1, 0, 2, 29, 1)                     \
  X(fma, __FMA__, 1, 0, 2, 12, 1)                       \
  X(avx2, __AVX2__, 7, 0, 1, 5, 1)                      \
  X(avxvnni, __AVXVNNI__, 7, 1, 0, 4, 1)                \
  X(xop, __XOP__, 0x80000001, 0, 2, 11, 1)              \
  X(fma4, __FMA4__, 0x80000001, 0, 2, 16, 1)            \
  X(gfni, __GFNI__, 7, 0, 2, 8, 0)                      \
  X(avx512f, __AVX512F__, 7, 0, 1, 16, 2)               \
  X(avx512dq, __AVX512DQ__, 7, 0, 1, 17, 2)             \
  X(avx512ifma, __AVX512IFMA__, 7, 0, 1, 21, 2)         \
  X(avx512cd, __AVX512CD__, 7, 0, 1, 28, 2)             \
  X(avx512bw, __AVX512BW__, 7, 0, 1, 30, 2)             \
  X(avx512vl, __AVX512VL__, 7, 0, 1, 31, 2)             \
  X(avx512vbmi, __AVX512VBMI__, 7, 0, 2, 1, 2)          \
  X(avx512vbmi2, __AVX512VBMI2__, 7, 0, 2, 6, 2)        \
  X(avx512vnni, __AVX512VNNI__, 7, 0, 2, 11, 2)         \
  X(avx512bitalg, __AVX512BITALG__, 7, 0, 2, 12, 2)     \
  X(avx512vpopcnt, __AVX512VPOPCNTDQ__, 7, 0, 2, 14, 2) \
  X(avx512fp16, __AVX512FP16__, 7, 0, 3, 23, 2)         \
  X(avx512bf16, __AVX512BF16__, 7, 1, 0, 5, 2)

// The same for AArch64, by the auxiliary vector's entry (AT_HWCAP is 16, AT_HWCAP2 is 26) and bit.
#define TERN_ARM_FEATURES(X)                            \
  X(crc32, __ARM_FEATURE_CRC32, 16, 7)                  \
  X(atomics, __ARM_FEATURE_ATOMICS, 16, 8)              \
  X(fp16, __ARM_FEATURE_FP16_VECTOR_ARITHMETIC, 16, 10) \
  X(rdm, __ARM_FEATURE_QRDMX, 16, 12)                   \
  X(sha3, __ARM_FEATURE_SHA3, 16, 17)                   \
  X(dotprod, __ARM_FEATURE_DOTPROD, 16, 20)             \
  X(sve, __ARM_FEATURE_SVE, 16, 22)                     \
  X(sve2, __ARM_FEATURE_SVE2, 26, 1)                    \
  X(i8mm, __ARM_FEATURE_MATMUL_INT8, 26, 13)            \
  X(bf16, __ARM_FEATURE_BF16_VECTOR_ARITHMETIC, 26, 14)

#if defined(__x86_64__)
#define TERN_CPU_FEATURES TERN_X86_FEATURES
#elif defined(__aarch64__)
#define TERN_CPU_FEATURES TERN_ARM_FEATURES
#else
#define TERN_CPU_FEATURES(X)
#endif

enum cpu_feature : int {
#define TERN_FEATURE_ENUM(name, ...) cpu_feature_##name,
  TERN_CPU_FEATURES(TERN_FEATURE_ENUM)
#undef TERN_FEATURE_ENUM
      cpu_feature_count
};
static_assert(cpu_feature_count <= 64);

inline namespace TERN_ABI {

#define TERN_FEATURE_TEXT_(macro) #macro
/// A macro that is not defined expands to its own name, which begins with an underscore; a defined one to a number, or to nothing.
consteval bool macro_defined(char const* expansion) { return expansion[0] != '_'; }

/// What the compiler may use in the including file.
consteval cpu_features compiled_features() {
  cpu_features all = 0;
#define TERN_FEATURE_COMPILED(name, macro, ...) \
  if (macro_defined(TERN_FEATURE_TEXT_(macro))) all |= cpu_features{1} << cpu_feature_##name;
  TERN_CPU_FEATURES(TERN_FEATURE_COMPILED)
#undef TERN_FEATURE_COMPILED
  return all;
}

#if !defined(TERN_DISPATCH_OBJECT)

/// The feature's name, for messages.
inline char const* feature_name(int feature) {
  static constexpr char const* names[] = {
#define TERN_FEATURE_NAME(name, ...) #name,
      TERN_CPU_FEATURES(TERN_FEATURE_NAME)
#undef TERN_FEATURE_NAME
          ""};
  return names[feature];
}

#if defined(__x86_64__)

/// One register of CPUID's answer; 0 where the CPU has no such leaf.
inline std::uint32_t cpuid(std::uint32_t leaf, std::uint32_t subleaf, int which) {
  unsigned r[4] = {};
  if (__get_cpuid_count(leaf, subleaf, &r[0], &r[1], &r[2], &r[3]) == 0) return 0;
  // A subleaf that does not exist may answer with another one's bits.
  if (leaf == 7 && subleaf > 0) {
    unsigned top[4] = {};
    if (__get_cpuid_count(7, 0, &top[0], &top[1], &top[2], &top[3]) == 0 || top[0] < subleaf) return 0;
  }
  return r[which];
}

/// Which registers the operating system saves: 0 SSE, 1 AVX too, 2 AVX-512 too.
inline int saved_registers() {
  constexpr std::uint32_t osxsave = std::uint32_t{1} << 27;
  if ((cpuid(1, 0, 2) & osxsave) == 0) return 0;  // XGETBV would be an illegal instruction
  std::uint32_t low, high;
  __asm__ __volatile__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  constexpr std::uint32_t avx = 0x06, avx512 = 0xe6;  // XMM and YMM; opmask and both halves of ZMM
  if ((low & avx) != avx) return 0;
  return (low & avx512) == avx512 ? 2 : 1;
}

/// What this CPU and its operating system offer.
inline cpu_features detect_features() {
  cpu_features all = 0;
  int const saved = saved_registers();
#define TERN_FEATURE_DETECT(name, macro, leaf, subleaf, which, bit, needs) \
  if (saved >= needs && ((cpuid(leaf, subleaf, which) >> bit) & 1u) != 0) all |= cpu_features{1} << cpu_feature_##name;
  TERN_X86_FEATURES(TERN_FEATURE_DETECT)
#undef TERN_FEATURE_DETECT
  return all;
}

#elif defined(__aarch64__) && defined(__linux__)

inline cpu_features detect_features() {
  cpu_features all = 0;
#define TERN_FEATURE_DETECT(name, macro, entry, bit) \
  if (((getauxval(entry) >> bit) & 1u) != 0) all |= cpu_features{1} << cpu_feature_##name;
  TERN_ARM_FEATURES(TERN_FEATURE_DETECT)
#undef TERN_FEATURE_DETECT
  return all;
}

#else

inline cpu_features detect_features() { return compiled_features(); }

#endif
#endif  // TERN_DISPATCH_OBJECT

}  // namespace TERN_ABI
}  // namespace tern::detail
