// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/recent_queries.hpp
/// The latest queries of a layer, for methods that choose tokens by them while a text grows token by token.
///
///     recent_queries last(heads, 32, dim);
///     last.push(q);                    q (heads, tokens, dim) of f32, f16 or bf16: prompt or single tokens, rotated
///     last.queries()                   (heads, up to 32, dim) f32, oldest first; holds until the next push
///
/// Memory    2 heads window dim floats. Cost of a push: copying its last `window` queries, and now and then those that stay.

#include <tern/attention/rows.hpp>
#include <tern/core/growing.hpp>
#include <tern/core/tensor_view.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
class recent_queries {
 public:
  recent_queries(index heads, index window, index dim) : heads_(heads), window_(window), dim_(dim) {
    detail::expect(heads >= 0 && dim >= 0, "recent_queries", "heads or dim", heads < dim ? heads : dim, "at least 0");
    detail::expect(window >= 1, "recent_queries", "window", window, "at least 1");
    rows_.reserve(2 * heads * window * dim);
    while (rows_.size() < 2 * heads * window * dim) rows_.push(0.f);
  }
  template <tensor_like Q>
  void push(Q&& q) {
    static_assert(view_of<Q>::rank == 3, "tern: recent_queries::push takes q (heads, tokens, dim)");
    auto const x = tern::view(q);
    constexpr char const* op = "recent_queries::push";
    detail::expect_equal(op, "q.extent(0)", x.extent(0), "heads", heads_);
    detail::expect_equal(op, "q.extent(2)", x.extent(2), "dim", dim_);
    detail::expect(dim_ <= 1 || x.stride(2) == 1, op, "q.stride(2)", x.stride(2), "1 (contiguous rows)");
    index const tokens = x.extent(1), count = tokens < window_ ? tokens : window_;
    if (end_ + count > 2 * window_) {  // what stays goes to the front
      index const stay = window_ - count;
      for (index h = 0; h < heads_; ++h)
        __builtin_memmove(row(h, 0), row(h, end_ - stay), static_cast<std::size_t>(stay * dim_) * sizeof(float));
      end_ = stay;
    }
    for (index h = 0; h < heads_; ++h)
      for (index t = 0; t < count; ++t) detail::widen_row(&x(h, tokens - count + t, 0), dim_, 1.f, row(h, end_ + t));
    end_ += count;
  }
  TERN_INLINE tensor_view<float const, 3> queries() const {
    index const count = end_ < window_ ? end_ : window_;
    return {rows_.data() + (end_ - count) * dim_, shape<3>{{heads_, count, dim_}}, shape<3>{{2 * window_ * dim_, dim_, 1}}};
  }

 private:
  TERN_INLINE float* row(index h, index t) { return rows_.data() + (h * 2 * window_ + t) * dim_; }
  index heads_, window_, dim_, end_ = 0;
  detail::growing<float> rows_;  // (heads, 2 window, dim)
};

}  // namespace TERN_ABI
}  // namespace tern
