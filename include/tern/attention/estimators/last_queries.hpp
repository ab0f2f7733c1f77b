// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/estimators/last_queries.hpp
/// Which columns and diagonals of causal attention matter, judged by the last queries of a prompt.
///
///     P = softmax(scale Q_last K^T), causal, of the last w = min(64, tokens) queries
///     column_j = sum_i P_ij,   diagonal_s = sum_i P_i,p(i)-s   with p(i) the position of query i
///     columns = the budget's largest, the first `sink` always among them; slashes likewise, the first `recent` offsets always
///
/// Shapes    q (heads, tokens, dim), k (k_heads, keys, dim), f32, f16 or bf16; the last query stands at the last key. Row h of
///           `columns` and `slashes` gets what head h is to see, ascending; at most what the rows hold.
/// Ties      go to the smaller column and the smaller offset.
/// Composition  the log-sum-exp is a call of attention with values of no elements; probabilities then come out of matmul, 1024 keys at
///           a time, and one pass over them adds up columns and diagonals. (A call of attention with the roles of queries and keys
///           exchanged would give the columns alone.)
/// Memory    scratch from the policy: some 8 bytes a key, and 64 x 1024 scores.
/// Cost      4 w keys dim flop a head, and 5 passes over two rows of numbers to select.
/// Error     that of attention's log-sum-exp and of matmul: a probability is wrong by at most the sum of both times itself.
/// Fails     if tokens > keys, or the lists have not a row for each head.
/// Source    MInference (arXiv:2407.02490, algorithm 2; minference_forward.py of its authors has w = 64, sink = 30, recent = 100, and
///           at least 30 columns and 50 slashes).

#include <tern/attention/attention.hpp>
#include <tern/attention/index_lists.hpp>
#include <tern/matmul/matmul.hpp>

namespace tern {

/// How many columns and slashes a head is to see, and how many of them are those nearest the start and the query.
struct vertical_slash_budget {
  index columns, slashes;
  index sink = 30, recent = 100;
};

/// How many columns and slashes were found.
struct vertical_slash_count {
  index columns, slashes;
};

namespace detail {
inline namespace TERN_ABI {

inline constexpr index last_query_count = 64, last_query_chunk = 1024;

/// Adds the probabilities of one chunk of keys [first, first + count) to the sums. Row i of s sees the keys up to last - rows + 1 + i;
/// `reversed` counts offsets down: of query i and key j it is j + rows - 1 - i.
TERN_INLINE void add_probabilities(float const* s, float const* lse, index rows, float scale, index first, index count, index last,
                                   float* column, float* reversed) {
  constexpr index W = simd::lanes;
  using packf = simd::pack<float>;
  for (index i = 0; i < rows; ++i) {
    index const left = last - rows + 2 + i - first, seen = left < count ? left : count;
    float* const c = column + first;
    float* const d = reversed + first + rows - 1 - i;
    auto probability = [&](packf x) TERN_LAMBDA { return simd::exp_nonpositive(simd::fma(x, packf(scale), packf(-lse[i]))); };
    float const* const row = s + i * last_query_chunk;
    index j = 0;
    for (; j + W <= seen; j += W) {
      packf const p = probability(simd::load(row + j));
      simd::store(c + j, simd::load(c + j) + p);
      simd::store(d + j, simd::load(d + j) + p);
    }
    if (j < seen) {
      index const some = seen - j;
      packf const p = probability(simd::load_n(row + j, some));
      simd::store_n(c + j, simd::load_n(c + j, some) + p, some);
      simd::store_n(d + j, simd::load_n(d + j, some) + p, some);
    }
  }
}

/// The budget's largest sums; the first `always` count as larger than any.
TERN_INLINE index select_with_first(float* sums, index n, index budget, index always, tensor_view<std::int32_t, 1> const& to) {
  for (index i = 0; i < always && i < budget && i < n; ++i) sums[i] = -negative_infinity;
  return select_top(tern::view(sums, n), budget, to);
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// estimate_vertical_slash(policy, q, k, budgets, columns, slashes): see the top of this file. `budgets` has one entry a head.
inline constexpr struct estimate_vertical_slash_fn {
  template <tensor_like Q, tensor_like K>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, vertical_slash_budget const* budgets, index_lists const& columns,
                  index_lists const& slashes) const {
    auto const vq = tern::view(q);
    auto const vk = tern::view(k);
    static_assert(view_of<Q>::rank == 3 && view_of<K>::rank == 3, "tern: estimate_vertical_slash takes q (heads, tokens, dim), k alike");
    for (index h = 0; h < vq.extent(0); ++h) {
      detail::expect(h < columns.rows() && h < slashes.rows(), "estimate_vertical_slash", "the rows of a list", h, "one for each head");
      vertical_slash_count const found = of_head(policy, vq, vk, h, budgets[h], columns.room(h), slashes.room(h));
      columns.counts[h] = static_cast<std::int32_t>(found.columns);
      slashes.counts[h] = static_cast<std::int32_t>(found.slashes);
    }
  }

  /// The same for head h alone, into these places; returns how many there are.
  template <class Q, class K>
  vertical_slash_count of_head(cpu_policy const& policy, tensor_view<Q, 3> const& q, tensor_view<K, 3> const& k, index h,
                               vertical_slash_budget const& budget, tensor_view<std::int32_t, 1> const& columns,
                               tensor_view<std::int32_t, 1> const& slashes) const {
    constexpr index chunk = detail::last_query_chunk;
    index const tokens = q.extent(1), keys = k.extent(1);
    detail::expect(tokens <= keys, "estimate_vertical_slash", "q.extent(1)", tokens, "at most the keys");
    detail::expect_divisor("estimate_vertical_slash", "k.extent(0)", k.extent(0), "a divisor of the heads of q", q.extent(0));
    if (tokens == 0) return {0, 0};
    index const rows = tokens < detail::last_query_count ? tokens : detail::last_query_count, kh = h / (q.extent(0) / k.extent(0));
    index const padded = keys + rows + simd::lanes;
    workspace::lease const scratch(policy.scratch(), static_cast<std::size_t>(2 * padded + rows * (chunk + 1)) * sizeof(float));
    float* const column = reinterpret_cast<float*>(scratch.data());
    float *const reversed = column + padded, *const s = reversed + padded, *const lse = s + rows * chunk;
    for (index j = 0; j < 2 * padded; ++j) column[j] = 0;

    auto const last = q[h].slice(0, tokens - rows, tokens);
    float const scale = 1 / __builtin_sqrtf(static_cast<float>(q.extent(2) > 0 ? q.extent(2) : 1));
    attention(policy, last, k[kh], k[kh].slice(1, 0, 0), tensor_view<float, 2>(s, shape<2>{{rows, 0}}), causal{},
              log_sum_exp{tern::view(lse, rows)});
    for (index first = 0; first < keys; first += chunk) {
      index const count = keys - first < chunk ? keys - first : chunk;
      matmul(policy, last, k[kh].slice(0, first, first + count), tensor_view<float, 2>(s, shape<2>{{rows, count}}, shape<2>{{chunk, 1}}));
      detail::add_probabilities(s, lse, rows, scale, first, count, keys - 1, column, reversed);
    }
    // Offset keys - 1 - t is at t: turned round, so that the smaller of equal ones comes first.
    for (index t = 0; t < keys / 2; ++t) {
      float const other = reversed[keys - 1 - t];
      reversed[keys - 1 - t] = reversed[t];
      reversed[t] = other;
    }
    return {detail::select_with_first(column, keys, budget.columns, budget.sink, columns),
            detail::select_with_first(reversed, keys, budget.slashes, budget.recent, slashes)};
  }
} estimate_vertical_slash{};

}  // namespace TERN_ABI
}  // namespace tern
