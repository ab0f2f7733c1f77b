// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/encoder/by_head.hpp
/// Rows of tokens, seen by text and by head.

#include <tern/core/tensor_view.hpp>

namespace encoder {

/// (tokens, heads * dim) as (heads, tokens, dim).
inline tern::tensor_view<float, 3> by_head(tern::tensor_view<float, 2> x, tern::index heads) {
  tern::index const dim = x.extent(1) / heads;
  return {x.data(), {{heads, x.extent(0), dim}}, {{dim, x.stride(0), 1}}};
}
/// (texts, tokens, heads * dim) as (texts, heads, tokens, dim).
inline tern::tensor_view<float, 4> by_head(tern::tensor_view<float, 3> x, tern::index heads) {
  tern::index const dim = x.extent(2) / heads;
  return {x.data(), {{x.extent(0), heads, x.extent(1), dim}}, {{x.stride(0), dim, x.stride(1), 1}}};
}
/// (texts * tokens, width) as (texts, tokens, width).
inline tern::tensor_view<float, 3> by_text(tern::tensor_view<float, 2> x, tern::index texts) {
  tern::index const tokens = x.extent(0) / texts;
  return {x.data(), {{texts, tokens, x.extent(1)}}, {{tokens * x.stride(0), x.stride(0), 1}}};
}

}  // namespace encoder
