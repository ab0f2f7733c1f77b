// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/oracle/attention.hpp
/// Attention in float64, and what the errors of a kernel are relative to. Tensors are dense, row-major, (batch, heads, rows, dim).
///
///     s = modify(scale transform(q) . transform(k)) over the keys seen, out = sum_j w_j v_j, w = normalizer(s)

#include <cstddef>
#include <functional>
#include <vector>

namespace tern::oracle {

using index_t = std::ptrdiff_t;

struct attention_spec {
  std::ptrdiff_t heads, kv_heads, tokens, keys, dim, dim_v;
  double scale;
  double softcap = 0;                                                         // 0: none
  std::function<bool(std::ptrdiff_t i, std::ptrdiff_t j)> visible = nullptr;  // all

  std::ptrdiff_t batch = 1, v_heads = 0;  // 0: kv_heads
  std::function<bool(index_t b, index_t h, index_t i, index_t j)> sees = nullptr;
  std::function<double(index_t b, index_t h, index_t i, index_t j)> distance = nullptr;  // handed to `modify`; 0 where not said
  std::function<double(double s, index_t b, index_t h, index_t i, index_t j, double distance)> modify = nullptr;  // no steeper than 1
  std::function<void(double* row, index_t b, index_t h, index_t i)> turn_query = nullptr;
  std::function<void(double* row, index_t b, index_t kv_head, index_t j)> turn_key = nullptr;
  std::function<double(double s)> weight = nullptr;     // softmax, where it is not given
  std::function<double(double s)> steepness = nullptr;  // |weight'|, or a bound of it
  bool hard = false;                                    // the first largest takes all
  std::vector<double> sinks = {};                       // (heads) or empty
  std::ptrdiff_t top = 0;                               // how many of the largest scores are asked for
};

struct attended {
  std::vector<double> value;      // (batch, heads, tokens, dim_v)
  std::vector<double> magnitude;  // the same: sum_j w_ij |v_j|; of a weight, sum_j (|w_ij| + |w'_ij|) |v_j|
  std::vector<double> lse;        // (batch, heads, tokens)
  std::vector<double> growth;     // the same: the largest scale |q| . |k| over the keys seen, and the cap or the largest modified score
  std::vector<double> row_max;    // the same, of scores and sink
  std::vector<double> weight_sum, weight_magnitude;  // the same: sum_j w_ij, sum_j |w_ij| + |w'_ij|
  std::vector<double> lead;                          // the same: by how much the largest score is ahead of the second
  std::vector<double> score;                         // (batch, heads, tokens, keys): -inf where hidden
  std::vector<index_t> top_ids;                      // (batch, heads, tokens, top): -1 behind the last
};

/// q: (heads, tokens, dim), k: (kv_heads, keys, dim), v: (v_heads, keys, dim_v), with a batch in front.
attended attention(std::vector<double> const& q, std::vector<double> const& k, std::vector<double> const& v, attention_spec const& spec);

}  // namespace tern::oracle
