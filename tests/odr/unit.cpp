// SPDX-License-Identifier: Apache-2.0
// Header-only use: compiled for different architectures under different names, and linked into one program.
#include "unit.hpp"

#include <tern/attention.hpp>
#include <tern/conv/depthwise_conv.hpp>
#include <tern/conv/long_conv.hpp>
#include <tern/fft.hpp>
#include <tern/pointwise.hpp>

void UNIT(tern::tensor_view<float const, 3> q, tern::tensor_view<float const, 3> k, tern::tensor_view<float const, 3> v,
          tern::tensor_view<float, 3> out) {
  tern::attention(tern::cpu, q, k, v, out, tern::causal{});
  tern::workspace memory;
  tern::workspace::lease const lease(memory, static_cast<std::size_t>(out.size()) * sizeof(float));
  auto const filtered = tern::view(reinterpret_cast<float*>(lease.data()), out.extent(0), out.extent(1), out.extent(2));
  tern::long_conv(tern::cpu, out, k[0], filtered);
  tern::depthwise_conv(tern::cpu, filtered, k[0].slice(0, 0, 3), out, tern::same_padding{});
  auto const pairs = tern::view(reinterpret_cast<tern::complex_f32*>(out.data()), out.size() / 2);
  tern::fft(tern::cpu, pairs, pairs);
  tern::fft(tern::cpu, pairs, pairs, tern::fft_direction::inverse);
  tern::softmax(tern::cpu, out, out);
}
