// SPDX-License-Identifier: Apache-2.0
#include "oracle/long_conv.hpp"

#include <cmath>
#include <numbers>
#include <numeric>

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

row sparse_filter(row const& k, index places, int kept, int classes, std::vector<index> const& which) {
  std::vector<std::complex<double>> roots;  // e^(2 pi i m / (2 places))
  for (index m = 0; m < 2 * places; ++m)
    roots.push_back(std::polar(1.0, std::numbers::pi * static_cast<double>(m) / static_cast<double>(places)));
  row taps(which.size(), 0.0);
  for (index f = 0; f < places / 2; ++f) {
    if (f % classes >= kept) continue;
    auto const root = [&](index j) { return roots[static_cast<std::size_t>(j * (4 * f + 1) % (2 * places))]; };
    std::complex<double> spectrum = 0;
    for (index j = 0; j < size(k); ++j) spectrum += at(k, j) * root(j);
    for (std::size_t i = 0; i < which.size(); ++i)
      taps[i] += (spectrum * std::conj(root(which[i]))).real() * 2 / static_cast<double>(places);
  }
  return taps;
}

row first_class_filter(row const& k, index places, int classes) {
  // Where f is a multiple of `classes`, places / (2 classes) samples turn e^(2 pi i (4 f + 1) / (2 places)) by a quarter of 1 / classes.
  index const half = places / 2, part = half / classes;
  auto const tap = [&](index j) { return j < size(k) ? at(k, j) : 0.0; };
  auto const turned = [&](index m) { return std::polar(1.0, std::numbers::pi / 2 * static_cast<double>(m) / classes); };
  row left(static_cast<std::size_t>(places), 0.0);
  for (index j = 0; j < part; ++j) {
    std::complex<double> sum = 0;
    for (index m = 0; m < classes; ++m) sum += std::complex<double>(tap(j + m * part), tap(j + m * part + half)) * turned(m);
    for (index m = 0; m < classes; ++m) {
      std::complex<double> const x = sum * std::conj(turned(m)) / static_cast<double>(classes);
      left[static_cast<std::size_t>(j + m * part)] = x.real();
      left[static_cast<std::size_t>(j + m * part + half)] = x.imag();
    }
  }
  return left;
}

row twisted_conv_at(row const& u, row const& k, index origin, std::vector<index> const& which) {
  row y;
  index const places = size(k);
  for (index i : which) {
    double sum = 0;
    for (index m = 0; m < size(u); ++m) {
      index const j = i + origin - m;
      sum += at(u, m) * (j < 0 ? -at(k, j + places) : j < places ? at(k, j) : -at(k, j - places));
    }
    y.push_back(sum);
  }
  return y;
}
row twisted_conv(row const& u, row const& k, index origin) {
  std::vector<index> all(u.size());
  std::iota(all.begin(), all.end(), index{0});
  return twisted_conv_at(u, k, origin, all);
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
