// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/weights_ref.hpp
/// Weights of any kind by reference, so that one call takes several matrices of different kinds:
///
///     weights_ref const qkv[] = {q, k, v};     a block_matrix, an interleaved_matrix, gptq_weights, ...
///     matmul(policy, x, qkv, {yq, yk, yv}, compute::int8);

#include <tern/matmul/interleaved.hpp>

namespace tern {
inline namespace TERN_ABI {

/// Refers to weights that must outlive it, so to no temporary ones. Views of numbers become a block_matrix first.
class weights_ref {
 public:
  template <class W>
    requires(detail::is_weights<W> && !std::is_same_v<W, weights_ref>)
  TERN_INLINE weights_ref(W const& w) : any_(detail::weights_of(w)) {}
  /// Nothing would be left to refer to.
  template <class W>
    requires(detail::is_weights<W> && !std::is_same_v<W, weights_ref>)
  weights_ref(W const&& w) = delete;
  TERN_INLINE index rows() const { return any_.rows; }
  TERN_INLINE index columns() const { return any_.columns; }
  TERN_INLINE detail::any_weights const& any() const { return any_; }

 private:
  detail::any_weights any_;
};

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {
TERN_INLINE any_weights weights_of(weights_ref const& w) { return w.any(); }
}  // namespace TERN_ABI
}  // namespace detail
}  // namespace tern
