// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file core/thread_pool.hpp
/// The default executor: one thread a core, which spins for a moment between parallel regions (a language model's step
/// has hundreds of them, microseconds apart) and then sleeps.

#include <tern/core/executor.hpp>

#include <atomic>
#include <cstdint>
#include <memory>
#include <system_error>
#include <thread>

namespace tern {
inline namespace TERN_ABI {

/// A fixed set of threads. A region that starts while another runs (from a worker, or from a second thread of the
/// program) runs on its caller's thread alone: nothing blocks and nothing nests. After fork() the child has none of these threads: it
/// uses `tern::serial`, or a pool that it makes itself.
class thread_pool {
 public:
  /// `threads` counts the caller's thread; 0 means one a core.
  explicit thread_pool(index threads = 0) {
    if (threads <= 0) threads = static_cast<index>(std::thread::hardware_concurrency());
    workers_ = threads > 1 ? threads - 1 : 0;
    if (workers_ == 0) return;
    threads_ = std::make_unique<std::thread[]>(static_cast<std::size_t>(workers_));
    index started = 0;
#if TERN_EXCEPTIONS
    try {
#endif
      for (; started < workers_; ++started) threads_[static_cast<std::size_t>(started)] = std::thread([this] { work(); });
#if TERN_EXCEPTIONS
    } catch (std::system_error const&) {
      // The system has no more threads: those that it gave do.
    }
#endif
    workers_ = started;
  }
  thread_pool(thread_pool const&) = delete;
  thread_pool& operator=(thread_pool const&) = delete;
  ~thread_pool() {
    stop_.store(true, std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    for (index i = 0; i < workers_; ++i) threads_[static_cast<std::size_t>(i)].join();
  }

  index concurrency() const noexcept { return workers_ + 1; }

  void run(index n, task_ref f) {
    if (n <= 1 || workers_ == 0 || busy_.exchange(true, std::memory_order_acquire)) {
      for (index i = 0; i < n; ++i) f(i);
      return;
    }
    task_ = &f;
    count_ = n;
    next_.store(0, std::memory_order_relaxed);
    outside_.store(workers_, std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_seq_cst);  // ordered before the look at sleepers_, as a sleeper's are reversed
    if (sleepers_.load(std::memory_order_seq_cst) != 0) generation_.notify_all();
    drain(f, n);
    // Every worker passes through each region, so that none can meet the next one's counters late.
    for (int spins = 0; outside_.load(std::memory_order_acquire) != 0;) relax(spins);
    busy_.store(false, std::memory_order_release);
  }

 private:
  static constexpr int spins_before_yield = 1 << 10;
  static constexpr int spins_before_sleep = 1 << 12;

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
  }
  static void relax(int& spins) {
    if (++spins < spins_before_yield)
      pause();
    else
      std::this_thread::yield();
  }
  void drain(task_ref f, index n) {
    for (index i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < n;) f(i);
  }
  void work() {
    std::uint32_t seen = 0;
    for (;;) {
      std::uint32_t now = await(seen);
      if (stop_.load(std::memory_order_relaxed)) return;
      seen = now;
      drain(*task_, count_);
      outside_.fetch_sub(1, std::memory_order_release);
    }
  }
  std::uint32_t await(std::uint32_t seen) {
    for (int spins = 0; spins < spins_before_sleep; relax(spins))
      if (std::uint32_t now = generation_.load(std::memory_order_acquire); now != seen) return now;
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    generation_.wait(seen, std::memory_order_seq_cst);
    sleepers_.fetch_sub(1, std::memory_order_relaxed);
    return generation_.load(std::memory_order_acquire);
  }

  std::unique_ptr<std::thread[]> threads_;
  index workers_ = 0;
  task_ref const* task_ = nullptr;
  index count_ = 0;
  std::atomic<bool> stop_{false};
  alignas(64) std::atomic<bool> busy_{false};
  alignas(64) std::atomic<std::uint32_t> generation_{0};
  std::atomic<std::uint32_t> sleepers_{0};
  alignas(64) std::atomic<index> next_{0};
  alignas(64) std::atomic<index> outside_{0};
};

}  // namespace TERN_ABI
}  // namespace tern
