// SPDX-License-Identifier: Apache-2.0
#include <tern/conv/depthwise_conv.hpp>
#include <tern/core/thread_pool.hpp>

#include "depthwise_case.hpp"

namespace tern::test {
namespace {

/// A square image and kernel, zeros around it as for outputs of its size.
depthwise_case<2> square(index n, index k, index channels) {
  depthwise_case<2> c;
  c.s.channels = channels;
  for (int d = 1; d < 3; ++d) {
    c.s.in[d] = n;
    c.s.kernel[d] = k;
    c.s.before[d] = k / 2;
    c.after[d] = k - 1 - k / 2;
  }
  c.set_outputs();
  return c;
}

/// The product of the norms of each channel's signal and kernel, and the bias, for each output. x, w: channels first.
std::vector<double> norms(std::vector<double> const& x, std::vector<double> const& w, std::vector<float> const& b,
                          oracle::conv_spec const& s) {
  auto const norm = [](std::vector<double> const& v, index first, index n) {
    double sum = 0;
    for (index i = first; i < first + n; ++i) sum += v[static_cast<std::size_t>(i)] * v[static_cast<std::size_t>(i)];
    return std::sqrt(sum);
  };
  index const in = s.in[1] * s.in[2], taps = s.kernel[1] * s.kernel[2], out = s.out[1] * s.out[2];
  std::vector<double> all;
  for (index row = 0; row < s.batch * s.channels; ++row) {
    index const c = row % s.channels;
    double const size = norm(x, row * in, in) * norm(w, (s.per_sample ? row : c) * taps, taps);
    all.insert(all.end(), static_cast<std::size_t>(out), size + std::abs(static_cast<double>(b[static_cast<std::size_t>(c)])));
  }
  return all;
}

/// The case in one layout against the oracle: by a transform, and by direct sums.
template <bool first, class T = float, class U = float, int N>
void check(depthwise_case<N> const& c, rng& r) {
  padded_tensor<T, N + 2> const x(r, c.tensor(c.s.in, first));
  padded_tensor<T, N + 1> const w(r, c.weights(first));
  padded_tensor<U, N + 2> y(c.tensor(c.s.out, first)), direct(c.tensor(c.s.out, first));
  auto const b = r.normal(c.s.channels);
  padding zeros_around{zeros{c.s.before[2], c.after[2]}};
  if constexpr (N == 2) zeros_around = {zeros{c.s.before[1], c.after[1]}, zeros{c.s.before[2], c.after[2]}};
  auto const run = [&](auto const& to, auto const&... options) {
    auto const bound = [&](auto const&... all) {
      depthwise_conv(cpu, x.view, w.view, to, all...);
      return depthwise_conv.transform_error(x.view, w.view, to, all...);
    };
    if constexpr (first)
      return bound(channels_first{}, bias{b}, zeros_around, options...);
    else
      return bound(zeros_around, bias{b}, options...);
  };
  auto const by_channel = [](auto const& v, int lead) { return first ? v : channels_to_front(v, lead); };
  auto const signal = dense(by_channel(x.view, 1)), taps = dense(by_channel(w.view, 0));
  auto const want = oracle::depthwise_conv(signal, taps, widened(b), c.s);
  INFO(c.text() << (first ? " channels first" : ""));
  double const error = run(y.view);
  REQUIRE(error > 0);
  CHECK(compare(by_channel(y.view, 1), want.value, norms(signal, taps, b, c.s), error + 0x1p-24));  // the bias rounds once
  CHECK(y.intact());
  REQUIRE(run(direct.view, direct_sums{}) == 0);
  CHECK(compare(by_channel(direct.view, 1), want.value, want.magnitude, depthwise_conv.accuracy(c.taps()) * 0x1p-24));
}

/// Whether 64 channels of n x n meet k x k kernels by a transform.
template <class... Options>
bool transforms(index n, index k, Options const&... options) {
  std::vector<float> x(static_cast<std::size_t>(n * n * 64)), w(static_cast<std::size_t>(k * k * 64)), y(x.size());
  auto const out = [&](float* data, index step) { return view(data, 1, (n + step - 1) / step, (n + step - 1) / step, 64); };
  index step = 1;
  if constexpr ((std::is_same_v<Options, stride> || ...)) step = 2;
  return depthwise_conv.transform_error(out(x.data(), 1), view(w.data(), k, k, 64), out(y.data(), step), same_padding{}, options...) > 0;
}

/// Images and kernels that are transformed.
struct fixture {
  index batch = 3, n = 40, k = 31, c = simd::lanes + 2;
  rng r{5};
  std::vector<float> x = r.normal(batch * n * n * c), w = r.normal(k * k * c, 0.03), b = r.normal(c), y = std::vector<float>(x.size());
  tensor_view<float, 4> xs{x.data(), shape{batch, n, n, c}}, ys{y.data(), shape{batch, n, n, c}};
  tensor_view<float, 3> ws{w.data(), shape{k, k, c}};

  template <class... Options>
  std::vector<float> run(Options const&... options) {
    std::fill(y.begin(), y.end(), NAN);
    depthwise_conv(cpu, xs, ws, ys, same_padding{}, options...);
    return y;
  }
};

}  // namespace

TEST_CASE("depthwise_conv: transforms equal the oracle, and direct sums do where they are asked for", "[conv]") {
  rng r(1);
  auto c = square(40, 31, simd::lanes + 1);
  check<false>(c, r);
  check<true>(c, r);
  c.s.batch = 2;
  c.s.channels = 3;
  c.s.in[1] = 70;  // any sides, zeros on one side or the other, more outputs than inputs or fewer
  c.s.kernel[1] = 36;
  c.s.before[1] = 20;
  c.after[1] = 5;
  c.s.before[2] = 12;
  c.after[2] = 34;
  c.set_outputs();
  check<false>(c, r);
  check<true>(c, r);
  auto no_zeros = square(90, 40, 2);
  for (int d = 1; d < 3; ++d) no_zeros.s.before[d] = no_zeros.after[d] = 0;
  no_zeros.set_outputs();
  check<true>(no_zeros, r);
  check<false>(square(48, 75, 2), r);  // a kernel beyond the image
}

TEST_CASE("depthwise_conv: transforms of sequences, and of f16 and bf16", "[conv]") {
  rng r(2);
  depthwise_case<1> line;
  line.s.channels = 2;
  line.s.in[2] = 2000;
  line.s.kernel[2] = 1500;
  line.s.before[2] = 1499;
  line.set_outputs();
  check<false>(line, r);
  check<true>(line, r);
  auto const c = square(40, 30, 3);
  check<false, f16, bf16>(c, r);
  check<true, bf16, f16>(c, r);
}

TEST_CASE("depthwise_conv: a transform is taken where it wins, by extents alone", "[conv]") {
  constexpr double operations = (6. + 11) * 2048;
  STATIC_REQUIRE(tern::detail::transform_wins(15 * operations + 1, 2048));
  STATIC_REQUIRE(!tern::detail::transform_wins(15 * operations, 2048));
  STATIC_REQUIRE(tern::detail::transform_wins(1e12, 0x10000));
  STATIC_REQUIRE(!tern::detail::transform_wins(1e12, 0x10001));
  CHECK_FALSE(transforms(14, 51));
  CHECK_FALSE(transforms(56, 21));
  CHECK(transforms(56, 31));
  CHECK_FALSE(transforms(56, 31, direct_sums{}));
  CHECK_FALSE(transforms(56, 31, dilation{1, 2}));
  CHECK_FALSE(transforms(56, 51, stride{2}));
}

TEST_CASE("depthwise_conv: transforms are followed by a bias, functions and residuals in their order", "[conv]") {
  fixture f;
  auto const sums = f.run(direct_sums{});
  auto const other = f.r.normal(static_cast<index>(f.x.size()));
  tensor_view<float const, 4> const residue(other.data(), shape{f.batch, f.n, f.n, f.c});
  auto const close = [&](std::vector<float> const& got, auto const& want) {
    for (std::size_t i = 0; i < got.size(); ++i)
      if (!(std::abs(got[i] - want(i, f.b[i % static_cast<std::size_t>(f.c)])) <= 1e-4f)) return false;
    return true;
  };
  auto const relu = [](float z) { return z < 0 ? 0 : z; };
  CHECK(close(f.run(bias{f.b}, act::relu{}, residual{residue}), [&](std::size_t i, float b) { return relu(sums[i] + b) + other[i]; }));
  CHECK(close(f.run(residual{residue}, act::relu{}), [&](std::size_t i, float) { return relu(sums[i] + other[i]); }));
  f.y = other;  // a residual that is y itself
  depthwise_conv(cpu, f.xs, f.ws, f.ys, same_padding{}, residual{f.ys});
  CHECK(close(f.y, [&](std::size_t i, float) { return sums[i] + other[i]; }));
}

TEST_CASE("depthwise_conv: transforms of a sample depend neither on its batch nor on threads, nor on strides", "[conv]") {
  fixture f;
  auto const together = f.run();
  thread_pool pool(4);
  auto const policy = cpu.on(pool);
  std::size_t const bytes = workspace::rounded(depthwise_conv.workspace_size(policy, f.xs, f.ws, f.ys, same_padding{}));
  guarded<float> memory(static_cast<index>(bytes / sizeof(float)));
  workspace whole(memory.data(), bytes), small(memory.data(), bytes - workspace::alignment);
  auto const run = [&](workspace& with) { depthwise_conv(policy.with(with), f.xs, f.ws, f.ys, same_padding{}); };
  std::fill(f.y.begin(), f.y.end(), NAN);
  run(whole);
  CHECK(f.y == together);
  CHECK(memory.intact());
  CHECK(message_of([&] { run(small); }) != "no error");

  index const image = f.n * f.n * f.c;
  std::vector<float> kernels, apart(f.x.size());
  for (index s = 0; s < f.batch; ++s) kernels.insert(kernels.end(), f.w.begin(), f.w.end());
  depthwise_conv(policy, f.xs, view(kernels.data(), f.batch, f.k, f.k, f.c), view(apart.data(), f.batch, f.n, f.n, f.c), same_padding{});
  CHECK(apart == together);
  f.run();
  depthwise_conv(cpu, f.xs.slice(0, 1, 2), f.ws, f.ys.slice(0, 0, 1), same_padding{});
  CHECK(std::equal(f.y.begin(), f.y.begin() + image, together.begin() + image));

  std::vector<float> turned(f.x.size()), far(2 * f.x.size(), NAN);  // channels first in memory, and columns that have gaps between them
  tensor_view<float, 4> const xs(turned.data(), shape{f.batch, f.n, f.n, f.c}, shape{image, f.n, index{1}, f.n * f.n});
  tensor_view<float, 4> const ys(far.data(), shape{f.batch, f.n, f.n, f.c}, shape{2 * image, 2 * f.n, index{2}, 2 * f.n * f.n});
  for (index s = 0; s < f.batch; ++s)
    for (index h = 0; h < f.n; ++h)
      for (index v = 0; v < f.n; ++v)
        for (index c = 0; c < f.c; ++c) xs(s, h, v, c) = f.xs(s, h, v, c);
  depthwise_conv(cpu, xs, f.ws, ys, same_padding{});
  std::vector<float> got;
  detail::each(ys, [&](float e) { got.push_back(e); });
  CHECK(got == together);
  for (std::size_t i = 1; i < far.size(); i += 2) REQUIRE(std::isnan(far[i]));
}

TEST_CASE("depthwise_conv: what is not finite stays in its image, and with direct sums where it is seen", "[conv]") {
  fixture f;
  auto const clean = f.run(), sums = f.run(direct_sums{});
  f.xs(1, 0, 7, 2) = NAN;
  auto const spread = f.run(), seen = f.run(direct_sums{});
  index wrong = 0;
  for (index i = 0; i < static_cast<index>(f.x.size()); ++i) {
    auto const at = static_cast<std::size_t>(i);
    index const c = i % f.c, v = i / f.c % f.n, h = i / f.c / f.n % f.n, s = i / f.c / f.n / f.n;
    bool const image = s == 1 && c == 2, near = image && h <= f.k / 2 && v <= 7 + f.k / 2;
    wrong += !image && spread[at] != clean[at];
    wrong += near ? !std::isnan(seen[at]) || !std::isnan(spread[at]) : seen[at] != sums[at];
  }
  CHECK(wrong == 0);
}

TEST_CASE("depthwise_conv: wrong calls with large kernels", "[conv]") {
  fixture f;
  CHECK(message_of([&] { depthwise_conv(cpu, f.xs, f.ws, f.xs, same_padding{}); }) == "depthwise_conv: y is x, expected memory of its own");
  CHECK(message_of([&] { depthwise_conv(cpu, f.xs, f.ws, f.ys); }) ==
        "depthwise_conv: y.extent(1) is 40, expected 10 outputs for this input, kernel, stride, dilation and padding");
  CHECK(message_of([&] {
          depthwise_conv(cpu, f.xs, f.ws, f.ys, same_padding{}, bias{f.w});
        }).starts_with("depthwise_conv: bias.extent(0) is "));
}

}  // namespace tern::test
