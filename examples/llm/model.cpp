// SPDX-License-Identifier: Apache-2.0
#include "model.hpp"

#include <tern/formats/check_finite.hpp>

#include <algorithm>

namespace llm {

using tern::index;

namespace {

/// Tokens that pass through the layers together: enough to use each weight well, few enough to stay in cache.
constexpr index batch = 512;

/// (tokens, heads * dim) seen as (heads, tokens, dim).
template <class T>
tern::tensor_view<T, 3> by_head(tern::tensor_view<T, 2> x, index dim) {
  return {x.data(), {x.extent(1) / dim, x.extent(0), dim}, {dim, x.stride(0), 1}};
}

tern::tensor_view<float, 2> as_rows(std::vector<float>& x, index tokens, index width) { return tern::view(x.data(), tokens, width); }

/// The listed rows become the first ones.
void to_front(tern::tensor_view<float, 2> x, std::span<std::int32_t const> list) {
  for (std::size_t i = 0; i < list.size(); ++i) std::copy_n(&x(list[i], 0), x.extent(1), &x(static_cast<index>(i), 0));
}

index positive(tern::gguf_file const& file, std::string const& key, index most) {
  auto const value = file.get<index>(key);
  if (value < 1 || value > most)
    throw tern::error("model: " + key + " is " + std::to_string(value) + ", expected 1 to " + std::to_string(most));
  return value;
}

tern::gguf_tensor const& tensor_of_shape(tern::gguf_file const& file, std::string const& name, index rows, index columns) {
  auto const& t = file.tensor(name);
  if (t.rows() != rows || t.columns() != columns)
    throw tern::error("model: " + name + " is " + std::to_string(t.rows()) + " x " + std::to_string(t.columns()) + ", expected " +
                      std::to_string(rows) + " x " + std::to_string(columns));
  return t;
}
tern::block_matrix matrix(tern::cpu_policy const& policy, tern::gguf_file const& file, std::string const& name, index rows, index columns) {
  tern::block_matrix const w(tensor_of_shape(file, name, rows, columns));
  try {
    tern::check_finite(policy, w);
  } catch (tern::error const& e) {
    throw tern::error("model: " + name + ": " + e.what());
  }
  return w;
}
tern::tensor_view<float const, 1> vector(tern::gguf_file const& file, std::string const& name, index width) {
  return tern::view(tensor_of_shape(file, name, 1, width).elements<float>(tern::gguf_type::f32), width);
}

/// Fails for what the formula in model.hpp leaves out.
void expect_plain_llama(tern::gguf_file const& file) {
  auto const architecture = file.get<std::string_view>("general.architecture");
  if (architecture != "llama") throw tern::error("model: general.architecture is " + std::string(architecture) + ", expected llama");
  if (auto const scaling = file.get<std::string_view>("llama.rope.scaling.type", "none"); scaling != "none")
    throw tern::error("model: llama.rope.scaling.type is " + std::string(scaling) + ", expected none");
  if (file.get<index>("llama.expert_count", 0) != 0) throw tern::error("model: llama.expert_count is not 0, expected a dense model");
}

}  // namespace

model::model(tern::gguf_file const& file, tern::cpu_policy const& policy, tern::compute compute, index context)
    : policy_(policy), compute_(compute) {
  expect_plain_llama(file);
  width_ = positive(file, "llama.embedding_length", 1 << 20);
  hidden_ = positive(file, "llama.feed_forward_length", 1 << 24);
  heads_ = positive(file, "llama.attention.head_count", width_);
  kv_heads_ = file.find("llama.attention.head_count_kv") != nullptr ? positive(file, "llama.attention.head_count_kv", heads_) : heads_;
  dim_ = file.get<index>("llama.attention.key_length", width_ / heads_);
  if (dim_ < 2 || dim_ > width_ || heads_ % kv_heads_ != 0) throw tern::error("model: heads do not divide, expected heads = n kv_heads");
  if (auto const turned = file.get<index>("llama.rope.dimension_count", dim_); turned != dim_)
    throw tern::error("model: llama.rope.dimension_count is " + std::to_string(turned) + ", expected " + std::to_string(dim_));
  rope_.base = file.get<float>("llama.rope.freq_base", 10000.0F);
  if (file.find_tensor("rope_freqs.weight") != nullptr) rope_.factors = vector(file, "rope_freqs.weight", dim_ / 2);
  epsilon_ = file.get<float>("llama.attention.layer_norm_rms_epsilon");
  auto const trained = positive(file, "llama.context_length", 1 << 24);
  context_ = context > 0 ? std::min(context, trained) : trained;

  auto const vocabulary = file.tensor("token_embd.weight").rows();
  embedding_ = matrix(policy_, file, "token_embd.weight", vocabulary, width_);
  output_ = file.find_tensor("output.weight") != nullptr ? matrix(policy_, file, "output.weight", vocabulary, width_) : embedding_;
  output_norm_ = vector(file, "output_norm.weight", width_);
  auto const count = positive(file, "llama.block_count", 1 << 10);
  for (index i = 0; i < count; ++i) layers_.push_back(load_layer(file, "blk." + std::to_string(i) + "."));

  store_ = make_kv_store("f16", shape(), policy_);
  auto const elements = [&](index width) { return static_cast<std::size_t>(std::min(batch, context_) * width); };
  angles_.resize(elements(dim_));
  x_.resize(elements(width_));
  h_.resize(elements(width_));
  query_.resize(elements(heads_ * dim_));
  key_.resize(elements(kv_heads_ * dim_));
  value_.resize(elements(kv_heads_ * dim_));
  gate_.resize(elements(hidden_));
  up_.resize(elements(hidden_));
}

kv_model model::shape() const {
  kv_model m{layers(), heads_, kv_heads_, dim_, rope_, {}};
  for (layer const& l : layers_) m.out.push_back(l.weights.out.matrix);
  return m;
}

void model::repack() {
  auto const take = [&](weight& w) {
    if (tern::info(w.matrix.type).elements == 1) return;
    repacked_.emplace_back(static_cast<std::size_t>(w.matrix.rows * w.matrix.row_bytes));
    w.fast = tern::interleave(policy_, w.matrix, repacked_.back().data());
  };
  for (layer& l : layers_)
    for (weight* w : {&l.weights.query, &l.weights.key, &l.weights.value, &l.weights.out, &l.weights.gate, &l.weights.up, &l.weights.down})
      take(*w);
  take(output_);
}

model::layer model::load_layer(tern::gguf_file const& file, std::string const& prefix) const {
  layer l;
  l.attention_norm = vector(file, prefix + "attn_norm.weight", width_);
  l.weights.query = matrix(policy_, file, prefix + "attn_q.weight", heads_ * dim_, width_);
  l.weights.key = matrix(policy_, file, prefix + "attn_k.weight", kv_heads_ * dim_, width_);
  l.weights.value = matrix(policy_, file, prefix + "attn_v.weight", kv_heads_ * dim_, width_);
  l.weights.out = matrix(policy_, file, prefix + "attn_output.weight", width_, heads_ * dim_);
  l.feed_forward_norm = vector(file, prefix + "ffn_norm.weight", width_);
  l.weights.gate = matrix(policy_, file, prefix + "ffn_gate.weight", hidden_, width_);
  l.weights.up = matrix(policy_, file, prefix + "ffn_up.weight", hidden_, width_);
  l.weights.down = matrix(policy_, file, prefix + "ffn_down.weight", width_, hidden_);
  return l;
}

tern::tensor_view<float const, 2> model::read(std::span<token const> tokens, index scored) {
  auto const count = static_cast<index>(tokens.size());
  if (count < scored || count > context_ - length_)
    throw tern::error("model: tokens to read are " + std::to_string(count) + ", expected " + std::to_string(scored) + " to " +
                      std::to_string(context_ - length_) + ", the space left in the context");
  logits_.resize(static_cast<std::size_t>(scored * vocabulary()));
  rows const logits = as_rows(logits_, scored, vocabulary());
  index const unscored = count - scored;
  for (index begin = 0; begin < count; begin += batch) {
    index const end = std::min(begin + batch, count);
    forward(tokens.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)),
            logits.slice(0, std::max(begin - unscored, index{0}), std::max(end - unscored, index{0})));
  }
  store_->read_to_end(count);
  return tern::view(static_cast<float const*>(logits_.data()), scored, vocabulary());
}

/// The logits of as many of the last tokens as `logits` has rows.
void model::forward(std::span<token const> tokens, rows logits) {
  auto const n = static_cast<index>(tokens.size());
  rows const x = as_rows(x_, n, width_);
  tern::embedding(policy_, tokens, embedding_, x);
  tern::rope_table(policy_, length_, as_rows(angles_, n, dim_), rope_);
  index left = n;
  for (layer& l : layers_) {
    left = attend(l, left);
    feed_forward(l, left);
  }
  length_ += n;
  if (logits.extent(0) == 0) return;
  rows const last = x.slice(0, left - logits.extent(0), left);
  tern::rms_norm(policy_, last, output_norm_, last, epsilon_);
  tern::matmul(policy_, last, output_.ref(), logits, compute_);
}

/// x += attention(rope(h Wq^T), rope(h Wk^T), h Wv^T) Wo^T with h = rms_norm(x). Returns how many tokens go on.
index model::attend(layer& l, index n) {
  rows const x = as_rows(x_, n, width_), h = as_rows(h_, n, width_);
  rows const q = as_rows(query_, n, heads_ * dim_), k = as_rows(key_, n, kv_heads_ * dim_), v = as_rows(value_, n, kv_heads_ * dim_);
  auto const angles = as_rows(angles_, n, dim_);
  index const number = &l - layers_.data();

  tern::rms_norm(policy_, x, l.attention_norm, h, epsilon_);
  show(l, input::attention, h);
  tern::matmul(policy_, h, {l.weights.query.ref(), l.weights.key.ref(), l.weights.value.ref()}, {q, k, v}, compute_);
  tern::rope(policy_, by_head(q, dim_), angles);
  tern::rope(policy_, by_head(k, dim_), angles);
  store_->append(number, by_head(k, dim_), by_head(v, dim_));
  store_->attend(number, by_head(q, dim_));
  auto const on = store_->going_on();
  index const left = on.empty() ? n : static_cast<index>(on.size());
  to_front(x, on);
  to_front(angles, on);
  show(l, input::out, q.slice(0, 0, left));
  tern::matmul(policy_, q.slice(0, 0, left), l.weights.out.ref(), x.slice(0, 0, left), compute_, tern::accumulate{});
  return left;
}

/// x += (silu(h Wgate^T) * (h Wup^T)) Wdown^T with h = rms_norm(x)
void model::feed_forward(layer& l, index n) {
  rows const x = as_rows(x_, n, width_), h = as_rows(h_, n, width_);
  rows const gate = as_rows(gate_, n, hidden_), up = as_rows(up_, n, hidden_);

  tern::rms_norm(policy_, x, l.feed_forward_norm, h, epsilon_);
  show(l, input::feed_forward, h);
  tern::matmul(policy_, h, {l.weights.gate.ref(), l.weights.up.ref()}, {gate, up}, compute_);
  tern::swiglu(policy_, gate, up, gate);
  show(l, input::down, gate);
  tern::matmul(policy_, gate, l.weights.down.ref(), x, compute_, tern::accumulate{});
}

}  // namespace llm
