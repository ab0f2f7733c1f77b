// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file core/error.hpp
/// What a wrong call does. Shapes and options are checked once, where a public function is entered; a wrong one throws
/// `tern::error`, whose message names the function, the argument, what it was and what was expected:
///
///     attention: k.extent(2) is 64, expected q.extent(2) = 128
///
/// With exceptions off, or when the program prefers it, a handler is called with the same message instead.

#include <tern/core/config.hpp>

#include <concepts>
#include <stdexcept>

namespace tern {

/// A wrong argument or a damaged file.
class error : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

/// Called with a message that is valid during the call. It should not return: it may throw, `longjmp`, log and exit. If it
/// returns, `tern::error` is thrown, or the program traps when exceptions are off.
using error_handler = void (*)(char const* message);

namespace detail {
inline constinit error_handler current_error_handler = nullptr;
/// What an architecture's object does in place of throwing: tern::dispatch puts a function here that throws in the program's own code.
inline constinit error_handler program_error_handler = nullptr;
}  // namespace detail

/// Replaces the handler and returns the former one; `nullptr` stands for the default. Thread-safe.
TERN_INLINE error_handler set_error_handler(error_handler handler) noexcept {
  return __atomic_exchange_n(&detail::current_error_handler, handler, __ATOMIC_ACQ_REL);
}

namespace detail {

[[noreturn]] TERN_INLINE void fail(char const* message) {
  if (error_handler handler = __atomic_load_n(&current_error_handler, __ATOMIC_ACQUIRE)) handler(message);
#if defined(TERN_DISPATCH_OBJECT)
  // An architecture's object never throws by itself: the exception's code would be a symbol that all objects share.
  if (error_handler handler = __atomic_load_n(&program_error_handler, __ATOMIC_ACQUIRE)) handler(message);
  TERN_TRAP();
#elif TERN_EXCEPTIONS
  throw error(message);
#else
  TERN_TRAP();
#endif
}

/// A message under construction; longer text is cut.
class message {
 public:
  TERN_INLINE message() = default;
  TERN_INLINE message& operator<<(char const* text) {
    while (*text != '\0' && size_ + 1 < sizeof text_) text_[size_++] = *text++;
    return *this;
  }
  template <std::integral I>
  TERN_INLINE message& operator<<(I number) {
    bool negative = false;
    if constexpr (std::signed_integral<I>) negative = number < 0;
    char digits[24];
    int n = 0;
    auto rest = static_cast<unsigned long long>(number);
    if (negative) rest = 0 - rest;
    do digits[n++] = static_cast<char>('0' + rest % 10);
    while ((rest /= 10) != 0);
    if (negative) digits[n++] = '-';
    while (n > 0 && size_ + 1 < sizeof text_) text_[size_++] = digits[--n];
    return *this;
  }
  [[noreturn]] TERN_INLINE void fail() {
    text_[size_] = '\0';
    detail::fail(text_);
  }

 private:
  char text_[320];
  std::size_t size_ = 0;
};

inline namespace TERN_ABI {

[[noreturn]] TERN_COLD inline void fail_argument(char const* op, char const* argument, index was, char const* expectation) {
  (message() << op << ": " << argument << " is " << was << ", expected " << expectation).fail();
}
[[noreturn]] TERN_COLD inline void fail_equal(char const* op, char const* argument, index was, char const* other, index value) {
  (message() << op << ": " << argument << " is " << was << ", expected " << other << " = " << value).fail();
}

/// Fails with "op: argument is `was`, expected `expectation`" unless `ok`.
TERN_INLINE void expect(bool ok, char const* op, char const* argument, index was, char const* expectation) {
  if (!ok) [[unlikely]]
    fail_argument(op, argument, was, expectation);
}
/// Fails with "op: argument is `was`, expected `other` = `value`" unless `was == value`.
TERN_INLINE void expect_equal(char const* op, char const* argument, index was, char const* other, index value) {
  if (was != value) [[unlikely]]
    fail_equal(op, argument, was, other, value);
}
/// Fails with "op: argument is `was`, expected at least `other` = `value`", which `other` has to say, unless `was >= value`.
TERN_INLINE void expect_at_least(char const* op, char const* argument, index was, char const* other, index value) {
  if (was < value) [[unlikely]]
    fail_equal(op, argument, was, other, value);
}
/// Fails with "op: argument is `was`, expected `other` = `value`", where `other` says "a divisor of", unless `was` is one.
TERN_INLINE void expect_divisor(char const* op, char const* argument, index was, char const* other, index value) {
  if (was <= 0 || value % was != 0) [[unlikely]]
    fail_equal(op, argument, was, other, value);
}
/// Fails unless a share is within 0 and 1. It is said in percent; what is no integer then, as the largest one.
TERN_INLINE void expect_share(char const* op, char const* argument, double share) {
  if (!(share >= 0 && share <= 1)) [[unlikely]]
    fail_argument(op, argument, share > -1e15 && share < 1e15 ? static_cast<index>(share * 100) : index{0x7fffffffffffffff}, "0 to 100");
}

}  // namespace TERN_ABI
}  // namespace detail
}  // namespace tern
