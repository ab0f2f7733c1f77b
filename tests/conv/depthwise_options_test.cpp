// SPDX-License-Identifier: Apache-2.0
#include <tern/conv/depthwise_conv.hpp>
#include <tern/core/thread_pool.hpp>

#include "depthwise_case.hpp"

namespace tern::test {
namespace {

using image = tensor_view<float, 4>;
using kernel = tensor_view<float, 3>;

/// x, w and y of one size with channels last, as views in either order of axes: one call is compiled for all that is asked here.
struct fixture {
  index n = 2, h = 9, v = 20, c = 2 * simd::lanes + 1;
  rng r{11};
  std::vector<float> x = r.normal(n * h * v * c), w = r.normal(9 * c), b = r.normal(c), y = std::vector<float>(x.size());
  image xs{x.data(), shape{n, h, v, c}}, ys{y.data(), shape{n, h, v, c}};
  kernel ws{w.data(), shape{index{3}, index{3}, c}};

  std::vector<float> plain() {
    depthwise_conv(cpu, xs, ws, ys, same_padding{});
    return y;
  }
};

}  // namespace

TEST_CASE("depthwise_conv: same_padding is ceil(input / stride) outputs, an odd zero after", "[conv]") {
  for (index in = 1; in < 12; ++in)
    for (index k : {1, 2, 3, 4})
      for (index s : {1, 2, 3}) {
        depthwise_case<1> c;
        c.s.in[2] = in;
        c.s.kernel[2] = k;
        c.s.stride[2] = s;
        c.s.out[2] = (in + s - 1) / s;
        c.s.before[2] = std::max<index>(0, (c.s.out[2] - 1) * s + k - in) / 2;
        rng r(5);
        auto const x = r.normal(in), w = r.normal(k);
        std::vector<float> y(static_cast<std::size_t>(c.s.out[2]));
        depthwise_conv(cpu, view(x.data(), 1, in, 1), view(w.data(), k, 1), view(y.data(), 1, c.s.out[2], 1), stride{s}, same_padding{});
        auto const want = oracle::depthwise_conv(widened(x), widened(w), {}, c.s);
        INFO(c.text());
        CHECK(compare(y, want.value, want.magnitude, depthwise_conv.accuracy(k) * 0x1p-24));
      }
}

TEST_CASE("depthwise_conv: a bias comes first, functions and residuals in their order", "[conv]") {
  fixture f;
  auto const sums = f.plain();
  auto const other = f.r.normal(static_cast<index>(f.x.size()));
  image const residue(const_cast<float*>(other.data()), shape{f.n, f.h, f.v, f.c});
  auto const relu = [](float z) { return z < 0 ? 0 : z; };
  auto const close = [&](auto const& want) {
    for (std::size_t i = 0; i < f.y.size(); ++i) {
      double const wanted = want(i, f.b[i % static_cast<std::size_t>(f.c)]);
      if (!(std::abs(static_cast<double>(f.y[i]) - wanted) <= 1e-5)) return false;
    }
    return true;
  };
  auto const run = [&](auto const&... options) {
    std::fill(f.y.begin(), f.y.end(), NAN);
    depthwise_conv(cpu, f.xs, f.ws, f.ys, same_padding{}, options...);
  };
  run(act::relu{}, bias{f.b});
  CHECK(close([&](std::size_t i, float b) { return relu(sums[i] + b); }));
  run(bias{f.b}, act::relu{}, residual{residue});
  CHECK(close([&](std::size_t i, float b) { return relu(sums[i] + b) + other[i]; }));
  run(residual{residue}, each{[](simd::pack<float> z) { return z * z; }}, [](simd::pack<float> z) { return z - 1.f; });
  CHECK(close([&](std::size_t i, float) { return (sums[i] + other[i]) * (sums[i] + other[i]) - 1; }));

  f.y = other;  // a residual that is y itself
  depthwise_conv(cpu, f.xs, f.ws, f.ys, same_padding{}, residual{f.ys});
  CHECK(close([&](std::size_t i, float) { return sums[i] + other[i]; }));
  CHECK(message_of([&] { run(act::relu{}, act::relu{}, act::relu{}, act::relu{}, act::relu{}); }) ==
        "depthwise_conv: the number of functions and residuals is 5, expected at most 4");
}

TEST_CASE("depthwise_conv: channels first are finished as channels last are", "[conv]") {
  fixture f;
  auto const other = f.r.normal(static_cast<index>(f.x.size()));
  image const residue(const_cast<float*>(other.data()), shape{f.n, f.h, f.v, f.c});
  depthwise_conv(cpu, f.xs, f.ws, f.ys, same_padding{}, bias{f.b}, act::relu{}, residual{residue});
  std::vector<float> x(f.x.size()), y(other.size(), NAN), w(f.w.size());
  image const xs(x.data(), shape{f.n, f.c, f.h, f.v}), ys(y.data(), shape{f.n, f.c, f.h, f.v});
  kernel const ws(w.data(), shape{f.c, index{3}, index{3}});
  for (index c = 0; c < f.c; ++c) {
    for (index h = 0; h < 3; ++h)
      for (index v = 0; v < 3; ++v) ws(c, h, v) = f.ws(h, v, c);
    for (index n = 0; n < f.n; ++n)
      for (index h = 0; h < f.h; ++h)
        for (index v = 0; v < f.v; ++v) {
          xs(n, c, h, v) = f.xs(n, h, v, c);
          ys(n, c, h, v) = residue(n, h, v, c);  // a residual that is y itself
        }
  }
  depthwise_conv(cpu, xs, ws, ys, channels_first{}, same_padding{}, bias{f.b}, act::relu{}, residual{ys});
  index wrong = 0;
  for (index n = 0; n < f.n; ++n)
    for (index c = 0; c < f.c; ++c)
      for (index h = 0; h < f.h; ++h)
        for (index v = 0; v < f.v; ++v) wrong += !(std::abs(ys(n, c, h, v) - f.ys(n, h, v, c)) <= 1e-5f);
  CHECK(wrong == 0);
}

TEST_CASE("depthwise_conv: per-sample kernels, and a sample does not depend on its batch", "[conv]") {
  fixture f;
  auto const together = f.plain();
  std::vector<float> kernels = f.w, apart(f.y.size());
  auto const second = f.r.normal(9 * f.c);
  kernels.insert(kernels.end(), second.begin(), second.end());
  depthwise_conv(cpu, f.xs, view(kernels.data(), 2, 3, 3, f.c), f.ys, same_padding{});
  image const one(apart.data(), shape{index{1}, f.h, f.v, f.c});
  depthwise_conv(cpu, f.xs.slice(0, 1, 2), kernel(kernels.data() + 9 * f.c, shape{index{3}, index{3}, f.c}), one, same_padding{});
  auto const half = static_cast<std::ptrdiff_t>(f.y.size() / 2);
  CHECK(std::equal(f.y.begin(), f.y.begin() + half, together.begin()));
  CHECK(std::equal(f.y.begin() + half, f.y.end(), apart.begin()));
}

TEST_CASE("depthwise_conv: where a small batch is cut into narrower blocks its bits stay", "[conv]") {
  rng r(17);
  index const n = 16, c = simd::lanes, h = 24, k = 15;
  for (index v : {126, 127, 128}) {
    auto const x = r.normal(n * c * h * v), w = r.normal(c * h * k);
    std::vector<float> all(x.size()), one(static_cast<std::size_t>(c * h * v));
    kernel const ws(const_cast<float*>(w.data()), shape{c, h, k});
    auto const run = [&](index batch, std::vector<float>& y) {
      image const xs(const_cast<float*>(x.data()), shape{batch, c, h, v}), ys(y.data(), shape{batch, c, h, v});
      depthwise_conv(cpu, xs, ws, ys, channels_first{}, same_padding{});
    };
    run(n, all);
    run(1, one);
    INFO("width " << v);
    CHECK(std::equal(one.begin(), one.end(), all.begin()));
  }
}

TEST_CASE("depthwise_conv: any strides give the same bits", "[conv]") {
  fixture f;
  auto const want = f.plain();
  // Every element apart from every other, rows backwards, and y likewise.
  std::vector<float> far(f.x.size() * 3), to(f.x.size() * 2, NAN);
  image const xs(far.data() + 3 * (f.h - 1) * f.v * f.c, shape{f.n, f.h, f.v, f.c},
                 shape{3 * f.h * f.v * f.c, -3 * f.v * f.c, index{3}, 3 * f.v});
  image const ys(to.data(), shape{f.n, f.h, f.v, f.c}, shape{2 * f.h * f.v * f.c, 2 * f.v * f.c, 2 * f.c, index{2}});
  for (index n = 0; n < f.n; ++n)
    for (index h = 0; h < f.h; ++h)
      for (index v = 0; v < f.v; ++v)
        for (index c = 0; c < f.c; ++c) xs(n, h, v, c) = f.xs(n, h, v, c);
  depthwise_conv(cpu, xs, f.ws, ys, same_padding{});
  std::vector<float> got;
  detail::each(ys, [&](float e) { got.push_back(e); });
  CHECK(got == want);
  for (std::size_t i = 1; i < to.size(); i += 2) REQUIRE(std::isnan(to[i]));
}

TEST_CASE("depthwise_conv: threads change no bit, and a workspace of the size asked for serves", "[conv]") {
  rng r(6);
  index const n = 70, c = 2 * simd::lanes;
  auto const x = r.normal(n * n * c), w = r.normal(25 * c);
  std::vector<float> one(x.size()), many(x.size());
  auto const run = [&](cpu_policy const& policy, std::vector<float>& y) {
    depthwise_conv(policy, view(x.data(), 1, n, n, c), view(w.data(), 5, 5, c), view(y.data(), 1, n, n, c), same_padding{});
  };
  thread_pool pool(3);
  auto const policy = cpu.on(pool);
  std::vector<std::byte> memory(workspace_size(depthwise_conv, policy, view(x.data(), 1, n, n, c), view(w.data(), 5, 5, c),
                                               view(many.data(), 1, n, n, c), same_padding{}));
  workspace scratch(memory.data(), memory.size());
  run(cpu.on(serial), one);
  run(policy.with(scratch), many);
  CHECK(one == many);
}

TEST_CASE("depthwise_conv: what is not finite reaches those who see it", "[conv]") {
  fixture f;
  auto const clean = f.plain();
  f.xs(0, 4, 7, 1) = NAN;
  depthwise_conv(cpu, f.xs, f.ws, f.ys, same_padding{});
  index wrong = 0;
  for (index h = 0; h < f.h; ++h)
    for (index v = 0; v < f.v; ++v)
      for (index c = 0; c < f.c; ++c) {
        bool const sees = c == 1 && std::abs(h - 4) <= 1 && std::abs(v - 7) <= 1;
        float const got = f.ys(0, h, v, c);
        wrong += sees ? !std::isnan(got) : !(got == clean[static_cast<std::size_t>((h * f.v + v) * f.c + c)]);
      }
  CHECK(wrong == 0);
}

TEST_CASE("depthwise_conv: nothing to do", "[conv]") {
  std::vector<float> x(12), w(6), y(12);
  depthwise_conv(cpu, view(x.data(), 0, 3, 4), view(w.data(), 2, 4), view(y.data(), 0, 2, 4));
  depthwise_conv(cpu, view(x.data(), 1, 3, 0), view(w.data(), 2, 0), view(y.data(), 1, 2, 0));
  depthwise_conv(cpu, view(x.data(), 1, 1, 3), view(w.data(), 2, 3), view(y.data(), 1, 0, 3));  // the kernel is longer than x
  std::vector<float> const b{1, 2, 3, 4};
  std::vector<float> z(2 * 8 * 4), k(3 * 3 * 4);
  depthwise_conv(cpu, view(x.data(), 1, 0, 8, 4), view(k.data(), 3, 3, 4), view(z.data(), 1, 2, 8, 4), padding{2, 1}, bias{b});
  for (std::size_t i = 0; i < z.size(); ++i) CHECK(z[i] == b[i % 4]);  // zeros all around nothing
}

}  // namespace tern::test
