// SPDX-License-Identifier: Apache-2.0
#include <tern/simd/pairs.hpp>

#include "catch.hpp"

namespace tern::test {
TEST_CASE("pairs: neighbors are exchanged, doubled, and signed", "[simd]") {
  float in[simd::lanes], out[simd::lanes];
  for (index i = 0; i < simd::lanes; ++i) in[i] = static_cast<float>(i + 1);
  simd::store(out, simd::swap_pairs(simd::load(static_cast<float const*>(in))));
  for (index i = 0; i < simd::lanes; ++i) CHECK(out[i] == in[i ^ 1]);
  simd::store(out, simd::load_twice(in));
  for (index i = 0; i < simd::lanes; ++i) CHECK(out[i] == in[i / 2]);
  float both[2 * simd::lanes];
  simd::store_interleaved(both, simd::load(static_cast<float const*>(out)), simd::alternating(3.f));
  for (index i = 0; i < simd::lanes; ++i) CHECK((both[2 * i] == in[i / 2] && both[2 * i + 1] == (i % 2 == 0 ? -3.f : 3.f)));
  for (index i = 0; i < 2 * simd::lanes; ++i) both[i] = static_cast<float>(i);
  simd::pack<float> a, b;
  float of_a[simd::lanes], of_b[simd::lanes];
  simd::load_interleaved(both, a, b);
  simd::store(of_a, a);
  simd::store(of_b, b);
  for (index i = 0; i < simd::lanes; ++i) CHECK((of_a[i] == both[2 * i] && of_b[i] == both[2 * i + 1]));
  for (index n = 1; n < simd::lanes; ++n) {
    simd::load_interleaved_n(both, a, b, n);
    simd::store(of_a, a);
    simd::store(of_b, b);
    for (index i = 0; i < simd::lanes; ++i) CHECK((of_a[i] == (i < n ? both[2 * i] : 0.f) && of_b[i] == (i < n ? both[2 * i + 1] : 0.f)));
    float part[2 * simd::lanes] = {};
    simd::store_interleaved_n(part, simd::pack<float>(4.f), simd::pack<float>(5.f), n);
    for (index i = 0; i < 2 * simd::lanes; ++i) CHECK(part[i] == (i >= 2 * n ? 0.f : i % 2 == 0 ? 4.f : 5.f));
  }
  simd::store(out, simd::alternating(2.f));
  for (index i = 0; i < simd::lanes; ++i) CHECK(out[i] == (i % 2 == 0 ? -2.f : 2.f));
}

}  // namespace tern::test
