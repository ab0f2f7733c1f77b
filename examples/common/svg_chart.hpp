// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/common/svg_chart.hpp
/// Points with names between two logarithmic axes, as an SVG file.

#include <fstream>
#include <string>
#include <utility>
#include <vector>

namespace common {

struct chart_axis {
  struct tick {
    double value;
    std::string label;
  };
  double least, most;
  std::vector<tick> ticks;
  std::string title;
};

/// Writes while it is called, and ends the file when it goes out of scope.
class svg_chart {
 public:
  svg_chart(std::string const& path, chart_axis x, chart_axis y);
  svg_chart(svg_chart const&) = delete;
  svg_chart& operator=(svg_chart const&) = delete;
  ~svg_chart();

  /// A point, and its name beside it, below the names that are in its way: points are best given from the top down. What lies outside of
  /// the y axis is drawn at its end.
  void point(double x, double y, std::string const& name, char const* color);
  void line(std::vector<std::pair<double, double>> const& points, char const* color);

 private:
  double place_x(double x) const;
  double place_y(double y) const;
  void draw_axes();

  chart_axis x_, y_;
  std::ofstream svg_;
  std::vector<std::pair<double, double>> names_;  // where they stand
};

}  // namespace common
