// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/conv/long_cases.hpp
/// What the tests of the long convolutions share: tensors with gaps, rows of them as the oracle takes them, and comparisons relative to
/// the norms of two rows.

#include "catch.hpp"
#include "compare.hpp"
#include "message.hpp"
#include "oracle/long_conv.hpp"

#include <tern/conv/long_options.hpp>

#include <vector>

namespace tern::test {

/// (batch, channels, n) in memory with a gap behind each row, or with the channels innermost.
template <class T = float>
struct signal {
  guarded<T> memory;
  tensor_view<T, 3> view;

  signal(index batch, index channels, index n, bool channels_last = false)
      : memory(batch * channels * (n + 5), 1),
        view(memory.data(), shape<3>{{batch, channels, n}},
             channels_last ? shape<3>{{channels * (n + 5), 1, channels}} : shape<3>{{channels * (n + 5), n + 5, 1}}) {}
  signal(rng& r, index batch, index channels, index n, bool channels_last = false) : signal(batch, channels, n, channels_last) {
    detail::each(view, [&](T& e) { e = static_cast<T>(static_cast<float>(r.normal())); });
  }
  oracle::row row(index batch, index channel) const {
    oracle::row x;
    for (index i = 0; i < view.extent(2); ++i) x.push_back(static_cast<double>(view(batch, channel, i)));
    return x;
  }
  bool intact() const { return memory.untouched_outside(view); }
};

inline oracle::filter_place place_of(long_mode mode) {
  return mode == long_mode::causal     ? oracle::filter_place::causal
         : mode == long_mode::circular ? oracle::filter_place::circular
                                       : oracle::filter_place::same;
}
/// K taps as a circle of n sees them.
inline oracle::row wound(oracle::row const& k, index n) {
  oracle::row w(static_cast<std::size_t>(n), 0.0);
  for (std::size_t j = 0; j < k.size(); ++j) w[j % w.size()] += k[j];
  return w;
}
/// What errors of one row are relative to.
inline double magnitude_of(oracle::row const& u, oracle::row const& k, long_mode mode) {
  index const n = static_cast<index>(u.size());
  return oracle::norm(u) * oracle::norm(mode == long_mode::circular && static_cast<index>(k.size()) > n ? wound(k, n) : k);
}
/// A row of `got` against what is wanted.
template <class T>
comparison close_row(tensor_view<T, 3> const& got, index batch, index channel, oracle::row const& want, double magnitude,
                     double tolerance) {
  oracle::row const all(want.size(), magnitude);
  return compare(got[batch][channel], want, all, tolerance);
}
inline oracle::row times(oracle::row x, oracle::row const& y) {
  for (std::size_t i = 0; i < x.size(); ++i) x[i] *= y[i];
  return x;
}

}  // namespace tern::test
