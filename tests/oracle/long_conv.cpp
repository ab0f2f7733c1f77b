// SPDX-License-Identifier: Apache-2.0
#include "oracle/long_conv.hpp"

#include <cmath>
#include <numbers>

namespace tern::oracle {

namespace {
using index = std::ptrdiff_t;

double at(row const& x, index i) { return x[static_cast<std::size_t>(i)]; }
index size(row const& x) { return static_cast<index>(x.size()); }

/// The sample that tap j of K meets in result i of n; -1 if there is none.
index sample_of(index i, index j, index n, index taps, filter_place place) {
  index const s = i - j + (place == filter_place::same ? (taps - 1) / 2 : 0);
  if (place == filter_place::circular) return ((s % n) + n) % n;
  return s >= 0 && s < n ? s : -1;
}
double result(row const& u, row const& k, filter_place place, index i) {
  double sum = 0;
  for (index j = 0; j < size(k); ++j) {
    index const s = sample_of(i, j, size(u), size(k), place);
    if (s >= 0) sum += at(k, j) * at(u, s);
  }
  return sum;
}
}  // namespace

row long_conv(row const& u, row const& k, filter_place place) {
  row y;
  for (index i = 0; i < size(u); ++i) y.push_back(result(u, k, place, i));
  return y;
}

row long_conv_at(row const& u, row const& k, filter_place place, std::vector<index> const& which) {
  row y;
  for (index i : which) y.push_back(result(u, k, place, i));
  return y;
}

row long_conv_grad_input(row const& dy, row const& k, filter_place place) {
  row du(dy.size(), 0.0);
  for (index i = 0; i < size(dy); ++i)
    for (index j = 0; j < size(k); ++j) {
      index const s = sample_of(i, j, size(dy), size(k), place);
      if (s >= 0) du[static_cast<std::size_t>(s)] += at(dy, i) * at(k, j);
    }
  return du;
}

row long_conv_grad_filter(row const& dy, row const& u, index taps, filter_place place) {
  row dk(static_cast<std::size_t>(taps), 0.0);
  for (index i = 0; i < size(dy); ++i)
    for (index j = 0; j < taps; ++j) {
      index const s = sample_of(i, j, size(dy), taps, place);
      if (s >= 0) dk[static_cast<std::size_t>(j)] += at(dy, i) * at(u, s);
    }
  return dk;
}

std::vector<std::complex<double>> dft(std::vector<std::complex<double>> const& x, int sign) {
  std::size_t const n = x.size();
  std::vector<std::complex<double>> root(n), y(n);
  for (std::size_t j = 0; j < n; ++j)
    root[j] = std::polar(1.0, sign * 2 * std::numbers::pi * static_cast<double>(j) / static_cast<double>(n));
  for (std::size_t f = 0; f < n; ++f)
    for (std::size_t j = 0; j < n; ++j) y[f] += x[j] * root[j * f % n];
  return y;
}

double norm(row const& x) {
  double sum = 0;
  for (double e : x) sum += e * e;
  return std::sqrt(sum);
}

}  // namespace tern::oracle
