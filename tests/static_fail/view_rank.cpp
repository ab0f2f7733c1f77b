// SPDX-License-Identifier: Apache-2.0
// fails: tern: a tensor_view has at least one dimension
#include <tern/core/tensor_view.hpp>

#ifdef TERN_MUST_FAIL
tern::tensor_view<float, 0> v;
#else
tern::tensor_view<float, 1> v;
#endif
