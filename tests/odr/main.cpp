// SPDX-License-Identifier: Apache-2.0
// odr_units [all]: the baseline unit; with `all` each unit that this CPU runs, whose results must agree.
#include "unit.hpp"

#include <cmath>
#include <cstdio>
#include <tern/core/policy.hpp>
#include <vector>

namespace {
std::vector<float> values(std::size_t n, unsigned seed) {
  std::vector<float> x(n);
  for (float& v : x) v = static_cast<float>((seed = seed * 1664525u + 1013904223u) >> 8) / 8388608.f - 1.f;
  return x;
}
}  // namespace

int main(int count, char**) {
  tern::index const heads = 2, tokens = 40, dim = 24;
  auto const q = values(heads * tokens * dim, 1), k = values(heads * tokens * dim, 2), v = values(heads * tokens * dim, 3);
  auto run = [&](unit& f) {
    std::vector<float> out(q.size(), -1.f);
    f(tern::view(q.data(), heads, tokens, dim), tern::view(k.data(), heads, tokens, dim), tern::view(v.data(), heads, tokens, dim),
      tern::view(out.data(), heads, tokens, dim));
    try {
      f(tern::view(q.data(), heads, tokens, dim), tern::view(k.data(), heads, tokens, dim), tern::view(v.data(), heads, tokens, dim),
        tern::view(out.data(), heads, tokens, dim - 1));
      std::puts("a wrong shape was taken");
      out[0] = 1e9f;
    } catch (tern::error const& e) {
      std::puts(e.what());
    }
    return out;
  };
  auto const expected = run(unit_baseline);
  double sum = 0;
  for (float y : expected) sum += static_cast<double>(y);
  bool ok = std::fabs(sum - static_cast<double>(heads * tokens)) < 1e-3;  // each row of a softmax sums to one
  auto compare = [&](char const* name, unit& f) {
    auto const got = run(f);
    for (std::size_t i = 0; i < got.size(); ++i)
      if (!(std::fabs(got[i] - expected[i]) <= 1e-6f)) ok = false;
    std::printf("%s: %s\n", name, ok ? "agrees" : "differs");
  };
#if defined(__x86_64__)
  __builtin_cpu_init();
  bool const v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  if (count > 1 && v3) compare("x86-64-v3", unit_v3);
  if (count > 1 && v3 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) compare("x86-64-v4", unit_v4);
#endif
  return ok ? 0 : 1;
}
