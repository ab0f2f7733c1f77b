// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/oracle/attention.hpp
/// softmax(cap(scale q k^T) masked) v in float64, and what the errors of a kernel are relative to. Tensors are dense, row-major.

#include <cstddef>
#include <functional>
#include <vector>

namespace tern::oracle {

struct attention_spec {
  std::ptrdiff_t heads, kv_heads, tokens, keys, dim, dim_v;
  double scale;
  double softcap = 0;                                                         // 0: none
  std::function<bool(std::ptrdiff_t i, std::ptrdiff_t j)> visible = nullptr;  // all
};

struct attended {
  std::vector<double> value;      // (heads, tokens, dim_v)
  std::vector<double> magnitude;  // the same: sum_j w_ij |v_j|
  std::vector<double> lse;        // (heads, tokens)
  std::vector<double> growth;     // (heads, tokens): the largest scale |q| . |k| over the keys seen, and the cap
};

/// q: (heads, tokens, dim), k: (kv_heads, keys, dim), v: (kv_heads, keys, dim_v).
attended attention(std::vector<double> const& q, std::vector<double> const& k, std::vector<double> const& v, attention_spec const& spec);

}  // namespace tern::oracle
