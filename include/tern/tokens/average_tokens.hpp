// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/average_tokens.hpp
/// Tokens that become one: means, weighted by how many tokens each already stands for.
///
///     average_tokens(policy, map, sizes, merged_sizes, moved{x, y}, moved{k, k2}, ...)
///
///     y_j = (sum over the tokens i that go to j of s_i x_i) / (sum of s_i),     merged_sizes_j = sum of s_i
///
/// Shapes    sizes (samples, tokens) f32, or a view of nothing for ones; merged_sizes (samples, tokens of the result) f32, or a view of
///           nothing where nobody wants it; tensors as in move_tokens.hpp, f32, f16 or bf16.
/// Exact     a token that alone goes to j keeps its bits. Sums are f32, in the order of the tokens. Weights need not be sizes: what
///           sums up to zero gives NaN, but for a token that is alone.
/// Errors    a map whose result has more tokens than there were.
/// Memory    from the policy: 8 bytes a token of all samples.
/// Cost      reads and writes each token once.
/// Error     |y - y*| <= 2^-24 (n + 2) (sum of |s_i x_i|) / |sum of s_i| for n tokens that become one and sizes above 0, and the rounding
///           of y's type.
/// Source    ToMe (arXiv:2210.09461), merge_wavg of its authors' code.

#include <tern/tokens/move_tokens.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// The tokens that go to each token of the result: those of token j of sample b are list[starts[j]], ... before starts[j + 1].
struct token_sources {
  std::int32_t* memory;
  index tokens, most;  // of a sample, and of its result, which has no more

  TERN_INLINE static std::size_t bytes(token_map const& map) {
    return static_cast<std::size_t>(map.samples() * (2 * map.tokens() + 1)) * sizeof(std::int32_t);
  }
  TERN_INLINE token_sources(token_map const& map, std::byte* bytes)
      : memory(reinterpret_cast<std::int32_t*>(bytes)), tokens(map.tokens()), most(map.most()) {}
  TERN_INLINE std::int32_t* starts(index b) const { return memory + b * (2 * tokens + 1); }
  TERN_INLINE std::int32_t* list(index b) const { return starts(b) + tokens + 1; }

  /// By counting.
  void fill(token_map const& map, index b) const noexcept {
    std::int32_t *const start = starts(b), *const from = list(b);
    index const count = map.count(b);
    for (index j = 0; j <= count; ++j) start[j] = 0;
    for (index i = 0; i < tokens; ++i)
      if (map.to(b, i) >= 0) ++start[map.to(b, i)];
    std::int32_t sum = 0;
    for (index j = 0; j <= count; ++j) {
      std::int32_t const own = start[j];
      start[j] = sum;
      sum += own;
    }
    for (index i = 0; i < tokens; ++i)
      if (map.to(b, i) >= 0) from[start[map.to(b, i)]++] = static_cast<std::int32_t>(i);
    for (index j = count; j > 0; --j) start[j] = start[j - 1];  // they have moved to their ends
    start[0] = 0;
  }
};

/// The weights of a sample's tokens: ones where there are none.
struct token_weights {
  tensor_view<float const, 2> of;
  TERN_INLINE float operator()(index b, index i) const { return of.data() != nullptr ? of(b, i) : 1.f; }
};

/// The mean of `count` rows, to a row: four registers at a time, so that each row is walked in cache lines that follow each other.
template <class From, class T>
TERN_INLINE void average_rows(From const& from, index b, index h, std::int32_t const* list, index count, token_weights const& weight,
                              T* to) {
  using pack = simd::pack<float>;
  constexpr index wide = 4 * simd::lanes;
  float total = 0;
  for (index i = 0; i < count; ++i) total += weight(b, list[i]);
  pack const divisor(total);
  index c = 0;
  for (; c + wide <= from.channels(); c += wide) {
    pack sum[4] = {pack(0.f), pack(0.f), pack(0.f), pack(0.f)};
    for (index i = 0; i < count; ++i) {
      pack const w(weight(b, list[i]));
      TERN_UNROLL
      for (index r = 0; r < 4; ++r) sum[r] = simd::fma(w, simd::load(from.at(b, h, list[i]) + c + r * simd::lanes), sum[r]);
    }
    TERN_UNROLL
    for (index r = 0; r < 4; ++r) simd::store(to + c + r * simd::lanes, sum[r] / divisor);
  }
  each_pack(c, from.channels(), [&](index at, auto part) TERN_LAMBDA {
    pack sum(0.f);
    for (index i = 0; i < count; ++i) sum = simd::fma(pack(weight(b, list[i])), load(from.at(b, h, list[i]) + at, part), sum);
    store(to + at, sum / divisor, part);
  });
}

template <class From, class To>
inline void average_one(cpu_policy const& policy, token_map const& map, token_sources const& sources, token_weights const& weight,
                        From const& from, To const& to) {
  for_tokens(
      policy, from.samples(), from.heads(), sources.most, from.channels(), [&](index b) TERN_LAMBDA { return map.count(b); },
      [&](index b, index h, index j) TERN_LAMBDA {
        std::int32_t const* const start = sources.starts(b) + j;
        std::int32_t const* const list = sources.list(b) + start[0];
        if (start[1] - start[0] == 1)
          copy_token(from.at(b, h, list[0]), to.at(b, h, j), from.channels());
        else
          average_rows(from, b, h, list, start[1] - start[0], weight, to.at(b, h, j));
      });
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// average_tokens(policy, map, sizes, merged_sizes, moved...): see the top of this file.
inline constexpr struct average_tokens_fn {
  template <class... From, class... To>
  void operator()(cpu_policy const& policy, token_map const& map, tensor_view<float const, 2> const& sizes,
                  tensor_view<float, 2> const& merged_sizes, moved<From, To> const&... tensors) const {
    map.check(op);
    detail::expect(map.most() <= map.tokens(), op, "a count of the map", map.most(), "at most its tokens");
    check_sizes("sizes", sizes, map.samples(), map.tokens());
    check_sizes("merged_sizes", tensor_view<float const, 2>(merged_sizes), map.samples(), map.most());
    if (detail::overlap(sizes, merged_sizes)) detail::fail("average_tokens: merged_sizes overlaps sizes, expected memory of its own");
    (check(map, detail::rows_of_tokens(tensors.from), detail::rows_of_tokens(tensors.to)), ...);
    workspace::lease const memory(policy.scratch(), detail::token_sources::bytes(map));
    detail::token_sources const sources(map, memory.data());
    detail::token_weights const weight{sizes};
    detail::for_rows(policy, map.samples(), 4 * map.tokens(), [&](index b) TERN_LAMBDA {
      sources.fill(map, b);
      if (merged_sizes.data() == nullptr) return;
      for (index j = 0; j < map.count(b); ++j) {
        float sum = 0;
        for (std::int32_t i = sources.starts(b)[j]; i < sources.starts(b)[j + 1]; ++i) sum += weight(b, sources.list(b)[i]);
        merged_sizes(b, j) = sum;
      }
    });
    (detail::average_one(policy, map, sources, weight, detail::rows_of_tokens(tensors.from), detail::rows_of_tokens(tensors.to)), ...);
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <class... From, class... To>
  std::size_t workspace_size(cpu_policy const&, token_map const& map, tensor_view<float const, 2> const&, tensor_view<float, 2> const&,
                             moved<From, To> const&...) const {
    return detail::token_sources::bytes(map);
  }

 private:
  static constexpr char const* op = "average_tokens";

  static void check_sizes(char const* name, tensor_view<float const, 2> const& sizes, index samples, index tokens) {
    if (sizes.data() == nullptr) return;
    detail::expect_equal(op, name, sizes.extent(0), "the samples", samples);
    detail::expect_at_least(op, name, sizes.extent(1), "at least the tokens of the map", tokens);
  }
  template <class From, class To>
  static void check(token_map const& map, From const& from, To const& to) {
    static_assert(float_storage<std::remove_const_t<typename From::element>>,
                  "tern: average_tokens takes f32, f16 or bf16; integers move with gather_tokens");
    detail::check_moved(op, from, to, map.samples());
    detail::expect_equal(op, "the tokens of a tensor that is read", from.tokens(), "the tokens of the map", map.tokens());
    detail::expect_at_least(op, "the tokens of a tensor that is written", to.tokens(), "at least those that the map leaves", map.most());
  }
} average_tokens{};

}  // namespace TERN_ABI
}  // namespace tern
