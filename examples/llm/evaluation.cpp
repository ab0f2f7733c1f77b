// SPDX-License-Identifier: Apache-2.0
#include "evaluation.hpp"

#include <tern/sampling.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <span>
#include <utility>

namespace llm {

using tern::index;

namespace {

/// log of the sum of exponentials, in f64
double log_sum(tern::tensor_view<float const, 1> logits) {
  float top = logits[0];
  for (index i = 1; i < logits.extent(0); ++i) top = std::max(top, logits[i]);
  double sum = 0;
  for (index i = 0; i < logits.extent(0); ++i) sum += static_cast<double>(std::exp(logits[i] - top));
  return std::log(sum) + static_cast<double>(top);
}

index likeliest(float const* logits, index n) { return std::max_element(logits, logits + n) - logits; }

}  // namespace

std::vector<window> windows_of(tokenizer const& words, std::string const& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw tern::error("llm: " + path + " cannot be read");
  std::string const text{std::istreambuf_iterator<char>(file), {}};
  auto tokens = words.encode(text, false);
  if (words.begin() >= 0) tokens.insert(tokens.begin(), words.begin());
  std::vector<window> all;
  for (auto at = tokens.begin(); tokens.end() - at >= window_tokens; at += window_tokens) {
    all.emplace_back(at, at + window_tokens);
    if (words.begin() >= 0) all.back().front() = words.begin();
  }
  if (all.empty()) throw tern::error("llm: " + path + " has " + std::to_string(tokens.size()) + " tokens, expected at least 512");
  return all;
}

double surprise(tern::tensor_view<float const, 1> logits, tokenizer::token token) {
  return log_sum(logits) - static_cast<double>(logits[token]);
}

rates measure_rates(model& network, index prompt, index generated) {
  std::vector<tokenizer::token> tokens;
  for (index i = 0; i < prompt; ++i) tokens.push_back(static_cast<tokenizer::token>((7 * i) % (network.vocabulary() / 2)));
  network.rewind();
  network.read(std::span(tokens).first(1));  // pages in the weights, starts the threads
  network.rewind();
  stopwatch const reading;
  auto logits = network.read(tokens);
  double const prompt_rate = static_cast<double>(prompt) / reading.seconds();
  tern::random random(1);
  stopwatch const writing;
  for (index i = 0; i < generated; ++i) {
    auto const next = static_cast<tokenizer::token>(tern::sample(logits[0], tern::sampling{.temperature = 0}, random));
    logits = network.read(std::span(&next, 1));
  }
  return {prompt_rate, static_cast<double>(generated) / writing.seconds()};
}

std::vector<float> log_probabilities(tern::tensor_view<float const, 1> logits) {
  double const sum = log_sum(logits);
  std::vector<float> to;
  for (index t = 0; t < logits.extent(0); ++t) to.push_back(static_cast<float>(static_cast<double>(logits[t]) - sum));
  return to;
}

void comparison::add(std::vector<float> const& want, tern::tensor_view<float const, 1> got, tokenizer::token next) {
  double const sum = log_sum(got);
  surprises_ += sum - static_cast<double>(got[next]);
  agreed_ += likeliest(want.data(), got.extent(0)) == likeliest(got.data(), got.extent(0));
  for (index t = 0; t < got.extent(0); ++t) {
    auto const expected = static_cast<double>(want[static_cast<std::size_t>(t)]);
    divergence_ += std::exp(expected) * (expected - (static_cast<double>(got[t]) - sum));
  }
  ++count_;
}
quality comparison::means() const {
  auto const n = static_cast<double>(count_);
  return {std::exp(surprises_ / n), divergence_ / n, static_cast<double>(agreed_) / n};
}

reference::reference(model& network, std::vector<window> windows) : windows_(std::move(windows)) {
  double total = 0;
  for (window const& w : windows_) {
    network.rewind();
    auto const logits = network.read(w, scored_tokens);
    auto& kept = wanted_.emplace_back();
    for (index i = 0; i + 1 < scored_tokens; ++i) {
      kept.push_back(log_probabilities(logits[i]));
      total -= static_cast<double>(kept.back()[static_cast<std::size_t>(expected_after(w, i))]);
    }
  }
  perplexity_ = std::exp(total / static_cast<double>(windows_.size() * (scored_tokens - 1)));
}

quality reference::of(model& network) const {
  comparison sums;
  for (std::size_t w = 0; w < windows_.size(); ++w) {
    network.rewind();
    auto const logits = network.read(windows_[w], scored_tokens);
    for (index i = 0; i + 1 < scored_tokens; ++i)
      sums.add(wanted_[w][static_cast<std::size_t>(i)], logits[i], expected_after(windows_[w], i));
  }
  return sums.means();
}

}  // namespace llm
