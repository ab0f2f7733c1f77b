// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <tern/core/tensor_view.hpp>

namespace app {
struct kernels {
  void (*attend)(tern::tensor_view<float const, 3> q, tern::tensor_view<float const, 3> kv, tern::tensor_view<float, 3> out);
};
}  // namespace app
