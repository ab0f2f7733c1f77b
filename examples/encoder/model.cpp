// SPDX-License-Identifier: Apache-2.0
#include "model.hpp"

#include <tern/attention.hpp>
#include <tern/attention/systems/prepacking.hpp>
#include <tern/matmul.hpp>
#include <tern/pointwise.hpp>

#include <algorithm>
#include <cmath>
#include <string>

namespace encoder {

using tern::index;

namespace {

/// Tokens that pass through the layers together: enough to use each weight well, few enough to stay in cache.
constexpr index bin_tokens = 1024;

/// (tokens, heads * dim) seen as (heads, tokens, dim).
tern::tensor_view<float, 3> by_head(tern::tensor_view<float, 2> x, index heads) {
  index const dim = x.extent(1) / heads;
  return {x.data(), {heads, x.extent(0), dim}, {dim, x.stride(0), 1}};
}
/// (texts * length, heads * dim) seen as (texts, heads, length, dim).
tern::tensor_view<float, 4> by_text(tern::tensor_view<float, 2> x, index texts, index heads) {
  index const dim = x.extent(1) / heads, length = x.extent(0) / texts;
  return {x.data(), {texts, heads, length, dim}, {length * x.stride(0), dim, x.stride(0), 1}};
}

}  // namespace

model::model(weights const& w, tern::cpu_policy const& policy, tern::compute compute)
    : weights_(w),
      policy_(policy),
      compute_(compute),
      gain_(static_cast<std::size_t>(w.width), static_cast<float>(1 / std::sqrt(static_cast<double>(w.width)))) {}

void model::batch::clear() {
  ids.clear();
  places.clear();
  lengths.clear();
  begins.assign(1, 0);
}
void model::batch::add(text const& t, index padded_length) {
  for (index i = 0; i < padded_length; ++i) {
    ids.push_back(i < static_cast<index>(t.size()) ? t[static_cast<std::size_t>(i)] : 0);
    places.push_back(static_cast<std::int32_t>(i));
  }
  lengths.push_back(static_cast<std::int32_t>(t.size()));
  begins.push_back(static_cast<std::int32_t>(ids.size()));
}

void model::check(std::span<text const> texts) const {
  index const longest = weights_.positions.extent(0);
  for (text const& t : texts)
    if (t.empty() || static_cast<index>(t.size()) > longest)
      throw tern::error("model: a text has " + std::to_string(t.size()) + " tokens, expected 1 to " + std::to_string(longest));
}

void model::embed(std::span<text const> texts, rows out) {
  check(texts);
  batch_.padded = false;
  lengths_.clear();
  for (text const& t : texts) lengths_.push_back(static_cast<std::int32_t>(t.size()));
  plan_.resize(static_cast<std::size_t>(tern::prepacking::room(static_cast<index>(texts.size()))));
  tern::prepacking const plan(lengths_, std::max(bin_tokens, weights_.positions.extent(0)), plan_);
  for (index bin = 0; bin < plan.bins(); ++bin) {
    batch_.clear();
    for (index s = plan.bin(bin); s < plan.bin(bin + 1); ++s) {
      text const& t = texts[static_cast<std::size_t>(plan.prompt(s))];
      batch_.add(t, static_cast<index>(t.size()));
    }
    forward();
    for (index s = plan.bin(bin); s < plan.bin(bin + 1); ++s) pool(s - plan.bin(bin), out[plan.prompt(s)]);
  }
}

void model::embed_padded(std::span<text const> texts, index count, rows out) {
  check(texts);
  batch_.padded = true;
  auto const all = static_cast<index>(texts.size());
  for (index begin = 0; begin < all; begin += count) {
    auto const now = texts.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(std::min(count, all - begin)));
    std::size_t longest = 0;
    for (text const& t : now) longest = std::max(longest, t.size());
    batch_.clear();
    for (text const& t : now) batch_.add(t, static_cast<index>(longest));
    forward();
    for (index i = 0; i < static_cast<index>(now.size()); ++i) pool(i, out[begin + i]);
  }
}

void model::forward() {
  auto const room = [&](std::vector<float>& memory, index width) { memory.resize(batch_.ids.size() * static_cast<std::size_t>(width)); };
  for (auto* const memory : {&x_, &h_, &query_, &key_, &value_}) room(*memory, weights_.width);
  room(hidden_, weights_.hidden);
  look_up();
  for (weights::layer const& l : weights_.layers) {
    attend(l);
    feed_forward(l);
  }
}

/// x = layer_norm(word[token] + position[i] + type[0])
void model::look_up() {
  rows const x = rows_of(x_, weights_.width), h = rows_of(h_, weights_.width);
  auto const type = tern::tensor_view<float const, 2>(weights_.types.data(), {x.extent(0), x.extent(1)}, {0, 1});  // the same for all
  tern::embedding(policy_, batch_.ids, weights_.words, x);
  tern::embedding(policy_, batch_.places, weights_.positions, h);
  tern::add(policy_, x, h, x);
  tern::add(policy_, x, type, x);
  tern::layer_norm(policy_, x, weights_.embedding_norm.weight, weights_.embedding_norm.bias, x, weights_.epsilon);
}

/// x = layer_norm(x + attention(x Wq^T + bq, x Wk^T + bk, x Wv^T + bv) Wo^T + bo)
void model::attend(weights::layer const& l) {
  rows const x = rows_of(x_, weights_.width), h = rows_of(h_, weights_.width);
  rows const q = rows_of(query_, weights_.width), k = rows_of(key_, weights_.width), v = rows_of(value_, weights_.width);
  tern::matmul(policy_, x, l.query.weight, q, compute_, tern::bias{l.query.bias});
  tern::matmul(policy_, x, l.key.weight, k, compute_, tern::bias{l.key.bias});
  tern::matmul(policy_, x, l.value.weight, v, compute_, tern::bias{l.value.bias});
  if (batch_.padded) {
    auto const split = [&](rows t) { return by_text(t, static_cast<index>(batch_.lengths.size()), weights_.heads); };
    tern::attention(policy_, split(q), split(k), split(v), split(q), tern::key_lengths(batch_.lengths));
  } else {
    auto const split = [&](rows t) { return by_head(t, weights_.heads); };
    tern::attention(policy_, split(q), split(k), split(v), split(q), tern::varlen(batch_.begins));
  }
  tern::matmul(policy_, q, l.out.weight, h, compute_, tern::bias{l.out.bias}, tern::residual{x});
  tern::layer_norm(policy_, h, l.attention_norm.weight, l.attention_norm.bias, x, weights_.epsilon);
}

/// x = layer_norm(x + gelu(x Wu^T + bu) Wd^T + bd)
void model::feed_forward(weights::layer const& l) {
  rows const x = rows_of(x_, weights_.width), h = rows_of(h_, weights_.width), hidden = rows_of(hidden_, weights_.hidden);
  tern::matmul(policy_, x, l.up.weight, hidden, compute_, tern::bias{l.up.bias}, tern::act::gelu{});
  tern::matmul(policy_, hidden, l.down.weight, h, compute_, tern::bias{l.down.bias}, tern::residual{x});
  tern::layer_norm(policy_, h, l.feed_forward_norm.weight, l.feed_forward_norm.bias, x, weights_.epsilon);
}

void model::pool(index i, tern::tensor_view<float, 1> out) {
  index const begin = batch_.begins[static_cast<std::size_t>(i)], end = begin + batch_.lengths[static_cast<std::size_t>(i)];
  rows const x = rows_of(x_, weights_.width);
  std::fill_n(out.data(), out.extent(0), 0.F);
  for (index t = begin; t < end; ++t) tern::add(policy_, out, x[t], out);
  tern::rms_norm(policy_, out, gain_, out, 0.F);
}

model::rows model::rows_of(std::vector<float>& memory, index width) const {
  return tern::view(memory.data(), static_cast<index>(batch_.ids.size()), width);
}

}  // namespace encoder
