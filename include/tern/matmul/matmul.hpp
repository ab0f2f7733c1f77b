// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/matmul.hpp
/// y = x w^T, with weights in any format, used where they lie.
///
///     x (rows, k)   activations: f32, f16 or bf16, any strides
///     w (n, k)      weights: a block_matrix, a view of f32, f16 or bf16 whose rows are contiguous, or any others (formats/weights.hpp)
///     y (rows, n)   f32, any strides; may not overlap x or w
///
///     matmul(policy, x, w, y)
///     matmul(policy, x, w, y, compute::int8)                     what the products are made of (matmul/types.hpp)
///     matmul(policy, x, w, y, compute::int8, accumulate{})       y += x w^T
///     matmul(policy, x, {q, k, v}, {yq, yk, yv}, compute::int8)  several matrices (block_matrix) that share x: one pass over the
///                                                                threads, and x is prepared once
///
/// Fails if x.extent(1) is not w's columns, y.extent(0) not x.extent(0), or y.extent(1) not w's rows. k may be 0: y is then 0.
///
/// On one architecture every y(r, i) has the same bits whatever the number of threads, and whatever else x holds. With weights of f32,
/// f16 and bf16, up to 32 rows (16 in bf16) are added up in another order than more; otherwise their number does not matter either.
/// Cost: rows n k multiply-adds; one pass over the weights, which is what one to a few rows cost.
/// Error: `accuracy` below.

#include <tern/matmul/operations.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Where the pieces of a call's scratch memory start.
struct matmul_plan {
  index x_f32, y_dense;          // -1 where the caller's memory serves
  index x_bf16, x_q8, x_scales;  // as the compute type needs
  index panels, bytes;
  index stride;  // of the rows of prepared x, in elements
};

/// Rows of prepared x start this many elements apart: whole cache lines, and an odd number of them against aliasing.
TERN_INLINE constexpr index padded_columns(index k) {
  return round_to_multiple(k, 64) / 64 % 2 == 0 ? round_to_multiple(k, 64) + 64 : round_to_multiple(k, 64);
}

TERN_INLINE matmul_plan plan_matmul(cpu_policy const& policy, bool copy_x, index rows, index columns, index dense_y, compute mode) {
  matmul_plan p{};
  p.stride = padded_columns(columns);
  auto const take = [&](index bytes) {
    index const at = p.bytes;
    p.bytes += round_to_multiple(bytes, static_cast<index>(workspace::alignment));
    return at;
  };
  p.x_f32 = copy_x ? take(rows * p.stride * index{sizeof(float)}) : -1;
  p.x_bf16 = mode == compute::bf16 ? take(rows * p.stride * index{sizeof(bf16)}) : -1;
  bool const int8 = mode == compute::int8;
  p.x_q8 = int8 ? take(rows * p.stride) : -1;
  p.x_scales = int8 ? take(rows * (columns / 32) * index{sizeof(q8_scales)}) : -1;
  index const floats = sizeof(float_panel<f32_products>), bytes = sizeof(int8_panel);
  p.panels = take(policy.concurrency() * (floats > bytes ? floats : bytes));
  p.y_dense = dense_y > 0 ? take(rows * dense_y * index{sizeof(float)}) : -1;
  return p;
}

/// x as f32 with contiguous rows.
template <class T>
inline void copy_rows(tensor_view<T, 2> const& x, float* out, index stride) noexcept {
  for (index r = 0; r < x.extent(0); ++r) {
    float* const row = out + r * stride;
    if (x.stride(1) == 1)
      decode_columns(weight_type_of<T>, reinterpret_cast<std::uint8_t const*>(x.data() + r * x.stride(0)), 0, x.extent(1), row);
    else
      for (index k = 0; k < x.extent(1); ++k) row[k] = static_cast<float>(x(r, k));
  }
}
/// x as bf16, with a zero behind an odd row.
inline void round_rows(matmul_input const& in, bf16* out, index stride) noexcept {
  for (index r = 0; r < in.rows; ++r) {
    float const* const x = in.x + r * in.x_stride;
    bf16* const row = out + r * stride;
    index k = 0;
    for (; k + simd::lanes <= in.columns; k += simd::lanes) simd::store(row + k, simd::load(x + k));
    for (; k < in.columns; ++k) row[k] = bf16(x[k]);
    if (k < stride) row[k] = bf16::from_bits(0);
  }
}

/// Moves the jobs whose weights fit to the front, and returns how many these are.
template <class Fits>
TERN_INLINE index partition_jobs(matmul_job* jobs, index count, Fits const& fits) {
  index front = 0;
  for (index j = 0; j < count; ++j) {
    if (!fits(jobs[j].w)) continue;
    matmul_job const moved = jobs[front];
    jobs[front++] = jobs[j];
    jobs[j] = moved;
  }
  return front;
}

inline void run_matmul(cpu_policy const& policy, matmul_job* jobs, index count, matmul_input const& in, compute mode, bool add,
                       matmul_plan const& plan, std::byte* scratch) {
  std::byte* const panels = scratch + plan.panels;
  if (mode == compute::bf16) {
    auto* const x = reinterpret_cast<bf16*>(scratch + plan.x_bf16);
    round_rows(in, x, plan.stride);
    index const streamed = in.rows <= most_bf16_stream_rows ? partition_jobs(jobs, count, [](any_weights const& w) { return w.bf16; }) : 0;
    if (streamed > 0) stream_float(policy, jobs, streamed, x, plan.stride, in.rows, add, panels);
    return multiply_float<bf16_products>(policy, jobs + streamed, count - streamed, x, plan.stride, in.rows, in.columns, add, panels);
  }
  index const integers = mode == compute::int8 ? partition_jobs(jobs, count, [](any_weights const& w) { return w.integers; }) : 0;
  if (integers > 0) {
    q8_rows const x{reinterpret_cast<std::int8_t*>(scratch + plan.x_q8), reinterpret_cast<q8_scales*>(scratch + plan.x_scales), plan.stride,
                    in.columns / 32};
    quantize_rows(policy, in, x);
    multiply_int8(policy, jobs, integers, in.rows, x, add, panels);
  }
  jobs += integers;
  count -= integers;
  index const streamed =
      in.rows <= most_float_stream_rows ? partition_jobs(jobs, count, [](any_weights const& w) { return w.streamed; }) : 0;
  if (streamed > 0) stream_float(policy, jobs, streamed, in.x, in.x_stride, in.rows, add, panels);
  multiply_float<f32_products>(policy, jobs + streamed, count - streamed, in.x, in.x_stride, in.rows, in.columns, add, panels);
}

struct matmul_options {
  compute mode = compute::f32;
  bool add = false;
  TERN_INLINE void set(compute c) { mode = c; }
  TERN_INLINE void set(accumulate) { add = true; }
  template <class... Options>
  TERN_INLINE static matmul_options of(Options... options) {
    matmul_options o;
    (o.set(options), ...);
    return o;
  }
};
template <class O>
concept matmul_option = std::same_as<O, compute> || std::same_as<O, accumulate>;

template <class T>
TERN_INLINE bool in_place(tensor_view<T, 2> const& x) {
  return std::is_same_v<std::remove_const_t<T>, float> && (x.stride(1) == 1 || x.extent(1) <= 1);
}

}  // namespace TERN_ABI
}  // namespace tern::detail

namespace tern {
inline namespace TERN_ABI {

inline constexpr struct matmul_fn {
  /// |y - exact| <= this * 2^-24 * sum over k of |x w| (and |y| before), where exact takes x and w as the compute type rounds
  /// them: half the square root of the 256 additions in a row, and a term for the longer sums over chunks and blocks.
  static constexpr double accuracy(index k) { return 8. + static_cast<double>(k) / 512.; }

  template <tensor_like X, class W, tensor_like Y, detail::matmul_option... Options>
  void operator()(cpu_policy const& policy, X&& x, W&& w, Y&& y, Options... options) const {
    static_assert(view_of<X>::rank == 2 && view_of<Y>::rank == 2, "tern: matmul takes x (rows, k) and y (rows, n): pass views of rank 2");
    static_assert(std::is_same_v<typename view_of<Y>::element_type, float>, "tern: matmul writes y, which is f32 and not const");
    tensor_view<float, 2> const results[] = {tern::view(y)};
    auto const call = [&](auto const& weights) TERN_LAMBDA {
      detail::any_weights const erased[] = {detail::weights_of(weights)};
      run(policy, tern::view(x), erased, results, 1, detail::matmul_options::of(options...));
    };
    if constexpr (custom_weights<std::remove_cvref_t<W>> || std::is_same_v<std::remove_cvref_t<W>, block_matrix>)
      call(w);
    else
      call(block_matrix(tern::view(w)));
  }
  template <tensor_like X, std::size_t N, detail::matmul_option... Options>
  void operator()(cpu_policy const& policy, X&& x, block_matrix const (&w)[N], tensor_view<float, 2> const (&y)[N],
                  Options... options) const {
    static_assert(N <= most, "tern: one call of matmul takes at most 16 matrices");
    detail::any_weights erased[N];
    for (std::size_t j = 0; j < N; ++j) erased[j] = detail::weights_of(w[j]);
    run(policy, tern::view(x), erased, y, static_cast<index>(N), detail::matmul_options::of(options...));
  }

  template <tensor_like X, class W, tensor_like Y, detail::matmul_option... Options>
  std::size_t workspace_size(cpu_policy const& policy, X const& x, W const&, Y const& y, Options... options) const {
    tensor_view<float, 2> const results[] = {tern::view(const_cast<Y&>(y))};
    return plan(policy, tern::view(x), results, 1, detail::matmul_options::of(options...).mode).bytes_needed();
  }
  template <tensor_like X, std::size_t N, detail::matmul_option... Options>
  std::size_t workspace_size(cpu_policy const& policy, X const& x, block_matrix const (&)[N], tensor_view<float, 2> const (&y)[N],
                             Options... options) const {
    return plan(policy, tern::view(x), y, static_cast<index>(N), detail::matmul_options::of(options...).mode).bytes_needed();
  }

 private:
  /// As many matrices as one call takes: what lets the engine keep its list of jobs on the stack.
  static constexpr std::size_t most = 16;

  struct sized_plan : detail::matmul_plan {
    TERN_INLINE std::size_t bytes_needed() const { return static_cast<std::size_t>(bytes); }
  };
  template <class T>
  static sized_plan plan(cpu_policy const& policy, tensor_view<T, 2> const& x, tensor_view<float, 2> const* y, index count, compute mode) {
    index dense = 0;
    for (index j = 0; j < count; ++j)
      if (!detail::in_place(y[j])) dense += y[j].extent(1);
    return {detail::plan_matmul(policy, !detail::in_place(x), x.extent(0), x.extent(1), dense, mode)};
  }

  template <class T>
  static void run(cpu_policy const& policy, tensor_view<T, 2> const& x, detail::any_weights const* w, tensor_view<float, 2> const* y,
                  index count, detail::matmul_options options) {
    static_assert(float_storage<T>, "tern::matmul: x holds f32, f16 or bf16");
    index const rows = x.extent(0), columns = x.extent(1);
    for (index j = 0; j < count; ++j) {
      detail::expect_equal("matmul", "x.extent(1)", columns, "w's columns", w[j].columns);
      detail::expect_equal("matmul", "y.extent(0)", y[j].extent(0), "x.extent(0)", rows);
      detail::expect_equal("matmul", "y.extent(1)", y[j].extent(1), "w's rows", w[j].rows);
    }
    if (rows == 0) return;
    sized_plan const p = plan(policy, x, y, count, options.mode);
    workspace::lease const scratch(policy.scratch(), p.bytes_needed());
    detail::matmul_input in{nullptr, p.stride, rows, columns};
    if constexpr (std::is_same_v<std::remove_const_t<T>, float>) {
      in.x = x.data();
      in.x_stride = x.stride(0);
    }
    if (p.x_f32 >= 0) {
      auto* const copy = reinterpret_cast<float*>(scratch.data() + p.x_f32);
      detail::copy_rows(x, copy, p.stride);
      in.x = copy;
      in.x_stride = p.stride;
    }
    detail::matmul_job jobs[most];
    auto* dense = reinterpret_cast<float*>(scratch.data() + (p.y_dense >= 0 ? p.y_dense : 0));
    for (index j = 0; j < count; ++j) {
      bool const direct = detail::in_place(y[j]);
      jobs[j] = {w[j], direct ? y[j].data() : dense, direct ? y[j].stride(0) : w[j].rows};
      if (direct) continue;
      if (options.add) detail::copy_rows(y[j], dense, w[j].rows);
      dense += rows * w[j].rows;
    }
    detail::run_matmul(policy, jobs, count, in, options.mode, options.add, p, scratch.data());
    dense = reinterpret_cast<float*>(scratch.data() + (p.y_dense >= 0 ? p.y_dense : 0));
    for (index j = 0; j < count; ++j) {
      if (detail::in_place(y[j])) continue;
      for (index r = 0; r < rows; ++r)
        for (index i = 0; i < w[j].rows; ++i) y[j](r, i) = dense[r * w[j].rows + i];
      dense += rows * w[j].rows;
    }
  }
} matmul{};

}  // namespace TERN_ABI
}  // namespace tern
