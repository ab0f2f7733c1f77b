// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/pointwise/cases.hpp
/// What the tests of pointwise/ share: tensors with gaps, and the row lengths worth trying.

#include <tern/core/policy.hpp>
#include <tern/simd/pack.hpp>

#include <cmath>
#include <string>
#include <vector>

#include "catch.hpp"
#include "compare.hpp"
#include "message.hpp"
#include "oracle/pointwise.hpp"

namespace tern::test {

/// (a, b, n) with its leading dimensions exchanged in memory and a gap after each row; all of it is NaN until written.
template <class T>
struct gapped {
  guarded<T> memory;
  tensor_view<T, 3> view;

  gapped(index a, index b, index n, index misalignment = 0, index gap = 3)
      : memory(a * b * (n + gap), misalignment), view(memory.data(), shape<3>{{a, b, n}}, shape<3>{{n + gap, a * (n + gap), 1}}) {}
  gapped(rng& r, index a, index b, index n, index misalignment = 0, double scale = 1, double mean = 0) : gapped(a, b, n, misalignment) {
    detail::each(view, [&](T& e) { e = static_cast<T>(static_cast<float>(mean + scale * r.normal())); });
  }
  gapped(gapped const& other) : gapped(other.view.extent(0), other.view.extent(1), other.view.extent(2)) {
    auto from = other.values();
    std::size_t at = 0;
    detail::each(view, [&](T& e) { e = static_cast<T>(static_cast<float>(from[at++])); });
  }
  /// The elements, dense and in order.
  std::vector<double> values() const {
    std::vector<double> all;
    detail::each(view, [&](T const& e) { all.push_back(static_cast<double>(e)); });
    return all;
  }
  bool intact() const { return memory.untouched_outside(view); }
};

inline std::vector<index> row_lengths() {
  auto lengths = lengths_around(simd::lanes);
  for (index n : {2 * simd::lanes + 1, index{576}, index{1000}}) lengths.push_back(n);
  return lengths;
}
/// Calls f(n, misalignment) for all row lengths.
template <class F>
void each_row_length(F&& f) {
  for (index n : row_lengths())
    for (index misalignment : misalignments(simd::lanes)) f(n, misalignment);
}

/// Adds what does not shrink with the value: `least` over the tolerance that it will be multiplied with.
inline oracle::expected with_floor(oracle::expected e, std::vector<double> const& of, double least, double tolerance) {
  for (std::size_t i = 0; i < e.magnitude.size(); ++i) e.magnitude[i] += std::abs(of[i]) * least / tolerance;
  return e;
}

/// Whether two views hold the same bits.
template <class T, int Rank>
bool same_bits(tensor_view<T, Rank> const& a, tensor_view<T, Rank> const& b) {
  std::vector<T> left, right;
  detail::each(a, [&](T const& e) { left.push_back(e); });
  detail::each(b, [&](T const& e) { right.push_back(e); });
  return left.size() == right.size() && (left.empty() || std::memcmp(left.data(), right.data(), left.size() * sizeof(T)) == 0);
}

/// Hands work out to more threads than there are cores.
inline thread_pool& several_threads() {
  static thread_pool pool(3);
  return pool;
}

}  // namespace tern::test
