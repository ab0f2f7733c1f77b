// SPDX-License-Identifier: Apache-2.0
#include "requantize.hpp"

#include <tern/quantize.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <utility>

namespace llm {

using tern::index;
using tern::weight_type;

namespace {

constexpr std::size_t most_calibrating = 16, most_scored = 8;

constexpr weight_type all_formats[] = {weight_type::q8_0,  weight_type::q6_k, weight_type::q5_k, weight_type::q5_1,   weight_type::q5_0,
                                       weight_type::q4_k,  weight_type::q4_1, weight_type::q4_0, weight_type::iq4_nl, weight_type::iq4_xs,
                                       weight_type::mxfp4, weight_type::q3_k, weight_type::q2_k};

std::vector<weight_type> parse_formats(std::string_view list) {
  std::vector<weight_type> found(std::begin(all_formats), std::end(all_formats));
  if (list == "all") return found;
  found.clear();
  while (!list.empty()) {
    std::string_view const name = list.substr(0, list.find(','));
    auto const* const type =
        std::find_if(std::begin(all_formats), std::end(all_formats), [&](weight_type t) { return info(t).name == name; });
    if (type == std::end(all_formats)) {
      std::string known;
      for (weight_type t : all_formats) known += std::string(" ") + info(t).name;
      throw tern::error("llm: --requantize has " + std::string(name) + ", expected all or some of" + known);
    }
    found.push_back(*type);
    list.remove_prefix(std::min(list.size(), name.size() + 1));
  }
  return found;
}

/// What a matrix of k columns gets where `type` is asked for.
weight_type fitting(weight_type type, index k) {
  if (k % info(type).elements == 0) return type;
  switch (type) {
    case weight_type::q4_k:
      return weight_type::q5_0;
    case weight_type::q5_k:
      return weight_type::q5_1;
    case weight_type::q6_k:
      return weight_type::q8_0;
    default:
      return weight_type::iq4_nl;
  }
}

void show_progress(char const* what, std::size_t done, std::size_t total) {
  std::size_t const part = 30 * done / total;
  std::fprintf(stderr, "\r[%s%s] %-40s", std::string(part, '#').c_str(), std::string(30 - part, '.').c_str(), what);
}

using feedbacks = std::vector<std::vector<tern::feedback>>;  // [layer][input]

/// What the layers' inputs are when the model reads the windows.
feedbacks calibrate(model& network, tern::cpu_policy const& policy, std::vector<window> const& windows) {
  std::vector<std::map<model::input, tern::calibration>> seen(static_cast<std::size_t>(network.layers()));
  network.observe([&](index layer, model::input what, tern::tensor_view<float const, 2> x) {
    seen[static_cast<std::size_t>(layer)].try_emplace(what, x.extent(1)).first->second.add(policy, x);
  });
  for (std::size_t w = 0; w < windows.size(); ++w) {
    show_progress("calibrating", w, windows.size());
    network.rewind();
    network.read(windows[w], 0);
  }
  network.observe({});
  feedbacks all;
  for (auto& layer : seen) {
    show_progress("factorizing", all.size(), seen.size());
    auto& of_layer = all.emplace_back();
    for (auto const& [what, moments] : layer) of_layer.emplace_back(policy, moments);
    layer.clear();
  }
  return all;
}

/// A matrix of a layer, and which inputs it multiplies.
struct place {
  model::weight model::matrices::*weight;
  model::input input;
};
constexpr place places[] = {{&model::matrices::query, model::input::attention},   {&model::matrices::key, model::input::attention},
                            {&model::matrices::value, model::input::attention},   {&model::matrices::out, model::input::out},
                            {&model::matrices::gate, model::input::feed_forward}, {&model::matrices::up, model::input::feed_forward},
                            {&model::matrices::down, model::input::down}};

/// The layers' matrices in one format.
struct quantized_layers {
  std::vector<tern::block_array> arrays;  // layer by layer, in the order of `places`
  double bytes = 0, weights = 0;
  weight_type substitute;  // of matrices that the format does not fit

  quantized_layers(std::vector<model::matrices> const& originals, tern::cpu_policy const& policy, weight_type type, feedbacks const* errors)
      : substitute(type) {
    for (std::size_t l = 0; l < originals.size(); ++l)
      for (place const& p : places) {
        tern::block_matrix const& from = (originals[l].*p.weight).matrix;
        std::vector<float> w(static_cast<std::size_t>(from.rows * from.columns));
        for (index i = 0; i < from.rows; ++i) tern::decode(from, i, w.data() + i * from.columns);
        auto const view = tern::view(w.data(), from.rows, from.columns);
        weight_type const fits = fitting(type, from.columns);
        if (fits != type) substitute = fits;
        arrays.push_back(errors != nullptr ? tern::gptq(policy, view, (*errors)[l][static_cast<std::size_t>(p.input)], fits)
                                           : tern::round_to_nearest(policy, view, fits));
        bytes += static_cast<double>(arrays.back().size());
        weights += static_cast<double>(w.size());
      }
  }
  void put_into(model& network) const {
    for (std::size_t i = 0; i < arrays.size(); ++i)
      network.layer_matrices(static_cast<index>(i / std::size(places))).*places[i % std::size(places)].weight =
          tern::block_matrix(arrays[i]);
  }
};

struct table_row {
  std::string format;
  char const* method;
  double bytes;
  quality quality_;
  rates rates_;
};

/// The best of three, each.
rates best_rates(model& network) {
  rates best{};
  for (int i = 0; i < 3; ++i) {
    rates const r = measure_rates(network, 256, 32);
    best = {std::max(best.prompt, r.prompt), std::max(best.generation, r.generation)};
  }
  return best;
}

std::string name_of(weight_type type, weight_type substitute) {
  return type == substitute ? info(type).name : std::string(info(type).name) + " / " + info(substitute).name;
}

void print(std::vector<table_row> rows) {
  std::stable_sort(rows.begin(), rows.end(),
                   [](table_row const& a, table_row const& b) { return a.quality_.divergence < b.quality_.divergence; });
  std::puts("| format | method | bytes a weight | perplexity | KL divergence | top-1 agreement | prompt tokens/s | generation tokens/s |");
  std::puts("| --- | --- | --- | --- | --- | --- | --- | --- |");
  for (table_row const& r : rows)
    std::printf("| %s | %s | %.3f | %.3f | %.4f | %.1f %% | %.0f | %.0f |\n", r.format.c_str(), r.method, r.bytes, r.quality_.perplexity,
                r.quality_.divergence, 100 * r.quality_.agreement, r.rates_.prompt, r.rates_.generation);
}

/// Of `all` from `begin` to `end`, at most `most`, evenly spread.
std::vector<window> spread(std::vector<window> const& all, std::size_t begin, std::size_t end, std::size_t most) {
  std::size_t const count = std::min(most, end - begin);
  std::vector<window> some;
  for (std::size_t i = 0; i < count; ++i) some.push_back(all[begin + i * (end - begin) / count]);
  return some;
}

}  // namespace

void requantize(tern::gguf_file const& file, tokenizer const& words, model& network, tern::cpu_policy const& policy,
                std::string_view formats, std::string const& text) {
  if (text.empty()) throw tern::error("llm: --requantize comes without --perplexity, expected a text file to calibrate on and to score");
  auto const types = parse_formats(formats);
  auto const all = windows_of(words, text);
  if (all.size() < 2) throw tern::error("llm: " + text + " has 1 window of 512 tokens, expected 2: one to calibrate on, one to score");
  std::size_t const half = all.size() / 2;
  auto const calibrating = spread(all, 0, half, most_calibrating), scored = spread(all, half, all.size(), most_scored);

  model exact(file, policy, tern::compute::f32, window_tokens);
  feedbacks const errors = calibrate(exact, policy, calibrating);
  reference const wanted(exact, scored);
  std::vector<model::matrices> originals;
  double bytes = 0, weights = 0;
  for (index l = 0; l < network.layers(); ++l) {
    originals.push_back(network.layer_matrices(l));
    for (place const& p : places) {
      bytes += static_cast<double>((originals.back().*p.weight).matrix.row_bytes * (originals.back().*p.weight).matrix.rows);
      weights += static_cast<double>((originals.back().*p.weight).matrix.columns * (originals.back().*p.weight).matrix.rows);
    }
  }
  std::vector<table_row> rows{{"as in the file", "", bytes / weights, wanted.of(network), best_rates(network)}};
  for (std::size_t t = 0; t < types.size(); ++t)
    for (feedbacks const* by : {static_cast<feedbacks const*>(nullptr), &errors}) {
      char const* const method = by == nullptr ? "RTN" : "GPTQ";
      show_progress((std::string(info(types[t]).name) + " " + method).c_str(), 2 * t + (by != nullptr), 2 * types.size());
      quantized_layers const layers(originals, policy, types[t], by);
      layers.put_into(network);
      rows.push_back(
          {name_of(types[t], layers.substitute), method, layers.bytes / layers.weights, wanted.of(network), best_rates(network)});
    }
  for (index l = 0; l < network.layers(); ++l) network.layer_matrices(l) = originals[static_cast<std::size_t>(l)];
  std::fprintf(stderr, "\n");
  print(std::move(rows));
  std::printf(
      "\nLinear layers requantized from the file's weights; embedding and output stay %s. KL divergence and agreement: against the\n"
      "file's weights in f32, perplexity %.3f, over %zu tokens of the text's second half. GPTQ is calibrated on %zu tokens of its first.\n",
      info(network.embedding().type).name, wanted.perplexity(), scored.size() * static_cast<std::size_t>(scored_tokens - 1),
      calibrating.size() * static_cast<std::size_t>(window_tokens));
}

}  // namespace llm
