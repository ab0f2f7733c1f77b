// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/e8p.hpp
/// Eight elements at a time are one of 2^16 fixed vectors, points of the lattice E8 shifted by a quarter: vector-quantized codes without
/// training and without state.
///
///     | d f16 | 4 codewords of 16 bits |      d q, 32 elements in 10 bytes: 2.5 bits each
///     q / 4 = s p + t                         q: odd integers from -11 to 11
///
///     bits 0 - 7     p: 256 vectors of 1/2, 3/2 and 5/2: the 227 with p . p <= 10 and 29 of the 224 with p . p = 12
///                      0 - 162      up to four elements are 3/2: the numbers whose bits say which (bit i: element i), ascending
///                      163 - 226    163 + 8 i + j: element i is 5/2 and, if it is another, j is 3/2
///                      227 - 255    every seventh of the 224 in lexicographic order
///     bits 8 - 14    s: the signs of elements 0 to 6, 1 for minus. That of element 7 makes the sum of s p even
///     bit 15         t: -1/4 or 1/4 for all elements
///
/// s p are points of D8 + 1/2, so s p + t are points of E8 + 1/4. The code lays both out so that bytes 15 + q are the exclusive or of two
/// table entries of 8 bytes, one of each half of the codeword.
///
/// Encoding takes the nearest vectors to x / (0.95 r), r the block's root mean square (the best factor for normal numbers, and flat: 0.90
/// to 1.00 lose 1 % more), then d by least squares. No vector has an element of zero; a block of zeros has d = 0. NaN makes all of its
/// block NaN; infinity, and what takes d beyond f16, all of its block infinite.
///
/// Error  of normal numbers, squared, over their variance: 0.0836 (2 bits allow 0.0625, one number at a time 0.118). For any block, with
///        unit u = 0.95 r and parts x_g of 8 elements, the sum of squares is at most u^2 sum_g (1 + max(0, |x_g| / u - 1.9))^2 and the
///        rounding of d: E8 has a point within 1 of everything, and points of E8 + 1/4 that have no code are longer than 2.9.
///        Far outliers cost much. Rows that were rotated (pointwise/hadamard.hpp) are near to normal, as these codes want them.
/// Cost   encoding: for each codeword and each t a sort of 8, rarely products with the last 29 patterns; 0.6 to 0.9 us a block (AVX-512
///        and AVX2). Decoding: two lookups of 8 bytes for 8 elements, 5 ns a block. Attention over rows of blocks waits for that, not for
///        memory: with AVX-512 on one thread, 1.7 times as long as over f16 and 1.2 times as over q4_0 on one machine, 0.8 times as over
///        f16 on another, whose core reads 17 GB/s. These codes save memory, and little time.
///
/// Source: "QuIP#: Even Better LLM Quantization with Hadamard Incoherence and Lattice Codebooks", section 4.2 (E8P). Which 29, the layout
/// and the blocks are this library's: files of the authors differ.

#include <tern/formats/q4.hpp>
#include <tern/simd/convert.hpp>

namespace tern::formats {
inline namespace TERN_ABI {

namespace detail {
/// All patterns p by their number, and what encoding looks up.
struct e8p_codebook {
  static constexpr int count = 256, few = 163, regular = 227;
  std::uint64_t pattern[count];  // bytes 4 a, a = 4, 5, 6 for 1/2, 3/2, 5/2 and 7 - a for their negatives; element 7 has the sign that
                                 // makes the sum even
  std::uint64_t change[count];   // by the upper half of a codeword: 28 where the sign changes, 2 where t = 1/4
  float element[8][count];       // p
  float odd[count];              // 1 if the sum of p is odd, otherwise 0
  std::uint8_t number[count];    // of the pattern whose 3/2 are these elements, up to four, and the others 1/2

  TERN_INLINE constexpr e8p_codebook() {
    int n = 0;
    for (unsigned set = 0; set < count; ++set) {
      int place[8], size = 0;
      for (int i = 0; i < 8; ++i) size += place[i] = static_cast<int>(set >> i & 1);
      number[set] = static_cast<std::uint8_t>(size <= 4 ? n : 0);
      if (size <= 4) add(n++, place);
    }
    for (int i = 0; i < 8; ++i)
      for (int j = 0; j < 8; ++j) {
        int place[8] = {};
        place[j] = 1;
        place[i] = 2;
        add(n++, place);
      }
    add_longest(n);
    for (unsigned h = 0; h < count; ++h) {
      unsigned const last = static_cast<unsigned>(__builtin_parity(h & 127)) << 7;
      change[h] = (h >> 7) * 2 * each_byte;
      for (int i = 0; i < 8; ++i) change[h] ^= std::uint64_t{((h & 127) | last) >> i & 1} * 28 << 8 * i;
    }
  }

 private:
  /// Pattern n: place + 1/2.
  TERN_INLINE constexpr void add(int n, int const (&place)[8]) {
    int sum = 4;
    pattern[n] = 0;
    for (int i = 0; i < 8; ++i) {
      sum += place[i];
      element[i][n] = static_cast<float>(place[i]) + 0.5f;
      pattern[n] |= static_cast<std::uint64_t>(16 + 4 * place[i]) << 8 * i;
    }
    if (sum % 2 == 1) pattern[n] ^= std::uint64_t{28} << 56;
    odd[n] = static_cast<float>(sum % 2);
  }
  TERN_INLINE constexpr void add_longest(int n) {
    int place[8] = {};
    for (int seen = 0; n < count;) {
      int norm = 2;
      for (int x : place) norm += x * (x + 1);
      if (norm == 12 && seen++ % 7 == 0) add(n++, place);
      int i = 7;
      while (place[i] == 2) place[i--] = 0;
      ++place[i];
    }
  }
};
inline constexpr e8p_codebook e8p_table{};

/// y = x - t, of which vectors s p are to be near.
struct e8p_shifted {
  float magnitude[8];
  unsigned negative = 0;  // a bit for each
  float gain = 0.f;       // t . x: all that the distances under both t do not share

  TERN_INLINE e8p_shifted(float const* x, float t) {
    for (int i = 0; i < 8; ++i) {
      float const y = x[i] - t;
      magnitude[i] = __builtin_fabsf(y);
      negative |= static_cast<unsigned>(y < 0.f) << i;
      gain += t * x[i];
    }
  }
  TERN_INLINE bool negatives_are_odd() const { return __builtin_parity(negative) != 0; }
};
/// A pattern, and how much nearer than 0 its nearest vector is: half of the difference of squares.
struct e8p_choice {
  float gain;
  int pattern;
};
/// The best of the first patterns, and what none of the last exceeds.
struct e8p_regular {
  e8p_choice best;
  float last;
};
/// The best of the first 227 patterns, which are all orders of seven: with 3/2 in one to four places, or in none, or a 5/2 and at most one
/// 3/2. The largest |y| get the largest p. Where the number of signs does not fit, one is wrong: it costs least at the smallest |y|,
/// which has p = 1/2.
TERN_INLINE e8p_regular best_regular_e8p(e8p_shifted const& y) {
  int rank[8] = {}, order[8] = {};
  TERN_UNROLL
  for (int i = 1; i < 8; ++i) TERN_UNROLL
  for (int j = 0; j < i; ++j) {
    bool const before = y.magnitude[i] > y.magnitude[j];
    rank[j] += before;
    rank[i] += !before;
  }
  for (int i = 0; i < 8; ++i) order[rank[i]] = i;  // where there is NaN some places stay 0
  auto const at = [&](int i) TERN_LAMBDA { return y.magnitude[order[i]]; };
  float start = y.gain - 1.f;
  for (float e : y.magnitude) start += 0.5f * e;
  float const wrong[2] = {y.negatives_are_odd() ? at(7) : 0.f, y.negatives_are_odd() ? 0.f : at(7)};
  e8p_choice best{-__builtin_inff(), 0};
  auto const attempt = [&](float gain, int pattern) TERN_LAMBDA { best = gain > best.gain ? e8p_choice{gain, pattern} : best; };
  unsigned set = 0;
  float gain = start;
  for (int k = 0; k <= 4; ++k) {
    attempt(gain - wrong[k % 2], e8p_table.number[set]);
    set |= 1u << order[k];
    gain += at(k) - 1.f;
  }
  float const five = gain, tall = start + 2.f * at(0) - 3.f;
  int const first = e8p_codebook::few + 8 * order[0];
  attempt(tall - wrong[0], first + order[0]);
  attempt(tall + at(1) - 1.f - wrong[1], first + order[1]);
  gain = tall + at(1) + at(2) - 2.f;
  return {best, five > gain ? five : gain};
}
/// The best of the last patterns, whose orders are not all there: each with the sign wrong that costs it least.
TERN_INLINE e8p_choice best_last_e8p(e8p_shifted const& y) {
  using packf = simd::pack<float>;
  constexpr int W = static_cast<int>(simd::lanes), regular = e8p_codebook::regular;
  static_assert(e8p_codebook::count % W == 0);
  packf gain(-__builtin_inff()), which(static_cast<float>(regular));
  for (int c = regular / W * W; c < e8p_codebook::count; c += W) {
    packf dot(y.gain - 6.f), least(__builtin_inff());
    TERN_UNROLL
    for (int i = 0; i < 8; ++i) {
      packf const product = simd::load(e8p_table.element[i] + c) * y.magnitude[i];
      dot += product;
      least = simd::min(product, least);
    }
    packf const odd = simd::load(e8p_table.odd + c), wrong = y.negatives_are_odd() ? packf(1.f) - odd : odd;
    packf const number = simd::iota<float>() + static_cast<float>(c);
    dot -= 2.f * (wrong * least);
    auto const better = (dot > gain) & (number >= packf(static_cast<float>(regular)));
    gain = simd::select(better, dot, gain);
    which = simd::select(better, number, which);
  }
  float const most = simd::reduce_max(gain);
  return {most, static_cast<int>(simd::reduce_max(simd::select(gain == packf(most), which, packf(0.f))))};
}
/// The codeword of a pattern under one t that is nearest to y + t.
TERN_INLINE std::uint16_t e8p_code(e8p_shifted const& y, int pattern, bool up) {
  unsigned sign = y.negative;
  if (y.negatives_are_odd() != (e8p_table.odd[pattern] != 0.f)) {
    int wrong = 0;
    auto const cost = [&](int i) TERN_LAMBDA { return e8p_table.element[i][pattern] * y.magnitude[i]; };
    for (int i = 1; i < 8; ++i) wrong = cost(i) < cost(wrong) ? i : wrong;
    sign ^= 1u << wrong;
  }
  return static_cast<std::uint16_t>(static_cast<unsigned>(pattern) | (sign & 127) << 8 | static_cast<unsigned>(up) << 15);
}
/// The codeword whose q / 4 is nearest to x (8); some codeword where x is not finite.
[[gnu::noinline]] inline std::uint16_t nearest_e8p(float const* x) noexcept {
  e8p_shifted const y[2] = {{x, -0.25f}, {x, 0.25f}};
  e8p_regular const regular[2] = {best_regular_e8p(y[0]), best_regular_e8p(y[1])};
  int up = regular[1].best.gain > regular[0].best.gain;
  e8p_choice best = regular[up].best;
  for (int t = 0; t < 2; ++t)
    if (regular[t].last > best.gain) {
      e8p_choice const last = best_last_e8p(y[t]);
      up = last.gain > best.gain ? t : up;
      best = last.gain > best.gain ? last : best;
    }
  return e8p_code(y[up], best.pattern, up != 0);
}
}  // namespace detail

/// 32 elements in 10 bytes: 2.5 bits each, d q with q from a codebook of vectors of 8.
struct e8p {
  struct block {
    f16 d;
    std::uint8_t code[8];  // lower and upper halves of codewords
  };
  static_assert(sizeof(block) == 10);
  static constexpr index elements = 32;
  static constexpr index granule = 32;
  static constexpr int offset = 15;
  static constexpr bool has_min = false;
  /// The unit of encoding over the root mean square.
  static constexpr float unit = 0.95f;

  TERN_INLINE static void decode(block const& b, float* out) {
    simd::pack<float> const d = simd::splat(&b.d);
    TERN_UNROLL
    for (index j = 0; j < elements; j += simd::lanes) simd::store(out + j, integers(b, j) * d);
  }
  /// q of elements j to j + lanes; j is a multiple of `lanes`.
  TERN_INLINE static simd::pack<float> integers(block const& b, index j) {
    static_assert(elements % simd::lanes == 0);
    std::uint64_t u[simd::words_of_bytes];
    TERN_UNROLL
    for (index i = 0; i < simd::words_of_bytes; ++i) u[i] = bytes(b, j / 8 + i) >> 8 * (j % 8);
    return simd::to_float(simd::widen_bytes(u) - simd::pack<std::int32_t>(offset));
  }
  static block encode(float const* in) {
    float squares = 0.f;
    for (int i = 0; i < elements; ++i) squares += in[i] * in[i];
    float const scale = unit * __builtin_sqrtf(squares / elements), inverse = scale != 0.f ? 1.f / scale : 0.f;
    float x[elements];
    for (int i = 0; i < elements; ++i) x[i] = in[i] * inverse;
    block b;
    for (int g = 0; g < 4; ++g) {
      unsigned const code = detail::nearest_e8p(x + 8 * g);
      b.code[2 * g] = static_cast<std::uint8_t>(code & 255);
      b.code[2 * g + 1] = static_cast<std::uint8_t>(code >> 8);
    }
    b.d = f16(scale <= 0x1.fffffep127f ? best_scale(b, in) : scale);
    return b;
  }
  TERN_INLINE static void unpack(block const& b, index, std::uint8_t* u) {
    for (int g = 0; g < 4; ++g) detail::store8(u + 8 * g, bytes(b, g));
  }
  TERN_INLINE static void scales(block const& b, index, float* scale, float*) { scale[0] = b.d; }

 private:
  /// 15 + q of the elements of codeword g, the first in the lowest byte.
  TERN_INLINE static std::uint64_t bytes(block const& b, index g) {
    return detail::e8p_table.pattern[b.code[2 * g]] ^ detail::e8p_table.change[b.code[2 * g + 1]];
  }
  /// The d of least squares.
  TERN_INLINE static float best_scale(block const& b, float const* in) {
    std::uint8_t u[elements];
    unpack(b, 0, u);
    float xq = 0.f;
    int qq = 0;
    for (int i = 0; i < elements; ++i) {
      int const q = u[i] - offset;
      xq += in[i] * static_cast<float>(q);
      qq += q * q;
    }
    return xq / static_cast<float>(qq);
  }
};

}  // namespace TERN_ABI
}  // namespace tern::formats
