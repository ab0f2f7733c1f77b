// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file quantize/gptq.hpp
/// GPTQ: columns are rounded one after the other, and each makes up for the errors of those before it.
///
///     block_array q = gptq(tern::cpu, w, x, weight_type::q4_0);             x: inputs of the layer (samples, k)
///     block_array q = gptq(tern::cpu, w, seen, weight_type::q4_0);          or a calibration of them
///     block_array q = gptq(tern::cpu, w, errors, weight_type::q4_0);        or the feedback that was made of it, for several matrices
///
/// For i = 0 ... k - 1, in each row:  q_i = the code nearest to w_i,  w_j -= (w_i - q_i) U_ij / U_ii for all j > i,  with the upper
/// Cholesky factor U of (X^T X + damping mean(diag) I)^-1 (quantize/feedback.hpp).
/// Where a block of the format begins, its scales are searched as its encoder does for the weights as they are by then, and stay.
///
/// act_order: columns in the order of descending mean squares; a block's columns then do not come together, so that scales are
/// searched before anything is rounded, for the weights as given ("static groups").
///
/// Sums in f32, the factor in f64. What a block of `block` columns passes on goes to all later columns by one matrix product.
/// Columns whose inputs were zero are rounded to nearest (the paper's code sets them to zero).
/// Errors: w as quantize/problem.hpp; x as wide as w; damping 0 where inputs depend on each other.
/// Cost: n k^2 / 2, beside the factor's k^3 / 3. Results do not depend on threads.
/// Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2022; from knowledge.

#include <tern/quantize/code_grid.hpp>
#include <tern/quantize/feedback.hpp>

namespace tern {
inline namespace TERN_ABI {

/// What gptq may be told. A feedback that is handed over has its own damping and order.
struct gptq_options {
  double damping = 0.01;
  bool act_order = false;
  index block = 128;  ///< columns between two updates of all later ones; rounded up to the format's block
  progress_callback progress{};
};

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {

inline float dot_f32(float const* a, float const* b, index n) {
  float part[16] = {};
  index i = 0;
  for (; i + 16 <= n; i += 16)
    for (index j = 0; j < 16; ++j) part[j] += a[i + j] * b[i + j];
  for (; i < n; ++i) part[i % 16] += a[i] * b[i];
  float sum = 0.f;
  for (index j = 0; j < 16; ++j) sum += part[j];
  return sum;
}

/// One matrix on its way; columns in the feedback's order.
struct gptq_state {
  feedback const& errors;
  dense_matrix current;  // w, changed by the blocks of columns that are done
  dense_matrix lost;     // w - q, of what is done

  gptq_state(dense_matrix const& w, feedback const& f) : errors(f), current(w.rows, w.columns), lost(w.rows, w.columns) {
    for (index r = 0; r < w.rows; ++r)
      for (index i = 0; i < w.columns; ++i) current.row(r)[i] = w.row(r)[f.column(i)];
  }
  /// Row r's i-th column, changed by the columns before `end`; `current` has those before `begin`.
  float corrected(index r, index i, index begin, index end) const {
    return current.row(r)[i] + dot_f32(lost.row(r) + begin, &errors.matrix()(i, begin), end - begin);
  }
  /// Rounds row r's i-th column.
  template <class Format>
  std::uint8_t round(index r, index i, index begin, element_scale s) {
    float const w = corrected(r, i, begin, i);
    int const code = code_grid<Format>::nearest(w, s);
    lost.row(r)[i] = w - code_grid<Format>::value(code, s);
    return static_cast<std::uint8_t>(code);
  }
  /// Adds the errors of columns [begin, end) to what comes later.
  void pass_on(cpu_policy const& policy, index begin, index end) {
    index const k = current.columns;
    if (end == k || current.rows == 0) return;
    matmul(policy, lost.view().slice(1, begin, end), errors.matrix().slice(0, end, k).slice(1, begin, end), current.view().slice(1, end, k),
           accumulate{});
  }
};

/// Columns in storage order: columns [begin, end), whole blocks, of row r.
template <class Format>
void gptq_in_order(gptq_state& s, index r, index begin, index end, typename Format::block* out) {
  constexpr index n = Format::elements;
  for (index first = begin; first < end; first += n, ++out) {
    float w[n];
    for (index j = 0; j < n; ++j) w[j] = s.corrected(r, first + j, begin, first);
    *out = Format::encode(w);
    element_scale scale[n];
    code_grid<Format>::scales(*out, scale);
    std::uint8_t code[n];
    for (index j = 0; j < n; ++j) code[j] = s.template round<Format>(r, first + j, begin, scale[j]);
    Format::put(*out, code);
  }
}

/// Columns [begin, end) of the feedback's order, of row r, with scales that are there already. codes, scales: k of each.
template <class Format>
void gptq_by_size(gptq_state& s, index r, index begin, index end, std::uint8_t* codes, element_scale const* scales) {
  for (index i = begin; i < end; ++i) {
    index const column = s.errors.column(i);
    codes[column] = s.template round<Format>(r, i, begin, scales[column]);
  }
}

template <class Format>
void run_gptq_in_order(cpu_policy const& policy, gptq_state& s, index block, block_array& q, progress_counter& done) {
  index const k = s.current.columns;
  for (index begin = 0; begin < k; begin += block) {
    index const end = begin + block < k ? begin + block : k;
    parallel_for(policy, s.current.rows, [&](index r, index) {
      gptq_in_order<Format>(s, r, begin, end, reinterpret_cast<typename Format::block*>(q.row(r)) + begin / Format::elements);
    });
    s.pass_on(policy, begin, end);
    done.step(end - begin);
  }
}

template <class Format>
void run_gptq_by_size(cpu_policy const& policy, gptq_state& s, index block, dense_matrix const& w, block_array& q, progress_counter& done) {
  index const k = s.current.columns;
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(w.rows * k));
  std::vector<element_scale> scales(codes.size());
  auto const blocks = [&](index r) { return reinterpret_cast<typename Format::block*>(q.row(r)); };
  parallel_for(policy, w.rows, [&](index r, index) {
    for (index j = 0; j < k; j += Format::elements) {
      auto& b = blocks(r)[j / Format::elements] = Format::encode(w.row(r) + j);
      code_grid<Format>::scales(b, scales.data() + r * k + j);
    }
  });
  for (index begin = 0; begin < k; begin += block) {
    index const end = begin + block < k ? begin + block : k;
    parallel_for(policy, w.rows,
                 [&](index r, index) { gptq_by_size<Format>(s, r, begin, end, codes.data() + r * k, scales.data() + r * k); });
    s.pass_on(policy, begin, end);
    done.step(end - begin);
  }
  for (index r = 0; r < w.rows; ++r)
    for (index j = 0; j < k; j += Format::elements) Format::put(blocks(r)[j / Format::elements], codes.data() + r * k + j);
}

inline block_array run_gptq(cpu_policy const& policy, dense_matrix const& w, feedback const& errors, weight_type type,
                            gptq_options const& options) {
  expect(options.block > 0, "gptq", "block", options.block, "more than 0");
  expect_equal("gptq", "the feedback's k", errors.k(), "w.extent(1)", w.columns);
  block_array q(type, w.rows, w.columns);
  gptq_state s(w, errors);
  progress_counter done(options.progress, w.columns);
  index const block = round_to_multiple(options.block, info(type).elements);
  with_encodable_format("gptq", type, [&]<class Format>(Format) {
    if (errors.descending())
      run_gptq_by_size<Format>(policy, s, block, w, q, done);
    else
      run_gptq_in_order<Format>(policy, s, block, q, done);
  });
  return q;
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// Quantizes weights (n, k) for inputs x: (samples, k), a calibration, or the feedback that was made of one.
template <tensor_like W, class X>
block_array gptq(cpu_policy const& policy, W const& w, X const& x, weight_type type, gptq_options const& options = {}) {
  auto const weights = detail::dense_weights("gptq", w, type);
  if constexpr (std::same_as<X, feedback>) {
    return detail::run_gptq(policy, weights, x, type, options);
  } else {
    auto const& seen = detail::calibration_of("gptq", policy, x, weights.columns);
    return detail::run_gptq(policy, weights, feedback(policy, seen, options.damping, options.act_order), type, options);
  }
}

}  // namespace TERN_ABI
}  // namespace tern
