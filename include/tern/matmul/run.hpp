// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/run.hpp
/// A call of matmul once its arguments are checked: x is prepared, then the products run.

#include <tern/matmul/request.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// One row of x as f32.
template <class T>
TERN_INLINE void copy_row(tensor_view<T, 2> const& x, index from, float* row) {
  if (x.stride(1) == 1 || x.extent(1) <= 1)
    decode_plain<std::remove_const_t<T>>(reinterpret_cast<std::uint8_t const*>(x.data() + from * x.stride(0)), x.extent(1), row);
  else
    for (index k = 0; k < x.extent(1); ++k) row[k] = static_cast<float>(x(from, k));
}
/// x as f32 with contiguous rows, gathered and with prologues.
template <class T>
inline void copy_rows(cpu_policy const& policy, tensor_view<T, 2> const& x, matmul_request const& request, index rows, float* out,
                      index stride) {
  for_rows(policy, rows, x.extent(1), [&](index r) TERN_LAMBDA {
    float* const row = out + r * stride;
    copy_row(x, request.has_gather ? index{request.gather_ids[r]} : r, row);
    for (index p = 0; p < request.prologue_count; ++p) request.prologues[p].prepare(request.prologues[p].object, row, r, x.extent(1));
  });
}
/// x as bf16, gathered if it is not yet, with zeros behind a row.
inline void round_rows(cpu_policy const& policy, matmul_input const& in, bf16* out, index stride) {
  for_rows(policy, in.rows, in.columns, [&](index r) TERN_LAMBDA {
    float const* const x = in.x + (in.ids != nullptr ? index{(*in.ids)[r]} : r) * in.x_stride;
    bf16* const row = out + r * stride;
    index k = 0;
    for (; k + simd::lanes <= in.columns; k += simd::lanes) simd::store(row + k, simd::load(x + k));
    for (; k < in.columns; ++k) row[k] = bf16(x[k]);
    for (; k < stride; ++k) row[k] = bf16::from_bits(0);
  });
}

/// x (rows, columns) in tiles, to `out`, of tiled_rows::size.
inline tiled_rows tile_x(cpu_policy const& policy, float const* x, index x_stride, index rows, index columns, float* out) {
  tiled_rows const to{out, round_to_multiple(rows, tile_rows)};
  for_rows(policy, to.rows / tile_rows, tile_rows * columns, [&](index tile) TERN_LAMBDA {
    index const first = tile * tile_rows;
    for (index k0 = 0; k0 < columns; k0 += chunk_columns) {
      index const k1 = least(k0 + chunk_columns, columns);
      tile_chunk(x + first * x_stride + k0, x_stride, least(tile_rows, rows - first), k1 - k0, to.at(first, k0, k1));
    }
  });
  return to;
}

/// x (rows, columns) of bf16 or bytes as a panel, for weights that lie ready: [columns / step][panel_rows][step] to `out`, a word being
/// step elements. memory: a thread's.
template <class T>
inline T const* panel_x(T const* x, index x_stride, index rows, index columns, T* out, matmul_panel& memory) noexcept {
  auto const copy = [&](index r, index k0, index k1, T* to) TERN_LAMBDA {
    __builtin_memcpy(static_cast<void*>(to), x + r * x_stride + k0, static_cast<std::size_t>(k1 - k0) * sizeof(T));
  };
  constexpr index bytes = sizeof(T), step = 4 / bytes;
  static_assert(sizeof(memory.half_rows) >= simd::lanes * chunk_columns * step * bytes);
  row_memory const lying{reinterpret_cast<std::uint8_t const*>(x), bytes * columns, bytes * x_stride};
  auto* const scratch = reinterpret_cast<T*>(memory.half_rows);
  for (index k0 = 0; k0 < columns; k0 += chunk_columns)
    for (index row = 0; row < panel_rows; row += simd::lanes)
      pack_rows(copy, row, rows, k0, least(k0 + chunk_columns, columns), scratch, out + k0 * panel_rows + step * row, lying);
  return out;
}

/// All rows in panels, one after the other. scratch: slot_bytes a slot.
template <class T>
inline T const* turn_x(cpu_policy const& policy, T const* x, index x_stride, index rows, index columns, T* out, std::byte* scratch) {
  index const chunks = divide_up(columns, chunk_columns);
  parallel_for(policy, divide_up(rows, panel_rows) * chunks, [&](index item, index slot) TERN_LAMBDA {
    index const r = item / chunks * panel_rows, k0 = item % chunks * chunk_columns, some = least(chunk_columns, columns - k0);
    panel_x(x + r * x_stride + k0, x_stride, least(panel_rows, rows - r), some, out + r * x_panel_columns(columns) + k0 * panel_rows,
            panel_at(scratch + slot * slot_bytes(rows)));
  });
  return out;
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

/// A call's memory.
struct matmul_memory {
  matmul_plan const& plan;
  std::byte* scratch;
  template <class T>
  TERN_INLINE T* at(index offset) const {
    return reinterpret_cast<T*>(scratch + offset);
  }
  TERN_INLINE std::byte* panels() const { return scratch + plan.panels; }
};

inline void multiply_as_f32(cpu_policy const& policy, matmul_job* jobs, index count, matmul_input const& in,
                            product_rows<f32_products> const& x, bool add, matmul_memory const& memory) {
  index const streamed = partition_jobs(jobs, count, [&](any_weights const& w) TERN_LAMBDA { return streams_floats(w, in.rows); });
  if (streamed > 0) stream_float(policy, jobs, streamed, in.x, in.x_stride, in.rows, add, memory.panels());
  multiply_float(policy, jobs + streamed, count - streamed, x, in.rows, in.columns, add, memory.panels());
}
inline void multiply_as_bf16(cpu_policy const& policy, matmul_job* jobs, index count, matmul_input const& in,
                             product_rows<bf16_products> const& x, bool add, matmul_memory const& memory) {
  index const streamed = partition_jobs(jobs, count, [&](any_weights const& w) TERN_LAMBDA { return streams_halves(w, in.rows); });
  if (streamed > 0) stream_float(policy, jobs, streamed, x.x, x.stride, in.rows, add, memory.panels());
  multiply_float(policy, jobs + streamed, count - streamed, x, in.rows, in.columns, add, memory.panels());
}

/// How weights of a call meet x where they lie.
struct lying_weights {
  bool rows = false, blocks = false;    // in matrix registers: numbers, blocks
  bool turned = false, packed = false;  // panels of x; not so
  TERN_INLINE void add(any_weights const& w, compute mode, matmul_plan const& plan) {
    rows |= plan.x_panel >= 0 && (halves_lie_ready(w) || bytes_lie_ready(w));
    blocks |= blocks_lie_ready(w);
    bool const meets = plan.x_panels >= 0 && (mode == compute::bf16 ? bf16_products::meets_panels(w) : f32_products::meets_panels(w));
    turned |= meets;
    packed |= !meets;
  }
};

/// x as the compute type takes it, made once for all products of a call.
struct prepared_input {
  matmul_input in;
  product_rows<f32_products> x_f32{in.x, in.x_stride};
  product_rows<bf16_products> x_bf16{};
  q8_rows x_q8{};
};
inline prepared_input prepare_input(cpu_policy const& policy, matmul_input const& in, compute mode, lying_weights const& lying,
                                    matmul_memory const& memory) {
  prepared_input p{in};
  matmul_panel& own = panel_at(memory.panels());
  p.x_f32.panel_columns = p.x_bf16.panel_columns = x_panel_columns(in.columns);
  if (mode != compute::bf16 && lying.turned)
    p.x_f32.panel = turn_x<float>(policy, in.x, in.x_stride, in.rows, in.columns, memory.at<float>(memory.plan.x_panels), memory.panels());
  if (mode == compute::bf16) {
    auto* const x = memory.at<bf16>(memory.plan.x_bf16);
    index const stride = memory.plan.stride;
    round_rows(policy, in, x, stride);
    p.x_bf16.x = x;
    p.x_bf16.stride = stride;
    if (lying.rows && in.rows >= least_lying_rows)
      p.x_bf16.panel = panel_x<bf16>(x, stride, in.rows, in.columns, memory.at<bf16>(memory.plan.x_panel), own);
    if (lying.turned)
      p.x_bf16.panel = turn_x<bf16>(policy, x, stride, in.rows, in.columns, memory.at<bf16>(memory.plan.x_panels), memory.panels());
  } else if (mode == compute::f32) {
    if (memory.plan.x_tiles >= 0 && lying.packed)
      p.x_f32.tiles = tile_x(policy, in.x, in.x_stride, in.rows, in.columns, memory.at<float>(memory.plan.x_tiles));
  } else {
    p.x_q8 = {memory.at<std::int8_t>(memory.plan.x_q8), memory.at<q8_scales>(memory.plan.x_scales), memory.plan.stride, in.columns / 32};
    if (memory.plan.x_q8_tiles >= 0 && lying.blocks) p.x_q8.tiles = memory.at<x_tile>(memory.plan.x_q8_tiles);
    quantize_rows(policy, in, p.x_q8, mode == compute::int8_tokens);
    if (lying.rows && in.rows > 1)
      p.x_q8.panel = panel_x<std::int8_t>(p.x_q8.q, p.x_q8.stride, in.rows, in.columns, memory.at<std::int8_t>(memory.plan.x_panel), own);
  }
  return p;
}
inline void multiply_jobs(cpu_policy const& policy, matmul_job* jobs, index count, prepared_input const& p, compute mode, bool add,
                          matmul_memory const& memory) {
  if (mode == compute::bf16) return multiply_as_bf16(policy, jobs, count, p.in, p.x_bf16, add, memory);
  if (mode == compute::int8_tokens) {
    index const whole = partition_jobs(jobs, count, [](any_weights const& w) { return w.row_scale && w.columns <= most_integer_columns; });
    if (whole > 0) multiply_int8_tokens(policy, jobs, whole, p.in.rows, p.x_q8, add, memory.panels());
    jobs += whole;
    count -= whole;
  }
  index const integers = mode != compute::f32 ? partition_jobs(jobs, count, [](any_weights const& w) { return w.codes.granule > 0; }) : 0;
  if (integers > 0) multiply_int8(policy, jobs, integers, p.in.rows, p.x_q8, add, memory.panels());
  multiply_as_f32(policy, jobs + integers, count - integers, p.in, p.x_f32, add, memory);
}

/// t = scale x a^T for the low-rank path.
inline void add_low_rank(cpu_policy const& policy, matmul_request& request, matmul_input const& in, matmul_memory const& memory) {
  auto const& path = request.low_rank;
  index const rank = path.a.rows, stride = padded_columns(rank);
  float* const t = memory.at<float>(memory.plan.low_rank);
  matmul_job job{path.a, t, stride};
  multiply_as_f32(policy, &job, 1, in, {in.x, in.x_stride}, false, memory);
  for (index r = 0; r < in.rows; ++r)
    for (index j = 0; j < rank; ++j) t[r * stride + j] *= path.scale;
  request.finish.sides[request.finish.side_count++] = {path.b, t, stride};
}

/// The products of a call. With epilogues and what else concerns one y, there is one job.
inline void run_matmul(cpu_policy const& policy, matmul_job* jobs, index count, matmul_input const& in, float* x_copy,
                       matmul_request& request, matmul_memory const& memory) {
  if (request.has_low_rank()) add_low_rank(policy, request, in, memory);
  column_weights outliers{}, gate_outliers{};
  matmul_finish gate_finish;
  if (request.has_split) {
    auto* const list = memory.at<std::int32_t>(memory.plan.outlier_columns);
    float* const t = memory.at<float>(memory.plan.outliers);
    index const found = take_outliers(policy, x_copy, in.x_stride, in.rows, in.columns, request.split, t, memory.plan.stride, list);
    outliers = {jobs[0].w, list, jobs[0].w.rows, found};
    if (found > 0) request.finish.sides[request.finish.side_count++] = {weights_of(outliers), t, memory.plan.stride};
    if (found > 0 && request.has_gate()) {
      gate_outliers = {request.gate_weights, list, request.gate_weights.rows, found};
      gate_finish.sides[gate_finish.side_count++] = {weights_of(gate_outliers), t, memory.plan.stride};
    }
  }
  lying_weights lying;
  if (request.has_gate()) lying.add(request.gate_weights, request.mode, memory.plan);
  for (index j = 0; j < count; ++j) lying.add(jobs[j].w, request.mode, memory.plan);
  prepared_input const p = prepare_input(policy, in, request.mode, lying, memory);
  if (request.has_gate()) {
    request.gated.z = memory.at<float>(memory.plan.gate);
    request.gated.stride = request.gate_weights.rows;
    matmul_job job{request.gate_weights, memory.at<float>(memory.plan.gate), request.gate_weights.rows, &gate_finish};
    multiply_jobs(policy, &job, 1, p, request.mode, false, memory);
  }
  if (request.finish.side_count + request.finish.epilogue_count > 0) jobs[0].finish = &request.finish;
  multiply_jobs(policy, jobs, count, p, request.mode, request.add && !request.has_scatter, memory);
}

/// The rows of a product to where they belong: y(ids[r]) = or += factors[r] z(r).
inline void scatter_rows(float const* z, index stride, index rows, matmul_request const& request, tensor_view<float, 2> const& y) noexcept {
  for (index r = 0; r < rows; ++r) {
    index const to = request.has_scatter ? index{request.scatter_ids[r]} : r;
    float const factor = request.factors.extent(0) > 0 ? request.factors[r] : 1.f;
    bool const add = request.has_scatter && request.add;
    for (index i = 0; i < y.extent(1); ++i) {
      float const value = factor * z[r * stride + i];
      y(to, i) = add ? y(to, i) + value : value;
    }
  }
}

}  // namespace TERN_ABI
}  // namespace tern::detail
