// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file bench/attention_problem.hpp
/// The inputs of an attention call, K and V as any element type stores them, and its check against f64. What is shared by all
/// implementations of a workload, tern's and the peers'.

#include "harness.hpp"
#include "inputs.hpp"

#include <tern/attention.hpp>
#include <tern/formats.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace tern::bench {

struct attention_shape {
  index heads, kv_heads, queries, keys, dim;
  index batch = 1;

  index rows() const { return batch * heads * queries; }
  index kv_rows() const { return batch * kv_heads * keys; }
  /// Where queries decode: calls read K and V from memory, not from the caches.
  bool cold() const { return queries == 1; }
};

/// Which keys a query sees: all; those up to its own; of these the last `window`.
struct sight {
  bool causal = false;
  index window = 0;  // 0: no bound

  key_range of(attention_shape const& s, index query) const {
    index const end = causal ? s.keys - s.queries + query + 1 : s.keys;
    return {window != 0 && end > window ? end - window : 0, end};
  }
  /// Visible pairs of one head.
  double pairs(attention_shape const& s) const {
    double sum = 0;
    for (index i = 0; i < s.queries; ++i) sum += static_cast<double>(of(s, i).end - of(s, i).begin);
    return sum;
  }
  std::string name() const { return window != 0 ? std::string("window").append(std::to_string(window)) : causal ? "causal" : "full"; }
};

/// How rows of K and V lie in memory: plain numbers, or blocks along the row.
template <class T>
struct stored {
  static constexpr index elements = 1;
  static index bytes(index n) { return n * static_cast<index>(sizeof(T)); }
  static void encode(float const* from, index n, std::uint8_t* to) {
    for (index i = 0; i < n; ++i) reinterpret_cast<T*>(to)[i] = static_cast<T>(from[i]);
  }
  static void decode(std::uint8_t const* from, index n, float* to) {
    for (index i = 0; i < n; ++i) to[i] = static_cast<float>(reinterpret_cast<T const*>(from)[i]);
  }
};
template <class Format>
  requires requires { typename Format::block; }
struct stored<Format> {
  using block = typename Format::block;
  static constexpr index elements = Format::elements;
  static index bytes(index n) { return n / elements * static_cast<index>(sizeof(block)); }
  static void encode(float const* from, index n, std::uint8_t* to) {
    for (index i = 0; i < n / elements; ++i) reinterpret_cast<block*>(to)[i] = Format::encode(from + i * elements);
  }
  static void decode(std::uint8_t const* from, index n, float* to) {
    for (index i = 0; i < n / elements; ++i) Format::decode(reinterpret_cast<block const*>(from)[i], to + i * elements);
  }
};

/// K and V, each (batch, kv_heads, keys, dim), stored by `Codec` (one like `stored`). Where the shape is cold there are copies
/// enough to leave the caches.
template <class Codec>
class kv_store {
 public:
  explicit kv_store(attention_shape const& s) : row_bytes_(Codec::bytes(s.dim)), dim_(s.dim), size_(s.kv_rows() * row_bytes_) {
    buffer<std::uint8_t> bytes(2 * size_);
    // A period that is no multiple of a row: rows far apart differ.
    auto const values = fast_normal((index{1} << 20) + 7, 1, 2);
    auto const period = static_cast<index>(values.size());
    std::vector<float> row(static_cast<std::size_t>(dim_));
    index next = 0;
    for (index r = 0; r < 2 * s.kv_rows(); ++r) {
      for (index d = 0; d < dim_; ++d, next = next + 1 < period ? next + 1 : 0)
        row[static_cast<std::size_t>(d)] = values[static_cast<std::size_t>(next)] + (r < s.kv_rows() ? 0 : mean_value(d));
      Codec::encode(row.data(), dim_, bytes.data() + r * row_bytes_);
    }
    copies_ = rotating<std::uint8_t>(std::span<std::uint8_t const>(bytes), s.cold() ? 0 : 1);
  }

  std::uint8_t* k(index call) { return copies_[call]; }
  std::uint8_t* v(index call) { return copies_[call] + size_; }
  /// What is stored in a row of (batch, kv_heads, keys), widened.
  void k_row(index r, float* to) { Codec::decode(k(0) + r * row_bytes_, dim_, to); }
  void v_row(index r, float* to) { Codec::decode(v(0) + r * row_bytes_, dim_, to); }

 private:
  /// V has no mean of zero: or the results of long contexts would vanish, and no check could tell right from nothing.
  static float mean_value(index d) { return 0.25f * static_cast<float>(d % 8 + 1); }

  index row_bytes_, dim_, size_;
  rotating<std::uint8_t> copies_;
};

/// How far results may be off, relative to sum_j w_ij |v_j|, by what q and the weights are rounded to for the products.
/// f32: twice the bound that attention/attention.hpp states for these scores (|q.k| scale is below 40). bf16: a rounding of
/// 2^-9 for each q and each weight moves scores and weights by less than 2^-7. int8: blocks of 32 with a scale, 1/254 of the largest;
/// values are codes of their column in a block of 128 keys, so the largest value there counts as one that was seen (tile_int8.hpp).
inline double attention_rounding(unit products) {
  switch (products) {
    case unit::f32:
      return 2 * (16 + 4 * 40) * 0x1p-24;
    case unit::bf16:
      return 0x1p-7;
    case unit::int8:
      return 0x1p-6;
  }
  return 0;
}

/// One output element's terms in f64.
struct attention_reference {
  std::vector<double> want, magnitude;
  bool by_column = false;  // the largest |v| of the blocks of 128 keys adds to the magnitude

  /// Appends dimensions 0, 7, 14, ... of the output for this query row. `head` is the first row of its keys.
  template <class Store>
  void add(Store& kv, float const* q, index dim, index head, index keys, key_range seen) {
    std::vector<float> row(static_cast<std::size_t>(dim));
    std::vector<double> p, value(static_cast<std::size_t>(dim)), absolute(static_cast<std::size_t>(dim));
    double most = -std::numeric_limits<double>::infinity(), sum = 0;
    for (index j = seen.begin; j < seen.end; ++j) {
      kv.k_row(head + j, row.data());
      double dot = 0;
      for (index d = 0; d < dim; ++d) dot += static_cast<double>(q[d]) * static_cast<double>(row[static_cast<std::size_t>(d)]);
      p.push_back(dot / std::sqrt(static_cast<double>(dim)));
      most = std::max(most, p.back());
    }
    for (double& e : p) sum += e = std::exp(e - most);
    for (index j = seen.begin; j < seen.end; ++j) {
      kv.v_row(head + j, row.data());
      for (std::size_t d = 0; d < row.size(); d += 7) {
        double const term = p[static_cast<std::size_t>(j - seen.begin)] / sum * static_cast<double>(row[d]);
        value[d] += term;
        absolute[d] += std::abs(term);
      }
    }
    if (by_column) add_largest(kv, head, {seen.begin / 128 * 128, std::min(keys, (seen.end + 127) / 128 * 128)}, row, absolute);
    for (std::size_t d = 0; d < row.size(); d += 7) {
      want.push_back(value[d]);
      magnitude.push_back(absolute[d]);
    }
  }

 private:
  template <class Store>
  static void add_largest(Store& kv, index head, key_range blocks, std::vector<float>& row, std::vector<double>& to) {
    std::vector<double> most(row.size());
    for (index j = blocks.begin; j < blocks.end; ++j) {
      kv.v_row(head + j, row.data());
      for (std::size_t d = 0; d < row.size(); d += 7) most[d] = std::max(most[d], std::abs(static_cast<double>(row[d])));
    }
    for (std::size_t d = 0; d < row.size(); d += 7) to[d] += most[d];
  }
};

/// The tensors of one shape, shared by the workloads that differ in what is seen. T is the type of K and V.
template <class T>
struct attention_inputs {
  attention_shape s;
  buffer<float> q;         // (batch, heads, queries, dim)
  kv_store<stored<T>> kv;  // (batch, kv_heads, keys, dim)
  buffer<float> out;       // as q; some peers write (batch, queries, heads, dim)

  explicit attention_inputs(attention_shape const& of) : s(of), q(fast_normal(of.rows() * of.dim)), kv(of), out(of.rows() * of.dim) {}

  /// A sample of `out` against f64, computed from what `store` holds.
  template <class Store>
  test::comparison check(Store& store, sight const& seen, double rounding, bool token_major) const {
    std::vector<float> got;
    attention_reference reference;
    reference.by_column = rounding == attention_rounding(unit::int8);
    for (index b : sample(s.batch, 2))
      for (index h : sample(s.heads, 3))
        for (index i : sample(s.queries, 4)) {
          index const row = (b * s.heads + h) * s.queries + i, head = b * s.kv_heads + h / (s.heads / s.kv_heads);
          reference.add(store, q.data() + row * s.dim, s.dim, head * s.keys, s.keys, seen.of(s, i));
          index const at = token_major ? (b * s.queries + i) * s.heads + h : row;
          for (index d = 0; d < s.dim; d += 7) got.push_back(out[at * s.dim + d]);
        }
    return test::compare(std::span<float const>(got), reference.want, reference.magnitude, rounding);
  }
};

/// Checks call(0) once, then times call(0), call(1), ...; `store` is what the implementation reads.
template <class T, class Store, class Call>
void check_and_time(run& r, attention_inputs<T>& p, Store& store, sight const& seen, double rounding, Call&& call,
                    bool token_major = false) {
  std::fill(p.out.begin(), p.out.end(), std::nanf(""));
  bool const right = r.check([&] {
    call(index{0});
    return p.check(store, seen, rounding, token_major);
  });
  if (right) r.time(call);
}

}  // namespace tern::bench
