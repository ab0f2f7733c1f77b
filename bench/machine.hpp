// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file bench/machine.hpp
/// What this machine can do, measured with the vectors that tern uses, compiled for the architecture of the benchmarks:
///
///     peak of f32     fused multiply-adds on independent registers, GFLOP/s
///     peak of bf16    bf16 dot products into f32, GFLOP/s
///     peak of int8    u8 x s8 dot products into int32, GOP/s (a multiply and an add are two)
///     bandwidth       reading a buffer several times larger than the last-level cache, GB/s
///
/// each the best of several repeats, since a limit is what the machine can do when nobody disturbs it, with all threads of a
/// count busy at the same time.

#include <tern/core/config.hpp>

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace tern::bench {

/// The unit of arithmetic that bounds a kernel.
enum class unit { f32, bf16, int8 };
char const* name_of(unit u);

/// The limits with one thread count.
struct machine_limits {
  int threads = 1;
  double peak[3] = {};   ///< GFLOP/s (int8: GOP/s), by unit
  double bandwidth = 0;  ///< GB/s
};

/// Measures once for each count, in about two seconds; later calls only look up.
void measure_machine(std::span<int const> thread_counts);
/// The limits for this thread count. It must have been measured.
machine_limits const& limits(int threads);

/// The size of the last-level cache, and of the one that a core has to itself, in bytes.
std::size_t last_level_cache();
std::size_t second_level_cache();
/// The processor's name as the system gives it.
std::string processor_name();

/// Zeroed memory that starts on a page, on large pages where it is large.
void* allocate_pages(std::size_t bytes);
void free_pages(void* memory);

}  // namespace tern::bench
