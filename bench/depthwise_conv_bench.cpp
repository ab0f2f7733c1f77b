// SPDX-License-Identifier: Apache-2.0
// Depthwise convolution as image networks have it: kernels of 3 to 51 a side, on 56 x 56 and 14 x 14 positions, channels last (nhwc)
// and first (nchw); and the short causal one of sequence models. Operations are those on the input: taps on the zeros around it do not
// count. oneDNN reads x in the layout that it chooses ("onednn_best", turned before the timing) or in the workload's; Eigen convolves one
// channel after the other with channels first, on a copy with zeros around it that was made before the timing.
#include "harness.hpp"
#include "inputs.hpp"
#include "peers.hpp"

#include <tern/conv.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <unordered_map>

#if TERN_BENCH_HAVE_EIGEN
#include <unsupported/Eigen/CXX11/Tensor>
#endif
#if TERN_BENCH_HAVE_ONEDNN
#include <oneapi/dnnl/dnnl.hpp>
#endif

namespace tern::bench {
namespace {

/// Positions that a kernel of `k` sees along an axis of n, all outputs together.
double seen(index n, index k) {
  index sum = 0;
  for (index o = 0; o < n; ++o) sum += std::min(n, o - k / 2 + k) - std::max<index>(0, o - k / 2);
  return static_cast<double>(sum);
}

/// One image (n, n, channels), or (channels, n, n), and square kernels.
struct image_problem {
  index n, k, channels;
  bool first;
  buffer<float> x, w, y;

  image_problem(index size, index kernel, index c, bool channels_come_first)
      : n(size),
        k(kernel),
        channels(c),
        first(channels_come_first),
        x(fast_normal(n * n * c)),
        w(fast_normal(k * k * c, 1, 2)),
        y(n * n * c) {}

  float x_at(index c, index i, index j) const { return first ? x[(c * n + i) * n + j] : x[(i * n + j) * channels + c]; }
  float w_at(index c, index i, index j) const { return first ? w[(c * k + i) * k + j] : w[(i * k + j) * channels + c]; }
  float y_at(index c, index i, index j) const { return first ? y[(c * n + i) * n + j] : y[(i * n + j) * channels + c]; }

  /// Calls f with the arguments of depthwise_conv.
  template <class F>
  auto call(F const& f) {
    if (first)
      return f(tern::view(x.data(), 1, channels, n, n), tern::view(w.data(), channels, k, k), tern::view(y.data(), 1, channels, n, n),
               channels_first{}, same_padding{});
    return f(tern::view(x.data(), 1, n, n, channels), tern::view(w.data(), k, k, channels), tern::view(y.data(), 1, n, n, channels),
             same_padding{});
  }
  void run_tern(cpu_policy const& policy) {
    call([&](auto const&... arguments) { depthwise_conv(policy, arguments...); });
  }
  /// Of a channel: the product of the norms of its image and its kernel.
  double norms(index c) const {
    double image = 0, kernel = 0;
    for (index i = 0; i < n * n; ++i) image += std::pow(static_cast<double>(x_at(c, i / n, i % n)), 2);
    for (index i = 0; i < k * k; ++i) kernel += std::pow(static_cast<double>(w_at(c, i / k, i % k)), 2);
    return std::sqrt(image * kernel);
  }
  /// Some outputs of tern against their definition: what it transforms, relative to norms.
  test::comparison right_by_tern() {
    double const error = call([](auto const&... arguments) { return depthwise_conv.transform_error(arguments...); });
    return right(error);
  }
  /// Some outputs against their definition; `error`: relative to norms, or 0 for sums over taps.
  test::comparison right(double error = 0) const {
    std::vector<float> got;
    std::vector<double> want, magnitude;
    for (index c : sample(channels, 5))
      for (index i : sample(n, 7))
        for (index j : sample(n, 7)) {
          double sum = 0, size = 0;
          for (index p = 0; p < k; ++p)
            for (index q = 0; q < k; ++q) {
              index const h = i + p - k / 2, v = j + q - k / 2;
              if (h < 0 || v < 0 || h >= n || v >= n) continue;
              double const term = static_cast<double>(x_at(c, h, v)) * static_cast<double>(w_at(c, p, q));
              sum += term;
              size += std::abs(term);
            }
          got.push_back(y_at(c, i, j));
          want.push_back(sum);
          magnitude.push_back(error > 0 ? norms(c) : size);
        }
    return test::compare(got, want, magnitude, error > 0 ? error : depthwise_conv.accuracy(k * k) * 0x1p-24);
  }
};

#if TERN_BENCH_HAVE_ONEDNN
/// The same convolution, on copies of x and w in a layout of oneDNN's choice or in the problem's.
class onednn_depthwise {
 public:
  onednn_depthwise(image_problem& p, bool best) : p_(p) {
    using dnnl::memory;
    using tag = memory::format_tag;
    auto const f32 = memory::data_type::f32;
    memory::dims const image{1, p.channels, p.n, p.n}, kernel{p.channels, 1, 1, p.k, p.k}, ones{1, 1}, pad{p.k / 2, p.k / 2};
    tag const own = p.first ? tag::nchw : tag::nhwc, own_w = p.first ? tag::goihw : tag::hwigo;
    memory::desc const x(image, f32, best ? tag::any : own), w(kernel, f32, tag::any), y(image, f32, best ? tag::any : own);
    auto const mode = dnnl::prop_kind::forward_inference;
    auto const direct = dnnl::algorithm::convolution_direct;
#if DNNL_VERSION_MAJOR >= 3
    dnnl::convolution_forward::primitive_desc const d(engine_, mode, direct, x, w, y, ones, pad, pad);
#else
    dnnl::convolution_forward::primitive_desc const d({mode, direct, x, w, y, ones, pad, pad}, engine_);
#endif
    x_ = turned(memory({image, f32, own}, engine_, p.x.data()), d.src_desc());
    w_ = turned(memory({kernel, f32, own_w}, engine_, p.w.data()), d.weights_desc());
    y_ = memory(d.dst_desc(), engine_);
    own_ = memory({image, f32, own}, engine_, p.y.data());
    conv_ = dnnl::convolution_forward(d);
  }
  void operator()() {
    conv_.execute(stream_, {{DNNL_ARG_SRC, x_}, {DNNL_ARG_WEIGHTS, w_}, {DNNL_ARG_DST, y_}});
    stream_.wait();
  }
  /// What it wrote, to the problem's y.
  void give() {
    dnnl::reorder(y_, own_).execute(stream_, y_, own_);
    stream_.wait();
  }

 private:
  dnnl::memory turned(dnnl::memory from, dnnl::memory::desc const& layout) {
    dnnl::memory to(layout, engine_);
    dnnl::reorder(from, to).execute(stream_, from, to);
    stream_.wait();
    return to;
  }
  image_problem& p_;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  dnnl::memory x_, w_, y_, own_;
  dnnl::convolution_forward conv_;
};
#endif

#if TERN_BENCH_HAVE_EIGEN
/// The same convolution of channels-first tensors, by Eigen's Tensor::convolve.
class eigen_depthwise {
 public:
  explicit eigen_depthwise(image_problem& p) : p_(p), wide_(p.n + p.k - 1), padded_(p.channels * wide_ * wide_) {
    for (index c = 0; c < p.channels; ++c)
      for (index i = 0; i < p.n; ++i)
        for (index j = 0; j < p.n; ++j) padded_[(c * wide_ + i + p.k / 2) * wide_ + j + p.k / 2] = p.x_at(c, i, j);
  }
  void operator()() {
    using image = Eigen::TensorMap<Eigen::Tensor<float, 2, Eigen::RowMajor>>;
    for (index c = 0; c < p_.channels; ++c) {
      image const x(padded_.data() + c * wide_ * wide_, wide_, wide_), w(p_.w.data() + c * p_.k * p_.k, p_.k, p_.k);
      image(p_.y.data() + c * p_.n * p_.n, p_.n, p_.n) = x.convolve(w, Eigen::array<Eigen::Index, 2>{0, 1});
    }
  }

 private:
  image_problem& p_;
  index wide_;
  buffer<float> padded_;
};
#endif

void add_image(index n, index k, index channels, bool first) {
  auto data = lazy([=] { return image_problem(n, k, channels, first); });
  double const outputs = static_cast<double>(n * n * channels);
  workload const w{
      .op = "depthwise_conv",
      .name = "k" + std::to_string(k) + "_f32_c" + std::to_string(channels) + "_hw" + std::to_string(n) + (first ? "_nchw" : "_nhwc"),
      .flops = 2 * seen(n, k) * seen(n, k) * static_cast<double>(channels),
      .bytes = 8 * outputs + 4 * static_cast<double>(k * k * channels)};
  w.add("tern", [=](run& r) {
    image_problem& p = data();
    std::fill(p.y.begin(), p.y.end(), std::nanf(""));
    r.check([&] {
      p.run_tern(r.policy());
      return p.right_by_tern();
    });
    r.time([&](index) { p.run_tern(r.policy()); });
  });
#if TERN_BENCH_HAVE_EIGEN
  if (first) {
    workload alone = w;
    alone.threads = {1};
    alone.add("eigen", [=](run& r) {
      image_problem& p = data();
      eigen_depthwise conv(p);
      std::fill(p.y.begin(), p.y.end(), std::nanf(""));
      r.check([&] {
        conv();
        return p.right();
      });
      r.time([&](index) { conv(); });
    });
  }
#endif
#if TERN_BENCH_HAVE_ONEDNN
  for (bool best : {true, false})
    w.add(best ? "onednn_best" : "onednn", [=](run& r) {
      image_problem& p = data();
      set_peer_threads(r.threads());
      onednn_depthwise conv(p, best);
      std::fill(p.y.begin(), p.y.end(), std::nanf(""));
      r.check([&] {
        conv();
        conv.give();
        return p.right();
      });
      r.time([&](index) { conv(); });
    });
#endif
}

/// Mamba's: four taps and silu, on one sequence.
void add_causal(index length, index channels, bool silu) {
  index const width = 4;
  struct data_of {
    buffer<float> x, w, b, y;
  };
  auto data = lazy([=] {
    return data_of{buffer<float>(fast_normal(length * channels)), buffer<float>(fast_normal(width * channels, 1, 2)),
                   buffer<float>(fast_normal(channels, 1, 3)), buffer<float>(length * channels)};
  });
  double const elements = static_cast<double>(length * channels);
  workload const w{.op = "causal_conv",
                   .name = "w4_f32_c" + std::to_string(channels) + "_n" + std::to_string(length) + (silu ? "_silu" : ""),
                   .flops = 2 * static_cast<double>(width) * elements,
                   .bytes = 8 * elements};
  auto const right = [=](data_of const& p) {
    std::vector<float> got;
    std::vector<double> want, magnitude;
    for (index t : sample(length, 9))
      for (index c : sample(channels, 9)) {
        double sum = p.b[c], size = std::abs(sum);
        for (index j = std::max<index>(0, width - 1 - t); j < width; ++j) {
          double const term = static_cast<double>(p.x[(t - width + 1 + j) * channels + c]) * static_cast<double>(p.w[j * channels + c]);
          sum += term;
          size += std::abs(term);
        }
        got.push_back(p.y[t * channels + c]);
        want.push_back(silu ? sum / (1 + std::exp(-sum)) : sum);
        magnitude.push_back(size);
      }
    return test::compare(got, want, magnitude, 0x1p-20);
  };
  w.add("tern", [=](run& r) {
    data_of& p = data();
    auto const x = tern::view(p.x.data(), 1, length, channels), y = tern::view(p.y.data(), 1, length, channels);
    auto const k = tern::view(p.w.data(), width, channels);
    auto const call = [&] {
      if (silu)
        causal_conv(r.policy(), x, k, y, bias{p.b}, act::silu{});
      else
        causal_conv(r.policy(), x, k, y, bias{p.b});
    };
    r.check([&] {
      call();
      return right(p);
    });
    r.time([&](index) { call(); });
  });
}

}  // namespace

void register_benchmarks() {
  for (bool silu : {false, true})
    for (index length : {1, 256, 16384}) add_causal(length, 1536, silu);
  for (bool first : {false, true})
    for (index channels : {64, 384})
      for (index n : {56, 14})
        for (index k : {3, 7, 13, 31, 51}) add_image(n, k, channels, first);
}

}  // namespace tern::bench
