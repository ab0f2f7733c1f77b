// SPDX-License-Identifier: Apache-2.0
// Filters made by networks of positions, and HyperZZW, whose hyper-kernels they are, against their formulas in float64.
#include <tern/conv/long_implicit.hpp>
#include <tern/conv/systems/hyperzzw.hpp>
#include <tern/core/thread_pool.hpp>

#include "depthwise_case.hpp"
#include "oracle/long_conv.hpp"

namespace tern::test {
namespace {

double d(float x) { return static_cast<double>(x); }
std::size_t at(index i) { return static_cast<std::size_t>(i); }

/// Numbers, and how far from them what is computed may be.
struct bounded {
  std::vector<double> value, error;
};
/// A network's layer as it is called, with weights of its own.
struct network {
  index width[4];  // of the features, of two layers, of the filter
  std::vector<float> w1, b1, f1, w2, b2, f2, out;

  network(rng& r, index e, index first, index second, index channels) : width{e, first, second, channels} {
    w1 = r.normal(first * e, 2);
    b1 = r.normal(first);
    f1 = r.normal(first, 4);
    w2 = r.normal(second * first);
    b2 = r.normal(second);
    f2 = r.normal(second, 2);
    out = r.normal(channels * second);
  }
  std::vector<sine_layer> layers() const {
    return {{view(w1.data(), width[1], width[0]), view(b1), view(f1)}, {view(w2.data(), width[2], width[1]), view(b2), view(f2)}};
  }
  tensor_view<float const, 2> last() const { return view(out.data(), width[3], width[2]); }

  /// W h, with what h's error and the product's own roundings make of it.
  static bounded product(std::vector<float> const& w, std::vector<float> const& bias, bounded const& h) {
    auto const k = static_cast<index>(h.value.size()), n = static_cast<index>(w.size()) / k;
    bounded y;
    for (index i = 0; i < n; ++i) {
      double const b = bias.empty() ? 0 : d(bias[at(i)]);
      double sum = b, size = std::abs(b), error = 0;
      for (index j = 0; j < k; ++j) {
        double const weight = d(w[at(i * k + j)]);
        sum += weight * h.value[at(j)];
        size += std::abs(weight * h.value[at(j)]);
        error += std::abs(weight) * h.error[at(j)];
      }
      y.value.push_back(sum);
      y.error.push_back(error + (matmul.accuracy(k) + 1) * 0x1p-24 * size);
    }
    return y;
  }
  static bounded sine(bounded h, std::vector<float> const& frequency) {
    for (std::size_t i = 0; i < h.value.size(); ++i) {
      double const f = d(frequency[i]);
      // simd::sin where multiply-adds are not fused
      h.error[i] = std::abs(f) * h.error[i] + 0x1p-24 * std::abs(f * h.value[i]) + 0x1p-22;
      h.value[i] = std::sin(f * h.value[i]);
    }
    return h;
  }
  bounded taps(tensor_view<float const, 1> const& features) const {
    bounded h;
    for (index i = 0; i < features.extent(0); ++i) {
      h.value.push_back(d(features[i]));
      h.error.push_back(0);
    }
    return product(out, {}, sine(product(w2, b2, sine(product(w1, b1, h), f1)), f2));
  }
};

}  // namespace

TEST_CASE("features of positions are a line and waves") {
  index const n = 300, bands = 3, period = 1000;
  padded_tensor<float, 2> features(shape<2>{{n, 2 * bands + 1}});
  position_features(cpu, period, features.view);
  double const frequency[] = {1e-4, (1e-4 + 2) / 2, 2};
  std::vector<double> want, ones;
  for (index j = 0; j < n; ++j) {
    want.push_back(static_cast<double>(j) / 999);
    double const w = 2 * 3.14159265358979323846 * static_cast<double>(j) / 1000;
    for (double f : frequency) want.push_back(std::cos(f * w));
    for (double f : frequency) want.push_back(-std::sin(f * w));
  }
  ones.assign(want.size(), 1);
  CHECK(compare(features.view, want, ones, 0x1.01p-25));
  CHECK(features.intact());
  CHECK(message_of([&] { position_features(cpu, 1, features.view); }) == "position_features: period is 1, expected at least 2");
  CHECK(message_of([&] { position_features(cpu, 9, features.view.slice(1, 0, 2)); }) ==
        "position_features: features.extent(1) is 2, expected an odd number");
}

TEST_CASE("an implicit filter is its network's, times its window") {
  rng r(11);
  network const net(r, 5, 17, 8, 3);
  auto const layers = net.layers();
  for (index n : {1, 40, 2100}) {  // the last in two pieces
    padded_tensor<float, 2> features(shape<2>{{n, 5}}), k(shape<2>{{3, n}}), plain(shape<2>{{3, n}});
    position_features(cpu, n + 1, features.view);
    std::vector<float> const rate{0.f, 1e-3f, 0.5f};
    implicit_filter(cpu, features.view, layers, net.last(), plain.view);
    implicit_filter(cpu, features.view, layers, net.last(), k.view, decay_window{rate, 0.125f});
    bounded want, windowed;
    for (auto* b : {&want, &windowed}) {
      b->value.resize(at(3 * n));
      b->error.resize(at(3 * n));
    }
    for (index j = 0; j < n; ++j) {
      auto const taps = net.taps(features.view[j]);
      for (index c = 0; c < 3; ++c) {
        double const factor = std::exp(-d(rate[at(c)]) * static_cast<double>(j)) + 0.125;
        want.value[at(c * n + j)] = taps.value[at(c)];
        want.error[at(c * n + j)] = taps.error[at(c)];
        windowed.value[at(c * n + j)] = taps.value[at(c)] * factor;
        windowed.error[at(c * n + j)] = taps.error[at(c)] * factor + 0x1p-24 * std::abs(taps.value[at(c)]) * factor;
      }
    }
    CHECK(compare(plain.view, want.value, want.error, 1));
    CHECK(compare(k.view, windowed.value, windowed.error, 1));
    CHECK(k.intact());
    std::vector<float> const none(3);
    implicit_filter(cpu, features.view, layers, net.last(), k.view, decay_window{none});
    CHECK(dense(k.view) == dense(plain.view));
  }
}

TEST_CASE("an implicit filter without layers is linear, and what does not fit is refused") {
  rng r(12);
  network const net(r, 5, 4, 8, 3);
  auto const layers = net.layers();
  std::vector<float> const x{1, 2, 3, 4, 5, 6}, out{1, 10, 100, 1000};
  std::vector<float> k(6);
  implicit_filter(cpu, view(x.data(), 3, 2), view(layers.data(), 0), view(out.data(), 2, 2), view(k.data(), 2, 3));
  CHECK(k == std::vector<float>{21, 43, 65, 2100, 4300, 6500});

  padded_tensor<float, 2> features(r, shape<2>{{7, 5}}), taps(shape<2>{{3, 7}});
  auto const call = [&](auto const& f, auto const& l, auto const& o, auto const& to, decay_window const& window = {}) {
    return message_of([&] { implicit_filter(cpu, f, l, o, to, window); });
  };
  CHECK(call(features.view.slice(1, 0, 4), layers, net.last(), taps.view) ==
        "implicit_filter: a layer's weights.extent(1) is 5, expected the width before it = 4");
  CHECK(call(features.view, layers, net.last().slice(1, 0, 7), taps.view) ==
        "implicit_filter: out.extent(1) is 7, expected the last layer's width = 8");
  CHECK(call(features.view, layers, net.last(), taps.view.slice(0, 0, 2)) ==
        "implicit_filter: k.extent(0) is 2, expected out.extent(0) = 3");
  CHECK(call(features.view, layers, net.last(), taps.view.slice(1, 0, 2)) ==
        "implicit_filter: k.extent(1) is 2, expected features.extent(0) = 7");
  auto wrong = layers;
  wrong[1].frequency = view(net.f2.data(), 3);
  CHECK(call(features.view, wrong, net.last(), taps.view) ==
        "implicit_filter: a layer's frequency.extent(0) is 3, expected its weights.extent(0) = 8");
  wrong = layers;
  wrong[0].bias = view(net.b1.data(), 3);
  CHECK(call(features.view, wrong, net.last(), taps.view) ==
        "implicit_filter: a layer's bias.extent(0) is 3, expected its weights.extent(0) = 4");
  wrong = layers;
  wrong[1].weights = view(net.w2.data(), 4, 8).transposed(0, 1);
  CHECK(call(features.view, wrong, net.last(), taps.view) ==
        "implicit_filter: a layer's weights.stride(1) is 8, expected 1: rows are contiguous");
  CHECK(call(view(x.data(), 2, 3).transposed(0, 1), view(layers.data(), 0), view(out.data(), 2, 2), view(k.data(), 2, 3)) ==
        "implicit_filter: features.stride(1) is 3, expected 1: rows are contiguous");
  CHECK(call(features.view, layers, net.last(), taps.view, decay_window{out}) ==
        "implicit_filter: rate.extent(0) is 4, expected k.extent(0) = 3");
}

namespace {

/// y, w .* z convolved with z, and what errors are relative to, by definition.
struct zzw_images {
  std::vector<double> want, norms;
  zzw_images(tensor_view<float const, 4> const& z, tensor_view<float const, 3> const& w) {
    index const rows = z.extent(2), columns = z.extent(3);
    for (index b = 0; b < z.extent(0); ++b)
      for (index c = 0; c < z.extent(1); ++c) {
        double kernel = 0, image = 0;
        for (index i = 0; i < rows; ++i)
          for (index j = 0; j < columns; ++j) {
            kernel += std::pow(d(w(c, i, j)) * d(z(b, c, i, j)), 2);
            image += std::pow(d(z(b, c, i, j)), 2);
          }
        for (index i = 0; i < rows; ++i)
          for (index j = 0; j < columns; ++j) {
            double sum = 0;
            for (index p = 0; p < rows; ++p)
              for (index q = 0; q < columns; ++q) {
                index const u = i + (rows - 1) / 2 - p, v = j + (columns - 1) / 2 - q;
                if (u >= 0 && u < rows && v >= 0 && v < columns) sum += d(w(c, p, q)) * d(z(b, c, p, q)) * d(z(b, c, u, v));
              }
            want.push_back(sum);
            norms.push_back(std::sqrt(kernel * image));
          }
      }
  }
};

}  // namespace

TEST_CASE("HyperZZW convolves sequences with themselves, weighted") {
  rng r(13);
  for (index n : {1, 37, 400}) {
    padded_tensor<float, 3> z(r, shape<3>{{2, 3, n}}), y(shape<3>{{2, 3, n}});
    padded_tensor<float, 2> w(r, shape<2>{{3, n}});
    for (long_mode mode : {long_mode::causal, long_mode::circular, long_mode::same}) {
      hyperzzw(cpu, z.view, w.view, y.view, mode);
      auto const place = mode == long_mode::causal     ? oracle::filter_place::causal
                         : mode == long_mode::circular ? oracle::filter_place::circular
                                                       : oracle::filter_place::same;
      std::vector<double> want, norms;
      for (index b = 0; b < 2; ++b)
        for (index c = 0; c < 3; ++c) {
          oracle::row const x = dense(z.view[b][c]);
          oracle::row k = dense(w.view[c]);
          for (std::size_t i = 0; i < k.size(); ++i) k[i] *= x[i];
          for (double e : oracle::long_conv(x, k, place)) want.push_back(e);
          norms.resize(want.size(), oracle::norm(x) * oracle::norm(k));
        }
      CHECK(compare(y.view, want, norms, long_conv.error(2 * n) + 0x1p-24));
      CHECK(y.intact());
    }
  }
}

TEST_CASE("HyperZZW convolves images with themselves, weighted, in two dimensions") {
  rng r(14);
  shape<2> const sides[] = {{{1, 1}}, {{1, 6}}, {{7, 1}}, {{5, 4}}, {{4, 5}}, {{9, 9}}, {{16, 12}}};
  for (auto const& side : sides) {
    index const rows = side.extents[0], columns = side.extents[1];
    padded_tensor<float, 4> z(r, shape<4>{{2, 3, rows, columns}}), y(shape<4>{{2, 3, rows, columns}});
    padded_tensor<float, 3> w(r, shape<3>{{3, rows, columns}});
    hyperzzw(cpu, z.view, w.view, y.view);
    zzw_images const o(z.view, w.view);
    CHECK(compare(y.view, o.want, o.norms, long_conv.error(4 * rows * columns) + 0x1p-24));
    CHECK(y.intact());
  }
}

TEST_CASE("HyperZZW of many images is that of each, on any threads") {
  rng r(15);
  index const batch = 11, side = 64;  // 109 000 numbers of scratch for a sample
  padded_tensor<float, 4> z(r, shape<4>{{batch, 4, side, side}}), y(shape<4>{{batch, 4, side, side}}), alone(shape<4>{{1, 4, side, side}});
  padded_tensor<float, 3> w(r, shape<3>{{4, side, side}});
  thread_pool pool(3);
  hyperzzw(cpu.on(pool), z.view, w.view, y.view);
  for (index b : {index{0}, index{8}, batch - 1}) {
    hyperzzw(cpu, z.view.slice(0, b, b + 1), w.view, alone.view);
    CHECK(dense(y.view.slice(0, b, b + 1)) == dense(alone.view));
  }
}

TEST_CASE("HyperZZW as its authors compute it is a product of matrices") {
  rng r(16);
  for (index n : {1, 6, 33}) {
    padded_tensor<float, 4> z(r, shape<4>{{2, 2, n, n}}), y(shape<4>{{2, 2, n, n}});
    padded_tensor<float, 3> w(r, shape<3>{{2, n, n}});
    hyperzzw_product(cpu, z.view, w.view, y.view);
    std::vector<double> want, size;
    for (index b = 0; b < 2; ++b)
      for (index c = 0; c < 2; ++c)
        for (index i = 0; i < n; ++i)
          for (index j = 0; j < n; ++j) {
            double sum = 0, all = 0;
            for (index k = 0; k < n; ++k) {
              double const e = d(w.view(c, i, k)) * d(z.view(b, c, i, k)) * d(z.view(b, c, k, j));
              sum += e;
              all += std::abs(e);
            }
            want.push_back(sum);
            size.push_back(all);
          }
    CHECK(compare(y.view, want, size, (matmul.accuracy(n) + 1) * 0x1p-24));
    CHECK(y.intact());
  }
}

TEST_CASE("HyperZZW's local kernels see their sample by parts") {
  rng r(17);
  index const rows = 10, columns = 7;
  padded_tensor<float, 4> z(r, shape<4>{{2, 3, rows, columns}}), y(shape<4>{{2, 3, rows, columns}});
  padded_tensor<float, 3> w(r, shape<3>{{3, 3, 5}});
  hyperzzw_local(cpu, z.view, w.view, y.view);
  // Parts of 10 by 3 and of 7 by 5, by hand.
  index const i0[] = {0, 3, 6}, i1[] = {4, 7, 10}, j0[] = {0, 1, 2, 4, 5}, j1[] = {2, 3, 5, 6, 7};
  std::vector<double> want, size;
  for (index b = 0; b < 2; ++b)
    for (index c = 0; c < 3; ++c) {
      double kernel[3][5];
      for (index p = 0; p < 3; ++p)
        for (index q = 0; q < 5; ++q) {
          double sum = 0;
          for (index i = i0[p]; i < i1[p]; ++i)
            for (index j = j0[q]; j < j1[q]; ++j) sum += d(z.view(b, c, i, j));
          kernel[p][q] = d(w.view(c, p, q)) * sum / static_cast<double>((i1[p] - i0[p]) * (j1[q] - j0[q]));
        }
      for (index i = 0; i < rows; ++i)
        for (index j = 0; j < columns; ++j) {
          double sum = 0, all = 0;
          for (index p = 0; p < 3; ++p)
            for (index q = 0; q < 5; ++q) {
              index const u = i + p - 1, v = j + q - 2;
              if (u < 0 || u >= rows || v < 0 || v >= columns) continue;
              sum += kernel[p][q] * d(z.view(b, c, u, v));
              all += std::abs(kernel[p][q] * d(z.view(b, c, u, v)));
            }
          want.push_back(sum);
          size.push_back(all);
        }
    }
  CHECK(compare(y.view, want, size, (depthwise_conv.accuracy(15) + 2) * 0x1p-24));
  CHECK(y.intact());

  // A sequence is an image of one row.
  padded_tensor<float, 2> taps(r, shape<2>{{3, 5}});
  padded_tensor<float, 3> row(shape<3>{{3, 1, 5}});
  for (index c = 0; c < 3; ++c)
    for (index j = 0; j < 5; ++j) row.view(c, 0, j) = taps.view(c, j);
  padded_tensor<float, 3> x(r, shape<3>{{2, 3, columns}}), out(shape<3>{{2, 3, columns}});
  padded_tensor<float, 4> image(shape<4>{{2, 3, 1, columns}}), same(shape<4>{{2, 3, 1, columns}});
  for (index b = 0; b < 2; ++b)
    for (index c = 0; c < 3; ++c)
      for (index j = 0; j < columns; ++j) image.view(b, c, 0, j) = x.view(b, c, j);
  hyperzzw_local(cpu, x.view, taps.view, out.view);
  hyperzzw_local(cpu, image.view, row.view, same.view);
  CHECK(dense(out.view) == dense(same.view));
}

TEST_CASE("a local kernel as large as its image, turned around, is the global one") {
  rng r(18);
  index const n = 9;
  padded_tensor<float, 4> z(r, shape<4>{{1, 2, n, n}}), y(shape<4>{{1, 2, n, n}});
  padded_tensor<float, 3> w(r, shape<3>{{2, n, n}});
  // depthwise_conv correlates: with an image that is its own mirror, and weights too, that is the same.
  for (index c = 0; c < 2; ++c)
    for (index i = 0; i < n * n / 2; ++i) {
      z.view(0, c, n - 1 - i / n, n - 1 - i % n) = z.view(0, c, i / n, i % n);
      w.view(c, n - 1 - i / n, n - 1 - i % n) = w.view(c, i / n, i % n);
    }
  hyperzzw_local(cpu, z.view, w.view, y.view);
  zzw_images const o(z.view, w.view);
  CHECK(compare(y.view, o.want, o.norms, (depthwise_conv.accuracy(n * n) + 2) * 0x1p-24));
}

TEST_CASE("HyperZZW's arguments are refused by name") {
  padded_tensor<float, 4> z(shape<4>{{2, 3, 4, 5}}), y(shape<4>{{2, 3, 4, 5}});
  padded_tensor<float, 3> w(shape<3>{{3, 4, 5}});
  CHECK(message_of([&] { hyperzzw(cpu, z.view, w.view.slice(0, 0, 2), y.view); }) ==
        "hyperzzw: w.extent(0) is 2, expected z.extent(1) = 3");
  CHECK(message_of([&] { hyperzzw(cpu, z.view, w.view, y.view.slice(3, 0, 2)); }) ==
        "hyperzzw: y.extent(3) is 2, expected z.extent(3) = 5");
  CHECK(message_of([&] { hyperzzw(cpu, z.view, w.view, z.view); }) == "hyperzzw: y is z, expected memory of its own");
  CHECK(message_of([&] { hyperzzw_product(cpu, z.view, w.view, y.view); }) ==
        "hyperzzw_product: z.extent(3) is 5, expected z.extent(2) = 4");
  CHECK(message_of([&] { hyperzzw_local(cpu, z.view, w.view.slice(0, 0, 2), y.view); }) ==
        "hyperzzw_local: w.extent(0) is 2, expected z.extent(1) = 3");
  CHECK(message_of([&] { hyperzzw_local(cpu, z.view, w.view.slice(2, 0, 0), y.view); }) ==
        "hyperzzw_local: an extent of w's kernels is 0, expected at least 1");
  CHECK(message_of([&] { hyperzzw_local(cpu, z.view.slice(0, 0, 0), w.view, y.view); }) ==
        "hyperzzw_local: y.extent(0) is 2, expected z.extent(0) = 0");
}

}  // namespace tern::test
