// SPDX-License-Identifier: Apache-2.0
// Published systems of depthwise convolution on two images of 56 x 56 positions with 96 channels, beside a 7 x 7 kernel on all channels
// ("full7"). Each is checked at a few positions against its formula in float64. Operations are those of the definition, on zeros too.
#include "harness.hpp"
#include "inputs.hpp"

#include <tern/conv.hpp>
#include <tern/conv/systems/arc.hpp>
#include <tern/conv/systems/convnext.hpp>
#include <tern/conv/systems/dynamic_conv.hpp>
#include <tern/conv/systems/hyperzzw.hpp>
#include <tern/conv/systems/inception_next.hpp>
#include <tern/conv/systems/separable.hpp>
#include <tern/conv/systems/spark.hpp>
#include <tern/conv/systems/unireplknet.hpp>
#include <tern/conv/systems/van.hpp>
#include <tern/conv/systems/vovnet.hpp>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

namespace tern::bench {
namespace {

constexpr index images = 2, side = 56, channels = 96, pixels = images * side * side;

double wide(float x) { return static_cast<double>(x); }

/// Images x and y, and weights w, of which a system takes what it needs.
struct problem {
  std::vector<float> x_values = fast_normal(pixels * channels), y_values = std::vector<float>(x_values.size()),
                     w = fast_normal(1 << 16, 0.1, 2);
  tensor_view<float, 4> x = view(x_values.data(), images, side, side, channels), y = view(y_values.data(), images, side, side, channels);

  /// The same memory with channels before positions.
  static tensor_view<float, 4> planes(tensor_view<float, 4> const& v) { return view(v.data(), images, channels, side, side); }
  /// Weights (kh, kw, C) from number `from` on; or (C), (n, C), ...
  template <class... N>
  auto weights(index from, N... extents) const {
    return view(w.data() + from, extents...);
  }
  tensor_view<float const, 1> bias() const { return weights(60000, channels); }
};

/// Position (i, j) of channel c of image b.
struct place {
  index b, i, j, c;
};

/// sum over taps of w x around p, zeros outside.
double taps(tensor_view<float const, 4> const& x, tensor_view<float const, 3> const& w, place const& p, index dilation = 1) {
  double sum = 0;
  for (index a = 0; a < w.extent(0); ++a)
    for (index d = 0; d < w.extent(1); ++d) {
      index const i = p.i + (a - w.extent(0) / 2) * dilation, j = p.j + (d - w.extent(1) / 2) * dilation;
      if (i >= 0 && i < side && j >= 0 && j < side) sum += wide(w(a, d, p.c)) * wide(x(p.b, i, j, p.c));
    }
  return sum;
}

using call_of = std::function<void(cpu_policy const&, problem&)>;
using formula = std::function<double(problem const&, place const&)>;

/// `flops` of one element of y, whose channels come last or, as `planes`, before positions.
void add(std::string const& name, double flops, call_of const& call, formula const& want, bool planes = false) {
  static auto const data = lazy([] { return problem(); });
  workload const w{.op = "conv_systems",
                   .name = name + "_c96_hw56",
                   .flops = flops * static_cast<double>(pixels * channels),
                   .bytes = 8. * static_cast<double>(pixels * channels)};
  w.add("tern", [=](run& r) {
    problem& p = data();
    r.check([&] {
      call(r.policy(), p);
      std::vector<float> got;
      std::vector<double> wanted, size;
      for (index b = 0; b < images; ++b)
        for (index i : sample(side, 3))
          for (index c : sample(channels, 5)) {
            place const at{b, i, side - 1 - i / 2, c};
            got.push_back(planes ? problem::planes(p.y)(at.b, at.c, at.i, at.j) : p.y(at.b, at.i, at.j, at.c));
            wanted.push_back(want(p, at));
            size.push_back(1 + std::abs(wanted.back()));
          }
      return test::compare(got, wanted, size, 1e-4);
    });
    r.time([&](index) { call(r.policy(), p); });
  });
}

void add_kernels() {
  add(
      "full7", 98, [](cpu_policy const& on, problem& p) { depthwise_conv(on, p.x, p.weights(0, 7, 7, channels), p.y, same_padding{}); },
      [](problem const& p, place const& at) { return taps(p.x, p.weights(0, 7, 7, channels), at); });
  constexpr index g = channels / 8;
  add(
      "inception_next", 2. * (9 + 11 + 11) / 8,
      [](cpu_policy const& on, problem& p) {
        inception_next(on, p.x, p.weights(0, 3, 3, g), p.weights(2000, 11, g), p.weights(4000, 11, g), p.y);
      },
      [](problem const& p, place at) {
        index const same = channels - 3 * g;
        if (at.c < same) return wide(p.x(at.b, at.i, at.j, at.c));
        index const branch = (at.c - same) / g, from = same + branch * g;
        at.c -= from;
        auto const x = p.x.slice(3, from, from + g);
        return branch == 0   ? taps(x, p.weights(0, 3, 3, g), at)
               : branch == 1 ? taps(x, p.weights(2000, 1, 11, g), at)
                             : taps(x, p.weights(4000, 11, 1, g), at);
      });
  add(
      "separable_7x7_rank2", 56,
      [](cpu_policy const& on, problem& p) { separable(on, p.x, p.weights(0, 2, 7, channels), p.weights(4000, 2, 7, channels), p.y); },
      [](problem const& p, place const& at) {
        std::vector<float> w(49 * channels);
        auto const all = view(w.data(), 7, 7, channels);
        for (index a = 0; a < 7; ++a)
          for (index d = 0; d < 7; ++d)
            for (index r = 0; r < 2; ++r)
              all(a, d, at.c) += p.weights(0, 2, 7, channels)(r, a, at.c) * p.weights(4000, 2, 7, channels)(r, d, at.c);
        return taps(p.x, all, at);
      });
  static std::vector<std::uint8_t> visible;
  for (index i = 0; i < images * 49; ++i) visible.push_back(i % 2 == 0);
  add(
      "spark_half_of_7x7", 49,
      [](cpu_policy const& on, problem& p) {
        spark(on, p.x, view(visible.data(), images, 7, 7), p.weights(0, 7, 7, channels), p.y, p.bias());
      },
      [](problem const& p, place const& at) {
        bool const seen = visible[static_cast<std::size_t>((at.b * 7 + at.i / 8) * 7 + at.j / 8)] != 0;
        return seen ? taps(p.x, p.weights(0, 7, 7, channels), at) + wide(p.bias()[at.c]) : 0.;
      });
}

void add_mixtures() {
  static std::vector<float> const mix{0.5f, 0.3f, 0.1f, 0.1f, 0.1f, 0.2f, 0.3f, 0.4f}, zeros(8);
  auto const mixed = [](problem const& p, place const& at) {
    double sum = 0;
    for (index k = 0; k < 4; ++k)
      sum += wide(mix[static_cast<std::size_t>(at.b * 4 + k)]) * taps(p.x, p.weights(k * 9 * channels, 3, 3, channels), at);
    return sum;
  };
  add(
      "dynamic_conv_4_of_3x3", 18,
      [](cpu_policy const& on, problem& p) {
        dynamic_conv(on, p.x, p.weights(0, 4, 3, 3, channels), view(mix.data(), images, 4), p.y, same_padding{});
      },
      mixed);
  // Kernels that turn by nothing: what that costs does not depend on the angle.
  add(
      "arc_4_of_3x3", 18,
      [](cpu_policy const& on, problem& p) {
        arc(on, p.x, p.weights(0, 4, 3, 3, channels), view(mix.data(), images, 4), view(zeros.data(), images, 4), p.y, same_padding{});
      },
      mixed);
}

void add_blocks() {
  add(
      "convnext", 98,
      [](cpu_policy const& on, problem& p) {
        convnext(on, p.x, p.weights(0, 7, 7, channels), p.bias(), p.weights(61000, channels), p.weights(62000, channels), p.y);
      },
      [](problem const& p, place at) {
        double sum = 0, squares = 0, here = 0;
        for (index c = 0; c < channels; ++c) {
          double const z = taps(p.x, p.weights(0, 7, 7, channels), {at.b, at.i, at.j, c}) + wide(p.bias()[c]);
          sum += z;
          squares += z * z;
          if (c == at.c) here = z;
        }
        double const mean = sum / channels, variance = squares / channels - mean * mean;
        return (here - mean) / std::sqrt(variance + 1e-6) * wide(p.weights(61000, channels)[at.c]) + wide(p.weights(62000, channels)[at.c]);
      });
  add(
      "van", 50 + 98 + 2 * channels,
      [](cpu_policy const& on, problem& p) {
        van(on, p.x, {p.weights(0, 5, 5, channels), p.bias()}, {p.weights(2400, 7, 7, channels), p.bias()},
            {p.weights(20000, channels, channels), p.bias()}, p.y);
      },
      [](problem const& p, place const& at) {
        double gate = wide(p.bias()[at.c]);
        for (index c = 0; c < channels; ++c) {
          double far = wide(p.bias()[c]);
          for (index a = 0; a < 49; ++a) {
            index const i = at.i + (a / 7 - 3) * 3, j = at.j + (a % 7 - 3) * 3;
            if (i < 0 || i >= side || j < 0 || j >= side) continue;
            double const near = taps(p.x, p.weights(0, 5, 5, channels), {at.b, i, j, c}) + wide(p.bias()[c]);
            far += wide(p.weights(2400, 7, 7, channels)(a / 7, a % 7, c)) * near;
          }
          gate += wide(p.weights(20000, channels, channels)(at.c, c)) * far;
        }
        return wide(p.x(at.b, at.i, at.j, at.c)) * gate;
      });
  add(
      "vovnet_3_maps", 2 * channels,
      [](cpu_policy const& on, problem& p) {
        auto const all = view(p.x_values.data(), pixels, channels);
        vovnet(on, {all.slice(1, 0, 32), all.slice(1, 32, 64), all.slice(1, 64, 96)}, p.weights(0, channels, channels),
               view(p.y_values.data(), pixels, channels), bias{p.bias()});
      },
      [](problem const& p, place const& at) {
        double sum = wide(p.bias()[at.c]);
        for (index c = 0; c < channels; ++c) sum += wide(p.weights(0, channels, channels)(at.c, c)) * wide(p.x(at.b, at.i, at.j, c));
        return sum;
      });
  // The branches merge off line: what is timed is the kernel that they become.
  add(
      "unireplknet_13x13", 338,
      [](cpu_policy const& on, problem& p) {
        static std::vector<float> merged;
        if (merged.empty()) {
          merged.assign(p.w.begin(), p.w.begin() + 169 * channels);
          add_dilated(p.weights(20000, 5, 5, channels), 2, view(merged.data(), 13, 13, channels));
          add_dilated(p.weights(30000, 3, 3, channels), 5, view(merged.data(), 13, 13, channels));
        }
        depthwise_conv(on, p.x, view(merged.data(), 13, 13, channels), p.y, same_padding{}, bias{p.bias()});
      },
      [](problem const& p, place const& at) {
        return taps(p.x, p.weights(0, 13, 13, channels), at) + taps(p.x, p.weights(20000, 5, 5, channels), at, 2) +
               taps(p.x, p.weights(30000, 3, 3, channels), at, 5) + wide(p.bias()[at.c]);
      });
}

/// HyperZZW: hyper-kernels as large as an image, or of 7 x 7.
void add_hyper_kernels() {
  constexpr index size = side * side;
  static std::vector<float> const hyper = fast_normal(channels * size, 1. / side, 3);
  static auto const w = view(hyper.data(), channels, side, side), small = view(hyper.data(), channels, index{7}, index{7});
  add(
      "hyperzzw", 2 * size, [](cpu_policy const& on, problem& p) { hyperzzw(on, problem::planes(p.x), w, problem::planes(p.y)); },
      [](problem const& p, place const& at) {
        auto const z = problem::planes(p.x)[at.b][at.c];
        double sum = 0;
        for (index a = 0; a < size; ++a) {
          index const i = at.i + (side - 1) / 2 - a / side, j = at.j + (side - 1) / 2 - a % side;
          if (i >= 0 && i < side && j >= 0 && j < side)
            sum += wide(w(at.c, a / side, a % side)) * wide(z(a / side, a % side)) * wide(z(i, j));
        }
        return sum;
      },
      true);
  add(
      "hyperzzw_product", 2 * side,
      [](cpu_policy const& on, problem& p) { hyperzzw_product(on, problem::planes(p.x), w, problem::planes(p.y)); },
      [](problem const& p, place const& at) {
        auto const z = problem::planes(p.x)[at.b][at.c];
        double sum = 0;
        for (index a = 0; a < side; ++a) sum += wide(w(at.c, at.i, a)) * wide(z(at.i, a)) * wide(z(a, at.j));
        return sum;
      },
      true);
  add(
      "hyperzzw_local_7x7", 98,
      [](cpu_policy const& on, problem& p) { hyperzzw_local(on, problem::planes(p.x), small, problem::planes(p.y)); },
      [](problem const& p, place const& at) {
        auto const z = problem::planes(p.x)[at.b][at.c];
        double sum = 0;
        for (index a = 0; a < 49; ++a) {
          index const i = at.i + a / 7 - 3, j = at.j + a % 7 - 3;
          if (i < 0 || i >= side || j < 0 || j >= side) continue;
          double mean = 0;  // of one of 7 x 7 parts
          for (index b = 0; b < 64; ++b) mean += wide(z(a / 7 * 8 + b / 8, a % 7 * 8 + b % 8)) / 64;
          sum += wide(small(at.c, a / 7, a % 7)) * mean * wide(z(i, j));
        }
        return sum;
      },
      true);
}

}  // namespace

void register_benchmarks() {
  add_kernels();
  add_mixtures();
  add_blocks();
  add_hyper_kernels();
}

}  // namespace tern::bench
