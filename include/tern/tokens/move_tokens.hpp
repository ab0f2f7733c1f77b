// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/move_tokens.hpp
/// Tokens to where they are wanted, and back; any number of tensors at once.
///
///     gather_tokens(policy, kept, moved{x, y}, moved{k, k2}, ...)     y[b, i] = x[b, kept[b][i]]
///     scatter_tokens(policy, kept, moved{y, x}, ...)                  x[b, kept[b][i]] = y[b, i]; other tokens of x stay as they are
///     unmerge_tokens(policy, map, moved{y, x}, ...)                   x[b, i] = y[b, map.to(b, i)]; tokens that went nowhere stay
///     add_tokens(policy, map, moved{y, x}, ...)                       x[b, i] += y[b, map.to(b, i)]; rounded once to x's type
///
/// Shapes    (samples, tokens, channels), rows contiguous, (samples, heads, tokens, channels) for keys and values, or (samples, tokens) for
///           positions, sizes and the like. Of one call each tensor may have other channels and another type. What is written may not
///           overlap what is read.
/// Types     both of a pair the same, of any kind: bits are copied. add_tokens: f32, f16 or bf16.
/// Ragged    each sample has as many tokens as its list or map says; what is behind them in y stays as it is.
/// Errors    lists that do not ascend, indices that a tensor does not have, channels that differ, memory that both of a pair share.
/// Cost      reads and writes each token once.

#include <tern/core/overlap.hpp>
#include <tern/core/rounding.hpp>
#include <tern/pointwise/rows.hpp>
#include <tern/tokens/token_map.hpp>

namespace tern {
inline namespace TERN_ABI {

/// A tensor that tokens come from, and one that they go to.
template <class From, class To>
struct moved {
  From from;
  To to;
  template <tensor_like X, tensor_like Y>
  TERN_INLINE moved(X&& x, Y&& y) : from(tern::view(x)), to(tern::view(y)) {}
};
template <tensor_like X, tensor_like Y>
moved(X&&, Y&&) -> moved<view_of<X>, view_of<Y>>;

}  // namespace TERN_ABI
namespace detail {
inline namespace TERN_ABI {

/// A tensor as rows: sample b's token i in head h.
template <class T, int Rank>
struct token_rows {
  static_assert(Rank >= 2 && Rank <= 4,
                "tern: tokens are (samples, tokens), (samples, tokens, channels) or (samples, heads, tokens, channels)");
  using element = T;
  static constexpr int token_dim = Rank == 4 ? 2 : 1;
  tensor_view<T, Rank> v;
  TERN_INLINE index samples() const { return v.extent(0); }
  TERN_INLINE index heads() const { return Rank == 4 ? v.extent(1) : 1; }
  TERN_INLINE index tokens() const { return v.extent(token_dim); }
  TERN_INLINE index channels() const { return Rank == 2 ? 1 : v.extent(Rank - 1); }
  TERN_INLINE T* at(index b, index h, index i) const {
    return v.data() + b * v.stride(0) + (Rank == 4 ? h * v.stride(1) : 0) + i * v.stride(token_dim);
  }
  TERN_INLINE void check(char const* op, char const* name) const {
    if (Rank > 2) expect(v.extent(Rank - 1) <= 1 || v.stride(Rank - 1) == 1, op, name, v.stride(Rank - 1), "a last stride of 1");
  }
};
template <class T, int Rank>
TERN_INLINE token_rows<T, Rank> rows_of_tokens(tensor_view<T, Rank> const& v) {
  return {v};
}

/// Fails unless both tensors of a pair have as many samples, heads and channels.
template <class From, class To>
TERN_INLINE void check_moved(char const* op, From const& from, To const& to, index samples) {
  static_assert(std::is_same_v<std::remove_const_t<typename From::element>, typename To::element>,
                "tern: tokens move between tensors of one type, and what is written is not const");
  from.check(op, "the last stride of a tensor that is read");
  to.check(op, "the last stride of a tensor that is written");
  expect_equal(op, "the samples of a tensor that is read", from.samples(), "those of the list or map", samples);
  expect_equal(op, "the samples of a tensor that is written", to.samples(), "those of the list or map", samples);
  expect_equal(op, "the heads of a tensor that is written", to.heads(), "those of the one that is read", from.heads());
  expect_equal(op, "the channels of a tensor that is written", to.channels(), "those of the one that is read", from.channels());
  if (overlap(from.v, to.v)) [[unlikely]]
    (message() << op << ": a tensor that is written overlaps the one that is read, expected memory of its own").fail();
}

template <class T>
TERN_INLINE void copy_token(T const* from, T* to, index channels) {
  __builtin_memcpy(static_cast<void*>(to), from, static_cast<std::size_t>(channels) * sizeof(T));
}
/// to += from
template <class T>
TERN_INLINE void add_token(T const* from, T* to, index channels) {
  each_pack(0, channels, [&](index i, auto part) TERN_LAMBDA { store(to + i, load(to + i, part) + load(from + i, part), part); });
}

/// Calls body(b, h, i) for the first counts(b) tokens of each sample's heads, on threads where that pays.
template <class Count, class Body>
TERN_INLINE void for_tokens(cpu_policy const& policy, index samples, index heads, index most, index channels, Count const& count,
                            Body const& body) {
  index const cost = channels > 0 ? channels : 1, chunk = cost < pointwise_grain ? pointwise_grain / cost : 1;
  index const chunks = divide_up(most, chunk), items = samples * heads * chunks;
  auto const run = [&](index item, index) TERN_LAMBDA {
    index const c = item % chunks, h = item / chunks % heads, b = item / chunks / heads;
    index const end = least(count(b), (c + 1) * chunk);
    for (index i = c * chunk; i < end; ++i) body(b, h, i);
  };
  parallel_for(samples * heads * most * cost < 2 * pointwise_grain ? policy.on(serial) : policy, items, run);
}

template <class From, class To>
inline void gather_one(cpu_policy const& policy, index_lists const& kept, From const& from, To const& to) {
  for_tokens(
      policy, from.samples(), from.heads(), kept.most(), from.channels(), [&](index b) TERN_LAMBDA { return kept.count(b); },
      [&](index b, index h, index i) TERN_LAMBDA { copy_token(from.at(b, h, kept.row(b)[i]), to.at(b, h, i), from.channels()); });
}
template <class From, class To>
inline void scatter_one(cpu_policy const& policy, index_lists const& kept, From const& from, To const& to) {
  for_tokens(
      policy, from.samples(), from.heads(), kept.most(), from.channels(), [&](index b) TERN_LAMBDA { return kept.count(b); },
      [&](index b, index h, index i) TERN_LAMBDA { copy_token(from.at(b, h, i), to.at(b, h, kept.row(b)[i]), from.channels()); });
}
/// Calls body(from's row, to's row, channels) for each token that went somewhere.
template <class From, class To, class Body>
inline void unmerge_one(cpu_policy const& policy, token_map const& map, From const& from, To const& to, Body const& body) {
  for_tokens(
      policy, from.samples(), from.heads(), map.tokens(), from.channels(), [&](index) TERN_LAMBDA { return map.tokens(); },
      [&](index b, index h, index i) TERN_LAMBDA {
        if (map.to(b, i) >= 0) body(from.at(b, h, map.to(b, i)), to.at(b, h, i), from.channels());
      });
}

/// Fails unless the listed tokens of `whole` and the first ones of `part`, one of which is read and the other written, fit together.
template <class From, class To, class Whole, class Part>
TERN_INLINE void check_listed(char const* op, index_lists const& kept, From const& from, To const& to, Whole const& whole,
                              Part const& part) {
  kept.check_shape(op, from.samples());
  check_moved(op, from, to, from.samples());
  for (index b = 0; b < whole.samples(); ++b) {
    expect_ascending(op, "an index of kept", kept.row(b), kept.count(b), whole.tokens());
    expect_at_least(op, "the tokens of the shorter tensor", part.tokens(), "at least a count of kept", kept.count(b));
  }
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// gather_tokens(policy, kept, moved...): see the top of this file.
inline constexpr struct gather_tokens_fn {
  template <class... From, class... To>
  void operator()(cpu_policy const& policy, index_lists const& kept, moved<From, To> const&... tensors) const {
    auto const check = [&](auto const& from, auto const& to)
                           TERN_LAMBDA { detail::check_listed("gather_tokens", kept, from, to, from, to); };
    (check(detail::rows_of_tokens(tensors.from), detail::rows_of_tokens(tensors.to)), ...);
    (detail::gather_one(policy, kept, detail::rows_of_tokens(tensors.from), detail::rows_of_tokens(tensors.to)), ...);
  }
} gather_tokens{};

/// scatter_tokens(policy, kept, moved...): see the top of this file.
inline constexpr struct scatter_tokens_fn {
  template <class... From, class... To>
  void operator()(cpu_policy const& policy, index_lists const& kept, moved<From, To> const&... tensors) const {
    auto const check = [&](auto const& from, auto const& to)
                           TERN_LAMBDA { detail::check_listed("scatter_tokens", kept, from, to, to, from); };
    (check(detail::rows_of_tokens(tensors.from), detail::rows_of_tokens(tensors.to)), ...);
    (detail::scatter_one(policy, kept, detail::rows_of_tokens(tensors.from), detail::rows_of_tokens(tensors.to)), ...);
  }
} scatter_tokens{};

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {

template <class From, class To>
inline void check_unmerged(char const* op, token_map const& map, From const& from, To const& to) {
  map.check(op);
  check_moved(op, from, to, map.samples());
  expect_equal(op, "the tokens of a tensor that is written", to.tokens(), "the tokens of the map", map.tokens());
  expect_at_least(op, "the tokens of a tensor that is read", from.tokens(), "at least those that the map leaves", map.most());
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// unmerge_tokens(policy, map, moved...): see the top of this file.
inline constexpr struct unmerge_tokens_fn {
  template <class... From, class... To>
  void operator()(cpu_policy const& policy, token_map const& map, moved<From, To> const&... tensors) const {
    (one(policy, map, detail::rows_of_tokens(tensors.from), detail::rows_of_tokens(tensors.to)), ...);
  }

 private:
  template <class From, class To>
  static void one(cpu_policy const& policy, token_map const& map, From const& from, To const& to) {
    detail::check_unmerged("unmerge_tokens", map, from, to);
    detail::unmerge_one(policy, map, from, to,
                        [](auto const* y, auto* x, index channels) TERN_LAMBDA { detail::copy_token(y, x, channels); });
  }
} unmerge_tokens{};

/// add_tokens(policy, map, moved...): see the top of this file.
inline constexpr struct add_tokens_fn {
  template <class... From, class... To>
  void operator()(cpu_policy const& policy, token_map const& map, moved<From, To> const&... tensors) const {
    (one(policy, map, detail::rows_of_tokens(tensors.from), detail::rows_of_tokens(tensors.to)), ...);
  }

 private:
  template <class From, class To>
  static void one(cpu_policy const& policy, token_map const& map, From const& from, To const& to) {
    detail::check_unmerged("add_tokens", map, from, to);
    detail::unmerge_one(policy, map, from, to,
                        [](auto const* y, auto* x, index channels) TERN_LAMBDA { detail::add_token(y, x, channels); });
  }
} add_tokens{};

}  // namespace TERN_ABI
}  // namespace tern
