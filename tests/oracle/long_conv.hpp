// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/oracle/long_conv.hpp
/// float64 references for the long convolutions and transforms: sums written out as their definitions say, one row at a time.

#include <complex>
#include <cstddef>
#include <vector>

namespace tern::oracle {

using row = std::vector<double>;

/// How y_i counts samples: y_i = sum over j of k_j u_at(i, j).
enum class filter_place { causal, circular, same };

/// y_i for all i, or for those that are listed.
row long_conv(row const& u, row const& k, filter_place place);
row long_conv_at(row const& u, row const& k, filter_place place, std::vector<std::ptrdiff_t> const& which);
/// Gradients of sum_i dy_i y_i.
row long_conv_grad_input(row const& dy, row const& k, filter_place place);
row long_conv_grad_filter(row const& dy, row const& u, std::ptrdiff_t taps, filter_place place);

/// Taps `which` of the filter of `places` taps that is left of k when those of its frequencies (4 f + 1) / (2 places), f < places / 2,
/// become zeros whose remainder f mod classes is not below `kept`.
row sparse_filter(row const& k, std::ptrdiff_t places, int kept, int classes, std::vector<std::ptrdiff_t> const& which);
/// All taps of the same for kept = 1, by the sums that the first class leaves of k's parts: what is fast for long filters.
row first_class_filter(row const& k, std::ptrdiff_t places, int classes);
/// y_i = sum over m of k_(i + origin - m) u_m for i < u's length, where k_(j - places) = -k_j.
row twisted_conv(row const& u, row const& k, std::ptrdiff_t origin);
row twisted_conv_at(row const& u, row const& k, std::ptrdiff_t origin, std::vector<std::ptrdiff_t> const& which);

/// sum over j of x_j e^(sign 2 pi i j f / n), for all f, without a factor.
std::vector<std::complex<double>> dft(std::vector<std::complex<double>> const& x, int sign);

/// sqrt(sum x^2)
double norm(row const& x);

}  // namespace tern::oracle
