// SPDX-License-Identifier: Apache-2.0
#include "oracle/conv.hpp"

#include <cmath>

namespace tern::oracle {
namespace {

using size = std::ptrdiff_t;

/// One output by its definition: all taps, of which those outside of the input count for nothing.
void sum_taps(double const* x, double const* w, size const (&o)[3], conv_spec const& s, double& value, double& magnitude) {
  for (size a = 0; a < s.kernel[0]; ++a)
    for (size b = 0; b < s.kernel[1]; ++b)
      for (size c = 0; c < s.kernel[2]; ++c) {
        size const tap[3] = {a, b, c};
        size at[3];
        bool inside = true;
        for (int d = 0; d < 3; ++d) {
          at[d] = o[d] * s.stride[d] - s.before[d] + tap[d] * s.dilation[d];
          inside = inside && 0 <= at[d] && at[d] < s.in[d];
        }
        if (!inside) continue;
        double const term = x[(at[0] * s.in[1] + at[1]) * s.in[2] + at[2]] * w[(a * s.kernel[1] + b) * s.kernel[2] + c];
        value += term;
        magnitude += std::abs(term);
      }
}

}  // namespace

expected depthwise_conv(vector const& x, vector const& w, vector const& bias, conv_spec const& s) {
  size const inputs = s.in[0] * s.in[1] * s.in[2], taps = s.kernel[0] * s.kernel[1] * s.kernel[2];
  expected e;
  for (size n = 0; n < s.batch; ++n)
    for (size c = 0; c < s.channels; ++c) {
      double const* const image = x.data() + (n * s.channels + c) * inputs;
      double const* const kernel = w.data() + ((s.per_sample ? n * s.channels : 0) + c) * taps;
      size o[3];
      for (o[0] = 0; o[0] < s.out[0]; ++o[0])
        for (o[1] = 0; o[1] < s.out[1]; ++o[1])
          for (o[2] = 0; o[2] < s.out[2]; ++o[2]) {
            double value = bias.empty() ? 0 : bias[static_cast<std::size_t>(c)], magnitude = std::abs(value);
            sum_taps(image, kernel, o, s, value, magnitude);
            e.value.push_back(value);
            e.magnitude.push_back(magnitude);
          }
    }
  return e;
}

}  // namespace tern::oracle
