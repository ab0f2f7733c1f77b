// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/key_weights.hpp
/// How much weight each key receives: the column sums of the softmax, what the reduction of tokens and caches goes by.
///
///     out_j = sum_i e^(s_ij - lse_i)          over the queries i that see key j
///
/// The engine without values (dim_v = 0). Where queries are many, with roles swapped: keys are its queries, queries its keys, and the
/// weight of a pair is a function of its score alone. Where they are few, as in decoding, in one pass over the keys (few_key_weights.hpp).
/// Nothing of the score matrix is kept.
///
///     attention_key_weights(policy, q, k, lse, out, options...)
///
/// Shapes  q (heads, tokens, dim), k (k_heads, keys, dim) or what source.hpp has, lse (heads, tokens) as attention's log_sum_exp wrote it
///         with the same options, out f32 (heads, keys), or (k_heads, keys) for the sum over the heads that share a key head; without the
///         first extent for one head, with a batch in front for several texts. Where heads have different numbers of keys, zeros stand
///         behind the last of a head.
/// Options those of the attention call that decide on scores: masks, score modifiers, row transforms, scale, products<bf16> for many
///         queries. With sinks, lse has them already. No layouts.
/// Order   masks and modifiers see queries as queries and keys as keys. A modifier is called once for each pair, with the same pair
///         in all lanes, but softcap; masks of one's own are asked for coverage as ever.
/// Empty   a query whose lse is -inf gives nothing; a key that nobody sees gets 0.
/// Threads the same bits whatever their number.
/// Error   |out - exact| <= sum_i w_ij u (b0 + b1 sqrt(dim) n + 2 |lse_i|) + u sqrt(tokens) out, constants as attention_accuracy has them.
///         With few queries (tokens * heads that share keys; at most 32), tiles of 8, 4 and 2 bits add to it what they do in attention.
///         With products<bf16> a score is off by d_ij = 2^-7 scale sum_d |q_id k_jd| more (tile_bf16.hpp), and its weight by
///         w_ij (e^d_ij - 1); the log-sum-exp of a call with bf16 products by the largest d_ij of its row.
/// Memory  from the policy: what attention takes; with many queries, heads * keys floats where heads are summed.
/// Cost    2 heads tokens keys dim flop over what is seen.

#include <tern/attention/attention.hpp>
#include <tern/attention/few_key_weights.hpp>
#include <tern/attention/merge.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// Which head and text the swapped call's (batch, head) stands for: heads of a key head are its heads, key heads from `first` on its batch.
struct swapped_heads {
  index batch, first, group;
  index offset;  // of query 0 among the keys
  TERN_INLINE index key_head(index b) const { return first + b; }
  TERN_INLINE index head(index b, index member) const { return key_head(b) * group + member; }
};

/// Keys of a source as the queries of the swapped call.
template <class Source>
struct swapped_keys {
  static constexpr int rank = 4;
  using element = typename Source::element;
  Source from;
  swapped_heads heads;
  index extent[4];  // (key heads, heads that share one, keys, dim)
  template <class Key>
  TERN_INLINE void rows(index b, index, index count, Key const& key, element const** to) const
    requires(!decoding_source<Source>)
  {
    from.rows(heads.batch, heads.key_head(b), count, key, to);
  }
  TERN_INLINE void decode(index b, index, index j, float* to) const
    requires decoding_source<Source>
  {
    from.decode(heads.batch, heads.key_head(b), j, to);
  }
};
template <class Source>
TERN_INLINE swapped_keys<Source> rows_of(swapped_keys<Source> const& x) {
  return x;
}
template <class Source>
TERN_INLINE argument argument_of(int, swapped_keys<Source> const& x) {
  auto const& [batch, heads, keys, dim] = source_names[0];
  return {{x.extent[0], x.extent[1], x.extent[2], x.extent[3]}, {batch, heads, keys, dim}, "", 1};
}

template <class M>
struct transposed_mask {
  M mask;
  index queries;
  TERN_INLINE constexpr key_range range(index, index) const { return {0, queries}; }
  TERN_INLINE constexpr coverage covers(index i0, index i1, index j0, index j1) const { return mask.covers(j0, j1, i0, i1); }
  TERN_INLINE constexpr bool visible(index i, index j) const { return mask.visible(j, i); }
};
/// Whether a mask by head states where the queries of each stand.
template <class M>
inline constexpr bool offset_by_head = requires(M const& m, index i) { m.at(i, i).offset; };
template <class A, class B>
inline constexpr bool offset_by_head<both_masks<A, B>> = offset_by_head<A> || offset_by_head<B>;

template <class M>
struct transposed_mask_by_head {
  M mask;
  index queries;
  swapped_heads heads;
  TERN_INLINE constexpr auto at(index b, index h) const {
    auto const one = mask.at(heads.batch, heads.head(b, h));
    swapped_heads of_head = heads;
    if (stated_offset(one) != bottom_right) of_head.offset = stated_offset(one);
    return transpose_mask(one, queries, of_head);
  }
};

/// Key j is seen by the queries from j - offset on.
TERN_INLINE constexpr auto transpose_mask(causal const&, index, swapped_heads const& s) {
  return window{1, std::numeric_limits<index>::max(), -s.offset};
}
TERN_INLINE constexpr auto transpose_mask(window const& m, index, swapped_heads const& s) {
  return window{m.right < band::far ? m.right + 1 : m.right, m.length - 1, -s.offset};
}
template <custom_mask M>
TERN_INLINE constexpr auto transpose_mask(M const& m, index queries, swapped_heads const&) {
  return transposed_mask<M>{m, queries};
}
template <mask_by_head M>
TERN_INLINE constexpr auto transpose_mask(M const& m, index queries, swapped_heads const& s) {
  return transposed_mask_by_head<M>{m, queries, s};
}
template <class A, class B>
TERN_INLINE constexpr auto transpose_mask(both_masks<A, B> const& m, index queries, swapped_heads const& s) {
  return transpose_mask(m.first, queries, s) & transpose_mask(m.second, queries, s);
}
/// Where no mask is given: one that aligns query 0 with its place, and hides nothing.
TERN_INLINE constexpr auto transpose_mask(no_mask const&, index, swapped_heads const& s) {
  return window{std::numeric_limits<index>::max(), std::numeric_limits<index>::max(), -s.offset};
}

/// One modifier of the chain on a register whose lanes are queries of one key.
template <class F>
TERN_INLINE floats swapped_modifier(F const& f, floats s, score_at const& at, swapped_heads const& heads) {
  constexpr index W = simd::lanes;
  float score[W], result[W], lane[W];
  simd::store(static_cast<float*>(score), s);
  std::int32_t key[W], position[W];
  for (index i = 0; i < W; ++i) {
    key[i] = static_cast<std::int32_t>(at.query);
    position[i] = at.position + static_cast<std::int32_t>(heads.offset);
  }
  for (index i = 0; i < W; ++i) {
    score_at const one{
        heads.batch, heads.head(at.batch, at.head), at.key_index[i], at.key_positions[i] + static_cast<std::int32_t>(heads.offset), key,
        position};
    simd::store(static_cast<float*>(lane), floats(f(floats(score[i]), one)));
    result[i] = lane[0];
  }
  return simd::load(static_cast<float const*>(result));
}
TERN_INLINE floats swapped_modifier(softcap const& f, floats s, score_at const& at, swapped_heads const&) { return f(s, at); }

TERN_INLINE floats swapped_chain(score_chain<> const&, floats s, score_at const&, swapped_heads const&) { return s; }
template <class First, class... Rest>
TERN_INLINE floats swapped_chain(score_chain<First, Rest...> const& chain, floats s, score_at const& at, swapped_heads const& heads) {
  return swapped_chain(chain.rest, swapped_modifier(chain.first, s, at, heads), at, heads);
}

/// The modifiers of the call, and then s - lse of the query.
template <class Chain>
struct logarithm_of_weight {
  Chain chain;
  swapped_heads heads;
  tensor_view<float const, 2> lse;  // (heads, tokens)
  TERN_INLINE floats operator()(floats s, score_at const& at) const {
    s = swapped_chain(chain, s, at, heads);
    floats const sum = of_queries(heads.head(at.batch, at.head), at.key_index[0]), none(negative_infinity);
    return simd::select(sum == none, none, s - sum);
  }

 private:
  /// Of queries first, first + 1, ...; behind the last one, where scores are -inf, it does not matter.
  TERN_INLINE floats of_queries(index head, index first) const {
    float const* const row = &lse(head, first);
    index const left = lse.extent(1) - first, step = lse.stride(1), some = left < simd::lanes ? left : simd::lanes;
    if (step == 1) return simd::load_n(row, some);
    float lane[simd::lanes] = {};
    for (index i = 0; i < some; ++i) lane[i] = row[i * step];
    return simd::load(static_cast<float const*>(lane));
  }
};
/// e^s
struct exponential_weight {
  TERN_INLINE floats operator()(floats s) const { return simd::exp(s); }
};

template <class Transforms>
struct swapped_transforms {
  Transforms transforms;
  swapped_heads heads;
  TERN_INLINE void query(float* row, index dim, row_at const& at) const { transforms.key(row, dim, moved(at, heads.key_head(at.batch))); }
  TERN_INLINE void key(float* row, index dim, row_at const& at) const {
    transforms.query(row, dim, moved(at, heads.head(at.batch, at.head)));
  }

 private:
  TERN_INLINE row_at moved(row_at const& at, index head) const {
    return {heads.batch, head, heads.key_head(at.batch), at.token, at.position + static_cast<std::int32_t>(heads.offset)};
  }
};

/// Whether a tensor has that rank; other sources stand for all.
template <class K, int rank>
inline constexpr bool same_rank = true;
template <tensor_like K, int rank>
inline constexpr bool same_rank<K, rank> = view_of<K>::rank == rank;

/// What becomes of a swapped call: it runs, or says how much memory it takes, the most of several.
struct run_swapped {
  static constexpr bool runs = true;
  cpu_policy const& policy;
  template <class P, class Tile>
  TERN_INLINE void operator()(P const& problem, Tile) const {
    attention_run<Tile>(policy, problem);
  }
};
struct size_of_swapped {
  static constexpr bool runs = false;
  cpu_policy const& policy;
  std::size_t& most;
  template <class P, class Tile>
  TERN_INLINE void operator()(P const& problem, Tile) const {
    std::size_t const bytes = attention_plan<P, Tile>(problem).bytes(policy);
    if (bytes > most) most = bytes;
  }
};

/// Key heads [first, first + count) of one text, which have `keys` keys each: q (heads, tokens, dim), lse (heads, tokens), out (heads,
/// keys).
template <class Run, class Q, class K, class... Options>
inline void swapped_key_weights(Run const& run, tensor_view<Q const, 3> const& q, K const& k, tensor_view<float const, 2> const& lse,
                                tensor_view<float, 2> const& out, swapped_heads heads, index count, index keys, Options const&... options) {
  index const tokens = q.extent(1), dim = q.extent(2), first = heads.first * heads.group;
  auto const mask = find_mask(options...);
  auto const chain = find_modifiers(options...);
  auto const transforms = find_transforms(options...);
  static_assert(decltype(chain)::empty || !offset_by_head<std::remove_const_t<decltype(mask)>>,
                "tern: attention_key_weights takes no score modifiers with masks that state an offset for each head");
  index const stated = stated_offset(mask);
  heads.offset = stated == bottom_right ? keys - tokens : stated;
  using chain_type = std::remove_const_t<decltype(chain)>;
  swapped_keys<K> const queries{k, heads, {count, heads.group, keys, dim}};
  tensor_view<Q const, 4> const seen(q.data() + first * q.stride(0), shape<4>{{count, heads.group, tokens, dim}},
                                     shape<4>{{heads.group * q.stride(0), q.stride(0), q.stride(1), 1}});
  tensor_view<float const, 4> const values(nullptr, shape<4>{{count, 1, tokens, 0}}, shape<4>{{0, 0, 0, 1}});
  tensor_view<float, 4> const nothing(nullptr, shape<4>{{count, heads.group, keys, 0}}, shape<4>{{0, 0, 0, 1}});
  tensor_view<float, 3> const sums(out.data() + first * out.stride(0), shape<3>{{count, heads.group, keys}},
                                   shape<3>{{heads.group * out.stride(0), out.stride(0), out.stride(1)}});
  auto const multiply = [&] {
    if constexpr (is_given<decltype(find_products(options...))>)
      return find_products(options...);
    else
      return products<float>{};
  }();
  auto call = [&](auto const&... transform) TERN_LAMBDA {
    float factor = 1 / __builtin_sqrtf(static_cast<float>(dim > 0 ? dim : 1));
    if constexpr (is_given<decltype(find_scale(options...))>) factor = find_scale(options...).value;
    attention_with(queries, seen, values, nothing, run, weight_sum{sums}, weigh_by{exponential_weight{}}, scale{factor},
                   logarithm_of_weight<chain_type>{chain, heads, lse}, transpose_mask(mask, tokens, heads), multiply, transform...);
  };
  if constexpr (std::remove_const_t<decltype(transforms)>::empty)
    call();
  else
    call(swapped_transforms<std::remove_const_t<decltype(transforms)>>{transforms, heads});
}

/// One text: q (heads, tokens, dim), k a source of `k_heads` heads whose longest has as many keys as out, lse (heads, tokens), out (heads,
/// keys). Heads of different lengths are calls of their own.
template <class Run, class Q, class K, class... Options>
inline void key_weights_of_text(Run const& run, tensor_view<Q const, 3> const& q, K const& k, index k_heads,
                                tensor_view<float const, 2> const& lse, tensor_view<float, 2> const& out, index batch,
                                Options const&... options) {
  index const count = ragged_source<K> ? 1 : k_heads, group = q.extent(0) / k_heads;
  for (index first = 0; first < k_heads; first += count) {
    index const keys = keys_of_head(k, batch, first, out.extent(1));
    swapped_key_weights(run, q, k, lse, out, {batch, first, group, 0}, count, keys, options...);
    if constexpr (Run::runs)
      for (index h = first * group; h < (first + count) * group; ++h)
        for (index j = keys; j < out.extent(1); ++j) out(h, j) = 0;
  }
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// attention_key_weights(policy, q, k, lse, out, options...): see the top of this file.
inline constexpr struct attention_key_weights_fn {
  template <tensor_like Q, detail::key_source K, tensor_like L, tensor_like O, detail::attention_option... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, L&& lse, O&& out, Options const&... options) const {
    constexpr int rank = view_of<Q>::rank;
    static_assert(rank >= 2 && rank <= 4 && detail::same_rank<K, rank> && view_of<L>::rank == rank - 1 && view_of<O>::rank == rank - 1,
                  "tern: attention_key_weights takes q and k of rank 2, 3 or 4, lse and out of one rank less");
    static_assert(!detail::is_given<decltype(detail::find_layout(options...))>, "tern: attention_key_weights takes no layout");
    using query = typename view_of<Q>::value_type;
    auto const qs = detail::with_batch(tensor_view<query const, rank>(tern::view(q)));
    auto const source = detail::source_of(k);
    detail::key_weight_sums const sums{detail::with_batch_lse(tensor_view<float const, rank - 1>(tern::view(lse))),
                                       detail::with_batch_lse(tensor_view<float, rank - 1>(tern::view(out)))};
    [[maybe_unused]] index const batch = qs.extent(0), heads = qs.extent(1), tokens = qs.extent(2), dim = qs.extent(3);
    detail::argument const of_k = detail::argument_of(1, source, batch);
    index const k_heads = of_k.extent[1], keys = of_k.extent[2], group = heads / (k_heads > 0 ? k_heads : 1);
    check(qs, of_k, sums.lse, sums.out);
    (detail::check_option(options, {batch, heads, k_heads, k_heads, tokens, keys, dim, 0, 1}), ...);
    if (tokens * group <= detail::query_stream_rows)
      return few(qs, source, of_k, [&]<class P, class Tile>(P const& p, Tile) { detail::few_key_weights(policy, p, sums); }, options...);
    bool const per_head = sums.out.extent(1) == heads;
    workspace::lease const scratch(policy.scratch(), per_head ? 0 : static_cast<std::size_t>(heads * keys) * sizeof(float));
    tensor_view<float, 2> const own(reinterpret_cast<float*>(scratch.data()), shape<2>{{heads, keys}});
    for (index b = 0; b < batch; ++b) {
      detail::key_weights_of_text(detail::run_swapped{policy}, qs[b], detail::rows_of(source), k_heads, sums.lse[b],
                                  per_head ? sums.out[b] : own, b, options...);
      if (!per_head) sum_heads(own, group, sums.out[b]);
    }
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like Q, detail::key_source K, tensor_like L, tensor_like O, detail::attention_option... Options>
  std::size_t workspace_size(cpu_policy const& policy, Q&& q, K&& k, L&& lse, O&& out, Options const&... options) const {
    constexpr int rank = view_of<Q>::rank;
    using query = typename view_of<Q>::value_type;
    auto const qs = detail::with_batch(tensor_view<query const, rank>(tern::view(q)));
    auto const source = detail::source_of(k);
    auto const sums = detail::with_batch_lse(tensor_view<float, rank - 1>(tern::view(out)));
    auto const lses = detail::with_batch_lse(tensor_view<float const, rank - 1>(tern::view(lse)));
    index const batch = qs.extent(0), heads = qs.extent(1);
    detail::argument const of_k = detail::argument_of(1, source, batch);
    index const k_heads = of_k.extent[1], keys = of_k.extent[2], group = heads / (k_heads > 0 ? k_heads : 1);
    std::size_t most = 0;
    if (qs.extent(2) * group <= detail::query_stream_rows) {
      few(qs, source, of_k, [&]<class P, class Tile>(P const& p, Tile) { most = detail::few_key_split<P>(policy, p).bytes(); }, options...);
      return most;
    }
    tensor_view<float, 2> const own(sums.data(), shape<2>{{heads, keys}});
    for (index b = 0; b < batch; ++b)
      detail::key_weights_of_text(detail::size_of_swapped{policy, most}, qs[b], detail::rows_of(source), k_heads, lses[b], own, b,
                                  options...);
    return most + (sums.extent(1) == heads ? 0 : workspace::rounded(static_cast<std::size_t>(heads * keys) * sizeof(float)));
  }

 private:
  template <class Q, class K, class Run, class... Options>
  TERN_INLINE static void few(Q const& q, K const& k, detail::argument const& of_k, Run const& run, Options const&... options) {
    tensor_view<float const, 4> const values(nullptr, shape<4>{{q.extent(0), of_k.extent[1], of_k.extent[2], 0}}, shape<4>{{0, 0, 0, 1}});
    tensor_view<float, 4> const nothing(nullptr, shape<4>{{q.extent(0), q.extent(1), q.extent(2), 0}}, shape<4>{{0, 0, 0, 1}});
    detail::attention_with(q, k, values, nothing, run, options...);
  }
  template <class Q, class L, class O>
  TERN_INLINE static void check(Q const& q, detail::argument const& k, L const& lse, O const& out) {
    constexpr char const* op = "attention_key_weights";
    index const heads = q.extent(1), k_heads = k.extent[1];
    detail::expect_equal(op, "the batch of k", k.extent[0], "that of q", q.extent(0));
    detail::expect_equal(op, "the dim of k", k.extent[3], "that of q", q.extent(3));
    detail::expect_divisor(op, "the heads of k", k_heads, "a divisor of those of q", heads);
    for (int d = 0; d < 3; ++d) detail::expect_equal(op, "an extent of lse", lse.extent(d), "that of q", q.extent(d));
    detail::expect_equal(op, "the batch of out", out.extent(0), "that of q", q.extent(0));
    detail::expect(out.extent(1) == heads || out.extent(1) == k_heads, op, "the heads of out", out.extent(1), "those of q or of k");
    detail::expect_equal(op, "the keys of out", out.extent(2), "those of k", k.extent[2]);
    detail::expect(q.extent(3) <= 1 || q.stride(3) == 1, op, "the last stride of q", q.stride(3), "1 (contiguous rows)");
    detail::expect(k.stride == 1, op, "the last stride of k", k.stride, "1 (contiguous rows)");
  }
  TERN_INLINE static void sum_heads(tensor_view<float, 2> const& from, index group, tensor_view<float, 2> const& to) {
    for (index h = 0; h < to.extent(0); ++h)
      for (index j = 0; j < to.extent(1); ++j) {
        float sum = 0;
        for (index g = 0; g < group; ++g) sum += from(h * group + g, j);
        to(h, j) = sum;
      }
  }
} attention_key_weights{};

}  // namespace TERN_ABI
}  // namespace tern
