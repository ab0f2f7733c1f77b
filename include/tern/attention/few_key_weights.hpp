// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/few_key_weights.hpp
/// How much weight each key receives from a few queries. Keys are read once, from where they lie (with masks by head, once for each head);
/// the scores of a block of them become weights, and are added up over the queries.
///
///     out_j = sum_i e^(s_ij - lse_i)

#include <tern/attention/plan.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// to += e^(s - lse) of a block of scores, which are exponents of two.
TERN_INLINE void add_weights(float const* s, index packs, float lse, float* to) {
  using packf = simd::pack<float>;
  if (lse == negative_infinity) return;  // a query that saw nothing
  for (index c = 0; c < packs; ++c) {
    packf const x = simd::load(s + c * simd::lanes), weight = simd::exp(simd::fma(x, packf(ln_2), packf(-lse)));
    simd::store(to + c * simd::lanes, simd::load(to + c * simd::lanes) + simd::select(x == packf(negative_infinity), packf(0.f), weight));
  }
}

/// Where the sums go, and the log-sum-exp of each query.
struct key_weight_sums {
  tensor_view<float const, 3> lse;  // (batch, heads, tokens)
  tensor_view<float, 3> out;        // (batch, heads, keys), or (batch, k_heads, keys) for the sum over the heads that share a key head
};

/// Keys [first, first + count) of a unit; `ahead` are fetched meanwhile.
template <class Rows, class Mask, class Scratch>
TERN_INLINE void weigh_key_block(Rows const& of, Mask const& mask, coverage covers, index first, index count,
                                 stream_list<Rows> const& ahead, Scratch const& w, key_weight_sums const& sums) {
  auto const& p = of.p;
  index const panels = divide_up(count, panel_width), packs = 2 * panels;
  block_rows_of<Rows, stream_decodes> const block(of, w.block, first, count, !tiled<Rows>::keys, false);
  stream_multiply_keys(of, block, ahead, w);
  auto const query_of = [&](index row) TERN_LAMBDA { return of.query(row); };
  bool const by_key_head = sums.out.extent(1) != p.n.heads;
  for (index member = 0; member < p.n.unit_heads; ++member) {
    float sum[key_block] = {};
    for (index row = member; row < of.rows(); row += p.n.unit_heads) {
      float* const s = w.s + row * key_block;
      for (index j = count; j < panels * panel_width; ++j) s[j] = negative_infinity;
      if (covers == coverage::all)
        shape_row(p.spec, score_of_row(of, row), block.keys, s, row, 0, packs, hide_nothing{});
      else
        shape_row(p.spec, score_of_row(of, row), block.keys, s, row, 0, packs, hide_by_mask{mask, query_of, first});
      add_weights(s, packs, sums.lse(of.b, of.head(row), of.query(row)), sum);
    }
    index const h = by_key_head ? p.k_head(of.unit) : of.head(member);
    for (index j = 0; j < count; ++j) sums.out(of.b, h, first + j) += sum[j];
  }
}

/// Keys [from, to) of a unit.
template <class Rows>
inline void weigh_keys(Rows const& of, index from, index to, key_weight_sums const& sums, std::byte* memory) noexcept {
  auto const w = stream_queries(of, memory);
  index const queries = of.group.queries;
  auto const mask = of.mask();
  for (index block = from; block < to; block += key_block) {
    index const count = to - block < key_block ? to - block : key_block, left = to - block - count;
    coverage const covers = mask.covers(0, queries, block, block + count);
    if (covers != coverage::none)
      weigh_key_block(of, mask, covers, block, count, list_keys(of, block + count, left < key_block ? left : key_block), w, sums);
  }
}

/// How a problem whose groups have few rows is split, and the memory that it takes.
template <class Problem>
struct few_key_split {
  index length, ranges, items;
  cpu_policy policy;
  std::size_t each;  // bytes of a slot

  few_key_split(cpu_policy const& callers, Problem const& p)
      : length(range_for_few(p.n.keys, p.n.k_heads)),
        ranges(divide_up(p.n.keys, length)),
        items(p.n.batch * p.n.k_heads * ranges),
        policy(threads_for(callers, static_cast<double>(p.n.batch * p.n.heads * p.n.tokens) * static_cast<double>(p.n.keys * p.n.dim))),
        each(workspace::rounded(
            static_cast<std::size_t>(stream_scratch<Problem>::lay_out(p, p.n.tokens * p.n.unit_heads, nullptr, nullptr)))) {}
  std::size_t bytes() const { return each * static_cast<std::size_t>(slots_for(policy, items)); }
};

/// The sums of all keys of a problem whose groups have few rows. A key's bits follow from the queries that see it alone.
template <class Problem>
inline void few_key_weights(cpu_policy const& callers, Problem const& p, key_weight_sums const& sums) {
  static_assert(Problem::spec_type::softmax, "tern: attention_key_weights takes no normalizer but sinks");
  few_key_split<Problem> const split(callers, p);
  index const units = p.n.units() / p.n.k_heads;
  workspace::lease const scratch(split.policy.scratch(), split.bytes());
  parallel_for(split.policy, split.items, [&](index item, index slot) TERN_LAMBDA {
    index const range = item % split.ranges, k_head = item / split.ranges % p.n.k_heads, b = item / split.ranges / p.n.k_heads;
    index const from = range * split.length, end = from + split.length < p.n.keys ? from + split.length : p.n.keys;
    index const own = sums.out.extent(1) / p.n.k_heads;  // rows of out
    for (index h = k_head * own; h < (k_head + 1) * own; ++h)
      for (index j = from; j < end; ++j) sums.out(b, h, j) = 0;
    for (index unit = k_head * units; unit < (k_head + 1) * units; ++unit) {
      auto const group = p.group(b, unit, 0);
      unit_group<Problem, std::remove_const_t<decltype(group)>> const of(p, group, b, unit);
      weigh_keys(of, from, end < group.keys ? end : group.keys, sums, scratch.data() + static_cast<std::size_t>(slot) * split.each);
    }
  });
}

}  // namespace TERN_ABI
}  // namespace tern::detail
