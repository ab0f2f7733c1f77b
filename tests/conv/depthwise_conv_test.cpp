// SPDX-License-Identifier: Apache-2.0
#include <tern/conv/depthwise_conv.hpp>

#include "depthwise_case.hpp"

namespace tern::test {
namespace {

template <int N>
stride stride_of(depthwise_case<N> const& c) {
  if constexpr (N == 1) return stride{c.at(c.s.stride, 0)};
  if constexpr (N == 2) return {c.at(c.s.stride, 0), c.at(c.s.stride, 1)};
  if constexpr (N == 3) return {c.at(c.s.stride, 0), c.at(c.s.stride, 1), c.at(c.s.stride, 2)};
}
template <int N>
dilation dilation_of(depthwise_case<N> const& c) {
  if constexpr (N == 1) return dilation{c.at(c.s.dilation, 0)};
  if constexpr (N == 2) return {c.at(c.s.dilation, 0), c.at(c.s.dilation, 1)};
  if constexpr (N == 3) return {c.at(c.s.dilation, 0), c.at(c.s.dilation, 1), c.at(c.s.dilation, 2)};
}
template <int N>
padding padding_of(depthwise_case<N> const& c) {
  auto const z = [&](int d) { return zeros{c.at(c.s.before, d), c.at(c.after, d)}; };
  if constexpr (N == 1) return padding{z(0)};
  if constexpr (N == 2) return {z(0), z(1)};
  if constexpr (N == 3) return {z(0), z(1), z(2)};
}

/// The case in one layout, against the oracle.
template <bool first, class T = float, class U = float, int N>
void check(depthwise_case<N> const& c, rng& r) {
  padded_tensor<T, N + 2> const x(r, c.tensor(c.s.in, first));
  padded_tensor<T, N + 1> const w(r, c.weights(first));
  padded_tensor<U, N + 2> y(c.tensor(c.s.out, first));
  auto const b = r.normal(c.s.channels);
  if constexpr (first)
    depthwise_conv(cpu, x.view, w.view, y.view, channels_first{}, bias{b}, stride_of(c), dilation_of(c), padding_of(c));
  else
    depthwise_conv(cpu, x.view, w.view, y.view, padding_of(c), stride_of(c), dilation_of(c), bias{b});
  auto const by_channel = [](auto const& v, int lead) { return first ? v : channels_to_front(v, lead); };
  auto const want = oracle::depthwise_conv(dense(by_channel(x.view, 1)), dense(by_channel(w.view, 0)), widened(b), c.s);
  INFO(c.text() << (first ? " channels first" : ""));
  CHECK(compare(by_channel(y.view, 1), want.value, want.magnitude, depthwise_conv.accuracy(c.taps()) * 0x1p-24));
  CHECK(y.intact());
}

}  // namespace

TEST_CASE("depthwise_conv: equals the oracle in one, two and three dimensions, in both layouts", "[conv]") {
  for (std::uint64_t seed = 0; seed < 24; ++seed) {
    rng r(seed);
    auto const line = depthwise_case<1>::any(r, 9, 40);
    check<false>(line, r);
    check<true>(line, r);
    auto const image = depthwise_case<2>::any(r, 5, 18);
    check<false>(image, r);
    check<true>(image, r);
    auto const volume = depthwise_case<3>::any(r, 3, 6);
    check<false>(volume, r);
    check<true>(volume, r);
  }
}

TEST_CASE("depthwise_conv: large kernels, also beyond the image, and every width of a row", "[conv]") {
  rng r(1);
  for (index k : {1, 2, 7, 11, 13, 31, 51})
    for (index n : {5, 14}) {
      depthwise_case<2> c;
      c.s.channels = simd::lanes + 1;
      c.s.in[1] = 3;
      c.s.in[2] = n;
      c.s.kernel[1] = c.s.kernel[2] = k;
      c.s.before[1] = c.s.before[2] = k / 2;
      c.after[1] = c.after[2] = k - 1 - k / 2;
      c.set_outputs();
      check<false>(c, r);
      check<true>(c, r);
    }
  for (index n = 1; n < 34; ++n) {
    depthwise_case<1> c;
    c.s.in[2] = n;
    c.s.kernel[2] = 4;
    c.s.before[2] = 3;
    c.set_outputs();
    check<false>(c, r);
  }
}

TEST_CASE("depthwise_conv: rows and images too long for one piece", "[conv]") {
  rng r(2);
  depthwise_case<1> line;
  line.s.channels = 2;
  line.s.in[2] = 9001;
  line.s.kernel[2] = 33;
  line.s.before[2] = 32;
  line.set_outputs();
  check<false>(line, r);
  depthwise_case<2> image;
  image.s.channels = simd::lanes;
  image.s.in[1] = image.s.in[2] = 70;
  image.s.kernel[1] = image.s.kernel[2] = 11;
  image.s.before[1] = image.s.before[2] = image.after[1] = image.after[2] = 5;
  image.set_outputs();
  check<true>(image, r);
}

TEST_CASE("depthwise_conv: 3 x 3 on columns that are neighbors, of every width, with and without zeros around", "[conv]") {
  rng r(8);
  for (index n = 1; n < 5 * simd::lanes; n += n < 2 * simd::lanes ? 1 : 5)
    for (int zeros = 0; zeros < 16; ++zeros) {
      depthwise_case<2> c;
      c.s.batch = 2;
      c.s.channels = 3;
      c.s.in[1] = 1 + n % 7;
      c.s.in[2] = n;
      c.s.kernel[1] = c.s.kernel[2] = 3;
      c.s.before[1] = zeros & 1;
      c.s.before[2] = zeros >> 1 & 1;
      c.after[1] = zeros >> 2 & 1;
      c.after[2] = zeros >> 3 & 1;
      for (int d = 1; d < 3; ++d)
        if (c.s.in[d] + c.s.before[d] + c.after[d] < 3) c.s.in[d] = 3;
      c.set_outputs();
      check<true>(c, r);
    }
}

TEST_CASE("depthwise_conv: 5 and 7 rows of taps on columns that are neighbors, of every height and zeros around", "[conv]") {
  rng r(9);
  for (index k : {5, 7})
    for (index n = 1; n < 3 * simd::lanes; n += n % simd::lanes == simd::lanes / 4 ? simd::lanes / 2 : 1)
      for (int variant = 0; variant < 6; ++variant) {
        depthwise_case<2> c;
        c.s.batch = 2;
        c.s.channels = simd::lanes * (variant % 2) + 1;
        c.s.kernel[1] = k;
        c.s.kernel[2] = variant == 5 ? 3 : k;
        c.s.in[1] = 1 + (n + 5 * variant) % 31;
        c.s.in[2] = n;
        for (int d = 1; d < 3; ++d) {
          c.s.before[d] = (variant + d) % c.s.kernel[d];
          c.after[d] = c.s.kernel[d] - 1 - (variant == 2 ? 0 : c.s.before[d]);
          if (c.s.in[d] + c.s.before[d] + c.after[d] < c.s.kernel[d]) c.s.in[d] = c.s.kernel[d];
        }
        c.set_outputs();
        check<true>(c, r);
      }
  depthwise_case<2> tall;  // in pieces
  tall.s.in[1] = 300;
  tall.s.in[2] = 2 * simd::lanes;
  tall.s.kernel[1] = tall.s.kernel[2] = 7;
  tall.s.before[1] = tall.s.before[2] = tall.after[1] = tall.after[2] = 3;
  tall.set_outputs();
  check<true>(tall, r);
}

TEST_CASE("depthwise_conv: columns that are neighbors without a gap between rows and images are those with one", "[conv]") {
  rng r(10);
  for (index k : {3, 5, 7})
    for (index columns : {simd::lanes - 1, simd::lanes, 2 * simd::lanes - 2, 3 * simd::lanes})
      for (index rows : {6, 14, 30})
        for (index channels : {1, 3}) {
          shape<4> const images{2, channels, rows, columns};
          padded_tensor<float, 4> x(r, images), y(images);
          std::vector<float> close(static_cast<std::size_t>(2 * channels * rows * columns)), out(close.size()),
              w = r.normal(channels * k * k);
          x.view[1][0][rows / 2][columns - 1] = x.view[0][channels - 1][rows - 1][0] = NAN;  // seen by those around it alone
          auto const close_view = view(close.data(), 2, channels, rows, columns), out_view = view(out.data(), 2, channels, rows, columns);
          std::size_t at = 0;
          detail::each(x.view, [&](float e) { close[at++] = e; });
          auto const taps = view(w.data(), channels, k, k);
          depthwise_conv(cpu, x.view, taps, y.view, channels_first{}, same_padding{});
          depthwise_conv(cpu, close_view, taps, out_view, channels_first{}, same_padding{});
          INFO(k << " x " << k << " taps, " << channels << " channels of " << rows << " x " << columns);
          std::vector<double> const a = dense(y.view), b = dense(out_view);
          CHECK(std::equal(a.begin(), a.end(), b.begin(), [](double p, double q) { return p == q || (p != p && q != q); }));
          index const side = k / 2, seen = std::min(rows - 1, rows / 2 + side) - std::max<index>(0, rows / 2 - side) + 1;
          index const nans = (seen + side + 1) * std::min(columns, side + 1);
          CHECK(std::count_if(b.begin(), b.end(), [](double v) { return v != v; }) == nans);
        }
}

TEST_CASE("depthwise_conv: images so large that neighboring channels are loaded together", "[conv]") {
  rng r(7);
  struct {
    index kernel, step;
  } const cases[] = {{3, 1}, {3, 2}, {9, 1}};
  for (auto const [k, step] : cases) {
    depthwise_case<2> c;
    c.s.channels = 54;
    c.s.in[1] = c.s.in[2] = 70;
    c.s.kernel[1] = c.s.kernel[2] = k;
    c.s.stride[1] = c.s.stride[2] = step;
    c.s.before[1] = c.s.before[2] = k / 2;
    c.set_outputs();
    check<false>(c, r);
  }
}

TEST_CASE("depthwise_conv: f16 and bf16", "[conv]") {
  rng r(3);
  for (int i = 0; i < 4; ++i) {
    auto const c = depthwise_case<2>::any(r, 5, 17);
    check<false, f16, bf16>(c, r);
    check<true, bf16, f16>(c, r);
  }
}

TEST_CASE("depthwise_conv: errors name what is wrong", "[conv]") {
  std::vector<float> x(2 * 6 * 7 * 5), w(3 * 3 * 5), y(2 * 6 * 7 * 5), short_bias(4);
  auto const xs = view(x.data(), 2, 6, 7, 5), ys = view(y.data(), 2, 6, 7, 5);
  auto const ws = view(w.data(), 3, 3, 5);
  auto const says = [&](auto const& at_w, auto const& to, auto const&... options) {
    return message_of([&] { depthwise_conv(cpu, xs, at_w, to, options...); });
  };
  CHECK(says(ws, ys) == "depthwise_conv: y.extent(1) is 6, expected 4 outputs for this input, kernel, stride, dilation and padding");
  CHECK(says(view(w.data(), 3, 3, 4), ys, same_padding{}) == "depthwise_conv: w.extent(2) is 4, expected x.extent(3) = 5");
  CHECK(says(view(w.data(), 0, 3, 5), ys, same_padding{}) == "depthwise_conv: an extent of w is 0, expected at least 1");
  CHECK(says(view(w.data(), 1, 3, 3, 5), ys, same_padding{}) == "depthwise_conv: w.extent(0) is 1, expected x.extent(0) = 2");
  CHECK(says(ws, view(y.data(), 2, 6, 7, 4), same_padding{}) == "depthwise_conv: y.extent(3) is 4, expected x.extent(3) = 5");
  CHECK(says(ws, view(y.data(), 1, 6, 7, 5), same_padding{}) == "depthwise_conv: y.extent(0) is 1, expected x.extent(0) = 2");
  CHECK(says(ws, xs, same_padding{}) == "depthwise_conv: y is x, expected memory of its own");
  CHECK(message_of([&] { depthwise_conv(cpu, xs.slice(0, 0, 1), ws, view(x.data() + 209, 1, 6, 7, 5), same_padding{}); }) ==
        "depthwise_conv: y overlaps x, expected memory of its own");
  CHECK(message_of([&] { depthwise_conv(cpu, xs.slice(0, 0, 1), ws, xs.slice(0, 1, 2), same_padding{}); }) == "no error");
  CHECK(message_of([&] { depthwise_conv(cpu, xs.slice(3, 0, 2), ws.slice(2, 0, 2), xs.slice(3, 2, 4), same_padding{}); }) ==
        "no error");  // other channels of one tensor
  CHECK(says(ws, ys, same_padding{}, residual{ys}) == "no error");
  CHECK(says(ws, ys, same_padding{}, residual{view(y.data() + 1, 2, 6, 7, 5)}) ==
        "depthwise_conv: y overlaps residual, expected memory of its own");
  CHECK(says(ws, ys, same_padding{}, bias{ys[0][0][1]}) == "depthwise_conv: y overlaps bias, expected memory of its own");
  CHECK(says(ws, ys, same_padding{}, stride{0}) == "depthwise_conv: stride is 0, expected at least 1");
  CHECK(says(ws, ys, same_padding{}, dilation{1, -1}) == "depthwise_conv: dilation is -1, expected at least 1");
  CHECK(says(ws, ys, padding{zeros{1, -2}}) == "depthwise_conv: padding is -2, expected at least 0");
  CHECK(says(ws, ys, stride{1, 1, 1}) == "depthwise_conv: stride has 3 numbers, expected 1 or 2");
  CHECK(says(ws, ys, padding{1, 1, 1}) == "depthwise_conv: padding has 3 numbers, expected 1 or 2");
  CHECK(says(ws, ys, same_padding{}, bias{short_bias}) == "depthwise_conv: bias.extent(0) is 4, expected channels = 5");
  CHECK(says(ws, ys, same_padding{}, residual{view(x.data(), 2, 7, 6, 5)}) ==
        "depthwise_conv: residual.extent(1) is 7, expected y.extent(1) = 6");
}

}  // namespace tern::test
