// SPDX-License-Identifier: Apache-2.0
#include "kv_picture.hpp"

#include "../common/svg_chart.hpp"

#include <algorithm>

namespace llm {

void draw_kv_points(std::vector<kv_point> points, std::string const& path) {
  common::svg_chart chart(path, {1 / 10., 1, {{1 / 8., "1/8"}, {1 / 4., "1/4"}, {1 / 2., "1/2"}, {1, "1"}}, "bytes kept, of those of f16"},
                          {3e-4, 2, {{0.001, "0.001"}, {0.01, "0.01"}, {0.1, "0.1"}, {1, "1"}}, "KL divergence to the full cache"});
  std::sort(points.begin(), points.end(), [](kv_point const& a, kv_point const& b) { return a.divergence > b.divergence; });
  for (kv_point const& p : points) chart.point(p.bytes, p.divergence, p.name, p.chooses ? "#c60" : "#06c");
}

}  // namespace llm
