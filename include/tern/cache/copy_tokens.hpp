// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/copy_tokens.hpp
/// Tokens of one cache, behind those of another, or of another sequence: in its formats, and changed on the way.
///
///     copy_tokens(policy, from, s, layer, lists, to, t)           for each key head, the listed places; as many of each head
///     copy_tokens(policy, from, s, layer, lists, to, t, change)   change(h, keys, into, positions) writes `into` (count, dim of to) from
///                                                                 keys (count, dim of from), both f32, and may move the positions
///     copy_tokens(policy, from, s, layer, lists, to, t, change, change_values)      change_values(h, values, into) the same for values
///
/// Positions go along, and must be behind those that `to` has.
/// Rounding  rows are read as floats exactly as stored, and rounded to the formats of `to`; f32, f16 and bf16 keep their bits in their own.
/// By page   where `to` has keys in 2 bits, tokens come in multiples of 64 to whole pages.
/// Memory    scratch from the policy: 1024 tokens of all heads as floats.
/// Errors    heads that list different numbers of tokens, places that are not there, pages that `to` does not have; before anything
///           changes, but where a page of `to` is shared and no other one is left for its copy.

#include <tern/cache/kv_cache.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr struct copy_tokens_fn {
  /// Rows as they are.
  struct unchanged {};

  template <class From, class To, class Change = unchanged, class ChangeValues = unchanged>
  void operator()(cpu_policy const& policy, From const& from, std::int32_t s, index layer, index_lists const& lists, To& to, std::int32_t t,
                  Change const& change = {}, ChangeValues const& change_values = {}) const {
    check_dims<Change>("dim of the cache copied to", to.shape().dim, from.shape().dim);
    check_dims<ChangeValues>("dim_v of the cache copied to", to.shape().dim_v, from.shape().dim_v);
    index const heads = from.shape().kv_heads, count = check(from, s, layer, lists, to, t);
    index const dim = from.shape().dim, to_dim = to.shape().dim, dim_v = to.shape().dim_v, from_v = from.shape().dim_v,
                most = count < chunk ? count : chunk;
    workspace::lease const memory(policy.scratch(),
                                  static_cast<std::size_t>(most * (heads * (to_dim + dim_v + 1) + dim + from_v)) * sizeof(float));
    float *const key = reinterpret_cast<float*>(memory.data()), *const value = key + most * dim;
    for (index first = 0; first < count; first += chunk) {
      index const some = count - first < chunk ? count - first : chunk;
      auto const k = tern::view(key + most * (dim + from_v), heads, some, to_dim), v = tern::view(k.data() + k.size(), heads, some, dim_v);
      auto const positions = tern::view(reinterpret_cast<std::int32_t*>(v.data() + v.size()), heads, some);
      for (index h = 0; h < heads; ++h) {
        for (index i = 0; i < some; ++i) {
          index const at = lists.row(h)[first + i];
          from.read_key(s, layer, h, at, std::is_same_v<Change, unchanged> ? &k(h, i, 0) : key + i * dim);
          from.read_value(s, layer, h, at, std::is_same_v<ChangeValues, unchanged> ? &v(h, i, 0) : value + i * from_v);
          positions(h, i) = from.positions(s, layer, h)[at];
        }
        if constexpr (!std::is_same_v<Change, unchanged>) change(h, tern::view(key, some, dim), k[h], positions[h]);
        if constexpr (!std::is_same_v<ChangeValues, unchanged>) change_values(h, tern::view(value, some, from_v), v[h]);
      }
      to.append(policy, t, layer, k, v, positions);
    }
  }

 private:
  static constexpr index chunk = 1024;

  template <class Change>
  static void check_dims(char const* what, index to, index from) {
    if constexpr (std::is_same_v<Change, unchanged>) detail::expect_equal("copy_tokens", what, to, "that of the cache copied from", from);
  }

  template <class From, class To>
  static index check(From const& from, std::int32_t s, index layer, index_lists const& lists, To const& to, std::int32_t t) {
    constexpr char const* op = "copy_tokens";
    index const heads = from.shape().kv_heads, length = from.longest(s, layer);
    static_cast<void>(to.longest(t, layer));  // fails unless it is open
    detail::expect_equal(op, "the heads of the cache copied to", to.shape().kv_heads, "those of the cache copied from", heads);
    lists.check(op, heads, length);
    index const count = lists.count(0);
    index pages = 0;
    for (index h = 0; h < heads; ++h) {
      detail::expect_equal(op, "the count of a list", lists.count(h), "that of the first", count);
      detail::expect(count == 0 || lists.row(h)[count - 1] < from.length(s, layer, h), op, "the last index of a list",
                     count > 0 ? lists.row(h)[count - 1] : 0, "a token of its head");
      index const own = to.length(t, layer, h);
      if constexpr (To::by_page) {
        detail::expect(count % page_rows == 0, op, "the count of a list", count, "a multiple of 64, which these keys are written in");
        detail::expect(own % page_rows == 0, op, "the tokens of a head copied to", own,
                       "whole pages of 64, which these keys are written in");
      }
      pages += detail::divide_up(own + count, page_rows) - detail::divide_up(own, page_rows);
    }
    detail::expect(pages <= to.pages_left(), op, "the number of new pages", pages, "at most those that are left");
    return count;
  }
} copy_tokens{};

}  // namespace TERN_ABI

/// Lists of `count` places from `first` on, the same for each of `heads`: `ids` has room for them and the counts, count + heads numbers.
TERN_INLINE index_lists consecutive_tokens(std::int32_t* ids, index heads, index first, index count) {
  for (index i = 0; i < count; ++i) ids[i] = static_cast<std::int32_t>(first + i);
  for (index h = 0; h < heads; ++h) ids[count + h] = static_cast<std::int32_t>(count);
  return {{ids, shape<2>{{heads, count}}, shape<2>{{0, 1}}}, {ids + count, shape<1>{{heads}}}};
}

}  // namespace tern
