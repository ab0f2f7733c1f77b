// SPDX-License-Identifier: Apache-2.0
#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <complex>
#include <numeric>
#include <oracle/pointwise.hpp>

namespace tern::oracle {
namespace {

using array = Eigen::ArrayXd;
using Eigen::Index;

Eigen::Map<array const> whole(vector const& x) { return {x.data(), static_cast<Index>(x.size())}; }

template <class Row>
expected by_row(vector const& x, Index n, Row row) {
  expected e{vector(x.size()), vector(x.size())};
  for (std::size_t at = 0; n != 0 && at < x.size(); at += static_cast<std::size_t>(n)) {
    Eigen::Map<array> value(e.value.data() + at, n), magnitude(e.magnitude.data() + at, n);
    row(Eigen::Map<array const>(x.data() + at, n), value, magnitude);
  }
  return e;
}

}  // namespace

expected rms_norm(vector const& x, vector const& weight, double eps) {
  return by_row(x, whole(weight).size(), [&](auto const& in, auto& y, auto& magnitude) {
    y = in / std::sqrt(in.square().mean() + eps) * whole(weight);
    magnitude = y.abs();
  });
}

expected layer_norm(vector const& x, vector const& weight, vector const& bias, double eps) {
  return by_row(x, whole(weight).size(), [&](auto const& in, auto& y, auto& magnitude) {
    array const d = in - in.mean();
    double const sigma = std::sqrt(d.square().mean() + eps);
    y = d / sigma * whole(weight) + whole(bias);
    magnitude = d.abs().maxCoeff() / sigma * whole(weight).abs() + whole(bias).abs();
  });
}

expected softmax(vector const& x, std::ptrdiff_t n, double scale) {
  return by_row(x, n, [&](auto const& in, auto& y, auto& magnitude) {
    array const t = in * scale;
    if (t.maxCoeff() == -INFINITY)
      y.setZero();
    else
      y = (t - t.maxCoeff()).exp();
    if (y.sum() != 0) y /= y.sum();
    magnitude = y;
  });
}

expected swiglu(vector const& gate, vector const& up) {
  array const y = whole(gate) / (1 + (-whole(gate)).exp()) * whole(up);
  array const magnitude = y.abs();
  return {{y.begin(), y.end()}, {magnitude.begin(), magnitude.end()}};
}

vector rope_angles(double position, rope_spec const& spec) {
  vector theta;
  for (std::ptrdiff_t i = 0; i < spec.d / 2; ++i) {
    double const angle = position * spec.scale * std::pow(spec.base, -2.0 * static_cast<double>(i) / static_cast<double>(spec.d));
    theta.push_back(spec.factors.empty() ? angle : angle / spec.factors[static_cast<std::size_t>(i)]);
  }
  return theta;
}

expected rope(vector const& x, vector const& positions, rope_spec const& spec) {
  std::size_t row = 0;
  return by_row(x, spec.n, [&](auto const& in, auto& y, auto& magnitude) {
    y = in;
    magnitude = in.abs();
    vector const theta = rope_angles(positions[row++], spec);
    for (Index i = 0; i < spec.d / 2; ++i) {
      Index const a = spec.half ? i : 2 * i, b = spec.half ? i + spec.d / 2 : 2 * i + 1;
      auto const turned = std::complex<double>(in[a], in[b]) * std::polar(spec.magnitude, theta[static_cast<std::size_t>(i)]);
      y[a] = turned.real();
      y[b] = turned.imag();
      magnitude[a] = magnitude[b] = (std::abs(in[a]) + std::abs(in[b])) * spec.magnitude;
    }
  });
}

vector sampling(vector const& logits, double temperature, std::ptrdiff_t top_k, double top_p, double min_p) {
  std::vector<std::size_t> order(logits.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return logits[a] > logits[b]; });
  if (top_k > 0 && static_cast<std::size_t>(top_k) < order.size()) order.resize(static_cast<std::size_t>(top_k));

  vector p(logits.size(), 0.0);
  double total = 0;
  for (auto i : order) total += p[i] = std::exp((logits[i] - logits[order[0]]) / temperature);
  double sum = 0;
  bool enough = false;
  for (auto i : order) {
    double const weight = p[i];
    if (enough || weight < min_p) p[i] = 0;
    sum += weight;
    if (top_p < 1 && sum >= top_p * total) enough = true;
  }
  double const kept = whole(p).sum();
  for (double& q : p) q /= kept;
  return p;
}

}  // namespace tern::oracle
