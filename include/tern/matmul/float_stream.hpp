// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/float_stream.hpp
/// y = x w^T for few rows of x and weights of f32, f16 or bf16: the weights are read once from memory, as they lie, some rows of
/// them at a time against up to four rows of x, with lanes over k.
///
/// Each y(r, n) is the sum over chunks of 1024 columns, in order, of the sum over lanes of the sums over every `lanes`-th column of
/// the chunk: the same operations whatever else is in the batch.
///
/// Cost  n k sizeof(w) bytes of memory, once; rows n k / lanes FMA.

#include <tern/matmul/float_kernel.hpp>
#include <tern/simd/convert.hpp>
#include <tern/simd/reduce.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Columns that are summed before they are added to y: what is worked on stays in L1, and rounding errors small.
inline constexpr index stream_chunk = 1024;
/// Weight rows that are read side by side with R rows of x: their sums fit the registers, and eight streams keep memory busier than one
/// (measured on Zen 4, 4096 x 14336 of f32: 27 GB/s with eight, 18 with one).
template <int R>
inline constexpr int stream_weight_rows = R == 1 ? 8 : (tile_rows >= 12 ? 16 : 8) / R;
/// So far ahead a row is asked for, in bytes: the machine's own prefetchers follow few of so many rows.
inline constexpr index stream_ahead = 4096;

/// Products of R rows of x with N rows of weights over columns [k0, k1): to[r][n].
template <int R, int N, class X, class T>
TERN_INLINE void stream_dots(X const* const (&x)[R], T const* const (&w)[N], index k0, index k1, float (&to)[R * N]) {
  using packf = simd::pack<float>;
  constexpr index W = simd::lanes;
  packf sum[R * N];
  TERN_UNROLL
  for (packf& s : sum) s = packf(0.f);
  auto const add = [&](auto const& load, index k) TERN_LAMBDA {
    packf a[R];
    TERN_UNROLL
    for (index r = 0; r < R; ++r) a[r] = simd::in_register(load(x[r] + k));
    TERN_UNROLL
    for (index n = 0; n < N; ++n) {
      if (k * index{sizeof(T)} % 64 == 0) __builtin_prefetch(reinterpret_cast<char const*>(w[n] + k) + stream_ahead, 0, 2);
      packf const b = simd::in_register(load(w[n] + k));
      TERN_UNROLL
      for (index r = 0; r < R; ++r) sum[r * N + n] = simd::fma(a[r], b, sum[r * N + n]);
    }
  };
  index k = k0;
  for (; k + W <= k1; k += W) add([](auto const* p) TERN_LAMBDA { return simd::load(p); }, k);
  if (k < k1) add([&](auto const* p) TERN_LAMBDA { return simd::load_n(p, k1 - k); }, k);
  simd::reduce_add_each(sum, to);
}

/// What the columns [k0, k1) add to R rows of y from row r0 on, for weight rows [n0, n1) of a job.
template <int R, class X, class T>
inline void stream_weights_times(matmul_job const& job, index n0, index n1, X const* x, index x_stride, index r0, index k0, index k1,
                                 bool add) noexcept {
  constexpr int N = stream_weight_rows<R>;
  X const* row[R];
  for (index r = 0; r < R; ++r) row[r] = x + (r0 + r) * x_stride;
  for (index n = n0; n < n1; n += N) {
    index const some = n1 - n < N ? n1 - n : N;
    T const* w[N];
    for (index i = 0; i < N; ++i) w[i] = reinterpret_cast<T const*>(job.w.row(n + (i < some ? i : some - 1)));
    float dots[R * N];
    stream_dots<R, N>(row, w, k0, k1, dots);
    for (index r = 0; r < R; ++r)
      for (index i = 0; i < some; ++i) {
        float& y = job.y[(r0 + r) * job.y_stride + n + i];
        y = add ? y + dots[r * N + i] : dots[r * N + i];
      }
  }
}

/// Up to this many rows of x, the weights are streamed; beyond, packing them pays. In bf16 it pays sooner: its products are faster.
inline constexpr index most_float_stream_rows = 32, most_bf16_stream_rows = 16;

/// Weight rows [n0, n1) of a job times all rows of x: a piece of some rows and a chunk of columns is used for all of them in turn.
template <class X, class T>
inline void stream_stripe_float(matmul_job const& job, index n0, index n1, X const* x, index x_stride, index rows, index columns,
                                bool add) noexcept {
  constexpr index some = stream_weight_rows<1>;
  for (index n = n0; n < n1; n += some)
    for (index k0 = 0; k0 < columns || k0 == 0; k0 += stream_chunk) {
      index const end = n + some < n1 ? n + some : n1, k1 = k0 + stream_chunk < columns ? k0 + stream_chunk : columns;
      auto const take = [&]<int R>(index r)
                            TERN_LAMBDA { stream_weights_times<R, X, T>(job, n, end, x, x_stride, r, k0, k1, add || k0 > 0); };
      index r = 0;
      for (; r + 4 <= rows; r += 4) take.template operator()<4>(r);
      for (; r + 2 <= rows; r += 2) take.template operator()<2>(r);
      if (r < rows) take.template operator()<1>(r);
    }
}

/// All jobs, whose weights are plain numbers. x: (rows, columns) elements X.
template <class X>
inline void stream_float(cpu_policy const& policy, matmul_job const* jobs, index count, X const* x, index x_stride, index rows,
                         index columns, bool add) {
  index total = 0;
  for (index j = 0; j < count; ++j) total += jobs[j].w.rows;
  index const stripe = round_to_multiple(divide_up(total, 4 * policy.concurrency()), stream_weight_rows<1>);
  matmul_split const split(jobs, count, rows, stripe > 0 ? stripe : 1, rows);
  parallel_for(policy, split.items, [&](index item, index) TERN_LAMBDA {
    auto const p = split.at(item, jobs, rows);
    auto const run = [&]<class T>(T const*) TERN_LAMBDA { stream_stripe_float<X, T>(*p.job, p.n0, p.n1, x, x_stride, rows, columns, add); };
    switch (p.job->w.type) {
      case weight_type::f16:
        return run(static_cast<f16 const*>(nullptr));
      case weight_type::bf16:
        return run(static_cast<bf16 const*>(nullptr));
      default:
        return run(static_cast<float const*>(nullptr));
    }
  });
}

}  // namespace TERN_ABI
}  // namespace tern::detail
