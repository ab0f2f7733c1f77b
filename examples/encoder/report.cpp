// SPDX-License-Identifier: Apache-2.0
#include "report.hpp"

#include "../common/stopwatch.hpp"
#include "methods.hpp"
#include "report_picture.hpp"
#include "similarity.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <span>
#include <string>

#include <tern/core/error.hpp>

namespace encoder {

using tern::index;

namespace {

constexpr double shares[] = {0.75, 0.5, 0.25};
constexpr index neighbors = 10;
constexpr std::size_t timed_texts = 16;
constexpr int rounds = 5;

struct contestant {
  method const* way;
  double share;
  double cosine = 0, nearest = 0, ten_nearest = 0, speed = 0;
  std::string title() const { return std::string(way->name) + " " + std::to_string(std::lround(100 * share)) + " %"; }
};

using lists = std::vector<std::vector<index>>;

/// The share of the first `count` of each list that the other has among its first `count`.
double agreement(lists const& a, lists const& b, index count) {
  index same = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    for (index j = 0; j < count; ++j) same += std::count(b[i].begin(), b[i].begin() + count, a[i][static_cast<std::size_t>(j)]);
  return static_cast<double>(same) / static_cast<double>(count * static_cast<index>(a.size()));
}

/// How many times as fast as the full model: the two take turns, and the best of each counts.
double speed(std::span<text const> texts, model& network, reduction& fewer) {
  embeddings out(texts.size(), network.width());
  double full = 1e30, reduced = 1e30;
  for (int round = 0; round < rounds; ++round) {
    common::stopwatch const first;
    network.embed(texts, out.view());
    full = std::min(full, first.seconds());
    common::stopwatch const second;
    network.embed(texts, out.view(), &fewer);
    reduced = std::min(reduced, second.seconds());
  }
  return full / reduced;
}

void print_table(std::vector<contestant> const& all) {
  std::puts(
      "| method | other tokens | tokens left | cosine | nearest | ten nearest | speed |\n| --- | --- | --- | --- | --- | --- | "
      "--- |");
  for (contestant const& c : all)
    std::printf("| %s | %s | %.0f %% | %.4f | %.1f %% | %.1f %% | %.2f |\n", c.way->name, c.way->what, 100 * c.share, c.cosine,
                100 * c.nearest, 100 * c.ten_nearest, c.speed);
}

}  // namespace

void report_methods(std::vector<text> const& texts, model& network, tern::cpu_policy const& policy) {
  if (texts.size() <= neighbors) throw tern::error("report: the texts are too short: expected more than ten passages");
  embeddings full(texts.size(), network.width()), reduced(texts.size(), network.width());
  network.embed(texts, full.view());
  auto const wanted = nearest(policy, full, full, neighbors);
  std::vector<contestant> all;
  for (method const& m : methods())
    for (double share : shares) {
      contestant c{&m, share};
      std::fprintf(stderr, "%s\n", c.title().c_str());
      auto const fewer = m.make(share, network.layers());
      network.embed(texts, reduced.view(), fewer.get());
      for (std::size_t i = 0; i < texts.size(); ++i) c.cosine += cosine(full[i], reduced[i]) / static_cast<double>(texts.size());
      auto const found = nearest(policy, reduced, reduced, neighbors);
      c.nearest = agreement(wanted, found, 1);
      c.ten_nearest = agreement(wanted, found, neighbors);
      c.speed = speed(std::span(texts).first(std::min(timed_texts, texts.size())), network, *fewer);
      all.push_back(c);
    }
  std::stable_sort(all.begin(), all.end(), [](contestant const& a, contestant const& b) { return a.cosine > b.cosine; });
  print_table(all);
  std::vector<report_point> points;
  for (contestant const& c : all) points.push_back({c.way->name, c.speed, 1 - c.cosine});
  draw_report(points, "encoder_report.svg");
}

}  // namespace encoder
