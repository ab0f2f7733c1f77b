// SPDX-License-Identifier: Apache-2.0
// Fourier transforms, forward: complex and real, of one and two dimensions, one alone and many of one length; lengths that are powers of
// two, three times those, of several small factors, and primes. Plans are made beforehand for all implementations. Operations are
// 5 n log2 n of a complex transform, as is the custom, and half of that of a real one.
#include "fft_peers.hpp"
#include "harness.hpp"
#include "inputs.hpp"

#include <tern/fft.hpp>

#include <cmath>
#include <string>

namespace tern::bench {
namespace {

using complex = std::complex<float>;

struct problem {
  fft_shape s;
  buffer<float> x, y;
  fft_plan across;
  fft_plan along;
  real_fft_plan real_along;

  explicit problem(fft_shape const& shape)
      : s(shape), x(fast_normal(s.x_floats())), y(s.y_floats()), across(s.rows), along(s.real ? 1 : s.n), real_along(s.real ? s.n : 1) {}

  /// What plans that are measured have overwritten.
  void fill() {
    auto const values = fast_normal(s.x_floats());
    std::copy(values.begin(), values.end(), x.begin());
    std::fill(y.begin(), y.end(), std::nanf(""));
  }
  void run_tern(cpu_policy const& policy) {
    auto* const to = reinterpret_cast<complex*>(y.data());
    auto const from = [&] { return reinterpret_cast<complex*>(x.data()); };
    auto const bins = tern::view(to, s.count, s.rows, s.bins());
    if (s.real && s.rows > 1)
      real_fft_2d(policy, across, real_along, tern::view(x.data(), s.count, s.rows, s.n), bins);
    else if (s.real)
      real_fft(policy, real_along, tern::view(x.data(), s.count, s.n), bins.slice(1, 0, 1));
    else if (s.rows > 1)
      fft_2d(policy, across, along, tern::view(from(), s.count, s.rows, s.n), bins);
    else
      fft(policy, along, tern::view(from(), s.count, s.n), bins.slice(1, 0, 1));
  }
  /// Some bins of the last transform against their definition, `times` as far as tern's bound goes.
  bool right(double times) const {
    double const bound = times * (real_along.error() + along.error() + across.error()) * norm();
    index const first = (s.count - 1) * s.rows;
    for (index g : sample(s.rows, 3))
      for (index f : sample(s.bins(), 4)) {
        std::complex<double> want = 0;
        for (index r = 0; r < s.rows; ++r)
          for (index j = 0; j < s.n; ++j) {
            index const at = (first + r) * s.n + j;
            std::complex<double> const e = s.real ? std::complex<double>(x[at]) : std::complex<double>(x[2 * at], x[2 * at + 1]);
            double const turns = static_cast<double>(j * f % s.n) / static_cast<double>(s.n) +
                                 static_cast<double>(r * g % s.rows) / static_cast<double>(s.rows);
            want += e * std::polar(1.0, -6.283185307179586 * turns);
          }
        index const at = 2 * ((first + g) * s.bins() + f);
        if (!(std::abs(want - std::complex<double>(y[at], y[at + 1])) <= bound)) return false;
      }
    return true;
  }

 private:
  double norm() const {
    double sum = 0;
    for (index i = s.x_floats() / s.count * (s.count - 1); i < s.x_floats(); ++i)
      sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    return std::sqrt(sum);
  }
};

/// Whether Eigen's transform takes less than minutes: it sums over each prime factor in full.
bool eigen_takes(index n) {
  for (index r = 2; r * r <= n; ++r)
    while (n % r == 0 && n > r) n /= r;
  return n < 100;
}

room data;
room plans;

void add(std::string const& name, fft_shape const& s) {
  auto get = [=]() -> problem& { return data.get((s.real ? "real/" : "complex/") + name, [=] { return problem(s); }); };
  auto const points = static_cast<double>(s.rows * s.n), count = static_cast<double>(s.count);
  workload const w{.op = s.real ? "real_fft" : "fft",
                   .name = name,
                   .flops = (s.real ? 2.5 : 5) * points * std::log2(points) * count,
                   .bytes = 4 * static_cast<double>(s.x_floats() + s.y_floats())};
  w.add("tern", [=](run& r) {
    problem& p = get();
    p.fill();
    r.check([&] {
      p.run_tern(r.policy());
      return p.right(1);
    });
    r.time([&](index) { p.run_tern(r.policy()); });
  });
  [[maybe_unused]] auto const add_peer = [&](workload const& with, char const* peer, auto make) {
    with.add(peer, [=](run& r) {
      problem& p = get();
      auto& transform = plans.get(r.name(), [&] { return make(p, r.threads()); });
      p.fill();
      r.check([&] {
        transform.forward();
        return p.right(8);  // MKL's real transform of a million points is that far off in its first bins
      });
      r.time([&](index) { transform.forward(); });
    });
  };
  workload alone = w;
  alone.threads = {1};
#if TERN_BENCH_HAVE_FFTW
  add_peer(alone, "fftw", [=](problem& p, int) { return fftw_transform(s, p.x.data(), p.y.data()); });
#endif
#if TERN_BENCH_HAVE_MKL
  add_peer(w, "mkl", [=](problem& p, int threads) { return mkl_transform(s, p.x.data(), p.y.data(), threads); });
#endif
#if TERN_BENCH_HAVE_EIGEN
  if (s.rows == 1 && eigen_takes(s.n))
    add_peer(alone, "eigen", [=](problem& p, int) { return eigen_transform(s, p.x.data(), p.y.data()); });
#endif
}

void add_lengths(bool real, index count, std::initializer_list<index> lengths) {
  for (index n : lengths) {
    std::string name = count > 1 ? "b" + std::to_string(count) : "";
    name += count > 1 ? "_f32_n" : "f32_n";
    add(name + std::to_string(n), {real, count, 1, n});
  }
}

}  // namespace

void register_benchmarks() {
  for (bool real : {false, true}) {
    add_lengths(real, 1, {64, 256, 1024, 3072, 4096, 10000, 16384, 65536, 196608, 1048576});
    add_lengths(real, 1, {1009, 65537});
    add_lengths(real, 64, {64, 256, 1024, 1009, 3072, 16384});
    for (index n : {64, 256, 384, 1024}) add("2d_f32_n" + std::to_string(n), {real, 1, n, n});
  }
}

}  // namespace tern::bench
