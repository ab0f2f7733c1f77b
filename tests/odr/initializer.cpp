// SPDX-License-Identifier: Apache-2.0
// A variable that is initialized at program start: in an architecture's object its code would run before the CPU is looked at.
#include <tern/dispatch.hpp>

#include <cstdlib>

namespace {
int const seed = std::atoi("7");
int get() { return seed; }
}  // namespace

struct seeds {
  int (*get)();
};
TERN_DISPATCH(seeds, {.get = get});
