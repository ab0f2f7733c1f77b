// SPDX-License-Identifier: Apache-2.0
// Compiled once for each architecture.
#include "families.hpp"

#include <tern/attention.hpp>
#include <tern/conv/depthwise_conv.hpp>
#include <tern/conv/long_conv.hpp>
#include <tern/dispatch.hpp>
#include <tern/fft.hpp>
#include <tern/matmul.hpp>
#include <tern/pointwise.hpp>

namespace {

using matrix = tern::tensor_view<float const, 2>;
using tensor = tern::tensor_view<float const, 3>;

void attend(tensor q, tensor k, tensor v, tern::tensor_view<float, 3> out, tern::tensor_view<float, 2> lse) {
  tern::attention(tern::cpu, q, k, v, out, tern::causal{}, tern::log_sum_exp(lse));
}
void rms_norm(matrix x, tern::tensor_view<float const, 1> weight, tern::tensor_view<float, 2> y) {
  tern::rms_norm(tern::cpu, x, weight, y);
}
void swiglu(matrix gate, matrix up, tern::tensor_view<float, 2> y) { tern::swiglu(tern::cpu, gate, up, y); }
void softmax(matrix x, tern::tensor_view<float, 2> y) { tern::softmax(tern::cpu, x, y); }
void matmul(matrix x, tern::block_matrix const& w, tern::tensor_view<float, 2> y, bool int8) {
  tern::matmul(tern::cpu, x, w, y, int8 ? tern::compute::int8 : tern::compute::f32);
}

void depthwise_conv(tern::tensor_view<float const, 4> x, tern::tensor_view<float const, 3> w, tern::tensor_view<float, 4> y) {
  tern::depthwise_conv(tern::cpu, x, w, y, tern::same_padding{});
}
void long_conv(matrix u, matrix k, tern::tensor_view<float, 2> y) { tern::long_conv(tern::cpu, u, k, y); }

tern::tensor_view<tern::complex_f32, 2> pairs(tern::tensor_view<float, 3> y) {
  return tern::view(reinterpret_cast<tern::complex_f32*>(y.data()), y.extent(0), y.extent(1));
}
void fft(tensor x, tern::tensor_view<float, 3> y) {
  tern::fft(tern::cpu, tern::view(reinterpret_cast<tern::complex_f32 const*>(x.data()), x.extent(0), x.extent(1)), pairs(y));
}
void real_fft(matrix x, tern::tensor_view<float, 3> y) { tern::real_fft(tern::cpu, x, pairs(y)); }

}  // namespace

TERN_DISPATCH(families, {.attend = attend,
                         .rms_norm = rms_norm,
                         .swiglu = swiglu,
                         .softmax = softmax,
                         .matmul = matmul,
                         .depthwise_conv = depthwise_conv,
                         .long_conv = long_conv,
                         .fft = fft,
                         .real_fft = real_fft});
