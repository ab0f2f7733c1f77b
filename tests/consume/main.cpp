// SPDX-License-Identifier: Apache-2.0
// One call of the library, as a user's program makes it.
#include <tern/attention.hpp>

#include <cmath>
#include <cstdio>
#include <vector>

int main() {
  // One head, two keys: the second key is masked from the first query, and equal keys share the weight.
  std::vector<float> const q = {1, 0, 0, 1}, k = {1, 1, 1, 1}, v = {2, 4, 6, 8};
  std::vector<float> out(4);
  tern::attention(tern::cpu, tern::view(q.data(), 1, 2, 2), tern::view(k.data(), 1, 2, 2), tern::view(v.data(), 1, 2, 2),
                  tern::view(out.data(), 1, 2, 2), tern::causal{});
  float const want[] = {2, 4, 4, 6};
  for (int i = 0; i < 4; ++i) {
    if (!(std::abs(out[static_cast<std::size_t>(i)] - want[i]) < 1e-5f)) {
      std::printf("out[%d] is %g, expected %g\n", i, out[static_cast<std::size_t>(i)], want[i]);
      return 1;
    }
  }
  std::puts("attention works");
}
