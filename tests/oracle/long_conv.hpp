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

/// sum over j of x_j e^(sign 2 pi i j f / n), for all f, without a factor.
std::vector<std::complex<double>> dft(std::vector<std::complex<double>> const& x, int sign);

/// sqrt(sum x^2)
double norm(row const& x);

}  // namespace tern::oracle
