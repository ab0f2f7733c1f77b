// SPDX-License-Identifier: Apache-2.0
#include <tern/simd/stream.hpp>

#include "catch.hpp"
#include "compare.hpp"

namespace tern::test {

TEST_CASE("simd: stores past the caches write what stores write", "[simd]") {
  guarded<float> to(4 * simd::lanes);
  CHECK(simd::can_store_past(to.data()));
  CHECK_FALSE(simd::can_store_past(to.data() + 1));
  for (index i = 0; i < 4; ++i) simd::store_past(to.data() + i * simd::lanes, simd::iota<float>());
  simd::finish_stores_past();
  index wrong = 0;
  for (index i = 0; i < 4 * simd::lanes; ++i) wrong += !(to[i] == static_cast<float>(i % simd::lanes));
  CHECK(wrong == 0);
  CHECK(to.intact());
}

}  // namespace tern::test
