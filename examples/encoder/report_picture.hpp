// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/encoder/report_picture.hpp
/// Speed against what it costs, as an SVG file.

#include <string>
#include <vector>

namespace encoder {

/// A method at one share of tokens.
struct report_point {
  std::string method;
  double speed;     ///< times the full model's
  double distance;  ///< 1 - cosine to the full model
};

/// Points of a method are joined by a line, in the order in which they are faster.
void draw_report(std::vector<report_point> points, std::string const& path);

}  // namespace encoder
