// SPDX-License-Identifier: Apache-2.0
#include "kernels.hpp"

#include <tern/attention.hpp>
#include <tern/dispatch.hpp>

namespace {
void attend(tern::tensor_view<float const, 3> q, tern::tensor_view<float const, 3> kv, tern::tensor_view<float, 3> out) {
  tern::attention(tern::cpu, q, kv, kv, out, tern::causal{});
}
}  // namespace

TERN_DISPATCH(app::kernels, {.attend = attend});
