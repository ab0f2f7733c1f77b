// SPDX-License-Identifier: Apache-2.0
#include <tern/core/random.hpp>

#include <random>

#include "catch.hpp"

TEST_CASE("random: the published sequence of SplitMix64", "[core]") {
  tern::random g(1234567);
  CHECK(g() == 6457827717110365317u);
  CHECK(g() == 3203168211198807973u);
  CHECK(g() == 9817491932198370423u);
  CHECK(g() == 4593380528125082431u);
  CHECK(g() == 16408922859458223821u);
}

TEST_CASE("random: the n-th number without those before it", "[core]") {
  tern::random g(77);
  for (std::uint64_t n = 0; n < 100; ++n) CHECK(tern::random::at(77, n) == g());
}

TEST_CASE("random: copies repeat; standard distributions and generators fit", "[core]") {
  tern::random a(5);
  a();
  tern::random b = a;
  CHECK(a() == b());
  std::uniform_int_distribution<int> dice(1, 6);
  CHECK((dice(a) >= 1 && dice(a) <= 6));
  static_assert(tern::random_generator<std::mt19937_64> && !tern::random_generator<std::mt19937>);
}

TEST_CASE("random: uniform numbers fill [0, 1) evenly", "[core]") {
  tern::random g(9);
  int counts[100] = {};
  for (int i = 0; i < 100000; ++i) {
    double const u = tern::uniform(g);
    REQUIRE((u >= 0 && u < 1));
    ++counts[static_cast<int>(u * 100)];
  }
  double chi = 0;
  for (int c : counts) chi += (c - 1000.0) * (c - 1000.0) / 1000.0;
  CHECK(chi < 99 + 4 * 14.07);  // 99 degrees of freedom: mean 99, deviation 14.07
}
