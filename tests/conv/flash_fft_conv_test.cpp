// SPDX-License-Identifier: Apache-2.0
#include <tern/conv/systems/flash_fft_conv.hpp>

#include "long_cases.hpp"

namespace tern::test {

TEST_CASE("flash_fft_conv: whole, partial, gated and frequency-sparse") {
  for (auto const& [n, taps] : {std::pair<index, index>{512, 512}, {700, 60}}) {
    rng r(51);
    signal<> const u(r, 2, 2, n), w(r, 2, 2, n), v(r, 2, 2, n), k(r, 1, 2, taps);
    signal<> plain(2, 2, n), gated(2, 2, n), sparse(2, 2, n);
    flash_fft_conv(cpu, u.view, k.view[0], plain.view);
    flash_fft_conv(cpu, u.view, long_filter(cpu, k.view[0], n), w.view, v.view, gated.view);
    flash_fft_conv(cpu, u.view, k.view[0], w.view, v.view, sparse.view, sparse_spectrum{1, 4});
    double const tolerance = long_conv.error(4096);
    for (index b = 0; b < 2; ++b)
      for (index c = 0; c < 2; ++c) {
        auto const x = u.row(b, c), f = k.row(0, c), gate = v.row(b, c), gated_x = times(x, w.row(b, c));
        double const magnitude = 5 * oracle::norm(gated_x) * oracle::norm(f);  // no gate here exceeds 5
        auto const left = oracle::first_class_filter(f, 4096, 4);
        REQUIRE(close_row(plain.view, b, c, oracle::long_conv(x, f, oracle::filter_place::causal), oracle::norm(x) * oracle::norm(f),
                          tolerance));
        REQUIRE(
            close_row(gated.view, b, c, times(oracle::long_conv(gated_x, f, oracle::filter_place::causal), gate), magnitude, tolerance));
        REQUIRE(close_row(sparse.view, b, c, times(oracle::twisted_conv(gated_x, left, 0), gate), magnitude, tolerance));
      }
    CHECK(sparse.intact());
  }
}

}  // namespace tern::test
