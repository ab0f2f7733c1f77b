// SPDX-License-Identifier: Apache-2.0
#include "svg_chart.hpp"

#include <algorithm>
#include <cmath>

namespace common {

namespace {

constexpr double width = 935, height = 560, left = 70, right = 165, top = 20, bottom = 50;

}  // namespace

svg_chart::svg_chart(std::string const& path, chart_axis x, chart_axis y) : x_(std::move(x)), y_(std::move(y)), svg_(path) {
  svg_ << "<svg xmlns='http://www.w3.org/2000/svg' width='" << width << "' height='" << height
       << "' font-family='sans-serif' font-size='11'>\n<rect width='100%' height='100%' fill='white'/>\n";
  draw_axes();
}
svg_chart::~svg_chart() { svg_ << "</svg>\n"; }

double svg_chart::place_x(double x) const { return left + (width - left - right) * std::log(x / x_.least) / std::log(x_.most / x_.least); }
double svg_chart::place_y(double y) const {
  return top + (height - top - bottom) * std::log(y_.most / std::clamp(y, y_.least, y_.most)) / std::log(y_.most / y_.least);
}

void svg_chart::draw_axes() {
  double const end = place_x(x_.most);
  for (auto const& [value, label] : x_.ticks)
    svg_ << "<line x1='" << place_x(value) << "' x2='" << place_x(value) << "' y1='" << top << "' y2='" << height - bottom
         << "' stroke='#ddd'/><text x='" << place_x(value) << "' y='" << height - bottom + 16 << "' text-anchor='middle'>" << label
         << "</text>\n";
  for (auto const& [value, label] : y_.ticks)
    svg_ << "<line x1='" << left << "' x2='" << end << "' y1='" << place_y(value) << "' y2='" << place_y(value)
         << "' stroke='#ddd'/><text x='" << left - 6 << "' y='" << place_y(value) + 4 << "' text-anchor='end'>" << label << "</text>\n";
  svg_ << "<text x='" << (left + end) / 2 << "' y='" << height - 12 << "' text-anchor='middle'>" << x_.title << "</text>\n"
       << "<text x='16' y='" << height / 2 << "' transform='rotate(-90 16 " << height / 2 << ")' text-anchor='middle'>" << y_.title
       << "</text>\n";
}

void svg_chart::point(double x, double y, std::string const& name, char const* color) {
  constexpr double line = 12, indent = 26, name_width = 100;
  double const at_x = place_x(x), at_y = place_y(y);
  double name_y = at_y;
  for (auto const& [other_x, other_y] : names_)
    if (std::abs(other_x - at_x) < name_width && name_y < other_y + line) name_y = other_y + line;
  names_.emplace_back(at_x, name_y);
  svg_ << "<circle cx='" << at_x << "' cy='" << at_y << "' r='3' fill='" << color << "'/><line x1='" << at_x + 3 << "' y1='" << at_y
       << "' x2='" << at_x + indent - 3 << "' y2='" << name_y << "' stroke='" << color << "' stroke-width='0.5'/><text x='" << at_x + indent
       << "' y='" << name_y + 4 << "'>" << name << "</text>\n";
}

void svg_chart::line(std::vector<std::pair<double, double>> const& points, char const* color) {
  svg_ << "<polyline fill='none' stroke='" << color << "' points='";
  for (auto const& [x, y] : points) svg_ << place_x(x) << ',' << place_y(y) << ' ';
  svg_ << "'/>\n";
}

}  // namespace common
