// SPDX-License-Identifier: Apache-2.0
#include "similarity.hpp"

#include <tern/matmul.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace encoder {

using tern::index;

double cosine(tern::tensor_view<float const, 1> a, tern::tensor_view<float const, 1> b) {
  double ab = 0, aa = 0, bb = 0;
  for (index i = 0; i < a.extent(0); ++i) {
    double const x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    ab += x * y;
    aa += x * x;
    bb += y * y;
  }
  return ab / std::sqrt(aa * bb);
}

std::vector<std::vector<index>> nearest(tern::cpu_policy const& policy, embeddings const& of, embeddings const& among, index count) {
  std::vector<float> products(static_cast<std::size_t>(of.texts() * among.texts()));
  auto const cosines = tern::view(products, of.texts(), among.texts());
  tern::matmul(policy, of.view(), among.view(), cosines);
  std::vector<std::vector<index>> all;
  for (index i = 0; i < of.texts(); ++i) {
    auto& order = all.emplace_back(static_cast<std::size_t>(among.texts()));
    std::iota(order.begin(), order.end(), index{0});
    if (&of == &among) order.erase(order.begin() + i);
    auto const end = order.begin() + std::min(count, static_cast<index>(order.size()));
    auto const nearer = [&](index a, index b) { return cosines(i, a) != cosines(i, b) ? cosines(i, a) > cosines(i, b) : a < b; };
    std::partial_sort(order.begin(), end, order.end(), nearer);
    order.erase(end, order.end());
  }
  return all;
}

}  // namespace encoder
