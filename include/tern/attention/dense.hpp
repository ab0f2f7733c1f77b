// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/dense.hpp
/// Softmax attention over dense keys and values, without a score matrix in memory.
///
///     out_i = sum_j w_ij v_j,   w_ij = e^s_ij / sum_j' e^s_ij',   s_ij = cap(scale q_i . k_j), over the keys j that query i sees
///
/// Shapes    q (heads, tokens, dim), k (kv_heads, keys, dim), v (kv_heads, keys, dim_v), out (heads, tokens, dim_v); without the
///           first extent for one head, with a batch in front for several texts. Heads, tokens and keys may have any strides; the
///           elements of a row are contiguous. Each tensor is f32, f16 or bf16 for itself. out overlaps no input,
///           but may be q itself: the same elements at the same places.
/// Heads     kv_heads divides heads; head h uses key head h / (heads / kv_heads).
/// Options   masks (mask.hpp), scale, softcap, log_sum_exp (options.hpp), in any order.
/// Order     scale, then softcap, then masks: a hidden key has weight zero whatever its score or value; it may be NaN.
/// Alignment query i stands at key i + keys - tokens (bottom-right) unless a mask states an offset. Windows count the query's own key.
/// Empty     a query that sees no key gives zeros, and log-sum-exp -inf. So does one whose scores are all -inf.
/// NaN, inf  propagate as the formula says: a visible NaN in q, k or v makes the results that use it NaN; a score of +inf makes its
///           row NaN.
/// Threads   the same bits whatever their number, and whatever the other rows, heads and batches hold. A query's bits do depend on
///           whether its call takes the path for few queries (at most 8 of tokens * heads / kv_heads) or the one for many.
/// Memory    scratch from the policy: proportional to threads for many queries, and to keys / 512 besides for few.
/// Error     |out - exact| <= u (b0 + b1 sqrt(dim) n + b2 sqrt(keys)) M with u = 2^-24, M = sum_j w_ij |v_j| and n = scale |q_i| . |k_j|
///           at its largest (plus the cap): a score that is off by d has its weight multiplied by e^d, and rounding errors of sums
///           grow like the square root of their length. |lse - exact| <= u (the same + 2 |lse|). `attention_accuracy` has the constants.
/// Cost      4 heads tokens keys dim flop; parts of the score matrix that nobody sees are not computed.

#include <tern/attention/options.hpp>
#include <tern/attention/prompt.hpp>
#include <tern/attention/stream.hpp>
#include <tern/core/parallel_for.hpp>

namespace tern {

/// The constants of the error bound above.
struct attention_accuracy {
  static constexpr double b0 = 16, b1 = 1, b2 = 1;
};

namespace detail {
inline namespace TERN_ABI {

/// How a call is cut into items, and what memory they take. A function of the shapes.
struct attention_plan {
  bool stream;
  index rows;    // of an item, when not streaming
  index pieces;  // items for each key head: tiles of rows, or splits of keys
  index items;
  std::size_t item_bytes;    // for each slot of threads
  std::size_t shared_bytes;  // partial results

  TERN_INLINE explicit attention_plan(attention_extents const& n) {
    stream = n.rows() <= query_stream_rows;
    rows = stream ? n.rows() : prompt_item_rows(n);
    pieces = stream ? (n.keys > split_keys ? divide_up(n.keys, split_keys) : 1) : divide_up(n.rows(), rows);
    items = n.batch * n.kv_heads * pieces;
    index const item_floats = stream ? stream_scratch::lay_out(n, nullptr, nullptr) : prompt_scratch::lay_out(n, rows, nullptr, nullptr);
    item_bytes = workspace::rounded(static_cast<std::size_t>(item_floats) * sizeof(float));
    shared_bytes = stream ? workspace::rounded(static_cast<std::size_t>(items * stream_partial::size(n)) * sizeof(float)) : 0;
  }
  TERN_INLINE std::size_t bytes(index slots) const { return shared_bytes + item_bytes * static_cast<std::size_t>(slots); }
};

/// Below this many multiplications, some 20 us, a second thread costs more than it saves.
inline constexpr index serial_products = index{1} << 20;

TERN_INLINE cpu_policy threads_for(cpu_policy const& policy, attention_extents const& n) {
  bool const small = n.batch * n.heads * n.tokens * n.keys < serial_products / (n.dim + n.dim_v + 1);
  return small ? policy.on(serial) : policy;
}

template <class Problem>
inline void attention_run(cpu_policy const& callers, Problem const& p) {
  attention_extents const& n = p.n;
  if (n.batch * n.heads * n.tokens * n.dim_v == 0 && p.lse == nullptr) return;
  if (n.batch * n.heads * n.tokens == 0) return;
  cpu_policy const policy = threads_for(callers, n);
  attention_plan const plan(n);
  workspace::lease const scratch(policy.scratch(), plan.bytes(slots_for(policy, plan.items)));
  float* const shared = reinterpret_cast<float*>(scratch.data());
  std::byte* const slots = scratch.data() + plan.shared_bytes;
  auto memory = [&](index slot) TERN_LAMBDA { return reinterpret_cast<float*>(slots + static_cast<std::size_t>(slot) * plan.item_bytes); };

  if (!plan.stream) {
    parallel_for(policy, plan.items, [&](index item, index slot) TERN_LAMBDA {
      // The last rows come first: under a causal mask they have the most to do.
      index const piece = plan.pieces - 1 - item / (n.batch * n.kv_heads), head = item % (n.batch * n.kv_heads);
      prompt_item(p, head / n.kv_heads, head % n.kv_heads, piece * plan.rows, plan.rows, memory(slot));
    });
    return;
  }
  index const size = stream_partial::size(n);
  parallel_for(policy, plan.items, [&](index item, index slot) TERN_LAMBDA {
    index const head = item / plan.pieces, from = item % plan.pieces * split_keys;
    index const to = from + split_keys < n.keys ? from + split_keys : n.keys;
    stream_item(p, head / n.kv_heads, head % n.kv_heads, from, to, stream_partial::at(n, shared + item * size), memory(slot));
  });
  for (index head = 0; head < n.batch * n.kv_heads; ++head)
    stream_finish(p, head / n.kv_heads, head % n.kv_heads, shared + head * plan.pieces * size, plan.pieces);
}

/// Checks the shapes; messages number extents as the caller does, `rank` dimensions from the left.
template <class Q, class K, class V, class O>
inline attention_extents check_attention(int rank, tensor_view<Q, 4> const& q, tensor_view<K, 4> const& k, tensor_view<V, 4> const& v,
                                         tensor_view<O, 4> const& out) {
  constexpr char const* op = "attention";
  constexpr char const* names[4][4] = {
      {"q.extent(0)", "q.extent(1)", "q.extent(2)", "q.extent(3)"},
      {"k.extent(0)", "k.extent(1)", "k.extent(2)", "k.extent(3)"},
      {"v.extent(0)", "v.extent(1)", "v.extent(2)", "v.extent(3)"},
      {"out.extent(0)", "out.extent(1)", "out.extent(2)", "out.extent(3)"},
  };
  auto name = [&](int tensor, int d) TERN_LAMBDA { return names[tensor][d - (4 - rank) < 0 ? 0 : d - (4 - rank)]; };
  for (int d = 0; d < 4; ++d) {
    expect(q.extent(d) >= 0, op, name(0, d), q.extent(d), "at least 0");
    expect(k.extent(d) >= 0, op, name(1, d), k.extent(d), "at least 0");
  }
  expect(v.extent(3) >= 0, op, name(2, 3), v.extent(3), "at least 0");
  expect_equal(op, name(1, 3), k.extent(3), name(0, 3), q.extent(3));
  expect_equal(op, name(2, 2), v.extent(2), name(1, 2), k.extent(2));
  expect_equal(op, name(2, 1), v.extent(1), name(1, 1), k.extent(1));
  expect_equal(op, name(1, 0), k.extent(0), name(0, 0), q.extent(0));
  expect_equal(op, name(2, 0), v.extent(0), name(0, 0), q.extent(0));
  expect_equal(op, name(3, 0), out.extent(0), name(0, 0), q.extent(0));
  expect_equal(op, name(3, 1), out.extent(1), name(0, 1), q.extent(1));
  expect_equal(op, name(3, 2), out.extent(2), name(0, 2), q.extent(2));
  expect_equal(op, name(3, 3), out.extent(3), name(2, 3), v.extent(3));
  expect(k.extent(1) > 0 && q.extent(1) % (k.extent(1) > 0 ? k.extent(1) : 1) == 0, op, name(1, 1), k.extent(1),
         "a divisor of the heads of q");
  expect(q.extent(3) <= 1 || q.stride(3) == 1, op, "the stride of q's last dimension", q.stride(3), "1 (contiguous rows)");
  expect(k.extent(3) <= 1 || k.stride(3) == 1, op, "the stride of k's last dimension", k.stride(3), "1 (contiguous rows)");
  expect(v.extent(3) <= 1 || v.stride(3) == 1, op, "the stride of v's last dimension", v.stride(3), "1 (contiguous rows)");
  expect(out.extent(3) <= 1 || out.stride(3) == 1, op, "the stride of out's last dimension", out.stride(3), "1 (contiguous rows)");
  return {q.extent(0), q.extent(1), k.extent(1), q.extent(2), k.extent(2), q.extent(3), v.extent(3)};
}

/// Builds the problem that the options describe and hands it to `then`.
template <class Q, class K, class V, class O, class Then, class... Options>
TERN_INLINE void attention_with(int rank, tensor_view<Q, 4> const& q, tensor_view<K, 4> const& k, tensor_view<V, 4> const& v,
                                tensor_view<O, 4> const& out, Then&& then, Options const&... options) {
  attention_extents const n = check_attention(rank, q, k, v, out);
  auto const mask = find_mask(options...);
  auto const bound = [&] {
    if constexpr (std::same_as<decltype(mask), no_option const>) {
      return band{-band::far, band::far, n.keys};
    } else {
      index const stated = stated_offset(mask);
      return bind_mask(mask, n.keys, stated == bottom_right ? n.keys - n.tokens : stated);
    }
  }();
  auto const scaling = find_option(is_scale_option{}, options...);
  float factor = 0;
  if constexpr (std::same_as<decltype(scaling), scale const>)
    factor = scaling.value;
  else
    factor = 1 / __builtin_sqrtf(static_cast<float>(n.dim > 0 ? n.dim : 1));

  auto const lse = find_option(is_lse_option{}, options...);
  tensor_view<float, 3> sums;
  if constexpr (!std::same_as<decltype(lse), no_option const>) {
    expect_equal("attention", "the rank of log_sum_exp", decltype(lse.out)::rank, "the rank of q - 1", rank - 1);
    sums = with_batch_lse(lse.out);
    expect_equal("attention", "the batch extent of log_sum_exp", sums.extent(0), "that of q", n.batch);
    expect_equal("attention", "the heads extent of log_sum_exp", sums.extent(1), "that of q", n.heads);
    expect_equal("attention", "the tokens extent of log_sum_exp", sums.extent(2), "that of q", n.tokens);
  }
  auto run = [&](auto const& score) {
    using mask_type = std::remove_const_t<decltype(bound)>;
    using score_type = std::remove_cvref_t<decltype(score)>;
    then(attention_problem<std::remove_const_t<Q>, std::remove_const_t<K>, std::remove_const_t<V>, O, mask_type, score_type>{
        {q.data(), q.stride(0), q.stride(1), q.stride(2)},
        {k.data(), k.stride(0), k.stride(1), k.stride(2)},
        {v.data(), v.stride(0), v.stride(1), v.stride(2)},
        {out.data(), out.stride(0), out.stride(1), out.stride(2)},
        sums.data(),
        sums.stride(0),
        sums.stride(1),
        sums.stride(2),
        n,
        bound,
        score});
  };
  auto const cap = find_option(is_softcap_option{}, options...);
  if constexpr (std::same_as<decltype(cap), softcap const>) {
    expect(cap.limit > 0, "attention", "the sign of softcap", cap.limit < 0 ? -1 : 0, "that of a positive limit");
    run(capped_score(factor, cap.limit));
  } else {
    run(plain_score(factor));
  }
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// attention(policy, q, k, v, out, options...): see the top of this file.
inline constexpr struct attention_fn {
  template <tensor_like Q, tensor_like K, tensor_like V, tensor_like O, detail::attention_option... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, Options const&... options) const {
    check_types<Q, K, V, O>();
    static_assert(writable<O>, "tern: attention writes out, which is const");
    if constexpr (types_fit<Q, K, V, O> && ranks_fit<Q, K, V, O> && writable<O>)  // or the first error would not be the last
      detail::attention_with(
          view_of<Q>::rank, detail::with_batch(tern::view(q)), detail::with_batch(tern::view(k)), detail::with_batch(tern::view(v)),
          detail::with_batch(tern::view(out)), [&](auto const& problem) { detail::attention_run(policy, problem); }, options...);
  }

  /// The bytes of scratch memory that the same call borrows.
  template <tensor_like Q, tensor_like K, tensor_like V, tensor_like O, detail::attention_option... Options>
  std::size_t workspace_size(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, Options const&...) const {
    check_types<Q, K, V, O>();
    if constexpr (types_fit<Q, K, V, O> && ranks_fit<Q, K, V, O>) {
      auto const n = detail::check_attention(view_of<Q>::rank, detail::with_batch(tern::view(q)), detail::with_batch(tern::view(k)),
                                             detail::with_batch(tern::view(v)), detail::with_batch(tern::view(out)));
      detail::attention_plan const plan(n);
      return plan.bytes(detail::slots_for(detail::threads_for(policy, n), plan.items));
    } else {
      return 0;
    }
  }

 private:
  template <class... X>
  static constexpr bool types_fit = (float_storage<typename view_of<X>::element_type> && ...);
  template <class Q, class... X>
  static constexpr bool ranks_fit = view_of<Q>::rank >= 2 && view_of<Q>::rank <= 4 && ((view_of<X>::rank == view_of<Q>::rank) && ...);
  template <class O>
  static constexpr bool writable = !std::is_const_v<typename view_of<O>::element_type>;

  template <class... X>
  static constexpr void check_types() {
    static_assert(types_fit<X...>, "tern: attention takes f32, f16 and bf16");
    static_assert(ranks_fit<X...>,
                  "tern: attention takes (tokens, dim), (heads, tokens, dim) or (batch, heads, tokens, dim), the same rank for all");
  }
} attention{};

}  // namespace TERN_ABI
}  // namespace tern
