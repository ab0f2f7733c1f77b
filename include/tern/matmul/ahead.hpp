// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/ahead.hpp
/// Asking for memory before it is read: the next panel's weights and the next columns of x while a panel is multiplied.

#include <tern/core/rounding.hpp>
#include <tern/matmul/types.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Memory that will be read soon, asked for a line at a time, so that the loads of the work in between do not wait behind it: up to two
/// ranges, one behind the other.
class memory_ahead {
 public:
  /// `bytes` bytes at `at` and each `stride` bytes on, `rows` times.
  TERN_INLINE void add(void const* at, index bytes, index stride = 0, index rows = 1) {
    if (at == nullptr || bytes <= 0 || rows <= 0) return;
    (now_.rows == 0 ? now_ : then_) = {reinterpret_cast<std::uintptr_t>(at), divide_up(bytes, line), static_cast<std::uintptr_t>(stride),
                                       rows};
  }
  TERN_INLINE index lines() const { return now_.lines * now_.rows + then_.lines * then_.rows; }
  /// Asks for the next line, if there is one.
  TERN_INLINE void ask() {
    if (now_.rows == 0) return;
    __builtin_prefetch(reinterpret_cast<void const*>(now_.at + static_cast<std::uintptr_t>(line * next_)), 0, 2);
    if (++next_ < now_.lines) return;
    next_ = 0;
    now_.at += now_.stride;
    if (--now_.rows > 0) return;
    now_ = then_;
    then_ = {};
  }

 private:
  static constexpr index line = 64;
  struct range {
    std::uintptr_t at = 0;  // may pass the end
    index lines = 0;
    std::uintptr_t stride = 0;
    index rows = 0;
  };
  range now_{}, then_{};
  index next_ = 0;
};

/// A chunk of columns of one panel, as a stripe of weight rows [n0, n1) meets them: all panels of a chunk, then the next chunk.
struct stripe_place {
  index n0, n1, n;  // the panel's first row
  index columns, k0, chunk;
  TERN_INLINE index panel() const { return (n - n0) / panel_rows; }
  TERN_INLINE index panels() const { return divide_up(n1 - n0, panel_rows); }
  /// The columns that follow; at the end, the first ones: another stripe takes them.
  TERN_INLINE index next_k0() const { return k0 + chunk < columns ? k0 + chunk : 0; }
  TERN_INLINE index next_columns() const { return least(chunk, columns - next_k0()); }
  /// The panel that comes next within the stripe: rows from n on, columns from k0 to k1; none: no columns.
  struct panel_place {
    index n, k0, k1;
  };
  TERN_INLINE panel_place next_panel() const {
    if (n + panel_rows < n1) return {n + panel_rows, k0, least(k0 + chunk, columns)};
    index const k = next_k0();
    return {n0, k, k > 0 ? k + next_columns() : 0};
  }
};
/// Of the first row, where weights say that they lie in memory.
template <class W>
TERN_INLINE row_memory memory_of(W const& w) {
  if constexpr (requires { w.memory(0); })
    if (w.rows > 0 && w.columns > 0) return w.memory(0);
  return {};
}
/// The weights of the panel that follows within the stripe. w: the memory of the first of all rows.
TERN_INLINE void add_weights(memory_ahead& ahead, row_memory const& w, stripe_place const& p) {
  auto const [n, k0, k1] = p.next_panel();
  if (w.data == nullptr || k1 <= k0) return;
  index const from = w.bytes * k0 / p.columns, to = w.bytes * k1 / p.columns;
  ahead.add(w.data + n * w.stride + from, to - from, w.stride, least(panel_rows, p.n1 - n));
}
/// The same, also of weights whose panels lie ready.
TERN_INLINE void add_weights(memory_ahead& ahead, any_weights const& w, stripe_place const& p) {
  if (w.panels == nullptr) return add_weights(ahead, w.memory, p);
  auto const [n, k0, k1] = p.next_panel();
  if (n + panel_rows > w.rows) return;
  ahead.add(w.panels + n * w.columns + k0 * panel_rows, (k1 - k0) * panel_rows * index{sizeof(bf16)});
}
/// A panel's share of the next columns of x. next: where these are, `bytes` bytes of each of `rows` rows.
TERN_INLINE void add_share(memory_ahead& ahead, void const* next, index bytes, index stride, index rows, stripe_place const& p) {
  index const share = divide_up(rows, p.panels()), first = p.panel() * share;
  if (first < rows) ahead.add(static_cast<std::byte const*>(next) + first * stride, bytes, stride, least(share, rows - first));
}

}  // namespace TERN_ABI
}  // namespace tern::detail
