// SPDX-License-Identifier: Apache-2.0
#pragma once
// The pairwise matrix of attention's policies: which values of its factors meet in which case. Rows are what is compiled, cases
// what is run. Every two values of two factors meet in a case, but for the sources of k and v, of which 33 pairs of 81 do not.
#include "tern/core/config.hpp"

#include <cstddef>

namespace tern::test::matrix {

// What each factor's numbers mean.
enum mask_kind { no_mask, causal_mask, window_mask, custom, uneven_groups, by_head };
enum score_kind { plain, capped, by_position, capped_then_halved };
enum normalizer_kind { by_softmax, with_sinks, by_hard, by_sigmoid, by_silu, by_squared_relu, by_identity };
enum output_kind { numbers, and_top_keys };
enum head_kind { each_its_own, grouped, more_of_v };
enum dim_kind { equal_dims, unequal_dims, odd_dims };  // odd where the source is not one of blocks
enum path_kind { few_queries, many_queries, few_split, many_split };
enum product_kind { as_they_are, in_bf16 };

/// What is compiled. Masks: none, window (which is causal too), custom, groups, by head. Normalizers: softmax, sinks, hard, weigh_by.
struct row {
  int k, mask, v, normalizer, score, transform, outputs, products = as_they_are;
};
inline constexpr row rows[] = {
    {0, 0, 1, 2, 2, 0, 0},          {1, 0, 2, 3, 1, 0, 0},          {2, 0, 3, 0, 0, 0, 0},          {3, 0, 4, 3, 3, 1, 0},
    {4, 0, 5, 3, 3, 1, 0},          {5, 0, 6, 1, 3, 1, 1},          {6, 0, 7, 0, 3, 1, 1},          {7, 0, 0, 0, 1, 1, 0},
    {0, 1, 2, 2, 0, 0, 1},          {1, 1, 3, 0, 3, 0, 0},          {2, 1, 4, 2, 2, 1, 1},          {3, 1, 5, 0, 1, 1, 1},
    {4, 1, 6, 2, 0, 0, 0},          {5, 1, 7, 2, 1, 1, 1},          {6, 1, 0, 3, 0, 1, 1},          {7, 1, 1, 1, 3, 1, 1},
    {0, 2, 3, 1, 3, 0, 1},          {1, 2, 4, 1, 0, 1, 1},          {2, 2, 5, 1, 1, 1, 0},          {3, 2, 6, 3, 3, 0, 1},
    {4, 2, 7, 0, 2, 0, 0},          {5, 2, 0, 2, 2, 0, 0},          {6, 2, 1, 2, 2, 1, 0},          {7, 2, 2, 2, 3, 0, 1},
    {0, 3, 4, 0, 1, 0, 0},          {1, 3, 5, 2, 2, 0, 0},          {2, 3, 6, 2, 1, 1, 1},          {3, 3, 7, 1, 0, 0, 0},
    {4, 3, 0, 1, 3, 0, 0},          {5, 3, 1, 3, 0, 1, 1},          {6, 3, 2, 1, 2, 1, 1},          {7, 3, 3, 3, 2, 1, 0},
    {0, 4, 5, 3, 0, 1, 0},          {1, 4, 6, 0, 2, 0, 0},          {2, 4, 7, 3, 3, 0, 0},          {3, 4, 0, 2, 2, 0, 0},
    {4, 4, 1, 0, 1, 0, 1},          {5, 4, 2, 0, 1, 1, 1},          {6, 4, 3, 2, 1, 0, 1},          {7, 4, 4, 1, 0, 0, 1},
    {2, 0, 1, 0, 0, 0, 0, in_bf16}, {0, 1, 2, 1, 2, 0, 0, in_bf16}, {1, 2, 0, 3, 1, 1, 0, in_bf16}, {3, 3, 4, 2, 3, 0, 1, in_bf16},
    {4, 4, 3, 0, 2, 1, 1, in_bf16}, {5, 1, 7, 3, 0, 0, 0, in_bf16}, {6, 2, 5, 1, 3, 0, 0, in_bf16}, {7, 3, 6, 0, 1, 0, 0, in_bf16},
    {8, 0, 8, 0, 0, 0, 0},          {8, 1, 8, 1, 2, 0, 1},          {8, 2, 8, 2, 1, 0, 0},          {8, 3, 8, 3, 3, 1, 1},
    {8, 4, 8, 0, 1, 0, 0, in_bf16}, {8, 1, 1, 0, 0, 0, 0},          {1, 0, 8, 3, 0, 0, 0},
};
inline constexpr int row_count = static_cast<int>(sizeof(rows) / sizeof(row));
/// Cases of each row.
inline constexpr int case_count = 12;

/// The values of all factors in case `c` of row `r`.
struct factors {
  static constexpr int count = 11;
  static constexpr int values[count] = {9, 9, 6, 4, 7, 2, 2, 3, 3, 4, 2};
  int value[count];  // k, v, mask, score, normalizer, transform, outputs, heads, dims, path, products
};
constexpr factors factors_of(int r, int c) {
  row const& of = rows[r];
  int const mask = of.mask == 0 ? no_mask : of.mask > 1 ? of.mask + 1 : (c + r) % 2 == 0 ? causal_mask : window_mask;
  int const normalizer = of.normalizer < 3 ? of.normalizer : by_sigmoid + (c / 2 + r) % 4;
  return {{of.k, of.v, mask, of.score, normalizer, of.transform, of.outputs, c % 3, (c + c / 3) % 3, c / 3, of.products}};
}

/// Pairs of values of factors a and b that meet in no case.
constexpr int missing(int a, int b) {
  bool met[9][9] = {};
  for (int r = 0; r < row_count; ++r)
    for (int c = 0; c < case_count; ++c) met[factors_of(r, c).value[a]][factors_of(r, c).value[b]] = true;
  int count = 0;
  for (int x = 0; x < factors::values[a]; ++x)
    for (int y = 0; y < factors::values[b]; ++y) count += !met[x][y];
  return count;
}
constexpr bool every_pair_meets() {
  for (int a = 0; a < factors::count; ++a)
    for (int b = a + 1; b < factors::count; ++b)
      if (missing(a, b) != (a == 0 && b == 1 ? 33 : 0)) return false;
  return true;
}
static_assert(every_pair_meets());

}  // namespace tern::test::matrix
