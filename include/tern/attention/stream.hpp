// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/stream.hpp
/// The path for few queries (the next token of a text): keys and values are read where they lie, once for all the heads that
/// share them, and converted on the way. Long contexts are cut into ranges of `split_keys` keys whose results merge by their
/// log-sum-exp, so that one head uses all threads. The cut follows from the number of keys alone.

#include <tern/attention/block.hpp>
#include <tern/attention/stream_kernels.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

inline constexpr index split_keys = 512;
static_assert(split_keys % key_block == 0 && key_block % 8 == 0);
/// Up to this many rows (queries times heads of a unit) the path is taken.
inline constexpr index query_stream_rows = 8;

/// The memory of one work item. Rows of q and o are padded to whole packs.
template <class Problem>
struct stream_scratch {
  float* q;      // (rows, padded dim), scaled, zero behind dim
  float* s;      // (rows, key_block)
  float* alpha;  // (rows)
  top_rows largest;
  block_memory<Problem> block;

  TERN_INLINE static index lay_out(Problem const& p, index rows, std::byte* base, stream_scratch* to) {
    arena a{base};
    index const count = Problem::spec_type::wants_top ? p.top_count() : 0;
    stream_scratch s;
    s.q = a.take<float>(rows * round_to_multiple(p.n.dim, simd::lanes));
    s.s = a.take<float>(rows * key_block);
    s.alpha = a.take<float>(round_to_multiple(rows, simd::lanes));
    s.largest = {a.take<float>(rows * count), a.take<std::int32_t>(rows * count), count};
    s.block = block_memory<Problem>::lay_out(p, a);
    if (to != nullptr) *to = s;
    return a.used;
  }
};

/// What one range of keys contributes to the rows of a group, in floats.
struct stream_partial {
  index stride;  // dim_v, to whole packs
  float* o;      // (rows, stride)
  float* m;      // (rows)
  float* l;      // (rows)

  TERN_INLINE static index size(index dim_v, index rows) {
    return round_to_multiple(rows * (round_to_multiple(dim_v, simd::lanes) + 2), 16);
  }
  TERN_INLINE stream_partial(index dim_v, index rows, float* base)
      : stride(round_to_multiple(dim_v, simd::lanes)), o(base), m(base + rows * stride), l(m + rows) {}
};

/// Adds the weighted values of one block; where the mask shows rows different keys, run by run of what it shows.
template <class Rows, class Mask, class Block, class Scratch>
TERN_INLINE void stream_add(Rows const& of, Mask const& mask, Block const& block, bool all, Scratch const& w, stream_partial const& sum,
                            index next) {
  index const rows = of.rows(), count = block.keys.count, dim_v = of.p.n.dim_v;
  auto ahead = [&](index j) TERN_LAMBDA { block.fetch_key(next + j); };
  if (all) {
    each_rows(rows, [&](auto R, index r) TERN_LAMBDA {
      if (r == 0)
        stream_values<R.value>(w.s, block.value, count, dim_v, w.alpha, ahead, sum.o, sum.stride);
      else
        stream_values<R.value>(w.s + r * key_block, block.value, count, dim_v, w.alpha + r, fetch_nothing, sum.o + r * sum.stride, sum.stride);
    });
    return;
  }
  for (index r = 0; r < rows; ++r) {
    index j = 0;
    do {
      while (j < count && !mask.visible(of.query(r), block.keys.first + j)) ++j;
      index const begin = j;
      while (j < count && mask.visible(of.query(r), block.keys.first + j)) ++j;
      stream_values<1>(w.s + r * key_block + begin, block.value + begin, j - begin, dim_v, w.alpha + r, fetch_nothing,
                       sum.o + r * sum.stride, sum.stride);
      w.alpha[r] = 1;
    } while (j < count);
  }
}

/// Scores, weights and values of one block for all rows of a group.
template <class Rows, class Mask, class Scratch>
TERN_INLINE void stream_block(Rows const& of, Mask const& mask, coverage covers, index first, index count, Scratch const& w,
                              stream_partial const& sum) {
  constexpr index W = simd::lanes;
  using spec = typename std::remove_cvref_t<decltype(of.p)>::spec_type;
  auto const& p = of.p;
  index const rows = of.rows(), q_stride = round_to_multiple(p.n.dim, W), packs = divide_up(count, W);
  block_rows_of<Rows> const block(of, w.block, first, count);
  auto ahead = [&](index j) TERN_LAMBDA { fetch_row(block.value[j], p.n.dim_v); };
  each_rows(rows, [&](auto R, index r) TERN_LAMBDA {
    if (r == 0)
      stream_scores<R.value>(w.q, q_stride, block.key, count, p.n.dim, ahead, w.s);
    else
      stream_scores<R.value>(w.q + r * q_stride, q_stride, block.key, count, p.n.dim, fetch_nothing, w.s + r * key_block);
  });
  for (index r = 0; r < rows; ++r)
    for (index j = count; j < packs * W; ++j) w.s[r * key_block + j] = negative_infinity;
  weight_rows const state{sum.m, sum.l, w.alpha};
  auto query_of = [&](index r) TERN_LAMBDA { return of.query(r); };
  auto at_row = [&](index r) TERN_LAMBDA { return score_of_row(of, r); };
  // Scores behind `count` are -inf, and a modifier would make numbers of them.
  if (covers == coverage::all && (count == packs * W || decltype(p.spec.chain)::empty))
    weigh_tile<spec>(p.spec, w.s, rows, 0, packs, at_row, block.keys, hide_nothing{}, state, w.largest);
  else
    weigh_tile<spec>(p.spec, w.s, rows, 0, packs, at_row, block.keys, hide_by_mask{mask, query_of, first}, state, w.largest);
  stream_add(of, mask, block, covers == coverage::all, w, sum, first + count);
}

/// Keys [from, to) for all rows of a group, accumulated into `sum`. Only the range that starts at 0 sees the sink.
template <class Rows>
inline void stream_item(Rows const& of, index from, index to, stream_partial const& sum, std::byte* memory) noexcept {
  using problem = std::remove_cvref_t<decltype(of.p)>;
  auto const& p = of.p;
  stream_scratch<problem> w;
  index const rows = of.rows(), q_stride = round_to_multiple(p.n.dim, simd::lanes);
  stream_scratch<problem>::lay_out(p, rows, memory, &w);
  for (index i = 0; i < rows * sum.stride; ++i) sum.o[i] = 0;
  for (index r = 0; r < rows; ++r) {
    sum.m[r] = negative_infinity;
    sum.l[r] = 0;
    of.widen_query(r, w.q + r * q_stride);
    for (index d = p.n.dim; d < q_stride; ++d) w.q[r * q_stride + d] = 0;
  }
  if (from == 0) start_rows(p.spec, rows, [&](index r) TERN_LAMBDA { return of.head(r); }, {sum.m, sum.l, nullptr});
  start_top(w.largest, rows);

  auto const mask = of.mask();
  index const queries = of.group.queries;
  key_range const seen = mask.range(0, queries);
  if (seen.begin > from) from = seen.begin / key_block * key_block;
  if (seen.end < to) to = seen.end;
  for (index block = from; block < to; block += key_block) {
    index const count = to - block < key_block ? to - block : key_block;
    coverage const covers = mask.covers(0, queries, block, block + count);
    if (covers != coverage::none) stream_block(of, mask, covers, block, count, w, sum);
  }
  if constexpr (problem::spec_type::wants_top)
    for (index r = 0; r < rows; ++r) write_top(of, r, w.largest, r);
}

/// Adds what another range of keys contributes to row r.
template <class Spec>
TERN_INLINE void stream_merge(stream_partial const& sum, stream_partial const& next, index r) {
  using packf = simd::pack<float>;
  float a[simd::lanes], c[simd::lanes];
  if constexpr (Spec::softmax) {
    if (next.l[r] == 0) return;
    if (sum.l[r] == 0) sum.m[r] = next.m[r];
    float const m = sum.m[r] < next.m[r] ? next.m[r] : sum.m[r];
    simd::store(a, exp2_of_nonpositive(sum.m[r] - m));
    simd::store(c, exp2_of_nonpositive(next.m[r] - m));
    sum.m[r] = m;
  } else if constexpr (Spec::hardest) {
    bool const better = next.m[r] > sum.m[r];
    a[0] = better ? 0.f : 1.f;
    c[0] = better ? 1.f : 0.f;
    if (better || next.m[r] != next.m[r]) sum.m[r] = next.m[r];
  } else {
    a[0] = 1;
    c[0] = 1;
  }
  sum.l[r] = sum.l[r] * a[0] + next.l[r] * c[0];
  float *const to = sum.o + r * sum.stride, *const from = next.o + r * sum.stride;
  for (index d = 0; d < sum.stride; d += simd::lanes)
    simd::store(to + d, simd::fma(simd::load(from + d), packf(c[0]), simd::load(to + d) * packf(a[0])));
}

/// Rows of a group from the `splits` partial results at `parts`, in their order.
template <class Rows>
inline void stream_finish(Rows const& of, float* parts, index splits) noexcept {
  index const rows = of.rows(), size = stream_partial::size(of.p.n.dim_v, rows);
  stream_partial const sum(of.p.n.dim_v, rows, parts);
  for (index r = 0; r < rows; ++r) {
    for (index i = 1; i < splits; ++i)
      stream_merge<typename std::remove_cvref_t<decltype(of.p)>::spec_type>(sum, stream_partial(of.p.n.dim_v, rows, parts + i * size), r);
    of.finish(r, sum.o + r * sum.stride, sum.m[r], sum.l[r]);
  }
}

}  // namespace TERN_ABI
}  // namespace tern::detail
