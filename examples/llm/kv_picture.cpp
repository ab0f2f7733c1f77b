// SPDX-License-Identifier: Apache-2.0
#include "kv_picture.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>

namespace llm {

namespace {

constexpr double width = 935, height = 560, left = 70, right = 165, top = 20, bottom = 50;
constexpr double least_bytes = 1 / 10., least = 3e-4, most = 2;

double x_of(double bytes) { return left + (width - left - right) * std::log(bytes / least_bytes) / std::log(1 / least_bytes); }
double y_of(double divergence) {
  return top + (height - top - bottom) * std::log(most / std::clamp(divergence, least, most)) / std::log(most / least);
}

void draw_axes(std::ofstream& svg) {
  for (double b : {1 / 8., 1 / 4., 1 / 2., 1.})
    svg << "<line x1='" << x_of(b) << "' x2='" << x_of(b) << "' y1='" << top << "' y2='" << height - bottom << "' stroke='#ddd'/><text x='"
        << x_of(b) << "' y='" << height - bottom + 16 << "' text-anchor='middle'>"
        << (b == 1 ? "1" : "1/" + std::to_string(std::lround(1 / b))) << "</text>\n";
  for (double k : {0.001, 0.01, 0.1, 1.})
    svg << "<line x1='" << left << "' x2='" << x_of(1) << "' y1='" << y_of(k) << "' y2='" << y_of(k) << "' stroke='#ddd'/><text x='"
        << left - 6 << "' y='" << y_of(k) + 4 << "' text-anchor='end'>" << k << "</text>\n";
  svg << "<text x='" << (left + x_of(1)) / 2 << "' y='" << height - 12 << "' text-anchor='middle'>bytes kept, of those of f16</text>\n"
      << "<text x='16' y='" << height / 2 << "' transform='rotate(-90 16 " << height / 2
      << ")' text-anchor='middle'>KL divergence to the full cache</text>\n";
}

}  // namespace

void draw_kv_points(std::vector<kv_point> points, std::string const& path) {
  constexpr double line = 12, indent = 26;
  std::ofstream svg(path);
  svg << "<svg xmlns='http://www.w3.org/2000/svg' width='" << width << "' height='" << height
      << "' font-family='sans-serif' font-size='11'>\n<rect width='100%' height='100%' fill='white'/>\n";
  draw_axes(svg);
  // From the top down, so that a name may be pushed below those above it.
  std::sort(points.begin(), points.end(), [](kv_point const& a, kv_point const& b) { return a.divergence > b.divergence; });
  std::vector<std::pair<double, double>> names;  // where they stand
  for (kv_point const& p : points) {
    double const x = x_of(p.bytes), y = y_of(p.divergence);
    double at = y;
    for (auto const& [other_x, other_y] : names)
      if (std::abs(other_x - x) < 100 && at < other_y + line) at = other_y + line;
    names.emplace_back(x, at);
    char const* const color = p.chooses ? "#c60" : "#06c";
    svg << "<circle cx='" << x << "' cy='" << y << "' r='3' fill='" << color << "'/><line x1='" << x + 3 << "' y1='" << y << "' x2='"
        << x + indent - 3 << "' y2='" << at << "' stroke='" << color << "' stroke-width='0.5'/><text x='" << x + indent << "' y='" << at + 4
        << "'>" << p.name << "</text>\n";
  }
  svg << "</svg>\n";
}

}  // namespace llm
