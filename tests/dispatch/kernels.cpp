// SPDX-License-Identifier: Apache-2.0
// Compiled once for each architecture.
#include "kernels.hpp"

#include <tern/core/parallel_for.hpp>
#include <tern/dispatch.hpp>
#include <tern/simd/math.hpp>

namespace {

namespace simd = tern::simd;
using tern::index;

#define KERNELS_TEXT_(name) #name
#define KERNELS_TEXT(name) KERNELS_TEXT_(name)

tern::cpu_policy policy(context const& on) {
  tern::cpu_policy p;
  if (on.threads) p = p.on(on.threads);
  return on.scratch != nullptr ? p.with(*on.scratch) : p;
}

float dot(tern::tensor_view<float const, 1> a, tern::tensor_view<float const, 1> b) {
  tern::detail::expect_equal("dot", "b.extent(0)", b.extent(0), "a.extent(0)", a.extent(0));
  simd::pack<float> sum(0.f);
  index const n = a.extent(0);
  index i = 0;
  for (; i + simd::lanes <= n; i += simd::lanes) sum = simd::fma(simd::load(a.data() + i), simd::load(b.data() + i), sum);
  if (i < n) sum = simd::fma(simd::load_n(a.data() + i, n - i), simd::load_n(b.data() + i, n - i), sum);
  return simd::reduce_add(sum);
}

void exp_rows(context const& on, tern::tensor_view<float const, 2> x, tern::tensor_view<float, 2> out) {
  tern::detail::expect_equal("exp_rows", "out.extent(1)", out.extent(1), "x.extent(1)", x.extent(1));
  tern::cpu_policy const p = policy(on);
  index const n = x.extent(1), rows = x.extent(0);
  tern::workspace::lease scratch(p.scratch(), static_cast<std::size_t>(rows * n) * sizeof(float));
  float* const copy = reinterpret_cast<float*>(scratch.data());  // (rows, n)
  tern::detail::parallel_for(p, rows, [&](index row, index) TERN_LAMBDA {
    float* const mine = copy + row * n;
    for (index i = 0; i < n; i += simd::lanes) {
      index const count = n - i < simd::lanes ? n - i : simd::lanes;
      simd::store_n(mine + i, simd::exp(simd::load_n(&x(row, i), count)), count);
    }
    for (index i = 0; i < n; ++i) out(row, i) = mine[i];
  });
}

index default_concurrency() { return tern::cpu.concurrency(); }

void call_back(void (*f)(int), int n) {
  for (int i = 0; i < n; ++i) f(i);
}

}  // namespace

TERN_DISPATCH(kernels, {.lanes = static_cast<int>(simd::lanes),
                        .compiled_for = KERNELS_TEXT(TERN_ABI),
                        .dot = dot,
                        .exp_rows = exp_rows,
                        .default_concurrency = default_concurrency,
                        .call_back = call_back});
