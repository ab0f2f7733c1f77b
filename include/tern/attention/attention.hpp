// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/attention.hpp
/// Attention without a score matrix in memory.
///
///     out_i = sum_j w_ij v_j,   w_ij = e^s_ij / sum_j' e^s_ij',   s_ij = modify(scale q_i . k_j), over the keys j that query i sees
///
/// Shapes    q (heads, tokens, dim), k (k_heads, keys, dim), v (v_heads, keys, dim_v), out (heads, tokens, dim_v); without the
///           first extent for one head, with a batch in front for several texts. Heads, tokens and keys may have any strides; the
///           elements of a row are contiguous. Each tensor is f32, f16 or bf16 for itself; k and v may also be what source.hpp
///           has. out overlaps no input, but may be q itself: the same elements at the same places.
/// Heads     k_heads and v_heads divide heads; head h uses key head h / (heads / k_heads) and value head h / (heads / v_heads).
/// Options   masks (mask.hpp), layouts (layout.hpp), score modifiers (score.hpp), normalizers (normalizer.hpp), row transforms,
///           scale, products, log_sum_exp, row_max, weight_sum, top_keys, key_weights (options.hpp), in any order.
/// Order     row transforms of q and k, scale, score modifiers as written, masks, sinks. A hidden key has weight zero whatever its
///           score or value; it may be NaN.
/// Alignment query i of a group (all queries, where no layout is given) stands at key i + keys - queries (bottom-right) unless a
///           mask states an offset. Windows count the query's own key.
/// Empty     a query that sees no key, or whose scores are all -inf, gives zeros, and log-sum-exp -inf. Sinks count as scores for
///           log_sum_exp and row_max, which are the sink's then. A score of -inf weighs nothing, whatever the normalizer.
/// NaN, inf  propagate as the formula says: a visible NaN in q, k or v makes the results that use it NaN; a score of +inf makes its
///           row NaN. NaN is never among the top_keys.
/// Threads   the same bits whatever their number, and whatever the other rows, heads, batches and groups hold. A query's bits do
///           depend on which path its group takes: that for few rows (queries * heads that share keys; at most 32), for up to 384 (192
///           where there are 16 registers), or for more.
/// Memory    scratch from the policy: proportional to threads, 80 bytes an item, and up to 64 MiB for the results of ranges of keys,
///           which the first two paths cut long contexts into (an eighth of the keys, from 512 to 4096, or from 1024 on).
/// Error     |out - exact| <= u (b0 + b1 sqrt(dim) n + b2 sqrt(keys)) M with u = 2^-24, M = sum_j w_ij |v_j| and n = scale |q_i| . |k_j|
///           at its largest (plus the cap): a score that is off by d has its weight multiplied by e^d, and rounding errors of sums
///           grow like the square root of their length. For a normalizer f that divides by nothing, M = sum_j (|f(s_ij)| +
///           |f'(s_ij)|) |v_j|. Modifiers that are steeper than 1 multiply n, to which the scores that they give are added.
///           |lse - exact| <= u (the same + 2 |lse|). `attention_accuracy` has the constants. What products<bf16>, products<std::int8_t>
///           and tiles of 8, 4 and 2 bits add to it stands in tile_bf16.hpp, tile_int8.hpp, tile_kernels.hpp and two_bit_kernels.hpp.
///           Over tiles a group of few rows rounds q to 8-bit integers, with one step for 32 elements, or for all where keys are of
///           2 bits, and each product of a weight and a step of v to 8 bits.
/// Cost      4 heads tokens keys dim flop; parts of the score matrix that nobody sees are not computed.

#include <tern/attention/arguments.hpp>
#include <tern/attention/plan.hpp>
#include <tern/attention/tile_bf16.hpp>
#include <tern/attention/tile_int8.hpp>

namespace tern {

/// The constants of the error bound above.
struct attention_accuracy {
  static constexpr double b0 = 16, b1 = 1, b2 = 1;
};

namespace detail {
inline namespace TERN_ABI {

TERN_INLINE attention_shape shape_of(attention_extents const& n) {
  return {n.batch, n.heads, n.k_heads, n.v_heads, n.tokens, n.keys, n.dim, n.dim_v};
}

/// Lets an option compare itself with the call.
template <class Option>
TERN_INLINE void check_option(Option const& option, attention_extents const& n) {
  if constexpr (requires { option.check(attention_shape{}); }) option.check(shape_of(n));
}

/// A place for one number of each query, checked.
template <class Option>
TERN_INLINE row_output row_output_of(Option const& option, char const* name, int rank, attention_extents const& n) {
  if constexpr (is_given<Option>) {
    constexpr int own = decltype(option.out)::rank;
    expect_equal("attention", name, own, "the rank of q - 1", rank - 1);
    index const extents[3] = {n.batch, n.heads, n.tokens};
    row_output to{option.out.data(), 0, 0, option.out.stride(own - 1)};
    if constexpr (own >= 2) to.head_stride = option.out.stride(own - 2);
    if constexpr (own >= 3) to.batch_stride = option.out.stride(own - 3);
    for (int d = 0; d < own && own == rank - 1; ++d)
      expect_equal("attention", name, option.out.extent(d), "an extent of q", extents[3 - own + d]);
    return to;
  } else {
    return {};
  }
}

template <class Option>
TERN_INLINE void set_key_weights(attention_returns& to, Option const& weights, int rank, attention_extents const& n) {
  if constexpr (is_given<Option>) {
    expect_equal("attention", "the rank of key_weights", decltype(weights.out)::rank, "the rank of q - 1", rank - 1);
    to.key_weights = with_batch_lse(weights.out);
    index const extents[3] = {n.batch, n.heads, n.keys};
    constexpr char const* of[3] = {"that of q", "that of q", "that of k"};
    for (int d = 0; d < 3; ++d) expect_equal("attention", "an extent of key_weights", to.key_weights.extent(d), of[d], extents[d]);
  }
}

template <class Option>
TERN_INLINE void set_top(attention_returns& to, Option const& top, int rank, attention_extents const& n) {
  if constexpr (is_given<Option>) {
    expect_equal("attention", "the rank of top_keys", decltype(top.ids)::rank, "the rank of q", rank);
    to.top_ids = with_batch(top.ids);
    to.top_scores = with_batch(top.scores);
    index const extents[3] = {n.batch, n.heads, n.tokens};
    for (int d = 0; d < 3; ++d) {
      expect_equal("attention", "an extent of the ids of top_keys", to.top_ids.extent(d), "that of q", extents[d]);
      expect_equal("attention", "an extent of the scores of top_keys", to.top_scores.extent(d), "that of q", extents[d]);
    }
    expect(to.top_ids.extent(3) >= 1, "attention", "the count of top_keys", to.top_ids.extent(3), "at least 1");
    expect_equal("attention", "the count of the scores of top_keys", to.top_scores.extent(3), "that of the ids", to.top_ids.extent(3));
  }
}

/// Fails where a group lists keys behind the length of a sequence in pages, whose rows may not exist.
template <class Problem>
inline void check_listed_keys(Problem const& p) {
  for (index b = 0; b < p.n.batch; ++b)
    for (index unit = 0; unit < p.n.units(); ++unit) {
      index const keys = p.keys_of(b, unit);
      for (index g = 0; keys < p.n.keys && g < p.groups(b, unit); ++g) {
        auto const group = p.group(b, unit, g);
        for (index j = 0; j < group.keys; ++j)
          expect(group.key(j) < keys, "attention", "a key of the layout", group.key(j), "below the length of its sequence");
      }
    }
}

/// The tile of products that a call multiplies with.
template <class Products, class Spec>
struct tile_choice {
  using type = f32_tile;
};
template <class Spec>
struct tile_choice<products<bf16>, Spec> {
  using type = best_bf16_tile;
};
template <class Spec>
struct tile_choice<products<std::int8_t>, Spec> {
  static_assert(Spec::softmax, "tern: products of int8 take the weights of a softmax");
  using type = best_int8_tile;
};

/// Checks the arguments, builds the problem that the options describe and hands it to `then`.
template <class Q, class K, class V, class O, class Then, class... Options>
TERN_INLINE auto attention_with(Q const& q, K const& k, V const& v, O const& out, Then&& then, Options const&... options) {
  constexpr int rank = Q::rank;
  auto const mask = find_mask(options...);
  auto const layout = find_layout(options...);
  auto const normalizer = find_normalizer(options...);
  auto const chain = find_modifiers(options...);
  auto const transform = find_transforms(options...);
  auto const scaling = find_scale(options...);
  using layout_type = decltype(layout_over(layout, attention_shape{}));
  using normalizer_type = std::remove_const_t<decltype(normalizer)>;
  constexpr bool per_head = [] {
    if constexpr (is_given<layout_type>)
      return layout_type::per_head || differs_by_head<std::remove_const_t<decltype(mask)>>;
    else
      return differs_by_head<std::remove_const_t<decltype(mask)>>;
  }();
  constexpr bool top = is_given<decltype(find_top_keys(options...))>;
  constexpr bool columns = is_given<decltype(find_key_weights(options...))>;
  using spec = attention_spec<layout_type, std::remove_const_t<decltype(mask)>, std::remove_const_t<decltype(chain)>, normalizer_type,
                              std::remove_const_t<decltype(transform)>, top, columns>;
  static_assert(!columns || (spec::softmax && !is_given<layout_type>), "tern: key_weights belongs to softmax, without layouts");
  static_assert(spec::softmax || !is_given<decltype(find_log_sum_exp(options...))>, "tern: log_sum_exp belongs to softmax");
  static_assert(!spec::elementwise || !is_given<decltype(find_row_max(options...))>, "tern: row_max belongs to softmax and hard");
  static_assert(spec::elementwise || !is_given<decltype(find_weight_sum(options...))>,
                "tern: weights that are divided by their sum add up to 1");

  argument const of_q = argument_of(0, q);
  index const batch = of_q.extent[0];
  attention_extents const n = check_arguments(of_q, argument_of(1, k, batch), argument_of(2, v, batch), argument_of(3, out), per_head);
  check_lengths(k, v);
  (check_option(options, n), ...);
  attention_returns returns;
  returns.lse = row_output_of(find_log_sum_exp(options...), "the rank or an extent of log_sum_exp", rank, n);
  returns.max = row_output_of(find_row_max(options...), "the rank or an extent of row_max", rank, n);
  returns.sum = row_output_of(find_weight_sum(options...), "the rank or an extent of weight_sum", rank, n);
  set_top(returns, find_top_keys(options...), rank, n);
  set_key_weights(returns, find_key_weights(options...), rank, n);
  float factor = 0;
  if constexpr (is_given<decltype(scaling)>)
    factor = scaling.value;
  else
    factor = 1 / __builtin_sqrtf(static_cast<float>(n.dim > 0 ? n.dim : 1));

  using problem = attention_problem<decltype(rows_of(q)), decltype(rows_of(k)), decltype(rows_of(v)), typename O::element_type, spec>;
  problem const p{rows_of(q),
                  rows_of(k),
                  rows_of(v),
                  planes_of(with_batch(out)),
                  returns,
                  n,
                  spec{layout_over(layout, shape_of(n)), mask, chain, normalizer, transform, factor}};
  if constexpr (is_given<layout_type>) check_listed_keys(p);
  using tile = typename tile_choice<std::remove_const_t<decltype(find_products(options...))>, spec>::type;
  return then(p, tile{});
}

/// What stands in place of k or v: a view, or another source as it is.
template <class X>
TERN_INLINE auto source_of(X&& x) {
  if constexpr (tensor_like<X>)
    return tern::view(x);
  else
    return x;
}

template <class X>
inline constexpr bool is_source = false;
template <class F>
inline constexpr bool is_source<kv_tiles<F>> = true;
template <class T>
inline constexpr bool is_source<paged<T>> = stored_element<T>;
template <class F>
inline constexpr bool is_source<paged_heads<F>> = true;
template <class T>
inline constexpr bool is_source<ring<T>> = stored_element<T>;
template <class T, int N>
inline constexpr bool is_source<segments<T, N>> = stored_element<T>;

/// A tensor, or what source.hpp has.
template <class X>
concept key_source = tensor_like<X> || is_source<std::remove_cvref_t<X>>;

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// attention(policy, q, k, v, out, options...): see the top of this file.
inline constexpr struct attention_fn : takes_policy {
  using takes_policy::operator();

  template <tensor_like Q, detail::key_source K, detail::key_source V, tensor_like O, class... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, Options const&... options) const {
    check_types<Q, K, V, O>();
    static_assert(writable<O>, "tern: attention writes out, which is const");
    constexpr bool known = (detail::attention_option<Options> && ...);
    static_assert(known,
                  "tern: an option of attention is a mask (causal{}, window{n}, ...), a scale, softcap, sinks, log_sum_exp or another of "
                  "attention/options.hpp, what a header of attention/ says is one, or a function of (scores, score_at)");
    if constexpr (fit<Q, K, V, O> && writable<O> && known)  // or the first error would not be the last
      detail::attention_with(
          tern::view(q), detail::source_of(k), detail::source_of(v), tern::view(out),
          [&]<class P, class Tile>(P const& problem, Tile) { detail::attention_run<Tile>(policy, problem); }, options...);
  }

  /// The bytes of scratch memory that the same call borrows.
  template <tensor_like Q, detail::key_source K, detail::key_source V, tensor_like O, detail::attention_option... Options>
  std::size_t workspace_size(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, Options const&... options) const {
    check_types<Q, K, V, O>();
    if constexpr (fit<Q, K, V, O>)
      return detail::attention_with(
          tern::view(q), detail::source_of(k), detail::source_of(v), tern::view(out),
          [&]<class P, class Tile>(P const& problem, Tile) { return detail::attention_plan<P, Tile>(problem).bytes(policy); }, options...);
    else
      return 0;
  }

 private:
  template <class X>
  static constexpr bool is_float = float_storage<typename view_of<X>::value_type>;
  template <class X>
  static constexpr bool source_fits() {
    if constexpr (tensor_like<X>)
      return detail::stored_element<typename view_of<X>::value_type>;
    else
      return true;
  }
  template <class Q, class X>
  static constexpr bool rank_fits() {
    if constexpr (tensor_like<X>)
      return view_of<X>::rank == view_of<Q>::rank;
    else
      return true;
  }
  template <class Q, class K, class V, class O>
  static constexpr bool types_fit = is_float<Q> && source_fits<K>() && source_fits<V>() && is_float<O>;
  template <class Q, class... X>
  static constexpr bool ranks_fit = view_of<Q>::rank >= 2 && view_of<Q>::rank <= 4 && (rank_fits<Q, X>() && ...);
  template <class Q, class... X>
  static constexpr bool fit = types_fit<Q, X...> && ranks_fit<Q, X...>;
  template <class O>
  static constexpr bool writable = !std::is_const_v<typename view_of<O>::element_type>;

  template <class... X>
  static constexpr void check_types() {
    static_assert(types_fit<X...>, "tern: attention takes f32, f16 and bf16, and blocks of q8_0, q4_0 and e8p as k and v");
    static_assert(ranks_fit<X...>,
                  "tern: attention takes (tokens, dim), (heads, tokens, dim) or (batch, heads, tokens, dim), the same rank for all");
  }
} attention{};

}  // namespace TERN_ABI
}  // namespace tern
