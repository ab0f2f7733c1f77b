// SPDX-License-Identifier: Apache-2.0
// A right call works; a wrong one reaches the handler with the message, and the program goes on from there.
#if __has_include(<tern/tern.hpp>)
#include <tern/tern.hpp>
#else
#include <tern/attention.hpp>
#endif

#include <csetjmp>
#include <cstdio>
#include <cstring>

namespace {

std::jmp_buf after_error;
char text[400];

void handler(char const* message) {
  std::strncpy(text, message, sizeof text - 1);
  std::longjmp(after_error, 1);
}

}  // namespace

int main() {
  float q[8] = {1, 1, 1, 1, 1, 1, 1, 1}, v[8] = {3, 3, 3, 3, 3, 3, 3, 3}, out[8] = {};
  auto const good = tern::view(q, 1, 2, 4), wrong = tern::view(q, 1, 4, 2);
  tern::attention(tern::cpu, good, good, tern::view(v, 1, 2, 4), tern::view(out, 1, 2, 4));
  if (!(out[7] > 2.999f && out[7] < 3.001f)) return 1;

  tern::set_error_handler(handler);
  if (setjmp(after_error) == 0) {
    tern::attention(tern::cpu, good, wrong, wrong, good);
    std::puts("a wrong call went through");
    return 2;
  }
  std::puts(text);
  return std::strstr(text, "attention: k.extent(2) is 2") != nullptr ? 0 : 3;
}
