// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/score.hpp
/// What becomes of q.k before it is weighed. A score modifier is any function object, a lambda for example, of a register of
/// scores and of where they stand:
///
///     attention(cpu, q, k, v, out, [=](floats s, score_at const& at) { return s - floats(slope) * at.distance(); });
///
/// Modifiers apply in the order in which they are written, after the scale and before any mask. The lanes of `s` are one query's
/// scores of several keys. Lanes behind the last key, or of hidden ones, hold anything; what is made of them is not used.
/// A modifier is called from several threads, may not throw and calls no kernel: matrix registers may be in use.

#include <tern/core/error.hpp>
#include <tern/simd/math.hpp>
#include <tern/simd/pack.hpp>

#include <concepts>

namespace tern {
inline namespace TERN_ABI {

/// A register of scores.
using floats = simd::pack<float>;
/// A register of key indices.
using ints = simd::pack<std::int32_t>;

/// The extents of a call, which an option with `void check(attention_shape const&) const` is held against before it starts.
struct attention_shape {
  index batch, heads, k_heads, v_heads, tokens, keys, dim, dim_v;
};

/// Where a register of scores stands.
struct score_at {
  index batch, head;
  index query;                        ///< the token
  std::int32_t position;              ///< of the query among the keys, as masks count it: a key at the same position is its own
  std::int32_t const* key_index;      ///< of each lane
  std::int32_t const* key_positions;  ///< of each lane, as masks count it

  /// The index of each lane's key.
  TERN_INLINE ints key() const { return simd::load(key_index); }
  /// The position of each lane's key, as masks count it.
  TERN_INLINE ints key_position() const { return simd::load(key_positions); }
  /// How far each lane's key lies before the query; negative behind it.
  TERN_INLINE floats distance() const { return simd::to_float(ints(position) - key_position()); }
};

/// What attention takes as a score modifier.
template <class F>
concept score_modifier = requires(F const& f, floats s, score_at const& at) {
  { f(s, at) } -> std::convertible_to<floats>;
};

/// Bounds scores: limit * tanh(score / limit).
struct softcap {
  float limit;
  TERN_INLINE floats operator()(floats s, score_at const&) const { return floats(limit) * simd::tanh(s * floats(1 / limit)); }
  TERN_INLINE void check(attention_shape const&) const {
    detail::expect(limit > 0, "attention", "the sign of softcap", limit < 0 ? -1 : 0, "that of a positive limit");
  }
};

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {

/// Modifiers one after the other.
template <class... F>
struct score_chain;
template <>
struct score_chain<> {
  static constexpr bool empty = true;
  TERN_INLINE floats operator()(floats s, score_at const&) const { return s; }
};
template <class First, class... Rest>
struct score_chain<First, Rest...> {
  static constexpr bool empty = false;
  First first;
  score_chain<Rest...> rest;
  TERN_INLINE floats operator()(floats s, score_at const& at) const { return rest(first(s, at), at); }
};

/// 2^x for x <= 0, within 3 units in the last place; below -126.5 the result is zero. NaN stays NaN.
/// 2^x = 2^n 2^r with n the nearest integer; adding 3 * 2^22 + 127 leaves n + 127 in the low bits of the sum. The polynomial is
/// the minimax one of degree 6 with constant term 1, relative error 2^-28.5 (Remez exchange).
TERN_INLINE simd::pack<float> exp2_of_nonpositive(simd::pack<float> x) {
  using packf = simd::pack<float>;
  x = simd::max(packf(-127.f), x);
  packf const magic(0x1.8p23f + 127.f);
  packf const shifted = x + magic;
  packf const r = x - (shifted - magic);
  packf p(0x1.470b4ap-13f);
  p = simd::fma(p, r, packf(0x1.5f7276p-10f));
  p = simd::fma(p, r, packf(0x1.3b270ep-7f));
  p = simd::fma(p, r, packf(0x1.c6ae72p-5f));
  p = simd::fma(p, r, packf(0x1.ebfbe2p-3f));
  p = simd::fma(p, r, packf(0x1.62e432p-1f));
  p = simd::fma(p, r, packf(1.f));
  return p * simd::bit_cast<float>(simd::shift_left<23>(simd::bit_cast<std::int32_t>(shifted)));
}

inline constexpr float log2_e = 0x1.715476p+0f;
inline constexpr float ln_2 = 0x1.62e43p-1f;

}  // namespace TERN_ABI
}  // namespace detail
}  // namespace tern
