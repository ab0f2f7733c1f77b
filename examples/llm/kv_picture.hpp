// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/llm/kv_picture.hpp
/// Bytes kept against KL divergence, as an SVG file.

#include <string>
#include <vector>

namespace llm {

/// A way to keep keys and values.
struct kv_point {
  std::string name;
  double bytes;       ///< of those of f16
  double divergence;  ///< to the full store
  bool chooses;       ///< whether it chooses among the tokens
};

/// Both axes are logarithmic; points without divergence lie on the lower edge.
void draw_kv_points(std::vector<kv_point> points, std::string const& path);

}  // namespace llm
