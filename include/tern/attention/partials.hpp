// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/partials.hpp
/// Scratch memory for the results of several attention calls, and their merge into one.

#include <tern/attention/attention.hpp>
#include <tern/attention/merge.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// `parts` outputs and log-sum-exps of the shape of `out`, f32.
template <int Rank>
class partial_results {
 public:
  template <class T>
  TERN_INLINE partial_results(cpu_policy const& policy, index parts, tensor_view<T, Rank> const& out)
      : memory_(policy.scratch(), bytes(parts, out)) {
    shape<Rank + 1> outs{};
    shape<Rank> sums{};
    outs.extents[0] = sums.extents[0] = parts;
    for (int d = 0; d < Rank; ++d) outs.extents[d + 1] = out.extent(d);
    for (int d = 0; d + 1 < Rank; ++d) sums.extents[d + 1] = out.extent(d);
    out_ = tensor_view<float, Rank + 1>(reinterpret_cast<float*>(memory_.data()), outs);
    lse_ = tensor_view<float, Rank>(out_.data() + out_.size(), sums);
  }
  /// Where call `part` writes, and an option for its log-sum-exp.
  TERN_INLINE tensor_view<float, Rank> out(index part) const { return out_[part]; }
  TERN_INLINE log_sum_exp<Rank - 1> lse(index part) const { return log_sum_exp<Rank - 1>{lse_[part]}; }
  /// All of them as one.
  template <class O, class L>
  TERN_INLINE void merge_into(cpu_policy const& policy, O const& out, L const& lse) const {
    merge(policy, out_, lse_, out, lse);
  }

  template <class T>
  TERN_INLINE static std::size_t bytes(index parts, tensor_view<T, Rank> const& out) {
    index rows = 1;
    for (int d = 0; d + 1 < Rank; ++d) rows *= out.extent(d);
    return workspace::rounded(static_cast<std::size_t>(parts * (out.size() + rows)) * sizeof(float));
  }

 private:
  workspace::lease memory_;
  tensor_view<float, Rank + 1> out_;
  tensor_view<float, Rank> lse_;
};

}  // namespace TERN_ABI
}  // namespace tern::detail
