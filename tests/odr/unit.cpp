// SPDX-License-Identifier: Apache-2.0
// Header-only use: compiled for different architectures under different names, and linked into one program.
#include "unit.hpp"

#include <tern/attention.hpp>
#include <tern/pointwise.hpp>

void UNIT(tern::tensor_view<float const, 3> q, tern::tensor_view<float const, 3> k, tern::tensor_view<float const, 3> v,
          tern::tensor_view<float, 3> out) {
  tern::attention(tern::cpu, q, k, v, out, tern::causal{});
  tern::softmax(tern::cpu, out, out);
}
