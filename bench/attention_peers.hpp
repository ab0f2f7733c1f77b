// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file bench/attention_peers.hpp
/// What tern's attention is held against: two matrix products with a softmax between, in blocks of 128 queries, as a user writes
/// it with Eigen or OpenBLAS; and ggml's flash attention. Each is there where its library is.

#include "attention_problem.hpp"
#include "peers.hpp"

#include <tern/core/parallel_for.hpp>

#include <cstdint>
#include <functional>
#include <type_traits>
#include <vector>

namespace tern::bench {

/// Softmax of a block of scores (rows, seen.end - seen.begin), row i of which is query `first + i`; what it does not see becomes zero.
inline void softmax_rows(float* scores, attention_shape const& s, sight const& sees, index first, index rows, key_range columns) {
  float const scale = 1 / std::sqrt(static_cast<float>(s.dim));
  index const width = columns.end - columns.begin;
  for (index i = 0; i < rows; ++i, scores += width) {
    key_range const seen = sees.of(s, first + i);
    index const begin = seen.begin - columns.begin, end = seen.end - columns.begin;
    std::fill(scores, scores + begin, 0.f);
    std::fill(scores + end, scores + width, 0.f);
#if TERN_BENCH_HAVE_EIGEN
    Eigen::Map<Eigen::ArrayXf> row(scores + begin, end - begin);
    row = ((row - row.maxCoeff()) * scale).exp();
    row *= 1 / row.sum();
#else
    float const most = *std::max_element(scores + begin, scores + end);
    float sum = 0;
    for (index j = begin; j < end; ++j) sum += scores[j] = std::exp((scores[j] - most) * scale);
    for (index j = begin; j < end; ++j) scores[j] /= sum;
#endif
  }
}

/// multiply(a, b, transposed, c, m, n, k): c (m, n) = a (m, k) b, where b is (k, n), or (n, k) if transposed.
using block_product = std::function<void(float const*, float const*, bool, float*, index, index, index)>;

/// Attention in blocks of 128 queries, each with the keys that any of them sees. Heads are dealt to the threads, each of which
/// multiplies on its own: faster than threads within a product, which start and meet for every block.
inline void attention_in_blocks(cpu_policy const& policy, attention_inputs<float>& p, sight const& sees,
                                std::vector<std::vector<float>>& scratch, block_product const& multiply) {
  attention_shape const& s = p.s;
  auto const* const keys = reinterpret_cast<float const*>(p.kv.k(0));
  auto const* const values = reinterpret_cast<float const*>(p.kv.v(0));
  tern::detail::parallel_for(policy, s.batch * s.heads, [&](index item, index slot) {
    float* const scores = scratch[static_cast<std::size_t>(slot)].data();
    index const b = item / s.heads, h = item % s.heads, head = (b * s.kv_heads + h / (s.heads / s.kv_heads)) * s.keys;
    for (index i = 0; i < s.queries; i += 128) {
      index const rows = std::min<index>(128, s.queries - i), at = (item * s.queries + i) * s.dim;
      key_range const columns{sees.of(s, i).begin, sees.of(s, i + rows - 1).end};
      index const width = columns.end - columns.begin, from = (head + columns.begin) * s.dim;
      multiply(p.q.data() + at, keys + from, true, scores, rows, width, s.dim);
      softmax_rows(scores, s, sees, i, rows, columns);
      multiply(scores, values + from, false, p.out.data() + at, rows, s.dim, width);
    }
  });
}

using f32_inputs = std::function<attention_inputs<float>&()>;

inline void add_block_peer(workload const& w, char const* name, f32_inputs const& inputs, sight const& sees,
                           block_product const& multiply) {
  w.add(name, unit::f32, [=](run& r) {
    attention_inputs<float>& p = inputs();
    set_peer_threads(1);
    std::vector<std::vector<float>> scratch(static_cast<std::size_t>(r.threads()),
                                            std::vector<float>(static_cast<std::size_t>(128 * p.s.keys)));
    check_and_time(r, p, p.kv, sees, attention_rounding(unit::f32),
                   [&](index) { attention_in_blocks(r.policy(), p, sees, scratch, multiply); });
  });
}

inline void add_block_peers([[maybe_unused]] workload const& w, [[maybe_unused]] f32_inputs const& inputs,
                            [[maybe_unused]] sight const& sees) {
#if TERN_BENCH_HAVE_EIGEN
  add_block_peer(w, "eigen_blocks", inputs, sees, [](float const* a, float const* b, bool transposed, float* c, index m, index n, index k) {
    using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    using view = Eigen::Map<matrix const>;
    Eigen::Map<matrix> result(c, m, n);
    if (transposed)
      result.noalias() = view(a, m, k) * view(b, n, k).transpose();
    else
      result.noalias() = view(a, m, k) * view(b, k, n);
  });
#endif
#if TERN_BENCH_HAVE_OPENBLAS
  add_block_peer(w, "openblas_blocks", inputs, sees,
                 [](float const* a, float const* b, bool transposed, float* c, index m, index n, index k) {
                   auto const columns = static_cast<int>(n), depth = static_cast<int>(k);
                   cblas_sgemm(CblasRowMajor, CblasNoTrans, transposed ? CblasTrans : CblasNoTrans, static_cast<int>(m), columns, depth,
                               1.f, a, depth, b, transposed ? depth : columns, 0.f, c, columns);
                 });
#endif
}

#if TERN_BENCH_HAVE_GGML

/// ggml's name of an element type.
template <class T>
inline constexpr ggml_type ggml_type_of = GGML_TYPE_COUNT;
template <>
inline constexpr ggml_type ggml_type_of<float> = GGML_TYPE_F32;
template <>
inline constexpr ggml_type ggml_type_of<f16> = GGML_TYPE_F16;
template <>
inline constexpr ggml_type ggml_type_of<bf16> = GGML_TYPE_BF16;
template <>
inline constexpr ggml_type ggml_type_of<formats::q8_0> = GGML_TYPE_Q8_0;
template <>
inline constexpr ggml_type ggml_type_of<formats::q4_0> = GGML_TYPE_Q4_0;

/// Rows as ggml itself quantizes them.
template <class T>
struct ggml_stored {
  static constexpr ggml_type type = ggml_type_of<T>;
  static index bytes(index n) { return static_cast<index>(ggml_row_size(type, n)); }
  static void encode(float const* from, index n, std::uint8_t* to) { ggml_quantize_chunk(type, from, to, 0, 1, n, nullptr); }
  static void decode(std::uint8_t const* from, index n, float* to) { ggml_get_type_traits(type)->to_float(from, to, n); }
};

/// How far ggml is from exact. It rounds q to the type of k. Where it decodes, it adds up f16 values in f16: a sum that has grown to
/// 2^11 terms no longer takes up the next, so that for long contexts no bound is left but that of a finite result.
template <class T>
double ggml_rounding(attention_shape const& s) {
  if constexpr (std::is_same_v<T, float>)
    return attention_rounding(unit::f32);
  else if constexpr (std::is_same_v<T, f16>)
    return s.queries > 1 ? attention_rounding(unit::bf16) : static_cast<double>(s.keys) * 0x1p-11;
  else if constexpr (std::is_same_v<T, bf16>)
    return attention_rounding(unit::bf16);
  else
    return attention_rounding(unit::int8);
}

/// The mask that ggml adds to scores: (queries, keys) in f16, 0 or -infinity. None where all is seen.
inline std::vector<std::uint16_t> ggml_mask(attention_shape const& s, sight const& sees) {
  if (!sees.causal) return {};
  std::vector<std::uint16_t> mask(static_cast<std::size_t>(s.keys * s.queries), 0xfc00);
  for (index i = 0; i < s.queries; ++i) {
    auto const row = mask.begin() + i * s.keys;
    std::fill(row + sees.of(s, i).begin, row + sees.of(s, i).end, std::uint16_t{0});
  }
  return mask;
}

/// One flash attention on memory of ours, whose K and V change from call to call.
class ggml_attention {
 public:
  ggml_attention(int threads, ggml_type type, attention_shape const& s, sight const& sees, float* q, float* out)
      : mask_(ggml_mask(s, sees)), operator_(threads, [&](ggml_context* c) {
          auto tensor = [c](ggml_type t, index a, index b, index h, index n, void* at) {
            ggml_tensor* const x = ggml_new_tensor_4d(c, t, a, b, h, n);
            x->data = at;
            return x;
          };
          k_ = tensor(type, s.dim, s.keys, s.kv_heads, s.batch, nullptr);
          v_ = tensor(type, s.dim, s.keys, s.kv_heads, s.batch, nullptr);
          ggml_tensor* const mask = mask_.empty() ? nullptr : tensor(GGML_TYPE_F16, s.keys, s.queries, 1, 1, mask_.data());
          ggml_tensor* const result = ggml_flash_attn_ext(c, tensor(GGML_TYPE_F32, s.dim, s.queries, s.heads, s.batch, q), k_, v_, mask,
                                                          1 / std::sqrt(static_cast<float>(s.dim)), 0.f, 0.f);
          result->data = out;
          return result;
        }) {}

  void operator()(void* k, void* v) {
    k_->data = k;
    v_->data = v;
    operator_();
  }

 private:
  std::vector<std::uint16_t> mask_;
  ggml_tensor *k_ = nullptr, *v_ = nullptr;
  ggml_operator operator_;
};

/// Registers ggml's attention for one shape. Plain numbers are tern's buffers, blocks are ggml's own.
template <class T>
class ggml_peer {
 public:
  using inputs = std::function<attention_inputs<T>&()>;
  ggml_peer(attention_shape const& s, inputs data) : data_(std::move(data)) {
    if constexpr (!float_storage<T>) blocks_ = lazy([s] { return kv_store<ggml_stored<T>>(s); });
  }
  void add(workload const& w, sight const& sees) const {
    w.add("ggml", [data = data_, blocks = blocks_, sees](run& r) {
      if constexpr (float_storage<T>)
        measure(r, data(), data().kv, sees);
      else
        measure(r, data(), blocks(), sees);
    });
  }

 private:
  template <class Codec>
  static void measure(run& r, attention_inputs<T>& p, kv_store<Codec>& store, sight const& sees) {
    ggml_attention attend(r.threads(), ggml_type_of<T>, p.s, sees, p.q.data(), p.out.data());
    check_and_time(r, p, store, sees, ggml_rounding<T>(p.s), [&](index i) { attend(store.k(i), store.v(i)); }, true);
  }

  inputs data_;
  std::function<kv_store<ggml_stored<T>>&()> blocks_;
};

#else

template <class T>
struct ggml_peer {
  ggml_peer(attention_shape const&, std::function<attention_inputs<T>&()>) {}
  void add(workload const&, sight const&) const {}
};

#endif

}  // namespace tern::bench
