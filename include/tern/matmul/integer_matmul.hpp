// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/integer_matmul.hpp
/// Products of integers that stay integers, for networks that are integers from end to end:
///
///     integer_matmul(policy, x, w, y)              y = x w^T
///     integer_matmul(policy, x, w, y, dyadic{...}) y = clip(round((x w^T + bias) m / 2^s)), m and s for each row of w
///     dyadic_add(policy, a, ma, sa, b, mb, sb, y)  y = clip(round((a ma 2^-sa + b mb 2^-sb)))    a residual of two scales
///
///     x (rows, k)   int8, rows contiguous          w (n, k)   int8 with contiguous rows, or any coded weights (formats/weights.hpp), of
///     y (rows, n)   int32; int8 with `dyadic`                 which the integers u - offset count, and not the scales
///
/// m / 2^s stands for scale_x scale_w / scale_y. Halves round up (towards +infinity); products are exact in 64 bits, so every machine gives
/// the same result. Sums are exact for k up to 2^16 (131071 where no product overflows). Errors: shapes, k above 65536, shifts outside
/// [0, 62].
/// Cost: rows n k products of bytes, as compute::int8_tokens.
/// Source: Yao et al., "HAWQ-V3: Dyadic Neural Network Quantization", 2021 (formula from knowledge; the rounding of halves is ours).

#include <tern/matmul/integer_kernel.hpp>
#include <tern/pointwise/rows.hpp>

namespace tern {
inline namespace TERN_ABI {

/// What turns sums into outputs. For each row of w a multiplier and a shift; bias (n) if there is one.
struct dyadic {
  tensor_view<std::int32_t const, 1> multiplier, shift;
  tensor_view<std::int32_t const, 1> bias{};
  std::int32_t low = -128, high = 127;
};

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {

/// int8 rows as coded weights; k need not be a multiple of 32.
struct int8_codes {
  static constexpr index granule = 32;
  static constexpr int offset = 128;
  static constexpr bool has_min = false;
  tensor_view<std::int8_t const, 2> q;
  index rows = q.extent(0), columns = q.extent(1);
  TERN_INLINE void unpack(index row, index g, std::uint8_t* u) const {
    std::int8_t const* const from = q.data() + row * q.stride(0) + 32 * g;
    for (index j = 0; j < 32; ++j) u[j] = static_cast<std::uint8_t>(32 * g + j < columns ? from[j] + 128 : 128);
  }
  TERN_INLINE void scales(index, index, float* s, float*) const { s[0] = 1.f; }
};

/// round(v m / 2^s), halves up.
TERN_INLINE std::int64_t dyadic_round(std::int64_t v, std::int32_t m, std::int32_t s) {
  std::int64_t const product = v * m;
  return s == 0 ? product : ((product >> (s - 1)) + 1) >> 1;
}
TERN_INLINE std::int8_t clip_int8(std::int64_t v, std::int32_t low, std::int32_t high) {
  return static_cast<std::int8_t>(v < low ? low : v > high ? high : v);
}

/// x with rows that are zero up to a multiple of 32, and the sum of each.
struct integer_input {
  std::int8_t* q;
  std::int32_t* totals;
  index stride;
};
inline void copy_integers(tensor_view<std::int8_t const, 2> const& x, integer_input const& out) noexcept {
  for (index r = 0; r < x.extent(0); ++r) {
    std::int32_t total = 0;
    std::int8_t* const row = out.q + r * out.stride;
    for (index k = 0; k < x.extent(1); ++k) total += row[k] = x(r, k);
    for (index k = x.extent(1); k < round_to_multiple(x.extent(1), 32); ++k) row[k] = 0;
    out.totals[r] = total;
  }
}

/// store(r, n, sum) for each element of x w^T.
template <class W, class Store>
inline void multiply_all_integers(cpu_policy const& policy, W const& w, integer_input const& x, index rows, std::byte* scratch,
                                  Store const& store) {
  index const stripe = panels_of(policy, w.rows, rows) * panel_rows, items = divide_up(w.rows, stripe);
  index const groups = divide_up(w.columns, 32);
  code_source const codes{&w,
                          [](void const* o, index n0, index n1, index g0, index g1, code_panel& panel) noexcept {
                            pack_codes<false>(*static_cast<W const*>(o), n0, n1, g0, g1, panel);
                          },
                          code_kind_of<W>, memory_of(w)};
  std::conditional_t<simd::dot7_takes_bytes, code_source, any_byte_source> const source{codes};
  parallel_for(policy, items, [&](index item, index slot) TERN_LAMBDA {
    std::byte* const memory = scratch + slot * slot_bytes(rows);
    auto* const sums = reinterpret_cast<std::int32_t*>(memory + panel_bytes);
    index const n0 = item * stripe, n1 = least(n0 + stripe, w.rows);
    for (index first = 0; first < rows; first += kept_rows) {
      index const last = least(first + kept_rows, rows);
      sum_integers(source, n0, n1, x.q, x.stride, first, last, groups, sums, panel_at(memory).codes);
      for (index r = first; r < last; ++r)
        for (index n = n0; n < n1; ++n) {
          index const panel = (n - n0) / panel_rows * panel_rows;
          store(r, n, sums[panel * (last - first) + (r - first) * panel_rows + (n - n0 - panel)] - W::offset * x.totals[r]);
        }
    }
  });
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// `tern::integer_matmul(policy, x, w, y)`: see the top of matmul/integer_matmul.hpp.
inline constexpr struct integer_matmul_fn {
  template <tensor_like X, class W, tensor_like Y>
  void operator()(cpu_policy const& policy, X&& x, W const& w, Y&& y) const {
    tensor_view<std::int32_t, 2> const to = tern::view(y);
    run(policy, tern::view(x), w, to, [&](index r, index n, std::int32_t sum) TERN_LAMBDA { to(r, n) = sum; });
  }
  template <tensor_like X, class W, tensor_like Y>
  void operator()(cpu_policy const& policy, X&& x, W const& w, Y&& y, dyadic const& d) const {
    tensor_view<std::int8_t, 2> const to = tern::view(y);
    index const n = to.extent(1);
    detail::expect_equal("integer_matmul", "dyadic.multiplier.extent(0)", d.multiplier.extent(0), "y.extent(1)", n);
    detail::expect_equal("integer_matmul", "dyadic.shift.extent(0)", d.shift.extent(0), "y.extent(1)", n);
    bool const biased = d.bias.extent(0) > 0;
    if (biased) detail::expect_equal("integer_matmul", "dyadic.bias.extent(0)", d.bias.extent(0), "y.extent(1)", n);
    for (index i = 0; i < n; ++i)
      detail::expect(d.shift[i] >= 0 && d.shift[i] <= 62, "integer_matmul", "dyadic.shift", d.shift[i], "0 to 62");
    run(policy, tern::view(x), w, to, [&](index r, index i, std::int32_t sum) TERN_LAMBDA {
      std::int64_t const v = std::int64_t{sum} + (biased ? d.bias[i] : 0);
      to(r, i) = detail::clip_int8(detail::dyadic_round(v, d.multiplier[i], d.shift[i]), d.low, d.high);
    });
  }

 private:
  template <class W, class T, class Store>
  static void run(cpu_policy const& policy, tensor_view<std::int8_t const, 2> const& x, W const& w, tensor_view<T, 2> const& y,
                  Store const& store) {
    if constexpr (coded_weights<W>) {
      static_assert(!W::has_min, "tern: integer_matmul takes weights without minima");
      index const rows = x.extent(0), k = x.extent(1), stride = detail::round_to_multiple(k, 64) + 64;
      detail::expect_equal("integer_matmul", "x.extent(1)", k, "w's columns", w.columns);
      detail::expect_equal("integer_matmul", "y.extent(0)", y.extent(0), "x.extent(0)", rows);
      detail::expect_equal("integer_matmul", "y.extent(1)", y.extent(1), "w's rows", w.rows);
      detail::expect(k <= 65536, "integer_matmul", "x.extent(1)", k, "at most 65536");
      if (rows == 0 || w.rows == 0) return;
      index const x_bytes = detail::round_to_multiple(rows * stride, 64), totals = detail::round_to_multiple(rows * 4, 64);
      workspace::lease const memory(policy.scratch(),
                                    static_cast<std::size_t>(x_bytes + totals + policy.concurrency() * detail::slot_bytes(rows)));
      detail::integer_input const in{reinterpret_cast<std::int8_t*>(memory.data()),
                                     reinterpret_cast<std::int32_t*>(memory.data() + x_bytes), stride};
      detail::copy_integers(x, in);
      detail::multiply_all_integers(policy, w, in, rows, memory.data() + x_bytes + totals, store);
    } else {
      tensor_view<std::int8_t const, 2> const q = tern::view(w);
      detail::expect(q.extent(1) <= 1 || q.stride(1) == 1, "integer_matmul", "w.stride(1)", q.stride(1), "1");
      run(policy, x, detail::int8_codes{q}, y, store);
    }
  }
} integer_matmul{};

/// `tern::dyadic_add(policy, a, ma, sa, b, mb, sb, y)`: y = clip(round((a ma 2^(s - sa) + b mb 2^(s - sb)) / 2^s)), s the larger shift, to
/// [-128, 127]. a, b, y (rows, n): int8. Shifts: 0 to 30 and at most 16 apart.
inline constexpr struct dyadic_add_fn {
  template <tensor_like A, tensor_like B, tensor_like Y>
  void operator()(cpu_policy const& policy, A&& a, std::int32_t ma, std::int32_t sa, B&& b, std::int32_t mb, std::int32_t sb, Y&& y) const {
    tensor_view<std::int8_t const, 2> const as = tern::view(a), bs = tern::view(b);
    tensor_view<std::int8_t, 2> const ys = tern::view(y);
    detail::expect_extent("dyadic_add", "b", bs, 0, "a", as, 0);
    detail::expect_extent("dyadic_add", "b", bs, 1, "a", as, 1);
    detail::expect_extent("dyadic_add", "y", ys, 0, "a", as, 0);
    detail::expect_extent("dyadic_add", "y", ys, 1, "a", as, 1);
    for (std::int32_t s : {sa, sb}) detail::expect(s >= 0 && s <= 30, "dyadic_add", "a shift", s, "0 to 30");
    std::int32_t const shift = sa > sb ? sa : sb;
    detail::expect(shift - (sa < sb ? sa : sb) <= 16, "dyadic_add", "the difference of the shifts", sa - sb, "at most 16");
    std::int64_t const of_a = std::int64_t{ma} << (shift - sa), of_b = std::int64_t{mb} << (shift - sb);
    detail::for_rows(policy, as.extent(0), as.extent(1), [&](index r) TERN_LAMBDA {
      for (index i = 0; i < as.extent(1); ++i)
        ys(r, i) = detail::clip_int8(detail::dyadic_round(as(r, i) * of_a + bs(r, i) * of_b, 1, shift), -128, 127);
    });
  }
} dyadic_add{};

}  // namespace TERN_ABI
}  // namespace tern
