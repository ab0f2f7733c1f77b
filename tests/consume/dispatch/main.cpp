// SPDX-License-Identifier: Apache-2.0
// Knows nothing of tern.
#include <cmath>
#include <cstdio>

char const* attend(float const* q, float const* kv, float* out, int tokens, int dim);

int main() {
  float const q[] = {1, 0, 0, 1}, kv[] = {2, 2, 4, 4};
  float out[4];
  char const* const name = attend(q, kv, out, 2, 2);
  double const w = 1 / (1 + std::exp(-2 / std::sqrt(2.)));  // of the second key, for the second query
  double const want[] = {2, 2, 2 + 2 * w, 2 + 2 * w};
  for (int i = 0; i < 4; ++i) {
    if (!(std::fabs(out[i] - want[i]) < 1e-5)) {
      std::printf("out[%d] is %g, expected %g\n", i, static_cast<double>(out[i]), want[i]);
      return 1;
    }
  }
  std::printf("dispatched to %s\n", name);
}
