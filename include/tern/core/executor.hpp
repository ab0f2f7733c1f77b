// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file core/executor.hpp
/// Where threads come from. An executor is any object with two functions:
///
///     e.concurrency()   how many calls can run at the same time, the caller's thread included (at least 1); the same number
///                       throughout a call of tern's, whose scratch memory is a piece for each
///     e.run(n, f)       calls f(i) once for every i in [0, n) and returns when all have returned
///
/// `run` may use any threads in any order; tern never asks for n > concurrency(). Calls of f do not throw. The program's
/// own pool fits with a few lines; adapters for Eigen's ThreadPool, OpenMP and TBB stand beside this file.

#include <tern/core/config.hpp>

#include <concepts>
#include <type_traits>

namespace tern {

namespace detail {
inline namespace TERN_ABI {
template <class F>
inline void invoke_task(void* object, index i) {
  (*static_cast<F*>(object))(i);
}
template <class E>
inline index concurrency_of(void* object) {
  return static_cast<index>(static_cast<E*>(object)->concurrency());
}
}  // namespace TERN_ABI
}  // namespace detail

/// A callable f(index) by reference: two pointers.
class task_ref {
 public:
  template <class F>
    requires(!std::same_as<std::remove_cvref_t<F>, task_ref> && std::invocable<F&, index>)
  TERN_INLINE task_ref(F& f) : object_(const_cast<void*>(static_cast<void const*>(&f))), call_(&detail::invoke_task<F>) {}

  TERN_INLINE void operator()(index i) const { call_(object_, i); }

 private:
  void* object_;
  void (*call_)(void*, index);
};

/// What can run tern: the two functions above.
template <class E>
concept executor = requires(E& e, index n, task_ref f) {
  { e.concurrency() } -> std::convertible_to<index>;
  e.run(n, f);
};

/// Runs everything on the calling thread.
struct serial_executor {
  TERN_INLINE index concurrency() const { return 1; }
  template <class F>
  TERN_INLINE void run(index n, F&& f) const {
    for (index i = 0; i < n; ++i) f(i);
  }
};

namespace detail {
inline namespace TERN_ABI {
template <class E>
inline void run_on(void* object, index n, task_ref f) {
  static_cast<E*>(object)->run(n, f);
}
}  // namespace TERN_ABI
}  // namespace detail

/// Any executor, by reference. Kernels see only this type, so an executor of one's own costs no new instantiations.
class executor_ref {
 public:
  TERN_INLINE executor_ref() = default;
  template <executor E>
    requires(!std::same_as<E, executor_ref>)
  TERN_INLINE executor_ref(E& e)
      : object_(const_cast<void*>(static_cast<void const*>(&e))), concurrency_(&detail::concurrency_of<E>), run_(&detail::run_on<E>) {}

  TERN_INLINE index concurrency() const { return concurrency_ != nullptr ? concurrency_(object_) : 1; }
  TERN_INLINE void run(index n, task_ref f) const {
    if (run_ != nullptr) return run_(object_, n, f);
    for (index i = 0; i < n; ++i) f(i);
  }
  TERN_INLINE explicit operator bool() const { return run_ != nullptr; }

 private:
  void* object_ = nullptr;
  index (*concurrency_)(void*) = nullptr;
  void (*run_)(void*, index, task_ref) = nullptr;
};

}  // namespace tern
