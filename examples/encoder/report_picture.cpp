// SPDX-License-Identifier: Apache-2.0
#include "report_picture.hpp"

#include "../common/svg_chart.hpp"

#include <algorithm>
#include <map>

namespace encoder {

void draw_report(std::vector<report_point> points, std::string const& path) {
  double slowest = 0.95, fastest = 2;
  for (report_point const& p : points) {
    slowest = std::min(slowest, p.speed - 0.05);
    fastest = std::max(fastest, p.speed + 0.05);
  }
  constexpr char const* colors[] = {"#06c", "#c60", "#093", "#a0a", "#777", "#c03", "#0aa", "#850", "#000", "#7a0"};
  common::svg_chart chart(
      path, {slowest, fastest, {{1, "1"}, {1.25, "1.25"}, {1.5, "1.5"}, {1.75, "1.75"}, {2, "2"}}, "speed, times that of the full model"},
      {2e-3,
       0.5,
       {{0.005, "0.005"}, {0.01, "0.01"}, {0.05, "0.05"}, {0.1, "0.1"}, {0.5, "0.5"}},
       "1 - cosine to the embedding of the full model"});
  std::map<std::string, std::vector<std::pair<double, double>>> lines;
  std::map<std::string, char const*> color;
  std::sort(points.begin(), points.end(), [](report_point const& a, report_point const& b) { return a.speed < b.speed; });
  for (report_point const& p : points) {
    color.try_emplace(p.method, colors[color.size() % std::size(colors)]);
    lines[p.method].emplace_back(p.speed, p.distance);
  }
  for (auto const& [name, line] : lines) chart.line(line, color[name]);
  std::stable_sort(points.begin(), points.end(), [](report_point const& a, report_point const& b) { return a.distance > b.distance; });
  for (report_point const& p : points) chart.point(p.speed, p.distance, p.method, color[p.method]);
}

}  // namespace encoder
