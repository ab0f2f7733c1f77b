// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/matmul.hpp
/// y = x w^T, with weights in any format, used where they lie.
///
///     x (rows, k)   activations: f32, f16 or bf16, any strides
///     w (n, k)      weights: a block_matrix, an interleaved_matrix, a view of f32, f16 or bf16 whose rows are contiguous, or any others
///                   (formats/weights.hpp)
///     y (rows, n)   f32, any strides
///
///     matmul(policy, x, w, y)
///     matmul(policy, x, w, y, compute::int8)                     what the products are made of (matmul/types.hpp)
///     matmul(policy, x, w, y, compute::int8, accumulate{})       y += x w^T
///     matmul(policy, x, w, y, rms_norm_in{g}, bias{b}, act::gelu{})  prologues and epilogues, fused (matmul/options.hpp)
///     matmul(policy, x, {q, k, v}, {yq, yk, yv}, compute::int8)  several matrices that share x (block_matrix, or an array of weights_ref
///                                                                for any kinds): one pass over the threads, and x is prepared once
///
/// Prologues: rms_norm_in, layer_norm_in, scale_in, clip_in (norm_in.hpp), hadamard_in, split_outliers (outliers.hpp).
/// Epilogues: bias, residual, act::*, each (activation.hpp), gate, low_rank, and gather, scatter, chosen_rows (gather.hpp). With
/// `accumulate`, epilogues see the sum (but for `scatter`, which adds after them). Several matrices take prologues and `gather`, no
/// epilogues.
///
/// Fails if x.extent(1) is not w's columns, y.extent(0) not x.extent(0), or y.extent(1) not w's rows; if y overlaps x, or weights
/// whose rows lie in memory one like the other. k may be 0: y is then 0.
///
/// On one machine every y(r, i) has the same bits whatever the number of threads, and whatever else x holds. With weights of f32,
/// f16 and bf16, and ones that are decoded (FP8, NF4, int8 by columns), few rows are added up in another order than more: up to 24 of an
/// f32 matrix, and of a bf16 one with compute::bf16 (up to 4 of that where matrix registers take it as it lies); up to 32 of all others,
/// and of chosen rows. Otherwise their number does not matter either.
/// Machines differ in compute::bf16: matrix registers (simd/tiles.hpp) have an order of their own. Cost: rows n k multiply-adds; one pass
/// over the weights, which is what one to a few rows cost. Error: `accuracy` below.

#include <tern/core/given_once.hpp>
#include <tern/core/overlap.hpp>
#include <tern/matmul/bias.hpp>
#include <tern/matmul/hadamard_in.hpp>
#include <tern/matmul/norm_in.hpp>
#include <tern/matmul/run.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

template <class T>
TERN_INLINE bool in_place(tensor_view<T, 2> const& x) {
  return std::is_same_v<std::remove_const_t<T>, float> && (x.stride(1) == 1 || x.extent(1) <= 1);
}
/// Whether rows of x that weights are streamed against would push each other, and the weights, out of the first cache: they lie a multiple
/// of a page apart (measured on Zen 4, 8 rows of f32: 0.89 of the time when they are copied).
template <class T>
TERN_INLINE bool rows_collide(tensor_view<T, 2> const& x, index rows, compute mode) {
  return mode == compute::f32 && rows > 1 && rows <= most_stream_rows && x.stride(0) * index{sizeof(float)} % 4096 == 0;
}
template <class O>
concept matmul_option = requires(matmul_request& r, O const& o) { r.set(o); };

}  // namespace TERN_ABI
}  // namespace tern::detail

namespace tern {
inline namespace TERN_ABI {

inline constexpr struct matmul_fn : takes_policy {
  using takes_policy::operator();

  /// |y - exact| <= this * 2^-24 * sum over k of |x w| (and |y| before), where exact takes x and w as the compute type rounds
  /// them: half the square root of the 256 additions in a row, and a term for the longer sums over chunks and blocks.
  static constexpr double accuracy(index k) { return 8. + static_cast<double>(k) / 512.; }

  template <tensor_like X, class W, tensor_like Y, class... Options>
  void operator()(cpu_policy const& policy, X&& x, W&& w, Y&& y, Options const&... options) const {
    static_assert(view_of<X>::rank == 2 && view_of<Y>::rank == 2,
                  "tern: matmul takes x (rows, k) and y (rows, n): pass views of rank 2, of one row tern::view(x, 1, k)");
    static_assert(float_storage<typename view_of<X>::value_type>, "tern: matmul takes x of f32, f16 or bf16: convert other numbers first");
    static_assert(std::is_same_v<typename view_of<Y>::element_type, float>, "tern: matmul writes y, which is f32 and not const");
    static_assert(
        (detail::matmul_option<Options> && ...),
        "tern: an option of matmul is a compute type, accumulate, one of matmul/options.hpp, a function such as act::silu{}, or has "
        "const check() and prepare(), or check() and finish(), not both");
    static_assert(detail::settings<compute, gather, scatter, split_outliers, residual<2>>::given_once<Options...>,
                  "tern: the same option of matmul is given twice");
    if constexpr (fit<X, Y> && (detail::matmul_option<Options> && ...)) {  // or the first error would not be the last
      auto const weights = detail::hold_weights(w);
      detail::any_weights const erased[] = {detail::weights_of(weights)};
      tensor_view<float, 2> const results[] = {tern::view(y)};
      detail::matmul_request request;
      (request.set(options), ...);
      run(policy, tern::view(x), erased, results, 1, request);
    }
  }
  template <tensor_like X, std::size_t N, detail::matmul_option... Options>
  void operator()(cpu_policy const& policy, X&& x, block_matrix const (&w)[N], tensor_view<float, 2> const (&y)[N],
                  Options const&... options) const {
    run_all(policy, tern::view(x), w, y, options...);
  }
  template <tensor_like X, std::size_t N, detail::matmul_option... Options>
  void operator()(cpu_policy const& policy, X&& x, weights_ref const (&w)[N], tensor_view<float, 2> const (&y)[N],
                  Options const&... options) const {
    run_all(policy, tern::view(x), w, y, options...);
  }

  template <tensor_like X, class W, tensor_like Y, detail::matmul_option... Options>
  std::size_t workspace_size(cpu_policy const& policy, X const& x, W const&, Y const& y, Options const&... options) const {
    tensor_view<float, 2> const results[] = {tern::view(const_cast<Y&>(y))};
    detail::matmul_request request;
    (request.set(options), ...);
    request.choose_mode(product_rows(tern::view(x), request));
    return static_cast<std::size_t>(plan(policy, tern::view(x), results, 1, request).bytes);
  }
  template <tensor_like X, std::size_t N, detail::matmul_option... Options>
  std::size_t workspace_size(cpu_policy const& policy, X const& x, block_matrix const (&)[N], tensor_view<float, 2> const (&y)[N],
                             Options const&... options) const {
    return size_of_all(policy, tern::view(x), y, options...);
  }
  template <tensor_like X, std::size_t N, detail::matmul_option... Options>
  std::size_t workspace_size(cpu_policy const& policy, X const& x, weights_ref const (&)[N], tensor_view<float, 2> const (&y)[N],
                             Options const&... options) const {
    return size_of_all(policy, tern::view(x), y, options...);
  }

 private:
  template <class X, class Y>
  static constexpr bool fit = view_of<X>::rank == 2 && view_of<Y>::rank == 2 && float_storage<typename view_of<X>::value_type> &&
                              std::is_same_v<typename view_of<Y>::element_type, float>;
  /// As many matrices as one call takes: what lets the engine keep its list of jobs on the stack.
  static constexpr std::size_t most = 16;

  template <class T, class W, std::size_t N, class... Options>
  static void run_all(cpu_policy const& policy, tensor_view<T, 2> const& x, W const (&w)[N], tensor_view<float, 2> const (&y)[N],
                      Options const&... options) {
    static_assert(N <= most, "tern: one call of matmul takes at most 16 matrices");
    static_assert(detail::settings<compute, gather>::given_once<Options...>, "tern: the same option of matmul is given twice");
    detail::any_weights erased[N];
    for (std::size_t j = 0; j < N; ++j) erased[j] = detail::weights_of(w[j]);
    detail::matmul_request request;
    (request.set(options), ...);
    if (!request.single()) detail::fail("matmul: epilogues, low_rank, scatter and split_outliers take one matrix a call");
    run(policy, x, erased, y, static_cast<index>(N), request);
  }

  template <class T, std::size_t N, class... Options>
  static std::size_t size_of_all(cpu_policy const& policy, tensor_view<T, 2> const& x, tensor_view<float, 2> const (&y)[N],
                                 Options const&... options) {
    detail::matmul_request request;
    (request.set(options), ...);
    request.choose_mode(product_rows(x, request));
    return static_cast<std::size_t>(plan(policy, x, y, static_cast<index>(N), request).bytes);
  }

  template <class T>
  static index product_rows(tensor_view<T, 2> const& x, detail::matmul_request const& request) {
    return request.has_gather ? request.gather_ids.extent(0) : x.extent(0);
  }
  static bool direct(tensor_view<float, 2> const& y, detail::matmul_request const& request) {
    return detail::in_place(y) && !request.has_scatter;
  }

  template <class T>
  static detail::matmul_plan plan(cpu_policy const& policy, tensor_view<T, 2> const& x, tensor_view<float, 2> const* y, index count,
                                  detail::matmul_request const& request) {
    index dense = 0, n = 0;
    for (index j = 0; j < count; ++j) {
      n += y[j].extent(1);
      if (!direct(y[j], request)) dense += y[j].extent(1);
    }
    index const rows = product_rows(x, request);
    bool const copy = !detail::in_place(x) || detail::rows_collide(x, rows, request.mode);
    return detail::plan_matmul(policy, request, copy, rows, x.extent(1), n, dense);
  }
  template <class T>
  static void check(tensor_view<T, 2> const& x, detail::any_weights const* w, tensor_view<float, 2> const* y, index count,
                    detail::matmul_request const& request) {
    static_assert(float_storage<T>, "tern::matmul: x holds f32, f16 or bf16");
    detail::expect(x.data() != nullptr || x.size() == 0, "matmul", "x.data()", 0, "not null");
    index const rows = product_rows(x, request);
    if (request.has_gather) detail::check_ids("gather.ids", request.gather_ids, x.extent(0));
    for (index j = 0; j < count; ++j) {
      detail::expect_equal("matmul", "x.extent(1)", x.extent(1), "w's columns", w[j].columns);
      if (request.has_scatter) {
        detail::expect_equal("matmul", "scatter.ids.extent(0)", request.scatter_ids.extent(0), "the product's rows", rows);
        detail::check_ids("scatter.ids", request.scatter_ids, y[j].extent(0));
      } else {
        detail::expect_equal("matmul", "y.extent(0)", y[j].extent(0), request.has_gather ? "gather.ids.extent(0)" : "x.extent(0)", rows);
      }
      detail::expect_equal("matmul", "y.extent(1)", y[j].extent(1), "w's rows", w[j].rows);
      detail::expect(y[j].data() != nullptr || y[j].size() == 0, "matmul", "y.data()", 0, "not null");
      detail::expect(w[j].data || w[j].rows * w[j].columns == 0, "matmul", "w.data", 0, "not null");
      check_apart(x, w[j], y[j]);
      if (detail::overlap(request.added, y[j]))
        detail::fail("matmul: the residual overlaps y, expected memory of its own, or accumulate{}");
      request.check(rows, w[j].rows, x.extent(1));
    }
  }

  /// Fails where y lies in x or in the weights, which are read until the last of it is written.
  template <class T>
  static void check_apart(tensor_view<T, 2> const& x, detail::any_weights const& w, tensor_view<float, 2> const& y) {
    detail::memory_place const to = detail::place_of(y);
    index const extents[] = {w.rows, w.memory.bytes}, strides[] = {w.memory.stride, 1};
    if (detail::overlap(to, detail::place_of(x))) detail::fail("matmul: y overlaps x, expected memory of its own");
    if (detail::overlap(to, detail::memory_place(w.memory.data, 1, 2, extents, strides)))
      detail::fail("matmul: y overlaps the weights, expected memory of its own");
  }

  template <class T>
  static void run(cpu_policy const& policy, tensor_view<T, 2> const& x, detail::any_weights const* w, tensor_view<float, 2> const* y,
                  index count, detail::matmul_request& request) {
    check(x, w, y, count, request);
    index const rows = product_rows(x, request), columns = x.extent(1);
    if (rows == 0) return;
    request.choose_mode(rows);
    detail::matmul_plan const p = plan(policy, x, y, count, request);
    workspace::lease const scratch(policy.scratch(), static_cast<std::size_t>(p.bytes));
    detail::matmul_memory const memory{p, scratch.data()};
    detail::matmul_input in{nullptr, p.stride, rows, columns};
    float* const x_copy = memory.at<float>(p.x_f32 >= 0 ? p.x_f32 : 0);
    if constexpr (std::is_same_v<std::remove_const_t<T>, float>)
      if (p.x_f32 < 0) {
        in.x = x.data();
        in.x_stride = x.stride(0);
        if (request.has_gather) in.ids = &request.gather_ids;
      }
    if (p.x_f32 >= 0) {
      detail::copy_rows(policy, x, request, rows, x_copy, p.stride);
      in.x = x_copy;
    }
    detail::matmul_job jobs[most];
    float* dense = memory.at<float>(p.y_dense >= 0 ? p.y_dense : 0);
    for (index j = 0; j < count; ++j) {
      bool const where_it_lies = direct(y[j], request);
      jobs[j] = {w[j], where_it_lies ? y[j].data() : dense, where_it_lies ? y[j].stride(0) : w[j].rows};
      if (where_it_lies) continue;
      if (request.add && !request.has_scatter)
        for (index r = 0; r < rows; ++r) detail::copy_row(y[j], r, dense + r * w[j].rows);
      dense += rows * w[j].rows;
    }
    detail::run_matmul(policy, jobs, count, in, x_copy, request, memory);
    dense = memory.at<float>(p.y_dense >= 0 ? p.y_dense : 0);
    for (index j = 0; j < count; ++j) {
      if (direct(y[j], request)) continue;
      detail::scatter_rows(dense, w[j].rows, rows, request, y[j]);
      dense += rows * w[j].rows;
    }
  }
} matmul{};

}  // namespace TERN_ABI
}  // namespace tern
