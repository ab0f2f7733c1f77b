// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file core/policy.hpp
/// The first argument of every call: where it runs, on which threads, and with whose scratch memory.
///
///     tern::cpu                      all cores, memory that the calling thread keeps and reuses
///     tern::cpu.on(executor)         the caller's threads; tern::cpu.on(tern::serial) for none
///     tern::cpu.with(workspace)      the caller's memory
///
/// Results do not depend on the executor: work is split by shapes alone.

#include <tern/core/executor.hpp>
#include <tern/core/workspace.hpp>

#if !defined(TERN_DISPATCH_OBJECT)
#include <tern/core/thread_pool.hpp>
#endif

namespace tern {

/// The calling thread alone: `tern::cpu.on(tern::serial)`.
inline constexpr serial_executor serial{};

namespace detail {
/// What an architecture's object uses as the default executor: the program's, which tern::dispatch puts here. A function, so that no
/// thread starts before one is asked for.
using executor_source = executor_ref (*)();
inline constinit executor_source program_executor = nullptr;

inline namespace TERN_ABI {

TERN_INLINE executor_ref default_executor() {
#if defined(TERN_DISPATCH_OBJECT)
  executor_source const get = __atomic_load_n(&program_executor, __ATOMIC_ACQUIRE);
  return get != nullptr ? get() : executor_ref{};
#else
  static thread_pool pool;
  return executor_ref{pool};
#endif
}

/// Destroyed when its thread ends, by a function that bears the architecture's name. (A member and not a base: clang would take the
/// base's destructor in place of this one, and that has no such name.)
struct thread_workspace {
  workspace mine;
  thread_workspace() = default;
  ~thread_workspace() {}
};
inline workspace& default_workspace() {
  thread_local thread_workspace own;
  return own.mine;
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// CPU execution for the architecture of the including file, whose flags are part of this type's name.
class cpu_policy {
 public:
  using backend = cpu_policy;

  constexpr cpu_policy() = default;

  /// The same policy on other threads. The executor must outlive the calls.
  template <executor E>
  [[nodiscard]] TERN_INLINE cpu_policy on(E& e) const {
    cpu_policy p = *this;
    p.executor_ = executor_ref(e);
    return p;
  }
  /// The same policy with the caller's scratch memory, which must outlive the calls.
  [[nodiscard]] TERN_INLINE cpu_policy with(workspace& w) const {
    cpu_policy p = *this;
    p.workspace_ = &w;
    return p;
  }

  TERN_INLINE executor_ref executor() const { return executor_ ? executor_ : detail::default_executor(); }
  TERN_INLINE workspace& scratch() const { return workspace_ != nullptr ? *workspace_ : detail::default_workspace(); }
  /// How many tasks run at the same time: kernels multiply their scratch by it.
  TERN_INLINE index concurrency() const { return executor().concurrency(); }

 private:
  executor_ref executor_;
  workspace* workspace_ = nullptr;
};

/// All cores of this machine.
inline constexpr cpu_policy cpu{};

/// What may be the first argument of a call.
template <class P>
concept execution_policy = requires { typename P::backend; };

/// A base of the calls that users write most: one without a policy is told so, where it is compiled (a `requires` of it holds).
struct takes_policy {
  template <class First, class... Rest>
    requires(!execution_policy<std::remove_cvref_t<First>>)
  void operator()(First const&, Rest const&...) const {
    static_assert(execution_policy<First>,
                  "tern: the first argument of a call is where it runs: tern::cpu, tern::cpu.on(tern::serial) for one thread, or "
                  "tern::cpu.on(executor) for threads of your own");
  }
};

/// The bytes of memory, at any address, that serve `op(policy, args...)` as a workspace: `workspace_size(tern::attention, tern::cpu, q, k,
/// v, out)`. It grows with the policy's concurrency and never exceeds what the same call with more threads or longer inputs needs.
template <class Op, execution_policy P, class... Args>
TERN_INLINE std::size_t workspace_size(Op const& op, P const& policy, Args const&... args) {
  std::size_t const bytes = op.workspace_size(policy, args...);
  return bytes > 0 ? workspace::rounded(bytes) + workspace::alignment - 1 : 0;
}

}  // namespace TERN_ABI
}  // namespace tern
