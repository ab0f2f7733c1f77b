// SPDX-License-Identifier: Apache-2.0
#include <tern/conv/systems/efficient_train.hpp>

#include "depthwise_case.hpp"

#include <array>
#include <complex>

namespace tern::test {
namespace {

std::size_t at(index i) { return static_cast<std::size_t>(i); }

/// The definition on one image: all of the spectrum by sums, its middle, back by sums, the real part.
std::vector<double> cropped(float const* x, index height, index width, index s) {
  constexpr double turn = 6.283185307179586;
  std::vector<double> out(at(s * s));
  for (index f = -(s / 2); f < (s + 1) / 2; ++f)
    for (index g = -(s / 2); g < (s + 1) / 2; ++g) {
      std::complex<double> z = 0;
      for (index i = 0; i < height; ++i)
        for (index j = 0; j < width; ++j)
          z += static_cast<double>(x[i * width + j]) * std::polar(1., -turn * (static_cast<double>(f * i) / static_cast<double>(height) +
                                                                               static_cast<double>(g * j) / static_cast<double>(width)));
      for (index i = 0; i < s; ++i)
        for (index j = 0; j < s; ++j)
          out[at(i * s + j)] += (z * std::polar(1., turn * static_cast<double>(f * i + g * j) / static_cast<double>(s))).real() /
                                static_cast<double>(height * width);
    }
  return out;
}

}  // namespace

TEST_CASE("efficient_train: the middle of the spectrum, of even and odd sizes", "[conv]") {
  for (auto const& [height, width, s] :
       {std::array<index, 3>{1, 1, 1}, {8, 8, 8}, {9, 9, 9}, {8, 10, 8}, {9, 12, 5}, {12, 7, 6}, {16, 18, 1}}) {
    rng r(static_cast<std::uint64_t>(height * 100 + s));
    auto const x = r.normal(2 * 3 * height * width);
    std::vector<float> out(at(2 * 3 * s * s));
    efficient_train(cpu, view(x.data(), 2, 3, height, width), view(out.data(), 2, 3, s, s));
    for (index image = 0; image < 6; ++image) {
      double squares = 0;
      for (index i = 0; i < height * width; ++i) squares += std::pow(static_cast<double>(x[at(image * height * width + i)]), 2);
      double const size = std::sqrt(squares / static_cast<double>(height * width)) * static_cast<double>(s);
      INFO("height " << height << " width " << width << " s " << s);
      REQUIRE(compare(view(out.data() + image * s * s, s * s), cropped(x.data() + image * height * width, height, width, s),
                      std::vector<double>(at(s * s), size), efficient_train.error(height, width)));
    }
  }
}

TEST_CASE("efficient_train: a constant stays, a low wave is sampled anew, a high one is gone", "[conv]") {
  index const n = 24, s = 10;
  constexpr double turn = 6.283185307179586;
  std::vector<float> x(at(n * n)), out(at(s * s));
  auto const run = [&](index f, index g) {
    for (index i = 0; i < n * n; ++i)
      x[at(i)] = static_cast<float>(3 + std::cos(turn * static_cast<double>(f * (i / n) + g * (i % n)) / static_cast<double>(n)));
    efficient_train(cpu, view(x.data(), 1, 1, n, n), view(out.data(), 1, 1, s, s));
  };
  double const bound = efficient_train.error(n, n) * 4 * static_cast<double>(s);
  run(2, -3);
  for (index i = 0; i < s * s; ++i)
    CHECK(std::abs(static_cast<double>(out[at(i)]) - 3 -
                   std::cos(turn * static_cast<double>(2 * (i / s) - 3 * (i % s)) / static_cast<double>(s))) <= bound);
  run(7, 2);
  for (float e : out) CHECK(std::abs(static_cast<double>(e) - 3) <= bound);
}

TEST_CASE("efficient_train: images of any strides", "[conv]") {
  rng r(5);
  padded_tensor<float, 4> const x(r, shape<4>{{2, 3, 9, 12}});
  padded_tensor<float, 4> out(shape<4>{{2, 3, 5, 5}});
  efficient_train(cpu, x.view.transposed(2, 3), out.view.transposed(2, 3));
  std::vector<float> dense(2 * 3 * 9 * 12), wanted(2 * 3 * 5 * 5);
  for (index i = 0; i < 2 * 3 * 9 * 12; ++i) dense[at(i)] = x.view(i / 324, i / 108 % 3, i % 9, i / 9 % 12);
  efficient_train(cpu, view(dense.data(), 2, 3, 12, 9), view(wanted.data(), 2, 3, 5, 5));
  for (index i = 0; i < 2 * 3 * 5 * 5; ++i) REQUIRE(out.view(i / 75, i / 25 % 3, i % 5, i / 5 % 5) == wanted[at(i)]);
  CHECK(out.intact());
}

TEST_CASE("efficient_train says what is wrong", "[conv]") {
  std::vector<float> x(2 * 3 * 8 * 9), out(x.size());
  auto const xs = view(x.data(), 2, 3, 8, 9);
  CHECK(message_of([&] { efficient_train(cpu, xs, view(out.data(), 2, 2, 4, 4)); }) ==
        "efficient_train: out.extent(1) is 2, expected x.extent(1) = 3");
  CHECK(message_of([&] { efficient_train(cpu, xs, view(out.data(), 2, 3, 4, 5)); }) ==
        "efficient_train: out.extent(3) is 5, expected out.extent(2) = 4");
  CHECK(message_of([&] { efficient_train(cpu, xs, view(out.data(), 2, 3, 9, 9)); }) ==
        "efficient_train: out.extent(2) is 9, expected 1 to the lesser of height and width");
}

}  // namespace tern::test
