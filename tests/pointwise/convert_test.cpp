// SPDX-License-Identifier: Apache-2.0
#include <tern/pointwise/convert.hpp>

#include "cases.hpp"

namespace tern::test {
namespace {

template <class X, class Y>
void check(index n, index misalignment) {
  rng r(static_cast<std::uint64_t>(n));
  gapped<X> const x(r, 2, 3, n, misalignment);
  gapped<Y> y(2, 3, n, misalignment), want(2, 3, n);
  convert(cpu, x.view, y.view);
  for (index i = 0; i < 2; ++i)
    for (index j = 0; j < 3; ++j)
      for (index k = 0; k < n; ++k) want.view(i, j, k) = static_cast<Y>(static_cast<float>(x.view(i, j, k)));
  INFO("n " << n << " misalignment " << misalignment);
  CHECK(same_bits(y.view, want.view));
  CHECK(y.intact());
}

}  // namespace

TEST_CASE("convert: copies, rounds and widens", "[pointwise]") {
  each_row_length([](index n, index misalignment) {
    check<float, float>(n, misalignment);
    check<float, f16>(n, misalignment);
    check<float, bf16>(n, misalignment);
    check<f16, float>(n, misalignment);
    check<bf16, f16>(n, misalignment);
  });
}

TEST_CASE("convert: on threads, in pieces of one row", "[pointwise]") {
  rng r(4);
  for (index n : {32767, 32768, 32769, 100003}) {
    auto const x = r.normal(n);
    guarded<float> y(n);
    convert(cpu.on(several_threads()), x, y);
    CHECK(std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0);
    CHECK(y.intact());
  }
}

TEST_CASE("convert: errors name what is wrong", "[pointwise]") {
  std::vector<float> x(32);
  std::vector<f16> y(31);
  CHECK(message_of([&] { convert(cpu, x, y); }) == "convert: y.extent(0) is 31, expected x.extent(0) = 32");
}

}  // namespace tern::test
