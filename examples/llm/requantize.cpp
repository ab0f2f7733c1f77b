// SPDX-License-Identifier: Apache-2.0
#include "requantize.hpp"

#include "weight_formats.hpp"

#include <tern/quantize.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <utility>

namespace llm {

using tern::index;
using tern::weight_type;

namespace {

constexpr std::size_t most_calibrating = 16, most_scored = 8;

constexpr weight_type block_formats[] = {weight_type::q8_0,  weight_type::q6_k, weight_type::q5_k, weight_type::q5_1,   weight_type::q5_0,
                                         weight_type::q4_k,  weight_type::q4_1, weight_type::q4_0, weight_type::iq4_nl, weight_type::iq4_xs,
                                         weight_type::mxfp4, weight_type::q3_k, weight_type::q2_k};

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

using matrix = tern::tensor_view<float const, 2>;  // (n, k)

class blocks final : public format_matrix {
 public:
  blocks(tern::block_array array) : array_(std::move(array)), view_(array_) {}
  tern::weights_ref ref() const override { return view_; }
  double bytes() const override { return static_cast<double>(array_.size()); }

 private:
  tern::block_array array_;
  tern::block_matrix view_;
};

/// A row of the table to be: a format, and how its codes come about.
struct candidate {
  char const* name;
  std::string format;  // with what matrices get that it does not fit
  char const* method;
  std::function<std::unique_ptr<format_matrix>(matrix w, tern::feedback const& errors)> encode;
};

std::string full_name(weight_type type, std::vector<model::matrices> const& layers) {
  for (model::matrices const& m : layers)
    for (place const& p : places)
      if (weight_type const fits = fitting(type, (m.*p.weight).matrix.columns); fits != type)
        return std::string(info(type).name) + " / " + info(fits).name;
  return info(type).name;
}

/// All formats, blocks by both methods.
std::vector<candidate> candidates(tern::cpu_policy const& policy, std::vector<model::matrices> const& layers) {
  std::vector<candidate> all;
  for (weight_type type : block_formats) {
    all.push_back({info(type).name, full_name(type, layers), "RTN", [=](matrix w, tern::feedback const&) {
                     return std::make_unique<blocks>(tern::round_to_nearest(policy, w, fitting(type, w.extent(1))));
                   }});
    all.push_back({info(type).name, full_name(type, layers), "GPTQ", [=](matrix w, tern::feedback const& errors) {
                     return std::make_unique<blocks>(tern::gptq(policy, w, errors, fitting(type, w.extent(1))));
                   }});
  }
  for (weight_format const& f : weight_formats())
    all.push_back({f.name, f.name, f.method, [=](matrix w, tern::feedback const&) { return f.encode(policy, w); }});
  return all;
}

/// Those that `list` names.
std::vector<candidate> chosen(std::vector<candidate> const& all, std::string_view list) {
  if (list == "all") return all;
  std::vector<candidate> found;
  while (!list.empty()) {
    std::string_view const name = list.substr(0, list.find(','));
    auto const before = found.size();
    for (candidate const& c : all)
      if (c.name == name) found.push_back(c);
    if (found.size() == before) {
      std::string known, last;
      for (candidate const& c : all)
        if (c.name != last) known += " " + (last = c.name);
      throw tern::error("llm: --requantize has " + std::string(name) + ", expected all or some of" + known);
    }
    list.remove_prefix(std::min(list.size(), name.size() + 1));
  }
  return found;
}

/// The layers' matrices in one format.
struct quantized_layers {
  std::vector<std::unique_ptr<format_matrix>> matrices;  // layer by layer, in the order of `places`
  double bytes = 0, weights = 0;

  quantized_layers(std::vector<model::matrices> const& originals, candidate const& c, feedbacks const& errors) {
    for (std::size_t l = 0; l < originals.size(); ++l)
      for (place const& p : places) {
        tern::block_matrix const& from = (originals[l].*p.weight).matrix;
        std::vector<float> w(static_cast<std::size_t>(from.rows * from.columns));
        for (index i = 0; i < from.rows; ++i) tern::decode(from, i, w.data() + i * from.columns);
        matrices.push_back(c.encode(tern::view(w.data(), from.rows, from.columns), errors[l][static_cast<std::size_t>(p.input)]));
        bytes += matrices.back()->bytes();
        weights += static_cast<double>(w.size());
      }
  }
  void put_into(model& network) const {
    for (std::size_t i = 0; i < matrices.size(); ++i)
      (network.layer_matrices(static_cast<index>(i / std::size(places))).*places[i % std::size(places)].weight).exchanged =
          matrices[i]->ref();
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
  auto const all = windows_of(words, text);
  if (all.size() < 2) throw tern::error("llm: " + text + " has 1 window of 512 tokens, expected 2: one to calibrate on, one to score");
  std::size_t const half = all.size() / 2;
  auto const calibrating = spread(all, 0, half, most_calibrating), scored = spread(all, half, all.size(), most_scored);

  std::vector<model::matrices> originals;
  double bytes = 0, weights = 0;
  for (index l = 0; l < network.layers(); ++l) {
    originals.push_back(network.layer_matrices(l));
    for (place const& p : places) {
      bytes += static_cast<double>((originals.back().*p.weight).matrix.row_bytes * (originals.back().*p.weight).matrix.rows);
      weights += static_cast<double>((originals.back().*p.weight).matrix.columns * (originals.back().*p.weight).matrix.rows);
    }
  }
  auto const list = chosen(candidates(policy, originals), formats);
  model exact(file, policy, tern::compute::f32, window_tokens);
  feedbacks const errors = calibrate(exact, policy, calibrating);
  reference const wanted(exact, scored);
  std::vector<table_row> rows{{"as in the file", "", bytes / weights, wanted.of(network), best_rates(network)}};
  for (std::size_t i = 0; i < list.size(); ++i) {
    show_progress((list[i].name + std::string(" ") + list[i].method).c_str(), i, list.size());
    quantized_layers const layers(originals, list[i], errors);
    layers.put_into(network);
    rows.push_back({list[i].format, list[i].method, layers.bytes / layers.weights, wanted.of(network), best_rates(network)});
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
