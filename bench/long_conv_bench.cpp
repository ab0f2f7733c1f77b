// SPDX-License-Identifier: Apache-2.0
// Long convolutions of 64 channels, the filter's spectrum made beforehand for all implementations. The peers compute on one thread: a
// channel at a time in buffers that stay in cache (fftw, mkl, eigen), or FFTW all channels in one plan (fftw_batched).
//
// of_three_passes: bytes that are moved beyond a core's cache over those of a transform in three passes, counted from the plan
// (long_traffic.hpp), not measured. sparse_1of4: of the filter's spectrum a quarter is kept; `causal` is all of it.
#include "fft_convolution.hpp"
#include "harness.hpp"
#include "inputs.hpp"
#include "long_traffic.hpp"
#include "oracle/long_conv.hpp"

#include <tern/conv/long_conv.hpp>
#include <tern/conv/systems/flash_fft_conv.hpp>

#include <cmath>
#include <string>

namespace tern::bench {
namespace {

struct problem {
  index channels, n, taps;
  long_mode mode;
  sparse_spectrum spectrum;
  buffer<float> u, w, v, k, y;
  long_filter filter;

  problem(index c, index length, index count, long_mode m, bool gated, sparse_spectrum s)
      : channels(c),
        n(length),
        taps(count),
        mode(m),
        spectrum(s),
        u(fast_normal(c * n)),
        w(fast_normal(gated ? c * n : 1, 1, 3)),
        v(fast_normal(gated ? c * n : 1, 1, 4)),
        k(fast_normal(c * taps, 1, 2)),
        y(c * n),
        filter(cpu, tern::view(k.data(), c, count), length, m, s) {}

  tensor_view<float, 2> rows(buffer<float>& b) { return tern::view(b.data(), channels, n); }
  /// Some results of two channels; the gates are normal numbers, of which none exceeds 5.
  bool right(bool gated) {
    for (index c : {index{0}, channels - 1}) {
      oracle::row x, f(k.data() + c * taps, k.data() + (c + 1) * taps);
      for (index i = 0; i < n; ++i) x.push_back(static_cast<double>(u[c * n + i]) * (gated ? static_cast<double>(w[c * n + i]) : 1));
      auto const which = sample(n, 5);
      auto const place = mode == long_mode::circular ? oracle::filter_place::circular : oracle::filter_place::causal;
      auto const want = spectrum.classes > 1 ? oracle::twisted_conv_at(x, left_of(f), 0, which) : oracle::long_conv_at(x, f, place, which);
      double const bound = long_conv.error(n + taps) * oracle::norm(x) * oracle::norm(f) * (gated ? 5 : 1);
      for (std::size_t i = 0; i < which.size(); ++i) {
        double const gate = gated ? static_cast<double>(v[c * n + which[i]]) : 1;
        if (!(std::abs(static_cast<double>(y[c * n + which[i]]) - gate * want[i]) <= bound)) return false;
      }
    }
    return true;
  }
  /// The filter that one of some classes leaves of f.
  oracle::row left_of(oracle::row const& f) const {
    return oracle::first_class_filter(f, 2 * filter.filters().plan.points(), spectrum.classes);
  }
};

room data;
room plans;

/// What a peer is given: the workload, its problem, and the kind of convolution.
struct peer_case {
  workload w;
  std::function<problem&()> get;
  bool circular, gated;
};
template <class Transform>
void add_peer(peer_case const& c, char const* name, bool batched = false) {
  workload alone = c.w;
  alone.threads = {1};
  alone.add(name, [=](run& r) {
    problem& p = c.get();
    auto& f = plans.get(r.name(), [&] { return fft_convolution<Transform>(p.channels, p.n, p.taps, c.circular, batched, p.k.data()); });
    auto const call = [&](index) { f(p.u.data(), c.gated ? p.w.data() : nullptr, c.gated ? p.v.data() : nullptr, p.y.data()); };
    std::fill(p.y.begin(), p.y.end(), std::nanf(""));
    r.check([&] {
      call(0);
      return p.right(c.gated);
    });
    r.time(call);
  });
}

void add(std::string const& kind, index n, index taps, long_mode mode, bool gated, sparse_spectrum spectrum = {}) {
  index const channels = 64;
  std::string const name = kind + "_f32_c64_n" + std::to_string(n);
  double const samples = static_cast<double>(channels * n);
  auto get = [=]() -> problem& { return data.get(name, [=] { return problem(channels, n, taps, mode, gated, spectrum); }); };
  tern::detail::long_layout const l = tern::detail::layout_of(mode, n, taps, spectrum);
  double const kept = static_cast<double>(spectrum.kept) / spectrum.classes;
  auto const points = static_cast<double>(l.folds > 0 ? n : 2 * (index{l.odd} << l.halvings) * simd::lanes);  // of a block
  workload const w{
      .op = "long_conv",
      .name = name,
      .flops = kept * 5 * points * std::log2(points) * static_cast<double>(channels * l.blocks),  // two real transforms a block
      .bytes = (gated ? 16 : 8) * samples + kept * 4 * points * static_cast<double>(channels)};   // u, y, gates, a spectrum
  w.add("tern", [=](run& r) {
    problem& p = get();
    auto const call = [&](index) {
      if (gated)
        flash_fft_conv(r.policy(), p.rows(p.u), p.filter, p.rows(p.w), p.rows(p.v), p.rows(p.y));
      else
        long_conv(r.policy(), p.rows(p.u), p.filter, p.rows(p.y));
    };
    r.check([&] {
      call(0);
      return p.right(gated);
    });
    r.time(call);
    long_traffic const t(p.filter.filters(), gated ? 2 : 0);
    r.state().counters["of_three_passes"] = t.planned / t.three_passes;
  });
  if (spectrum.classes > 1) return;  // the peers' transforms have no parts to leave out
  [[maybe_unused]] peer_case const c{w, get, mode == long_mode::circular, gated};
#if TERN_BENCH_HAVE_FFTW
  add_peer<fftw_transform>(c, "fftw");
  if (n <= 65536) add_peer<fftw_transform>(c, "fftw_batched", true);  // else gigabytes
#endif
#if TERN_BENCH_HAVE_MKL
  add_peer<mkl_transform>(c, "mkl");
#endif
#if TERN_BENCH_HAVE_EIGEN
  add_peer<eigen_transform>(c, "eigen");
#endif
}

}  // namespace

void register_benchmarks() {
  for (index n : {1024, 3000, 4096, 16384, 65536, 100003, 262144, 1048576}) add("causal", n, n, long_mode::causal, false);
  for (index n : {4096, 65536}) {
    add("gated", n, n, long_mode::causal, true);
    add("circular", n, n, long_mode::circular, false);
  }
  for (index n : {4096, 65536, 1048576}) {
    add("eighth", n, n / 8, long_mode::causal, false);
    for (int classes : {2, 4, 8}) add("sparse_1of" + std::to_string(classes), n, n, long_mode::causal, false, sparse_spectrum{1, classes});
  }
}

}  // namespace tern::bench
