// SPDX-License-Identifier: Apache-2.0
#pragma once
// One case of the matrix: a call with the policies that its factors name, and its comparison with the oracle.
#include "matrix.hpp"
#include "stored.hpp"

#include <cmath>
#include <set>
#include <tuple>

namespace tern::test::matrix {

/// A mask and the inside of groups: the first 24 keys are seen by all, 128 to 255 by nobody, of the rest every third.
struct pattern {
  index shift = 0;
  key_range range(index, index) const { return {shift, 1 << 20}; }
  coverage covers(index, index, index j0, index j1) const {
    if (j0 >= 128 && j1 <= 256) return coverage::none;
    return j0 >= shift && j1 <= 24 ? coverage::all : coverage::some;
  }
  bool visible(index i, index j) const { return j >= shift && (j < 24 || ((j < 128 || j >= 256) && (i + j + shift) % 3 == 0)); }
};
struct pattern_by_head {
  pattern at(index batch, index head) const { return {batch + head}; }
};

/// Queries and keys in any order, in three groups of uneven sizes.
struct grouping {
  std::vector<index> query, key, query_group, query_rank, key_group, key_rank;
  index query_begin[4], key_begin[4];
  grouping(rng& r, index tokens, index keys)
      : query(shuffled(r, tokens)),
        key(shuffled(r, keys)),
        query_begin{0, (tokens + 1) / 2, tokens - tokens / 8, tokens},
        key_begin{0, 2 * keys / 3, keys - 5, keys} {
    for (auto* v : {&query_group, &query_rank}) v->resize(query.size());
    for (auto* v : {&key_group, &key_rank}) v->resize(key.size());
    for (index g = 0; g < 3; ++g) {
      for (index i = query_begin[g]; i < query_begin[g + 1]; ++i) place(query[at(i)], g, i - query_begin[g], query_group, query_rank);
      for (index j = key_begin[g]; j < key_begin[g + 1]; ++j) place(key[at(j)], g, j - key_begin[g], key_group, key_rank);
    }
  }
  static std::size_t at(index i) { return static_cast<std::size_t>(i); }
  index offset(index g) const { return key_begin[g + 1] - key_begin[g] - (query_begin[g + 1] - query_begin[g]); }

 private:
  static std::vector<index> shuffled(rng& r, index n) {
    std::vector<index> all;
    for (index i = 0; i < n; ++i) all.push_back(i);
    for (index i = n - 1; i > 0; --i) std::swap(all[at(i)], all[at(r.integer(0, i))]);
    return all;
  }
  static void place(index which, index g, index rank, std::vector<index>& group, std::vector<index>& rank_of) {
    group[at(which)] = g;
    rank_of[at(which)] = rank;
  }
};
struct groups_layout {
  static constexpr bool per_head = false;
  grouping const* of;  // for each sequence
  struct one {
    static constexpr bool local = true;
    index queries, keys;
    index const *query_at, *key_at;
    index query(index i) const { return query_at[i]; }
    index key(index j) const { return key_at[j]; }
    bool visible(index i, index j) const { return pattern{}.visible(i, j); }
    coverage covers(index i0, index i1, index j0, index j1) const { return pattern{}.covers(i0, i1, j0, j1); }
  };
  index groups(index, index) const { return 3; }
  one group(index b, index, index g) const {
    grouping const& x = of[b];
    return {x.query_begin[g + 1] - x.query_begin[g], x.key_begin[g + 1] - x.key_begin[g], x.query.data() + x.query_begin[g],
            x.key.data() + x.key_begin[g]};
  }
};

struct turn {
  void query(float* row, index dim, row_at const& at) const {
    row[0] += static_cast<float>(at.position) / 64;
    if (at.head % 2 == 1) row[dim - 1] = -row[dim - 1];
  }
  void key(float* row, index dim, row_at const& at) const {
    if (at.position % 2 != 0) row[0] *= 0.5f;
    row[dim - 1] += static_cast<float>(at.batch + at.head) / 2;
    if (at.token % 4 == 0) row[1] = 0;
  }
};

/// What a case is besides its types.
struct setting {
  factors f;
  index batch = 2, heads, k_heads, v_heads, tokens, keys, dim, dim_v;
  std::vector<std::int32_t> lengths;
  std::vector<grouping> groupings;
  std::vector<float> sink;

  setting(rng& r, factors const& of) : f(of) {
    heads = f.value[7] == grouped ? 6 : f.value[7] == more_of_v ? 4 : 2;
    k_heads = f.value[7] == more_of_v ? 1 : 2;
    v_heads = 2;
    tokens = many() ? 41 : 5;
    keys = f.value[9] == few_split || f.value[9] == many_split ? 1092 : 105;
    auto blocked = [](int s) {
      return s == static_cast<int>(source::q8_0) || s == static_cast<int>(source::q4_0) || s == static_cast<int>(source::tiles);
    };
    auto any = [&](source x) { return f.value[0] == static_cast<int>(x) || f.value[1] == static_cast<int>(x); };
    dim = f.value[8] == odd_dims ? (blocked(f.value[0]) ? 96 : 33) : 32;
    dim_v = f.value[8] == odd_dims ? (blocked(f.value[1]) ? 32 : 19) : f.value[8] == unequal_dims ? 64 : 32;
    bool const is_paged = any(source::paged), ragged = is_paged || any(source::tiles);
    for (index b = 0; b < batch; ++b) {
      // Tiles know the longest sequence, and not that there might be room for more.
      lengths.push_back(static_cast<std::int32_t>(!ragged ? keys : b > 0 ? keys * 4 / 7 : is_paged ? keys - 3 : keys));
      groupings.emplace_back(r, tokens, lengths.back());
    }
    for (index h = 0; h < heads; ++h) sink.push_back(static_cast<float>(h) / 2 - 1);
  }
  index length(index b) const { return lengths[static_cast<std::size_t>(b)]; }
  bool in_groups() const { return f.value[2] == uneven_groups; }
  /// The offset that the mask states; the window states none, and is aligned to the bottom right.
  index offset(index b) const { return f.value[2] == causal_mask ? stated() : length(b) - tokens; }
  index stated() const { return many() ? -2 : 70; }
  bool many() const { return f.value[9] == many_queries || f.value[9] == many_split; }
  /// Whether a product is of bf16: with many queries, and with few where keys (values) are stored so and taken as they are.
  bool bf16_scores() const {
    return f.value[10] == in_bf16 && (many() || (f.value[0] == static_cast<int>(source::bf16) && f.value[5] == 0));
  }
  bool bf16_weights() const { return f.value[10] == in_bf16 && (many() || f.value[1] == static_cast<int>(source::bf16)); }
  /// Whether few queries take tiles in their order, and so as integers.
  bool in_tiles_of(int side) const { return !many() && !in_groups() && f.value[side] == static_cast<int>(source::tiles); }
  bool integer_scores() const { return in_tiles_of(0) && f.value[5] == 0; }
  bool integer_weights() const { return in_tiles_of(1) && f.value[4] <= by_hard; }

  bool sees(index b, index h, index i, index j) const {
    auto const ii = static_cast<std::size_t>(i), jj = static_cast<std::size_t>(j);
    if (j >= length(b)) return false;
    switch (f.value[2]) {
      case causal_mask:
        return j <= i + offset(b);
      case window_mask:
        return j > i + offset(b) - 50 && j <= i + offset(b) + 3;
      case custom:
        return pattern{}.visible(i, j);
      case by_head:
        return pattern{b + h}.visible(i, j);
      case uneven_groups: {
        grouping const& g = groupings[static_cast<std::size_t>(b)];
        return g.query_group[ii] == g.key_group[jj] && pattern{}.visible(g.query_rank[ii], g.key_rank[jj]);
      }
      default:
        return true;
    }
  }
  index query_position(index b, index i) const {
    if (!in_groups()) return i + offset(b);
    grouping const& g = groupings[static_cast<std::size_t>(b)];
    return g.query_rank[static_cast<std::size_t>(i)] + g.offset(g.query_group[static_cast<std::size_t>(i)]);
  }
  index key_position(index b, index j) const {
    return in_groups() && j < length(b) ? groupings[static_cast<std::size_t>(b)].key_rank[static_cast<std::size_t>(j)] : j;
  }
};

/// What the oracle is told.
inline oracle::attention_spec spec_of(setting const& s) {
  oracle::attention_spec o{s.heads, s.k_heads, s.tokens, s.keys, s.dim, s.dim_v, 1 / std::sqrt(static_cast<double>(s.dim))};
  o.batch = s.batch;
  o.v_heads = s.v_heads;
  o.sees = [&s](index b, index h, index i, index j) { return s.sees(b, h, i, j); };
  o.distance = [&s](index b, index, index i, index j) { return static_cast<double>(s.query_position(b, i) - s.key_position(b, j)); };
  using d = double;
  switch (s.f.value[3]) {
    case capped:
      o.softcap = 2;
      break;
    case by_position:
      o.modify = [](d x, index b, index h, index i, index j, d distance) {
        return x - static_cast<d>(h + 1) / 128 * distance + static_cast<d>(j) / 1024 + static_cast<d>(i + b) / 16;
      };
      break;
    case capped_then_halved:
      o.modify = [](d x, index b, index, index, index, d) { return 3 * std::tanh(x / 3) / 2 + static_cast<d>(b); };
      break;
    default:
      break;
  }
  auto sigmoid_of = [](d x) { return 1 / (1 + std::exp(-x)); };
  switch (s.f.value[4]) {
    case with_sinks:
      o.sinks = widened(s.sink);
      break;
    case by_hard:
      o.hard = true;
      break;
    case by_sigmoid:
      o.weight = [=](d x) { return sigmoid_of(x - 2); }, o.steepness = [](d) { return 0.25; };
      break;
    case by_silu:
      o.weight = [=](d x) { return x * sigmoid_of(x) / 8; }, o.steepness = [](d) { return 1.1 / 8; };
      break;
    case by_squared_relu:
      o.weight = [](d x) { return x > 0 ? x * x : 0; }, o.steepness = [](d x) { return 2 * std::abs(x); };
      break;
    case by_identity:
      o.weight = [](d x) { return x; }, o.steepness = [](d) { return 1.0; };
      break;
    default:
      break;
  }
  if (s.f.value[5] == 1) {
    o.turn_query = [&s](d* row, index b, index h, index i) {
      row[0] += static_cast<d>(s.query_position(b, i)) / 64;
      if (h % 2 == 1) row[s.dim - 1] = -row[s.dim - 1];
    };
    o.turn_key = [&s](d* row, index b, index h, index j) {
      if (s.key_position(b, j) % 2 != 0) row[0] *= 0.5;
      row[s.dim - 1] += static_cast<d>(b + h) / 2;
      if (j % 4 == 0) row[1] = 0;
    };
  }
  o.top = s.f.value[6] == and_top_keys ? 3 : 0;
  return o;
}

/// What a call writes.
struct results {
  guarded<float> out, lse, max, sum, top;
  guarded<std::int32_t> id;
  tensor_view<float, 4> out_view, top_view;
  tensor_view<std::int32_t, 4> id_view;
  tensor_view<float, 3> lse_view, max_view, sum_view;
  explicit results(setting const& s)
      : out(s.batch * s.heads * s.tokens * s.dim_v, 1),
        lse(s.batch * s.heads * s.tokens, 1),
        max(s.batch * s.heads * s.tokens, 1),
        sum(s.batch * s.heads * s.tokens, 1),
        top(s.batch * s.heads * s.tokens * 3, 1),
        id(s.batch * s.heads * s.tokens * 3, 1),
        out_view(out.data(), shape<4>{{s.batch, s.heads, s.tokens, s.dim_v}}),
        top_view(top.data(), shape<4>{{s.batch, s.heads, s.tokens, 3}}),
        id_view(id.data(), shape<4>{{s.batch, s.heads, s.tokens, 3}}),
        lse_view(lse.data(), shape<3>{{s.batch, s.heads, s.tokens}}),
        max_view(max.data(), shape<3>{{s.batch, s.heads, s.tokens}}),
        sum_view(sum.data(), shape<3>{{s.batch, s.heads, s.tokens}}) {}
};

/// By how much integers for q (tile_kernels.hpp) change the scores of each row at most: sum over blocks of (max |q| / 254) sum |k|.
inline std::vector<double> rounded_queries(setting const& s, std::vector<double> const& q, std::vector<double> const& k) {
  std::vector<double> all;
  for (index row = 0; row < s.batch * s.heads * s.tokens; ++row) {
    index const b = row / s.tokens / s.heads, head = row / s.tokens % s.heads / (s.heads / s.k_heads);
    double most = 0;
    for (index j = 0; s.integer_scores() && j < s.length(b); ++j) {
      double off = 0;
      for (index block = 0; block < s.dim; block += 32) {
        double largest = 0, sum = 0;
        for (index d = block; d < block + 32; ++d) {
          largest = std::max(largest, std::abs(q[static_cast<std::size_t>(row * s.dim + d)]));
          sum += std::abs(k[static_cast<std::size_t>(((b * s.k_heads + head) * s.keys + j) * s.dim + d)]);
        }
        off += largest / 254 * sum;
      }
      most = std::max(most, off / std::sqrt(static_cast<double>(s.dim)));
    }
    all.push_back(most);
  }
  return all;
}

/// `rounded`: of rounded_queries.
void check(setting const& s, results const& got, oracle::attended want, std::vector<double> const& rounded);

template <row R>
auto options_of(setting const& s, results const& to) {
  auto const mask = [&] {
    if constexpr (R.mask == 0) return std::tuple<>{};
    if constexpr (R.mask == 1) return std::tuple(s.f.value[2] == causal_mask ? window{1 << 20, 0, s.stated()} : window{50, 3});
    if constexpr (R.mask == 2) return std::tuple(pattern{});
    if constexpr (R.mask == 3) return std::tuple(groups_layout{s.groupings.data()});
    if constexpr (R.mask == 4) return std::tuple(pattern_by_head{});
  }();
  auto const score = [&] {
    if constexpr (R.score == plain) return std::tuple<>{};
    if constexpr (R.score == capped) return std::tuple(softcap{2});
    if constexpr (R.score == by_position)
      return std::tuple([](floats x, score_at const& at) {
        x = x - floats(static_cast<float>(at.head + 1) / 128) * at.distance() + floats(1.f / 1024) * simd::to_float(at.key());
        return x + floats(static_cast<float>(at.query + at.batch) / 16);
      });
    if constexpr (R.score == capped_then_halved)
      return std::tuple(softcap{3}, [](floats x, score_at const& at) { return x * floats(0.5f) + floats(static_cast<float>(at.batch)); });
  }();
  auto const normalizer = [&] {
    if constexpr (R.normalizer == by_softmax) return std::tuple(log_sum_exp{to.lse_view}, row_max{to.max_view});
    if constexpr (R.normalizer == with_sinks) return std::tuple(sinks{s.sink}, log_sum_exp{to.lse_view}, row_max{to.max_view});
    if constexpr (R.normalizer == by_hard) return std::tuple(hard{}, row_max{to.max_view});
    if constexpr (R.normalizer == 3)
      return std::tuple(weight_sum{to.sum_view}, weigh_by([which = s.f.value[4]](floats x) {
                          return which == by_sigmoid        ? sigmoid{-2}(x)
                                 : which == by_silu         ? silu{8}(x)
                                 : which == by_squared_relu ? squared_relu{}(x)
                                                            : identity{}(x);
                        }));
  }();
  auto const transform = [] {
    if constexpr (R.transform == 1)
      return std::tuple(turn{});
    else
      return std::tuple<>{};
  }();
  auto const top = [&] {
    if constexpr (R.outputs == and_top_keys)
      return std::tuple(top_keys{to.id_view, to.top_view});
    else
      return std::tuple<>{};
  }();
  auto const product = [] {
    if constexpr (R.products == in_bf16)
      return std::tuple(products<bf16>{});
    else
      return std::tuple<>{};
  }();
  return std::tuple_cat(mask, score, normalizer, transform, top, product);
}

template <int number>
void run_row() {
  constexpr row of = rows[number];
  for (int c = 0; c < case_count; ++c) {
    rng r(static_cast<std::uint64_t>(100 * number + c));
    setting const s(r, factors_of(number, c));
    auto const k = stored_as<source(of.k)>(r, {s.batch, s.k_heads, s.keys, s.dim}, s.lengths);
    auto const v = stored_as<source(of.v), false>(r, {s.batch, s.v_heads, s.keys, s.dim_v}, s.lengths);
    std::vector<std::int32_t> const all(static_cast<std::size_t>(s.batch), static_cast<std::int32_t>(s.tokens));
    strided<float> const q(r, {s.batch, s.heads, s.tokens, s.dim}, all);
    results to(s);
    std::apply([&](auto const&... o) { attention(cpu.on(several_threads()), q.view, k(), v(), to.out_view, o...); }, options_of<of>(s, to));
    CAPTURE(number, c);
    check(s, to, oracle::attention(q.values, k.values, v.values, spec_of(s)), rounded_queries(s, q.values, k.values));
  }
}
template <int first, int... I>
void run_rows(std::integer_sequence<int, I...>) {
  (run_row<first + I>(), ...);
}
template <int first, int count>
void run_rows() {
  run_rows<first>(std::make_integer_sequence<int, count>());
}

}  // namespace tern::test::matrix
