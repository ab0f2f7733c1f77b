// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/conv/depthwise_case.hpp
/// What the tests of depthwise convolution share: tensors in both layouts with gaps between their rows, and random problems.

#include <tern/core/policy.hpp>
#include <tern/simd/pack.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "catch.hpp"
#include "compare.hpp"
#include "message.hpp"
#include "oracle/conv.hpp"

namespace tern::test {

/// A row-major tensor with a gap after each row; all of it is NaN until written.
template <class T, int Rank>
struct padded_tensor {
  guarded<T> memory;
  tensor_view<T, Rank> view;

  explicit padded_tensor(shape<Rank> const& extents, index gap = 3)
      : memory(rows(extents) * (extents.extents[Rank - 1] + gap)), view(memory.data(), extents, strides(extents, gap)) {}
  padded_tensor(rng& r, shape<Rank> const& extents, double scale = 1) : padded_tensor(extents) {
    detail::each(view, [&](T& e) { e = static_cast<T>(static_cast<float>(scale * r.normal())); });
  }
  bool intact() const { return memory.untouched_outside(view); }

  static index rows(shape<Rank> const& extents) {
    index n = 1;
    for (int d = 0; d < Rank - 1; ++d) n *= extents.extents[d];
    return n;
  }
  static shape<Rank> strides(shape<Rank> const& extents, index gap) {
    shape<Rank> s{};
    index stride = 1;
    for (int d = Rank - 1; d >= 0; --d) {
      s.extents[d] = stride;
      stride *= extents.extents[d] + (d == Rank - 1 ? gap : 0);
    }
    return s;
  }
};

/// The same tensor with the channels after the batch: dimension 1 of `lead` = 1, 0 of 0.
template <class T, int Rank>
tensor_view<T, Rank> channels_to_front(tensor_view<T, Rank> v, int lead) {
  for (int d = Rank - 1; d > lead; --d) v = v.transposed(d, d - 1);
  return v;
}
template <class T, int Rank>
std::vector<double> dense(tensor_view<T, Rank> const& v) {
  std::vector<double> all;
  detail::each(v, [&](T const& e) { all.push_back(static_cast<double>(e)); });
  return all;
}

/// A problem with N dimensions of space, and its extents in either layout.
template <int N>
struct depthwise_case {
  oracle::conv_spec s;
  index after[3] = {};

  /// Anything small; `most_kernel` bounds its sides.
  static depthwise_case any(rng& r, index most_kernel, index most_in) {
    depthwise_case c;
    c.s.batch = r.integer(1, 2);
    c.s.channels = r.integer(1, 2 * simd::lanes + 3);
    for (int d = 3 - N; d < 3; ++d) {
      c.s.kernel[d] = r.integer(1, most_kernel);
      c.s.stride[d] = r.integer(0, 2) == 0 ? r.integer(2, 3) : 1;
      c.s.dilation[d] = r.integer(0, 2) == 0 ? r.integer(2, 3) : 1;
      index const window = (c.s.kernel[d] - 1) * c.s.dilation[d] + 1;
      c.s.in[d] = r.integer(1, most_in);
      c.s.before[d] = r.integer(0, window);
      c.after[d] = r.integer(0, window);
      index const missing = window - c.s.in[d] - c.s.before[d] - c.after[d];
      if (missing > 0) c.after[d] += missing;
    }
    c.set_outputs();
    return c;
  }
  void set_outputs() {
    for (int d = 3 - N; d < 3; ++d) s.out[d] = (s.in[d] + s.before[d] + after[d] - (s.kernel[d] - 1) * s.dilation[d] - 1) / s.stride[d] + 1;
  }
  index at(std::ptrdiff_t const (&of)[3], int d) const { return of[3 - N + d]; }

  shape<N + 2> tensor(std::ptrdiff_t const (&space)[3], bool first) const {
    shape<N + 2> e{};
    e.extents[0] = s.batch;
    e.extents[first ? 1 : N + 1] = s.channels;
    for (int d = 0; d < N; ++d) e.extents[d + (first ? 2 : 1)] = at(space, d);
    return e;
  }
  shape<N + 1> weights(bool first) const {
    shape<N + 1> e{};
    e.extents[first ? 0 : N] = s.channels;
    for (int d = 0; d < N; ++d) e.extents[d + (first ? 1 : 0)] = at(s.kernel, d);
    return e;
  }
  index taps() const { return s.kernel[0] * s.kernel[1] * s.kernel[2]; }
  std::string text() const {
    std::string t = "batch " + std::to_string(s.batch) + " channels " + std::to_string(s.channels);
    for (int d = 3 - N; d < 3; ++d)
      t += "; in " + std::to_string(s.in[d]) + " out " + std::to_string(s.out[d]) + " kernel " + std::to_string(s.kernel[d]) + " stride " +
           std::to_string(s.stride[d]) + " dilation " + std::to_string(s.dilation[d]) + " before " + std::to_string(s.before[d]);
    return t;
  }
};

}  // namespace tern::test
