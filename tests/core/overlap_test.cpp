// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "compare.hpp"

#include <tern/core/overlap.hpp>

#include <algorithm>
#include <iterator>
#include <vector>

namespace tern::test {
namespace {

/// The elements of a view, by their distance from `base`.
template <int Rank>
std::vector<index> elements(tensor_view<float, Rank> const& v, float const* base) {
  std::vector<index> at;
  detail::each(v, [&](float& e) { at.push_back(&e - base); });
  std::sort(at.begin(), at.end());
  return at;
}
bool share(std::vector<index> const& a, std::vector<index> const& b) {
  std::vector<index> both;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  return !both.empty();
}

}  // namespace

TEST_CASE("views that share an element overlap") {
  std::vector<float> memory(4000);
  rng r(3);
  index apart = 0, sharing = 0;
  for (int i = 0; i < 20000; ++i) {
    auto const any = [&] {
      shape<3> extents{{r.integer(1, 4), r.integer(1, 4), r.integer(1, 4)}},
          strides{{r.integer(-40, 40), r.integer(-12, 12), r.integer(-3, 3)}};
      return tensor_view<float, 3>(memory.data() + r.integer(1900, 2000), extents, strides);
    };
    auto const a = any(), b = any();
    bool const shared = share(elements(a, memory.data()), elements(b, memory.data()));
    if (shared) REQUIRE(tern::detail::overlap(a, b));
    REQUIRE(tern::detail::overlap(a, b) == tern::detail::overlap(b, a));
    (shared ? sharing : apart) += 1;
  }
  CHECK(sharing > 1000);
  CHECK(apart > 1000);
}

TEST_CASE("parts of one tensor do not overlap") {
  std::vector<float> memory(2 * 6 * 8 * 10 + 1);
  auto const all = view(memory.data(), 2, 6, 8, 10);
  for (int d = 0; d < 4; ++d) {
    index const n = all.extent(d), half = n / 2;
    CHECK_FALSE(tern::detail::overlap(all.slice(d, 0, half), all.slice(d, half, n)));
    CHECK_FALSE(tern::detail::overlap(all.slice(d, half, n), all.slice(d, 0, half)));
    CHECK(tern::detail::overlap(all.slice(d, 0, half + 1), all.slice(d, half, n)));
    CHECK(tern::detail::overlap(all.slice(d, half, n), all.slice(d, 0, half + 1)));
  }
  CHECK_FALSE(tern::detail::overlap(all.slice(3, 1, 4).slice(1, 0, 5), all.slice(3, 4, 10).slice(1, 2, 6)));  // other rows, columns apart
  // By turns, and against the direction of memory.
  shape<2> const extents{{5, 4}}, strides{{20, 2}}, back{{-20, -2}};
  CHECK_FALSE(tern::detail::overlap(tensor_view<float, 2>(memory.data(), extents, strides),
                                    tensor_view<float, 2>(memory.data() + 1, extents, strides)));
  CHECK_FALSE(tern::detail::overlap(tensor_view<float, 2>(memory.data() + 87, extents, back),
                                    tensor_view<float, 2>(memory.data(), extents, strides)));
  CHECK(tern::detail::overlap(tensor_view<float, 2>(memory.data() + 86, extents, back),
                              tensor_view<float, 2>(memory.data(), extents, strides)));
  // Another element type, memory behind, nothing, and no memory.
  auto* const halves = reinterpret_cast<std::uint16_t*>(memory.data());
  CHECK(tern::detail::overlap(view(memory.data(), 8), view(halves + 15, 4)));
  CHECK_FALSE(tern::detail::overlap(view(memory.data(), 8), view(halves + 16, 4)));
  CHECK_FALSE(tern::detail::overlap(all, all.slice(0, 1, 1)));
  float* const nothing = nullptr;
  CHECK_FALSE(tern::detail::overlap(view(nothing, 4), view(nothing, 4)));
}

}  // namespace tern::test
