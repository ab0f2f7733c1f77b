// SPDX-License-Identifier: Apache-2.0
#include "machine.hpp"

#include <tern/core/thread_pool.hpp>
#include <tern/simd/dot.hpp>
#include <tern/simd/pack.hpp>

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <new>
#include <stdexcept>

namespace tern::bench {
namespace {

constexpr int rounds = 3, repeats = 4;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// A register tile as a matrix product has it: rows * cols accumulators (more than latency times throughput), each with operands
// of its own, so that no part of an emulated dot product can be shared or leave the loop.
#if defined(TERN_SIMD_AVX512) || defined(TERN_SIMD_NEON)
constexpr index rows = 6, cols = 4;
#else
constexpr index rows = 4, cols = 3;
#endif

/// What a peak is measured with: acc = step(acc, a, b), and the operations that one step does.
struct f32_step {
  using acc = simd::pack<float>;
  using lane = float;
  using element_a = float;
  using element_b = float;
  static constexpr double ops = 2.0 * simd::pack<float>::size;
  TERN_INLINE static acc step(acc c, simd::pack<float> a, simd::pack<float> b) { return simd::fma(a, b, c); }
};
struct bf16_step {
  using acc = simd::pack<float>;
  using lane = float;
  using element_a = bf16;
  using element_b = bf16;
  static constexpr double ops = 2.0 * simd::pack<bf16>::size;
  TERN_INLINE static acc step(acc c, simd::pack<bf16> a, simd::pack<bf16> b) { return simd::dot(c, a, b); }
};
struct int8_step {
  using acc = simd::pack<std::int32_t>;
  using lane = std::int32_t;
  using element_a = std::uint8_t;
  using element_b = std::int8_t;
  static constexpr double ops = 2.0 * simd::pack<std::int8_t>::size;
  TERN_INLINE static acc step(acc c, simd::pack<std::uint8_t> a, simd::pack<std::int8_t> b) { return simd::dot7(c, a, b); }
};

/// Makes the compiler keep x in a register: loading it again for each of its uses would measure the load units.
template <class Pack>
TERN_INLINE void hold([[maybe_unused]] Pack& x) {
#if defined(TERN_SIMD_NEON)
  if constexpr (requires { x.v.data; })
    __asm__("" : "+w"(x.v.data));
  else
    __asm__("" : "+w"(x.v));
#elif !defined(TERN_SIMD_EMULATED)
  if constexpr (requires { x.v.data; })
    __asm__("" : "+v"(x.v.data));
  else
    __asm__("" : "+v"(x.v));
#endif
}

/// Makes the compiler believe that x is used.
template <class Pack>
TERN_INLINE void keep(Pack x) {
  __asm__ __volatile__("" : : "m"(x));
}

template <class T>
TERN_INLINE simd::pack<T> operand(T const* p) {
  if constexpr (sizeof(T) == 4)
    return simd::load(p);
  else
    return simd::load_narrow(p);
}

template <class Step>
[[gnu::noinline]] void turn(index count) {
  using A = typename Step::element_a;
  using B = typename Step::element_b;
  constexpr index size_a = simd::pack<A>::size, size_b = simd::pack<B>::size;
  alignas(64) A a[rows * size_a];
  alignas(64) B b[cols * size_b];
  std::memset(a, 0, sizeof a);
  std::memset(b, 0, sizeof b);
  typename Step::acc acc[rows][cols] = {};
  for (index n = 0; n < count; ++n) {
    A const* at_a = a;
    B const* at_b = b;
    __asm__ __volatile__("" : "+r"(at_a), "+r"(at_b));  // the operands are loaded again in each turn
    simd::pack<B> right[cols];
    TERN_UNROLL
    for (index j = 0; j < cols; ++j) right[j] = operand(at_b + j * size_b);
    TERN_UNROLL
    for (index i = 0; i < rows; ++i) {
      simd::pack<A> left = operand(at_a + i * size_a);
      hold(left);
      TERN_UNROLL
      for (index j = 0; j < cols; ++j) acc[i][j] = Step::step(acc[i][j], left, right[j]);
    }
  }
  // Stored without a detour: gcc 12 keeps accumulators in memory when anything else is done with them.
  alignas(64) typename Step::lane out[rows * cols * simd::lanes];
  auto* to = out;
  __asm__ __volatile__("" : "+r"(to));
  TERN_UNROLL
  for (index i = 0; i < rows; ++i) {
    TERN_UNROLL
    for (index j = 0; j < cols; ++j) simd::store(to + (i * cols + j) * simd::lanes, acc[i][j]);
  }
  __asm__ __volatile__("" : : "r"(to) : "memory");
}

/// GFLOP/s of `Step` with all threads of the pool busy.
template <class Step>
double measure_peak(thread_pool& pool) {
  index count = 1 << 14;
  auto seconds_of = [&] {
    double const begin = now();
    auto task = [&](index) { turn<Step>(count); };
    pool.run(pool.concurrency(), task_ref(task));
    return now() - begin;
  };
  for (double s; (s = seconds_of()) < 0.01;) count *= 2;
  double best = 0;
  for (int r = 0; r < repeats; ++r) {
    double const ops = Step::ops * static_cast<double>(rows * cols * count * pool.concurrency());
    best = std::max(best, ops / seconds_of() * 1e-9);
  }
  return best;
}

/// Adds up `n` floats in `streams` places at once; n is a multiple of streams * 8 vectors.
template <index streams>
[[gnu::noinline]] void add_up(float const* x, index n) {
  constexpr index W = simd::lanes, line = 64 / sizeof(float), per = line > W ? line : W;
  simd::pack<float> acc[streams] = {};
  index const part = n / streams;
  for (index i = 0; i < part; i += per) {
    TERN_UNROLL
    for (index s = 0; s < streams; ++s) {
      TERN_UNROLL
      for (index w = 0; w < per; w += W) acc[s] += simd::load(x + s * part + i + w);
    }
  }
  TERN_UNROLL
  for (index s = 1; s < streams; ++s) acc[0] += acc[s];
  keep(acc[0]);
}

template <index streams>
double measure_bandwidth(thread_pool& pool, float const* x, index n) {
  index const threads = pool.concurrency(), part = n / threads / 4096 * 4096;
  auto task = [&](index t) { add_up<streams>(x + t * part, part); };
  double best = 0;
  for (int r = 0; r < repeats; ++r) {
    double const begin = now();
    pool.run(threads, task_ref(task));
    best = std::max(best, static_cast<double>(part * threads) * sizeof(float) / (now() - begin) * 1e-9);
  }
  return best;
}

std::vector<machine_limits>& all_limits() {
  static std::vector<machine_limits> all;
  return all;
}

/// The largest cache up to a level, as the kernel sees it: what sysconf reports can be the whole package's, of which a virtual machine has
/// a part. `otherwise`, where it does not say.
std::size_t largest_cache(int level, std::size_t otherwise) {
  std::size_t largest = 0;
  for (int i = 0; i < 8; ++i) {
    std::string const place = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(i);
    std::ifstream size(place + "/size"), of(place + "/level");
    std::size_t kib = 0;
    int found = 0;
    if (size >> kib && of >> found && found <= level) largest = std::max(largest, kib << 10);
  }
  return largest != 0 ? largest : otherwise;
}

}  // namespace

char const* name_of(unit u) {
  switch (u) {
    case unit::f32:
      return "f32";
    case unit::bf16:
      return "bf16";
    case unit::int8:
      return "int8";
  }
  return "?";
}

void measure_machine(std::span<int const> thread_counts) {
  std::size_t const bytes = std::clamp(16 * last_level_cache(), std::size_t{256} << 20, std::size_t{1} << 30);
  void* const memory = allocate_pages(bytes);
  auto const* const x = static_cast<float const*>(memory);
  auto const n = static_cast<index>(bytes / sizeof(float));
  for (int threads : thread_counts) all_limits().push_back({.threads = threads});
  for (int round = 0; round < rounds; ++round)  // apart in time: a disturbance may outlast the repeats of one
    for (machine_limits& m : all_limits()) {
      thread_pool pool(m.threads);
      auto raise = [](double& limit, double measured) { limit = std::max(limit, measured); };
      double& f32 = m.peak[static_cast<int>(unit::f32)];
      raise(f32, measure_peak<f32_step>(pool));
      // Where the machine has no such instruction, computing in f32 is what there is.
      raise(m.peak[static_cast<int>(unit::bf16)], std::max(f32, measure_peak<bf16_step>(pool)));
      raise(m.peak[static_cast<int>(unit::int8)], std::max(f32, measure_peak<int8_step>(pool)));
      // One stream a thread or several: prefetchers differ in which they like.
      raise(m.bandwidth, measure_bandwidth<1>(pool, x, n));
      raise(m.bandwidth, measure_bandwidth<4>(pool, x, n));
      raise(m.bandwidth, measure_bandwidth<8>(pool, x, n));
    }
  free_pages(memory);
}

machine_limits const& limits(int threads) {
  for (machine_limits const& m : all_limits())
    if (m.threads == threads) return m;
  throw std::logic_error("the machine was not measured with " + std::to_string(threads) + " threads");
}

std::size_t last_level_cache() {
  static std::size_t const size = largest_cache(8, std::size_t{32} << 20);
  return size;
}
std::size_t second_level_cache() {
  static std::size_t const size = largest_cache(2, std::size_t{1} << 20);
  return size;
}

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name"))
      if (auto const at = line.find(": "); at != std::string::npos) return line.substr(at + 2);
  return "unknown";
}

void* allocate_pages(std::size_t bytes) {
  std::size_t const large = std::size_t{2} << 20;
  std::size_t const alignment = bytes >= 2 * large ? large : 4096;
  std::size_t const rounded = (bytes + alignment - 1) / alignment * alignment;
  void* const memory = std::aligned_alloc(alignment, rounded != 0 ? rounded : alignment);
  if (memory == nullptr) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
  if (alignment == large) madvise(memory, rounded, MADV_HUGEPAGE);
#endif
  std::memset(memory, 0, rounded);
  return memory;
}

void free_pages(void* memory) { std::free(memory); }

}  // namespace tern::bench
