// SPDX-License-Identifier: Apache-2.0
#include <tern/conv/systems/arc.hpp>
#include <tern/conv/systems/convnext.hpp>
#include <tern/conv/systems/dynamic_conv.hpp>
#include <tern/conv/systems/inception_next.hpp>
#include <tern/conv/systems/separable.hpp>
#include <tern/conv/systems/spark.hpp>
#include <tern/conv/systems/unireplknet.hpp>
#include <tern/conv/systems/van.hpp>
#include <tern/conv/systems/vovnet.hpp>
#include <tern/core/thread_pool.hpp>

#include "depthwise_case.hpp"

namespace tern::test {
namespace {

/// An image (batch, height, width, channels) of float64 for the papers' formulas.
struct picture {
  index n, h, v, c;
  std::vector<double> x;

  picture(index batch, index height, index width, index channels)
      : n(batch), h(height), v(width), c(channels), x(static_cast<std::size_t>(n * h * v * c)) {}
  explicit picture(tensor_view<float, 4> const& t) : picture(t.extent(0), t.extent(1), t.extent(2), t.extent(3)) { x = dense(t); }

  double& at(index b, index i, index j, index k) { return x[static_cast<std::size_t>(((b * h + i) * v + j) * c + k)]; }
  double get(index b, index i, index j, index k) const {
    return i < 0 || j < 0 || i >= h || j >= v ? 0 : x[static_cast<std::size_t>(((b * h + i) * v + j) * c + k)];
  }
  /// f(b, i, j, k) everywhere.
  template <class F>
  picture made(F&& f) const {
    picture y(n, h, v, c);
    for (index b = 0; b < n; ++b)
      for (index i = 0; i < h; ++i)
        for (index j = 0; j < v; ++j)
          for (index k = 0; k < c; ++k) y.at(b, i, j, k) = f(b, i, j, k);
    return y;
  }
  /// A depthwise convolution with odd kernels, centered: weight(b, p, q, k).
  template <class W>
  picture convolved(index kh, index kw, index dilation, W&& weight) const {
    return made([&](index b, index i, index j, index k) {
      double sum = 0;
      for (index p = 0; p < kh; ++p)
        for (index q = 0; q < kw; ++q) sum += weight(b, p, q, k) * get(b, i + (p - kh / 2) * dilation, j + (q - kw / 2) * dilation, k);
      return sum;
    });
  }
};

/// Numbers of one magnitude: errors are bounded by a tolerance times it.
bool close(tensor_view<float, 4> const& got, picture const& want, double magnitude) {
  std::vector<double> const sizes(want.x.size(), magnitude);
  auto const c = compare(got, want.x, sizes, 0x1p-20);
  UNSCOPED_INFO(c.message);
  return c.equal;
}

double d(float x) { return static_cast<double>(x); }

struct layer {
  rng r{21};
  index n = 2, h = 8, v = 10, c = 2 * simd::lanes + 3;
  padded_tensor<float, 4> x{r, shape{n, h, v, c}}, y{shape{n, h, v, c}};
  picture image{x.view};
  padded_tensor<float, 3> kernel(index kh, index kw, index channels) { return {r, shape{kh, kw, channels}, 0.3}; }
};

}  // namespace

TEST_CASE("inception_next: a square, two bands and what stays", "[conv]") {
  layer l;
  index const g = l.c / 4, same = l.c - 3 * g;
  auto const square = l.kernel(3, 3, g), wide = l.kernel(1, 11, g), tall = l.kernel(11, 1, g);
  auto const b = l.r.normal(3 * g);
  tensor_view<float const, 2> const column(tall.view.data(), shape{index{11}, g}, shape{tall.view.stride(0), index{1}});
  inception_next(cpu, l.x.view, square.view, wide.view[0], column, l.y.view, view(b));
  auto const want = l.image.made([&](index n, index i, index j, index k) {
    if (k < same) return l.image.get(n, i, j, k);
    index const branch = (k - same) / g, at = (k - same) % g;
    double sum = d(b[static_cast<std::size_t>(k - same)]);
    for (index t = 0; t < (branch == 0 ? 9 : 11); ++t) {
      if (branch == 0) sum += d(square.view(t / 3, t % 3, at)) * l.image.get(n, i + t / 3 - 1, j + t % 3 - 1, k);
      if (branch == 1) sum += d(wide.view(0, t, at)) * l.image.get(n, i, j + t - 5, k);
      if (branch == 2) sum += d(tall.view(t, 0, at)) * l.image.get(n, i + t - 5, j, k);
    }
    return sum;
  });
  CHECK(close(l.y.view, want, 8));
  CHECK(l.y.intact());
  CHECK(message_of([&] { inception_next(cpu, l.x.view, l.kernel(3, 3, l.c).view, wide.view[0], column, l.y.view); }) ==
        "inception_next: square.extent(2) is " + std::to_string(l.c) + ", expected at most a third of the channels");
}

TEST_CASE("convnext: a convolution and a norm of each pixel", "[conv]") {
  layer l;
  auto const w = l.kernel(7, 7, l.c);
  auto const b = l.r.normal(l.c), gain = l.r.normal(l.c), shift = l.r.normal(l.c);
  convnext(cpu, l.x.view, w.view, view(b), view(gain), view(shift), l.y.view);
  auto const z = l.image.convolved(7, 7, 1, [&](index, index p, index q, index k) { return d(w.view(p, q, k)); });
  auto const at = [](std::vector<float> const& v, index k) { return d(v[static_cast<std::size_t>(k)]); };
  auto const want = l.image.made([&](index n, index i, index j, index k) {
    double mean = 0, square = 0;
    for (index o = 0; o < l.c; ++o) mean += (z.get(n, i, j, o) + at(b, o)) / static_cast<double>(l.c);
    for (index o = 0; o < l.c; ++o) square += std::pow(z.get(n, i, j, o) + at(b, o) - mean, 2) / static_cast<double>(l.c);
    return (z.get(n, i, j, k) + at(b, k) - mean) / std::sqrt(square + 1e-6) * at(gain, k) + at(shift, k);
  });
  CHECK(close(l.y.view, want, 16));
}

TEST_CASE("van: two convolutions and a product over channels gate the input", "[conv]") {
  layer l;
  std::vector<float> memory = l.r.normal(l.n * l.h * l.v * l.c), out(memory.size());
  tensor_view<float, 4> const x(memory.data(), shape{l.n, l.h, l.v, l.c}), y(out.data(), shape{l.n, l.h, l.v, l.c});
  auto const near = l.kernel(5, 5, l.c), dilated = l.kernel(7, 7, l.c);
  auto const mixed = l.r.normal(l.c * l.c, 0.3), b0 = l.r.normal(l.c), b1 = l.r.normal(l.c), b2 = l.r.normal(l.c);
  van(cpu, x, {near.view, view(b0)}, {dilated.view, view(b1)}, {view(mixed.data(), l.c, l.c), view(b2)}, y);
  auto const at = [](std::vector<float> const& v, index k) { return d(v[static_cast<std::size_t>(k)]); };
  auto const plus = [&](picture const& p, std::vector<float> const& b) {
    return p.made([&](index n, index i, index j, index k) { return p.get(n, i, j, k) + at(b, k); });
  };
  picture const image(x);
  auto const one = plus(image.convolved(5, 5, 1, [&](index, index p, index q, index k) { return d(near.view(p, q, k)); }), b0);
  auto const two = plus(one.convolved(7, 7, 3, [&](index, index p, index q, index k) { return d(dilated.view(p, q, k)); }), b1);
  auto const want = image.made([&](index n, index i, index j, index k) {
    double sum = at(b2, k);
    for (index o = 0; o < l.c; ++o) sum += at(mixed, k * l.c + o) * two.get(n, i, j, o);
    return sum * image.get(n, i, j, k);
  });
  CHECK(close(y, want, 200));
  CHECK(message_of([&] {
          van(cpu, l.x.view, {near.view, view(b0)}, {dilated.view, view(b1)}, {view(mixed.data(), l.c, l.c), view(b2)}, y, 2);
        }) == "no error");  // gaps between pixels are even
  CHECK(message_of([&] {
          van(cpu, l.x.view.slice(2, 0, 4), {near.view, view(b0)}, {dilated.view, view(b1)}, {view(mixed.data(), l.c, l.c), view(b2)},
              l.y.view.slice(2, 0, 4));
        }).substr(0, 18) == "van: x.stride(1) i");
}

TEST_CASE("unireplknet: merged branches give what their sum gave", "[conv]") {
  layer l;
  struct branch {
    padded_tensor<float, 3> w;
    index dilation;
    std::vector<float> gain, shift, mean, variance;
  };
  auto const made = [&](index k, index dilation) {
    return branch{l.kernel(k, k, l.c), dilation,        l.r.normal(l.c),
                  l.r.normal(l.c),     l.r.normal(l.c), std::vector<float>(std::size_t(l.c), 0.7f)};
  };
  branch const all[] = {made(9, 1), made(3, 3), made(5, 2), made(3, 1)};
  std::vector<float> large(static_cast<std::size_t>(81 * l.c)), total(static_cast<std::size_t>(l.c));
  auto sum = l.image.made([](index, index, index, index) { return 0.; });
  for (branch const& one : all) {
    index const k = one.w.view.extent(0);
    std::vector<float> folded(static_cast<std::size_t>(k * k * l.c)), b(total.size());
    auto const small = view(folded.data(), k, k, l.c);
    fold_batch_norm(one.w.view, {view(one.gain), view(one.shift), view(one.mean), view(one.variance)}, small, view(b));
    add_dilated(small, one.dilation, view(large.data(), 9, 9, l.c));
    for (std::size_t c = 0; c < total.size(); ++c) total[c] += b[c];
    auto const z = l.image.convolved(k, k, one.dilation, [&](index, index p, index q, index c) { return d(one.w.view(p, q, c)); });
    sum = sum.made([&](index n, index i, index j, index c) {
      auto const at = static_cast<std::size_t>(c);
      return sum.get(n, i, j, c) + (z.get(n, i, j, c) - d(one.mean[at])) / std::sqrt(d(one.variance[at]) + 1e-5) * d(one.gain[at]) +
             d(one.shift[at]);
    });
  }
  depthwise_conv(cpu, l.x.view, view(large.data(), 9, 9, l.c), l.y.view, same_padding{}, bias{total});
  CHECK(close(l.y.view, sum, 100));
  CHECK(message_of([&] { add_dilated(all[0].w.view, 2, view(large.data(), 9, 9, l.c)); }) ==
        "add_dilated: the spread kernel's extent is 17, expected at most the large one's");
}

TEST_CASE("separable: pairs of filters, and the nearest ones to a kernel", "[conv]") {
  layer l;
  std::vector<float> const ramps{1, -2, 1, 2, -4, 2, 1, -2, 1};  // [1 2 1]^T [1 -2 1]: orthogonal to constants and ramps
  std::vector<float> one(3), other(3);
  CHECK(separate(view(ramps.data(), 3, 3, 1), view(one.data(), 1, 3, 1), view(other.data(), 1, 3, 1)) < 1e-12);
  auto const w = l.kernel(5, 3, l.c);
  for (index rank : {1, 2, 3}) {
    padded_tensor<float, 3> tall(shape{rank, index{5}, l.c}), wide(shape{rank, index{3}, l.c});
    double const lost = separate(w.view, tall.view, wide.view);
    auto const b = l.r.normal(l.c);
    separable(cpu, l.x.view, tall.view, wide.view, l.y.view, view(b));
    double difference = 0, size = 0;
    auto const merged = [&](index p, index q, index k) {
      double sum = 0;
      for (index r = 0; r < rank; ++r) sum += d(tall.view(r, p, k)) * d(wide.view(r, q, k));
      return sum;
    };
    for (index p = 0; p < 5; ++p)
      for (index q = 0; q < 3; ++q)
        for (index k = 0; k < l.c; ++k) {
          difference += std::pow(d(w.view(p, q, k)) - merged(p, q, k), 2);
          size += std::pow(d(w.view(p, q, k)), 2);
        }
    CHECK(lost == Approx(std::sqrt(difference / size)).margin(1e-6));
    if (rank == 3) CHECK(lost < 1e-6);  // as many as the kernel has columns: nothing is lost
    if (rank == 1) CHECK(lost > 0.2);
    auto const z = l.image.convolved(5, 3, 1, [&](index, index p, index q, index k) { return merged(p, q, k); });
    auto const want = z.made([&](index n, index i, index j, index k) { return z.get(n, i, j, k) + d(b[static_cast<std::size_t>(k)]); });
    CHECK(close(l.y.view, want, 8));
  }
}

TEST_CASE("dynamic_conv: each sample's kernel is a mixture", "[conv]") {
  layer l;
  auto const kernels = l.r.normal(3 * 9 * l.c, 0.3), mix = l.r.normal(l.n * 3);
  dynamic_conv(cpu, l.x.view, view(kernels.data(), 3, 3, 3, l.c), view(mix.data(), l.n, 3), l.y.view, same_padding{});
  auto const want = l.image.convolved(3, 3, 1, [&](index n, index p, index q, index k) {
    double sum = 0;
    for (index i = 0; i < 3; ++i)
      sum += d(mix[static_cast<std::size_t>(n * 3 + i)]) * d(kernels[static_cast<std::size_t>(((i * 3 + p) * 3 + q) * l.c + k)]);
    return sum;
  });
  CHECK(close(l.y.view, want, 8));
}

namespace {

/// The authors' matrices as they stand in their code, for theta >= 0 and below: x = cos, y = sin, a = x - y, b = x y, c = x + y.
std::vector<double> rotation(double theta) {
  double const x = std::cos(theta), y = std::sin(theta), a = x - y, b = x * y, c = x + y;
  if (theta >= 0)
    return {a, 1 - a, 0,     0,     0,         0, 0, 0,         0,     0,     x - b,     b, 0, 1 - c + b, y - b, 0,     0,     0, 0, 0, a,
            0, 0,     1 - a, 0,     0,         0, b, y - b,     0,     x - b, 1 - c + b, 0, 0, 0,         0,     0,     0,     0, 0, 1, 0,
            0, 0,     0,     0,     0,         0, 0, 1 - c + b, x - b, 0,     y - b,     b, 0, 0,         0,     1 - a, 0,     0, a, 0, 0,
            0, 0,     0,     y - b, 1 - c + b, 0, b, x - b,     0,     0,     0,         0, 0, 0,         0,     0,     1 - a, a};
  return {c, 0, 0, 1 - c, 0,         0,     0, 0,         0,     -b,    x + b,     0, b - y, 1 - a - b, 0,     0, 0, 0, 0, 1 - c, c,
          0, 0, 0, 0,     0,         0,     0, 0,         0,     x + b, 1 - a - b, 0, -b,    b - y,     0,     0, 0, 0, 0, 1,     0,
          0, 0, 0, 0,     b - y,     -b,    0, 1 - a - b, x + b, 0,     0,         0, 0,     0,         0,     0, 0, 0, c, 1 - c, 0,
          0, 0, 0, 0,     1 - a - b, b - y, 0, x + b,     -b,    0,     0,         0, 0,     0,         1 - c, 0, 0, c};
}

}  // namespace

TEST_CASE("arc: mixtures of kernels that are turned either way", "[conv]") {
  layer l;
  auto const kernels = l.r.normal(2 * 9 * l.c, 0.3), lambda = l.r.normal(l.n * 2);
  std::vector<float> const theta = {0.6f, -0.4f, 0.f, 0.7f};
  arc(cpu, l.x.view, view(kernels.data(), 2, 3, 3, l.c), view(lambda.data(), l.n, 2), view(theta.data(), l.n, 2), l.y.view, same_padding{});
  auto const want = l.image.convolved(3, 3, 1, [&](index n, index p, index q, index k) {
    double sum = 0;
    for (index i = 0; i < 2; ++i) {
      auto const at = static_cast<std::size_t>(n * 2 + i);
      auto const turn = rotation(d(theta[at]));
      for (index t = 0; t < 9; ++t)
        sum += d(lambda[at]) * turn[static_cast<std::size_t>((p * 3 + q) * 9 + t)] *
               d(kernels[static_cast<std::size_t>((i * 9 + t) * l.c + k)]);
    }
    return sum;
  });
  CHECK(close(l.y.view, want, 8));
}

TEST_CASE("systems on convolutions: a workspace of the size asked for serves, a smaller one does not", "[conv]") {
  layer l;
  thread_pool pool(3);
  auto const policy = cpu.on(pool);
  std::vector<float> image = l.r.normal(l.n * l.h * l.v * l.c), plain(image.size()), lent(image.size());
  auto const images = [&](std::vector<float>& v) { return view(v.data(), l.n, l.h, l.v, l.c); };
  tensor_view<float const, 4> const x = images(image);
  tensor_view<float, 4> const y = images(plain), z = images(lent);
  auto const kernels = l.r.normal(2 * 9 * l.c, 0.3), lambda = l.r.normal(l.n * 2), theta = l.r.normal(l.n * 2);
  auto const five = l.r.normal(25 * l.c, 0.1), seven = l.r.normal(49 * l.c, 0.1), square = l.r.normal(l.c * l.c, 0.1), b = l.r.normal(l.c);
  tensor_view<float const, 4> const k = view(kernels.data(), 2, 3, 3, l.c);
  tensor_view<float const, 3> const pairs = view(kernels.data(), 2, 9, l.c);
  tensor_view<float const, 2> const mix = view(lambda.data(), l.n, 2), angles = view(theta.data(), l.n, 2);
  van_layer<3> const near{view(five.data(), 5, 5, l.c), view(b)}, far{view(seven.data(), 7, 7, l.c), view(b)};
  van_layer<2> const across{view(square.data(), l.c, l.c), view(b)};

  auto const check = [&](std::size_t bytes, auto const& call) {
    std::vector<std::byte> memory(bytes);
    workspace exact(memory.data(), bytes), small(memory.data(), bytes - 2 * workspace::alignment);
    call(cpu.on(serial), y);
    call(policy.with(exact), z);
    CHECK(plain == lent);
    CHECK(message_of([&] { call(policy.with(small), z); }).substr(0, 10) == "workspace:");
  };
  check(workspace_size(dynamic_conv, policy, x, k, mix, y, same_padding{}),
        [&](cpu_policy const& p, auto const& to) { dynamic_conv(p, x, k, mix, to, same_padding{}); });
  check(workspace_size(arc, policy, x, k, mix, angles, y, same_padding{}),
        [&](cpu_policy const& p, auto const& to) { arc(p, x, k, mix, angles, to, same_padding{}); });
  check(workspace_size(separable, policy, x, pairs, pairs, y, view(b)),
        [&](cpu_policy const& p, auto const& to) { separable(p, x, pairs, pairs, to, view(b)); });
  check(workspace_size(van, policy, x, near, far, across, y),
        [&](cpu_policy const& p, auto const& to) { van(p, x, near, far, across, to); });
}

TEST_CASE("vovnet: the product of maps side by side", "[conv]") {
  rng r(31);
  index const pixels = 20, n = 7, widths[] = {5, 16, 9};
  auto const w = r.normal(n * 30), b = r.normal(n), x0 = r.normal(pixels * 5), x1 = r.normal(pixels * 16), x2 = r.normal(pixels * 9);
  std::vector<float> y(static_cast<std::size_t>(pixels * n));
  std::vector<float> const* const maps[] = {&x0, &x1, &x2};
  vovnet(cpu, {view(x0.data(), pixels, 5), view(x1.data(), pixels, 16), view(x2.data(), pixels, 9)}, view(w.data(), n, 30),
         view(y.data(), pixels, n), bias{b}, act::relu{});
  std::vector<double> want;
  for (index p = 0; p < pixels; ++p)
    for (index o = 0; o < n; ++o) {
      double sum = d(b[static_cast<std::size_t>(o)]);
      for (index m = 0, at = 0; m < 3; at += widths[m++])
        for (index c = 0; c < widths[m]; ++c)
          sum += d((*maps[m])[static_cast<std::size_t>(p * widths[m] + c)]) * d(w[static_cast<std::size_t>(o * 30 + at + c)]);
      want.push_back(std::max(sum, 0.));
    }
  CHECK(compare(y, want, std::vector<double>(want.size(), 40.), 0x1p-22));
}

TEST_CASE("spark: visible patches see visible ones, the others are zero", "[conv]") {
  layer l;  // patches of 2 x 2
  std::vector<std::uint8_t> visible(static_cast<std::size_t>(l.n * 4 * 5));
  for (auto& v : visible) v = l.r.uniform() < 0.5;
  auto const seen = [&](index n, index i, index j) { return visible[static_cast<std::size_t>((n * 4 + i / 2) * 5 + j / 2)] != 0; };
  for (index n = 0; n < l.n; ++n)
    for (index i = 0; i < l.h; ++i)
      for (index j = 0; j < l.v; ++j)
        for (index k = 0; k < l.c && !seen(n, i, j); ++k) l.x.view(n, i, j, k) = 0;
  auto const w = l.kernel(5, 3, l.c);
  auto const b = l.r.normal(l.c);
  spark(cpu, l.x.view, view(visible.data(), l.n, 4, 5), w.view, l.y.view, view(b));
  auto const z = picture(l.x.view).convolved(5, 3, 1, [&](index, index p, index q, index k) { return d(w.view(p, q, k)); });
  auto const want = z.made(
      [&](index n, index i, index j, index k) { return seen(n, i, j) ? z.get(n, i, j, k) + d(b[static_cast<std::size_t>(k)]) : 0.; });
  CHECK(close(l.y.view, want, 8));
  CHECK(l.y.intact());
  CHECK(message_of([&] { spark(cpu, l.x.view, view(visible.data(), l.n, 3, 5), w.view, l.y.view); }) ==
        "spark: an extent of visible is 3, expected a divisor of the image's");
}

}  // namespace tern::test
