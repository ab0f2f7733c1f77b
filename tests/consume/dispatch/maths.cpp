// SPDX-License-Identifier: Apache-2.0
#include "kernels.hpp"

#include <tern/dispatch.hpp>

char const* attend(float const* q, float const* kv, float* out, int tokens, int dim) {
  tern::dispatch<app::kernels>().attend(tern::view(q, 1, tokens, dim), tern::view(kv, 1, tokens, dim), tern::view(out, 1, tokens, dim));
  return tern::dispatched_architecture<app::kernels>();
}
