// SPDX-License-Identifier: Apache-2.0
// Published attention that is not softmax over pixels: over channels, over clusters, over groups of channels.
#include "formula.hpp"

#include <tern/attention/systems/dlgsanet.hpp>

namespace tern::test {
namespace {

TEST_CASE("dlgsanet: channels attend to channels, similarities below zero do not count") {
  rng r(41);
  for (index channels : {3, 8, 30})
    for (index pixels : {35, 200}) {
      index const heads = 2;
      call<float> c(r, {heads, heads, channels, channels, pixels, pixels, 1});
      std::vector<float> const divisors{0.7f, 1.6f};
      dlgsanet(cpu, c.q.view, c.k.view, c.v.view, c.out.view, divisors);
      auto const q = c.q.values(), k = c.k.values(), v = c.v.values();
      std::vector<double> want, magnitude;
      for (index h = 0; h < heads; ++h)
        for (index i = 0; i < channels; ++i) {
          std::vector<double> weight;
          for (index j = 0; j < channels; ++j) {
            double qk = 0, qq = 0, kk = 0;
            for (index p = 0; p < pixels; ++p) {
              double const x = q[at((h * channels + i) * pixels + p)], y = k[at((h * channels + j) * pixels + p)];
              qk += x * y;
              qq += x * x;
              kk += y * y;
            }
            weight.push_back(std::max(0., qk / std::sqrt(qq * kk) / static_cast<double>(divisors[at(h)])));
          }
          for (index p = 0; p < pixels; ++p) {
            double sum = 0, size = 0;
            for (index j = 0; j < channels; ++j) {
              sum += weight[at(j)] * v[at((h * channels + j) * pixels + p)];
              size += std::abs(v[at((h * channels + j) * pixels + p)]);
            }
            want.push_back(sum);
            // A similarity is off by u (b0 + b1 sqrt(dim)) / t: its terms add up to at most 1 / t.
            magnitude.push_back(size / static_cast<double>(divisors[at(h)]));
          }
        }
      using a = attention_accuracy;
      double const allowed = a::b0 + a::b1 * std::sqrt(static_cast<double>(pixels)) + a::b2 * std::sqrt(static_cast<double>(channels));
      CHECK(compare(c.out.view, want, magnitude, allowed * 0x1p-24));
    }
}

}  // namespace
}  // namespace tern::test
