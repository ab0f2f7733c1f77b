// SPDX-License-Identifier: Apache-2.0
#include <tern/core/config.hpp>

#include <string>

#include "catch.hpp"

#define TERN_TEST_TEXT_(x) #x
#define TERN_TEST_TEXT(x) TERN_TEST_TEXT_(x)

namespace tern::test {

TEST_CASE("the inline namespace names the instruction sets of this file") {
  std::string const name = TERN_TEST_TEXT(TERN_ABI);
  CHECK(name.rfind("abi_", 0) == 0);
  CHECK(name.find("TERN") == std::string::npos);  // all macros were replaced
  CHECK(name.find(' ') == std::string::npos);
  auto const has = [&](char const* part) { return name.find(part) != std::string::npos; };
#if defined(__AVX512F__)
  CHECK(has("_avx512f"));
#else
  CHECK_FALSE(has("_avx512f"));
#endif
#if defined(__AVX2__)
  CHECK(has("_avx2"));
#else
  CHECK_FALSE(has("_avx2"));
#endif
#if defined(__FMA__)
  CHECK(has("_fma"));
#else
  CHECK_FALSE(has("_fma"));
#endif
#if defined(TERN_EMULATE_LANES)
  CHECK(has("emulated" TERN_TEST_TEXT(TERN_EMULATE_LANES)));
#endif
}

}  // namespace tern::test
