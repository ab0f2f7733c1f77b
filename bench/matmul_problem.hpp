// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file bench/matmul_problem.hpp
/// y = x w^T to be timed: weights in a format, activations, and what results are held against.
///
/// A format's weights are a class with
///
///     w[call]           what tern::matmul takes as weights (m, k) in this call: copies in turn
///     w.decode(i, out)  row i as it is stored, k floats
///
/// block_weights is the one of every block_matrix.

#include "harness.hpp"
#include "inputs.hpp"

#include <tern/matmul.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace tern::bench {

/// Rows of x that a problem holds: the most that any workload takes.
inline constexpr index most_rows = 512;
/// Up to so many rows of x, each call takes the next copy of the weights.
inline constexpr index most_cold_rows = 32;
inline index copy_of(index call, index rows) { return rows <= most_cold_rows ? call : 0; }

template <class T>
void round_to(std::span<float const> w, std::uint8_t* out) {
  for (std::size_t i = 0; i < w.size(); ++i) {
    T const x(w[i]);
    std::memcpy(out + i * sizeof(T), &x, sizeof x);
  }
}
template <class Format>
void encode_blocks(std::span<float const> w, std::uint8_t* out) {
  for (std::size_t i = 0; i < w.size(); i += std::size_t{Format::elements}, out += sizeof(typename Format::block)) {
    typename Format::block const b = Format::encode(w.data() + i);
    std::memcpy(out, &b, sizeof b);
  }
}
/// w, a whole number of blocks, in a format.
inline std::vector<std::uint8_t> encode(weight_type type, std::span<float const> w) {
  weight_info const format = info(type);
  std::vector<std::uint8_t> bytes(w.size() / static_cast<std::size_t>(format.elements) * static_cast<std::size_t>(format.bytes));
  if (type == weight_type::f32) round_to<float>(w, bytes.data());
  if (type == weight_type::f16) round_to<f16>(w, bytes.data());
  if (type == weight_type::bf16) round_to<bf16>(w, bytes.data());
  tern::detail::with_block_format(type, [&]<class Format>(Format) { encode_blocks<Format>(w, bytes.data()); });
  return bytes;
}

/// Weights (m, k) of a type, with deviation 1 / sqrt(k): copies enough to leave the caches.
class block_weights {
 public:
  block_weights(weight_type type, index m, index k) : type_(type), m_(m), k_(k), copies_(filled(type, m, k)) {}

  block_matrix operator[](index call) { return block_matrix(bytes(call), type_, m_, k_); }
  void decode(index i, float* out) { tern::decode((*this)[0], i, out); }

  std::uint8_t* bytes(index call) { return copies_[call]; }
  float const* floats(index call) { return reinterpret_cast<float const*>(bytes(call)); }
  index copies() const { return copies_.copies(); }
  weight_type type() const { return type_; }

 private:
  /// Some encoders are searches, too slow for all of it: blocks repeat, with a period that has no factor in common with those
  /// of a row, so that rows that are not far apart differ.
  static buffer<std::uint8_t> filled(weight_type type, index m, index k) {
    weight_info const format = info(type);
    index const period = (index{1} << 17) / format.elements - 1;
    auto const some = encode(type, fast_normal(period * format.elements, 1 / std::sqrt(static_cast<double>(k))));
    buffer<std::uint8_t> all(m * k / format.elements * format.bytes);
    for (std::size_t at = 0; at < all.size(); at += some.size())
      std::memcpy(all.data() + at, some.data(), std::min(some.size(), all.size() - at));
    return all;
  }

  weight_type type_;
  index m_, k_;
  rotating<std::uint8_t> copies_;
};

/// What the factors are rounded to before they are multiplied.
enum class factors {
  exact,
  f16,
  bf16,
  int8_blocks,  ///< x to 1/254 of the largest in its row or less
  int8_whole    ///< x to 1/254 of the largest of all, w to 1/254 of the largest in its row
};

/// What bounds the error of one sum of products, in f64.
struct matmul_sums {
  double value = 0, absolute = 0, products = 0, x = 0, w = 0;  // sums of x w and |x w|, of (x w)^2, x^2, w^2
  double most_x = 0, most_w = 0;

  void add(double a, double b) {
    value += a * b;
    absolute += std::abs(a * b);
    products += a * b * a * b;
    x += a * a;
    w += b * b;
    most_x = std::max(most_x, std::abs(a));
    most_w = std::max(most_w, std::abs(b));
  }
  /// The largest error of a sum of k products in f32; `most` is the largest |x| of all. Where factors are rounded, the worst case
  /// would hide a wrong block: roundings are independent, with a deviation of their largest over sqrt(3), so that five times the
  /// largest is more than eight deviations.
  double bound(factors rounded, index k, double most) const {
    double const sum = static_cast<double>(k) * 0x1p-24 * absolute;
    switch (rounded) {
      case factors::exact:
        return sum;
      case factors::f16:
        return sum + 5 * 0x1p-11 * std::sqrt(products);
      case factors::bf16:
        return sum + 5 * 0x1p-8 * std::sqrt(products);
      case factors::int8_blocks:
        return sum + 5 * most_x / 254 * std::sqrt(w);
      case factors::int8_whole:
        return sum + 5 * (most / 254 * std::sqrt(w) + most_w / 254 * std::sqrt(x));
    }
    return 0;
  }
};

/// Weights, activations and room for results. Workloads of fewer rows take the first ones.
template <class Weights>
struct matmul_problem {
  index m, k;
  Weights w;
  buffer<float> x, y;
  room packed;  ///< what a peer makes of w

  matmul_problem(index outputs, index columns, Weights weights)
      : m(outputs), k(columns), w(std::move(weights)), x(fast_normal(most_rows * k, 1, 2)), y(most_rows * m) {}

  /// A sample of the first `rows` rows of y.
  test::comparison check(index rows, factors rounded) {
    std::vector<float> row(static_cast<std::size_t>(k)), got;
    std::vector<double> want, bound;
    double most = 0;
    for (index i = 0; i < rows * k; ++i) most = std::max(most, std::abs(static_cast<double>(x[i])));
    for (index i : sample(m, 13)) {
      w.decode(i, row.data());
      for (index r : sample(rows, 5)) {
        matmul_sums sums;
        for (index c = 0; c < k; ++c) sums.add(x[r * k + c], row[static_cast<std::size_t>(c)]);
        want.push_back(sums.value);
        bound.push_back(sums.bound(rounded, k, most));
        got.push_back(y[r * m + i]);
      }
    }
    return test::compare(std::span<float const>(got), want, bound, 1);
  }
};

/// Times call(i) if call(0) and then finish() leave the right y.
template <class Problem, class Call, class Finish>
void check_and_time(run& r, Problem& p, index rows, factors rounded, Call&& call, Finish&& finish) {
  bool const right = r.check([&] {
    std::fill(p.y.begin(), p.y.end(), std::nanf(""));
    call(index{0});
    finish();
    return p.check(rows, rounded);
  });
  if (right) r.time(call);
}
template <class Problem, class Call>
void check_and_time(run& r, Problem& p, index rows, factors rounded, Call&& call) {
  check_and_time(r, p, rows, rounded, call, [] {});
}

}  // namespace tern::bench
