// SPDX-License-Identifier: Apache-2.0
#include "model.hpp"

#include "by_head.hpp"

#include <tern/attention.hpp>
#include <tern/attention/systems/prepacking.hpp>
#include <tern/matmul.hpp>
#include <tern/pointwise.hpp>
#include <tern/tokens/proportional.hpp>

#include <algorithm>
#include <cmath>
#include <string>

namespace encoder {

using tern::index;

namespace {

/// Tokens that pass through the layers together: enough to use each weight well, few enough to stay in cache.
constexpr index bin_tokens = 1024;

}  // namespace

model::model(weights const& w, tern::cpu_policy const& policy, tern::compute compute)
    : weights_(w),
      policy_(policy),
      compute_(compute != tern::compute::fastest ? compute
               : tern::simd::tiles::ready()      ? tern::compute::bf16
                                                 : tern::compute::f32),
      gain_(static_cast<std::size_t>(w.width), static_cast<float>(1 / std::sqrt(static_cast<double>(w.width)))) {
  auto const prepare = [&](weights::linear const& from) { return linear(from, policy, compute_); };
  for (weights::layer const& l : w.layers)
    layers_.push_back({prepare(l.query), prepare(l.key), prepare(l.value), prepare(l.out), prepare(l.up), prepare(l.down)});
}

void model::check(std::span<text const> texts) const {
  index const longest = weights_.positions.extent(0);
  for (text const& t : texts)
    if (t.empty() || static_cast<index>(t.size()) > longest)
      throw tern::error("model: a text has " + std::to_string(t.size()) + " tokens, expected 1 to " + std::to_string(longest));
}

void model::embed(std::span<text const> texts, rows out, reduction* fewer) {
  check(texts);
  lengths_.clear();
  for (text const& t : texts) lengths_.push_back(static_cast<std::int32_t>(t.size()));
  plan_.resize(static_cast<std::size_t>(tern::prepacking::room(static_cast<index>(texts.size()))));
  tern::prepacking const plan(lengths_, std::max(bin_tokens, weights_.positions.extent(0)), plan_);
  for (index bin = 0; bin < plan.bins(); ++bin) {
    batch_.clear(false);
    for (index s = plan.bin(bin); s < plan.bin(bin + 1); ++s) {
      text const& t = texts[static_cast<std::size_t>(plan.prompt(s))];
      batch_.add(t, t.size());
    }
    forward(fewer);
    for (index s = plan.bin(bin); s < plan.bin(bin + 1); ++s) pool(s - plan.bin(bin), out[plan.prompt(s)]);
  }
}

void model::embed_padded(std::span<text const> texts, index count, rows out) {
  check(texts);
  auto const all = static_cast<index>(texts.size());
  for (index begin = 0; begin < all; begin += count) {
    auto const now = texts.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(std::min(count, all - begin)));
    std::size_t longest = 0;
    for (text const& t : now) longest = std::max(longest, t.size());
    batch_.clear(true);
    for (text const& t : now) batch_.add(t, longest);
    forward(nullptr);
    for (index i = 0; i < batch_.texts(); ++i) pool(i, out[begin + i]);
  }
}

void model::forward(reduction* fewer) {
  auto const tokens = static_cast<std::size_t>(batch_.rows());
  for (auto* const memory : {&x_, &h_, &query_, &key_, &value_}) memory->resize(tokens * static_cast<std::size_t>(weights_.width));
  hidden_.resize(tokens * static_cast<std::size_t>(weights_.hidden));
  log_sums_.resize(tokens * static_cast<std::size_t>(weights_.heads));
  counts_sizes_ = false;
  look_up();
  for (index i = 0; i < layers(); ++i) {
    attend(i);
    if (fewer != nullptr) reduce(i, *fewer);
    feed_forward(i);
  }
}

/// x = layer_norm(word[token] + position[i] + type[0])
void model::look_up() {
  rows const x = rows_of(x_), h = rows_of(h_);
  auto const type = tern::tensor_view<float const, 2>(weights_.types.data(), {{x.extent(0), x.extent(1)}}, {{0, 1}});  // the same for all
  tern::embedding(policy_, batch_.ids, weights_.words, x);
  tern::embedding(policy_, batch_.places, weights_.positions, h);
  tern::add(policy_, x, h, x);
  tern::add(policy_, x, type, x);
  tern::layer_norm(policy_, x, weights_.embedding_norm.weight, weights_.embedding_norm.bias, x, weights_.epsilon);
}

/// x = layer_norm(x + attention(x Wq^T + bq, x Wk^T + bk, x Wv^T + bv) Wo^T + bo)
void model::attend(index i) {
  layer const& l = layers_[static_cast<std::size_t>(i)];
  weights::norm const& norm = weights_.layers[static_cast<std::size_t>(i)].attention_norm;
  rows const x = rows_of(x_), h = rows_of(h_), q = rows_of(query_), k = rows_of(key_), v = rows_of(value_), sum = rows_of(value_);
  index const heads = weights_.heads;
  multiply(x, l.query, q);
  multiply(x, l.key, k);
  multiply(x, l.value, v);
  if (batch_.padded) {
    auto const split = [&](rows t) { return by_head(by_text(t, batch_.texts()), heads); };
    tern::attention(policy_, split(q), split(k), split(v), split(h), tern::key_lengths(batch_.lengths));
  } else {
    auto const packed = [&](auto const&... options) {
      tern::attention(policy_, by_head(q, heads), by_head(k, heads), by_head(v, heads), by_head(h, heads), tern::varlen(batch_.begins),
                      tern::log_sum_exp{tern::view(log_sums_.data(), heads, batch_.rows())}, options...);
    };
    if (counts_sizes_)
      packed(tern::proportional{tern::view(log_sizes_.data(), index{1}, batch_.rows())});
    else
      packed();
  }
  multiply(h, l.out, sum, tern::residual{x});
  tern::layer_norm(policy_, sum, norm.weight, norm.bias, x, weights_.epsilon);
}

/// x = layer_norm(x + gelu(x Wu^T + bu) Wd^T + bd)
void model::feed_forward(index i) {
  layer const& l = layers_[static_cast<std::size_t>(i)];
  weights::norm const& norm = weights_.layers[static_cast<std::size_t>(i)].feed_forward_norm;
  rows const x = rows_of(x_), h = rows_of(h_), hidden = rows_of(hidden_, weights_.hidden);
  multiply(x, l.up, hidden, tern::act::gelu{});
  multiply(hidden, l.down, h, tern::residual{x});
  tern::layer_norm(policy_, h, norm.weight, norm.bias, x, weights_.epsilon);
}

/// The embedding of the batch's i-th text: the direction of the sum of its rows.
void model::pool(index i, tern::tensor_view<float, 1> out) {
  rows const x = rows_of(x_);
  std::fill_n(out.data(), weights_.width, 0.F);
  index const end = batch_.padded ? batch_.begin(i) + batch_.length(i) : batch_.begin(i + 1);
  for (index t = batch_.begin(i); t < end; ++t) {
    float const size = batch_.sizes[static_cast<std::size_t>(t)];
    for (index j = 0; j < weights_.width; ++j) out[j] += size * x(t, j);
  }
  tern::rms_norm(policy_, out, gain_, out, 0.F);
}

}  // namespace encoder
