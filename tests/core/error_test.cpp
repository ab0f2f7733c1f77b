// SPDX-License-Identifier: Apache-2.0
#include <tern/core/error.hpp>

#include <limits>
#include <string>

#include "catch.hpp"

namespace tern::test {
namespace {

template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (error const& e) {
    return e.what();
  }
  return "nothing was thrown";
}

std::string handled;
struct from_handler {};
void throwing_handler(char const* message) {
  handled = message;
  throw from_handler{};
}
void returning_handler(char const* message) { handled = message; }

}  // namespace

TEST_CASE("a message names the function, the argument, its value and what was expected") {
  CHECK(message_of([] { detail::expect_equal("attention", "k.extent(2)", 64, "q.extent(2)", 128); }) ==
        "attention: k.extent(2) is 64, expected q.extent(2) = 128");
  CHECK(message_of([] { detail::expect(false, "top_k", "k", -3, "at least 1"); }) == "top_k: k is -3, expected at least 1");
  CHECK(message_of([] { detail::expect(true, "top_k", "k", 3, "at least 1"); }) == "nothing was thrown");
  CHECK(message_of([] { detail::expect_equal("f", "a", 1, "b", 1); }) == "nothing was thrown");
}

TEST_CASE("numbers are written in full") {
  auto const text = [](auto n) { return message_of([n] { (detail::message() << n).fail(); }); };
  CHECK(text(0) == "0");
  CHECK(text(-1) == "-1");
  CHECK(text(std::numeric_limits<long long>::min()) == "-9223372036854775808");
  CHECK(text(std::numeric_limits<long long>::max()) == "9223372036854775807");
}

TEST_CASE("a long message is cut, not overrun") {
  std::string const text(5000, 'x');
  std::string const cut = message_of([&] { (detail::message() << text.c_str() << 12345).fail(); });
  CHECK(cut.size() > 100);
  CHECK(cut.size() < 1000);
  CHECK(cut.find_first_not_of('x') == std::string::npos);
}

TEST_CASE("an error is a std::invalid_argument") {
  CHECK_THROWS_AS(detail::fail("x"), std::invalid_argument);
  CHECK_THROWS_AS(detail::fail("x"), error);
}

TEST_CASE("a handler gets the message first") {
  REQUIRE(set_error_handler(throwing_handler) == nullptr);
  CHECK_THROWS_AS(detail::expect(false, "f", "n", 7, "less"), from_handler);
  CHECK(handled == "f: n is 7, expected less");
  CHECK(set_error_handler(returning_handler) == throwing_handler);
  CHECK_THROWS_AS(detail::fail("second"), error);
  CHECK(handled == "second");
  CHECK(set_error_handler(nullptr) == returning_handler);
  handled.clear();
  CHECK_THROWS_AS(detail::fail("third"), error);
  CHECK(handled.empty());
}

}  // namespace tern::test
