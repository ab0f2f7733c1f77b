// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file core/steps.hpp
/// The steps of a call that is made of other calls, stated once: they run, or say how much scratch memory they take.
///
///     template <class Steps>
///     static void take(Steps& steps, X const& x, Y const& y) {
///       auto const half = detail::borrow<float>(steps, n, m);     scratch memory as a view (n, m), until the end of the scope
///       steps(matmul, x, w, half.view);                           matmul(policy, x, w, half.view)
///       if constexpr (Steps::runs) ...                            what is no call
///     }
///     detail::run_steps steps(policy);       take(steps, x, y);
///     detail::count_steps steps(policy);     take(steps, x, y);     steps.bytes() is the workspace_size
///
/// While steps are counted there is no memory behind what they borrow, and nothing is read: only shapes may decide what follows.

#include <tern/core/policy.hpp>
#include <tern/core/tensor_view.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Steps that run.
class run_steps {
 public:
  static constexpr bool runs = true;
  TERN_INLINE explicit run_steps(cpu_policy const& on) : policy(on) {}
  template <class Op, class... Args>
  TERN_INLINE void operator()(Op const& op, Args const&... args) const {
    op(policy, args...);
  }
  TERN_INLINE workspace::lease lease(std::size_t bytes) const { return workspace::lease(policy.scratch(), bytes); }
  cpu_policy policy;
};

/// Steps that are asked for their scratch memory: the most that is borrowed at a time.
class count_steps {
 public:
  static constexpr bool runs = false;
  TERN_INLINE explicit count_steps(cpu_policy const& on) : policy(on) {}
  template <class Op, class... Args>
  TERN_INLINE void operator()(Op const& op, Args const&... args) {
    note(op.workspace_size(policy, args...));
  }
  /// Borrowed memory that does not exist.
  class borrowed {
   public:
    TERN_INLINE borrowed(count_steps& from, std::size_t bytes) : from_(from), bytes_(workspace::rounded(bytes)) {
      from_.note(bytes);
      from_.used_ += bytes_;
    }
    borrowed(borrowed const&) = delete;
    borrowed& operator=(borrowed const&) = delete;
    TERN_INLINE ~borrowed() { from_.used_ -= bytes_; }
    TERN_INLINE std::byte* data() const { return nullptr; }

   private:
    count_steps& from_;
    std::size_t bytes_;
  };
  TERN_INLINE borrowed lease(std::size_t bytes) { return borrowed(*this, bytes); }
  TERN_INLINE std::size_t bytes() const { return most_; }
  cpu_policy policy;

 private:
  TERN_INLINE void note(std::size_t bytes) {
    std::size_t const now = used_ + workspace::rounded(bytes);
    if (now > most_) most_ = now;
  }
  std::size_t used_ = 0, most_ = 0;
};

/// Scratch memory as a view.
template <class T, int Rank, class Lease>
struct borrowed_view {
  Lease memory;
  tensor_view<T, Rank> view;
  template <class Steps, class... Extents>
  TERN_INLINE borrowed_view(Steps& steps, Extents... extents)
      : memory(steps.lease(static_cast<std::size_t>((extents * ...)) * sizeof(T))),
        view(tern::view(reinterpret_cast<T*>(memory.data()), extents...)) {}
};
/// Borrows memory for a view of these extents.
template <class T, class Steps, class... Extents>
TERN_INLINE auto borrow(Steps& steps, Extents... extents) {
  return borrowed_view<T, int{sizeof...(Extents)}, decltype(steps.lease(0))>(steps, index{extents}...);
}

}  // namespace TERN_ABI
}  // namespace tern::detail
