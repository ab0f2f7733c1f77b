// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/tile_kernels.hpp
/// Scores and weighted sums over the tiles of formats/kv_tiles.hpp, with dot products of integers for up to four rows of q at once.
///
/// Scores  each row of q becomes 8-bit integers in blocks of 32, q = a z with a = max |q| / 127. With k = d c as stored
///             s[j] = sum over blocks b of a_b d_jb (z_b . c_jb)
///         whose inner product is exact. The error comes from the rounding of q alone, and the sums of f32:
///             |s[j] - q . k_j| <= sum_b (max |q_b| / 254) sum_e |k_jbe| + (dim / 32 + 4) u sum_e |q_e k_je|,   u = 2^-24
/// Values  within a tile and a block b of 32 elements, the weight of token j and its scale become one 8-bit integer:
///             w_j = p_j d_jb 255 / (P D) to the nearest integer,   P = max_j p_j,   D = max_j d_jb
///             o += P D / 255 sum_j w_j c_j
///         whose sum is exact. Each token's weight is off by half a step:
///             |o - sum_j p_j v_j| <= sum over tiles (P / 510) sum_j D |c_j| + 8 u sum |o|  <=  64 P max |v| / 510 for each tile
///         and errors of different tokens have no reason to agree, so that the square root of the tokens is what is seen of it.
///         A weight below P / 510 in a tile counts as zero.
/// Cost    for four rows: a key and its value of 128 elements take 16 dot products of 64 bytes at 8 or 4 bits, one a cycle where there is
///         VNNI at 512 bits; measured on Zen 4, in cache: 27 cycles, 10.5 for the scores (10 multiplications and products in the one
///         pipe that has them), 3 for the softmax, 4 for integer weights, and 9 for the sum of the values. With AVX2 and no VNNI, 32 bytes
///         take four instructions at 8 bits and two to two and a half at 4, where several products are added up in 16 bits.

#include <tern/attention/stream_kernels.hpp>
#include <tern/attention/tile_sums.hpp>
#include <tern/formats/kv_tiles.hpp>
#include <tern/matmul/quantize.hpp>
#include <tern/simd/core.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Rows of q as integers. For each block: 8 x R words of 4 elements, R sums of elements times -8, R scales.
struct tile_query {
  static constexpr index words = 8;
  /// 32-bit words of memory for R rows.
  TERN_INLINE static constexpr index size(index rows, index dim) { return dim / 32 * (words + 2) * rows; }
};

/// Quantizes R rows of q; to holds tile_query::size(R, dim) words.
template <int R>
inline void quantize_query(float const* q, index q_stride, index dim, std::int32_t* to) noexcept {
  for (index b = 0; b < dim / 32; ++b, to += tile_query::size(R, 32))
    for (index r = 0; r < R; ++r) {
      std::int8_t z[32];
      q8_scales of;
      float const* const x = q + r * q_stride + 32 * b;
      quantize_block(x, largest_magnitude(x, 32), z, of);
      for (index g = 0; g < tile_query::words; ++g) __builtin_memcpy(to + g * R + r, z + 4 * g, 4);
      to[tile_query::words * R + r] = -8 * of.total;
      __builtin_memcpy(to + (tile_query::words + 1) * R + r, &of.scale, 4);
    }
}

/// How often a line of 16 words is read, a pack of it at a time.
inline constexpr index passes_of_line = 16 / simd::lanes;

/// A tile that is fetched in `steps` steps of `turns` turns each.
struct tile_fetch {
  index lines;  // in a turn
  index step;   // bytes
  TERN_INLINE tile_fetch(fetch_ahead const& ahead, index steps, index turns) {
    index const in_step = steps > 0 ? (ahead.bytes + steps * 64 - 1) / (steps * 64) : 0;
    lines = (in_step + turns - 1) / turns;
    step = in_step * 64;
  }
  /// `at` is where the step begins.
  TERN_INLINE void operator()(char const* at, index turn) const {
    fetch_line(at + 64 * lines * turn);
    for (index i = 1; i < lines; ++i) fetch_line(at + 64 * (lines * turn + i));
  }
};

/// How far behind the codes that are worked on those of 8 bits are asked for once more, in bytes, as stream_kernels.hpp does for rows. Four
/// bits wait for arithmetic, and gain nothing. Measured on a Xeon with AMX, 64k keys: 12.5 GB/s where the second-level cache asks 4 KiB
/// ahead, 13.2 so. On Zen 4, 32/8 heads, of what a plain read has in turns: 16k keys 0.50, 0.59, 0.65 and 0.64 of it with 4 KiB, 2 KiB,
/// 1 KiB and without, 64k keys 0.52, 0.61, 0.67 and 0.66: what is not yet in the second-level cache holds one of few buffers until it
/// comes.
inline constexpr index codes_asked_again = simd::on_sapphire_rapids ? 2048 : 1024;
template <class Format>
TERN_INLINE void fetch_group_again(std::uint8_t const* codes, index g) {
  if constexpr (Format::bits == 8) {
    auto const at = reinterpret_cast<std::uintptr_t>(codes) + static_cast<std::uintptr_t>(128 * g + codes_asked_again);
    fetch_near(reinterpret_cast<char const*>(at));
    fetch_near(reinterpret_cast<char const*>(at + 64));
  }
}

/// s[r * key_block + j] = q[r] . k[j] for j < count; s may be written up to the next multiple of 32. Fetches the tiles of `ahead`.
template <int R, class Format>
[[gnu::noinline]] inline void tile_scores(std::int32_t const* query,                             // of quantize_query
                                          std::byte const* const* tile, index count, index dim,  // (count <= key_block) tokens
                                          fetch_ahead const& ahead, float* s) noexcept {         // (R, key_block)
  static_assert(Format::keys);
  using packf = simd::pack<float>;
  using packi = simd::pack<std::int32_t>;
  constexpr index W = simd::lanes, half = Format::block_tokens;
  index const blocks = dim / 32;
  constexpr index turns = tile_query::words + 1;
  tile_fetch const fetch(ahead, 2 * blocks, turns * passes_of_line);
  for (index j = 0; j < count; j += half) {
    auto const* const first =
        reinterpret_cast<std::uint8_t const*>(tile[j / Format::tokens]) + j % Format::tokens / half * blocks * Format::block_bytes;
    for (index from = 0; from < 16; from += W) {
      packf sum[R][2];
      TERN_UNROLL
      for (index r = 0; r < R; ++r) sum[r][0] = sum[r][1] = packf(0.f);
      std::int32_t const* z = query;
      for (index b = 0; b < blocks; ++b, z += tile_query::size(R, 32)) {
        char const* const next = ahead.at(j / Format::tokens, first) + (j % Format::tokens / half * blocks + b) * fetch.step;
        index const turn = passes_of_line == 1 ? 0 : from / W * turns;
        fetch(next, turn + tile_query::words);
        std::uint8_t const* const at = first + b * Format::block_bytes;
        packi acc[R][2];
        if constexpr (simd::has_pair_sums) {
          std::int32_t const* const z8 = z + tile_query::words * R;
          key_sums<R, Format> dots(z8);
          TERN_UNROLL
          for (index g = 0; g < tile_query::words; ++g) {
            fetch(next, turn + g);
            if (from == 0) fetch_group_again<Format>(at + Format::scale_bytes, g);
            dots.add(at + Format::scale_bytes, g, from, z + g * R);
          }
          TERN_UNROLL
          for (index i = 0; i < 2 * R; ++i) acc[i / 2][i % 2] = dots.end(i / 2, i % 2, z8);
        } else {
          TERN_UNROLL
          for (index r = 0; r < R; ++r) start_key_sums<Format>(packi(z[tile_query::words * R + r]), acc[r]);
          TERN_UNROLL
          for (index g = 0; g < tile_query::words; ++g) {
            fetch(next, turn + g);
            if (passes_of_line == 1 || from == 0) fetch_group_again<Format>(at + Format::scale_bytes, g);
            simd::pack<std::uint8_t> x[2];
            tile_codes<Format>(at + Format::scale_bytes, g, from, x);
            TERN_UNROLL
            for (index r = 0; r < R; ++r) {
              simd::pack<std::int8_t> const y = simd::splat4<std::int8_t>(z[g * R + r]);
              acc[r][0] = simd::dot(acc[r][0], x[0], y);
              acc[r][1] = simd::dot(acc[r][1], x[1], y);
            }
          }
        }
        f16 const* const d = reinterpret_cast<f16 const*>(at) + from;
        packf const scale[2] = {simd::load(d), simd::load(d + 16)};
        TERN_UNROLL
        for (index r = 0; r < R; ++r) {
          float a;
          __builtin_memcpy(&a, z + (tile_query::words + 1) * R + r, 4);
          TERN_UNROLL
          for (index i = 0; i < 2; ++i) {
            packi const own = simd::has_pair_sums ? acc[r][i] : end_key_sum<Format>(acc[r][i], i, packi(z[tile_query::words * R + r]));
            sum[r][i] = simd::fma(simd::to_float(own), scale[i] * packf(a), sum[r][i]);
          }
        }
      }
      TERN_UNROLL
      for (index r = 0; r < R; ++r) {
        simd::store(s + r * key_block + j + from, sum[r][0]);
        simd::store(s + r * key_block + j + from + 16, sum[r][1]);
      }
    }
  }
}

/// The largest of numbers that are not negative; NaN if one is NaN, because its bits are the largest.
TERN_INLINE float largest_weight(float const* x, index n) {
  using packi = simd::pack<std::int32_t>;
  packi most(0);
  index i = 0;
  for (; i + simd::lanes <= n; i += simd::lanes)
    most = simd::max(most, simd::bit_cast<std::int32_t>(simd::load(x + i)) & packi(0x7fffffff));
  if (i < n) most = simd::max(most, simd::bit_cast<std::int32_t>(simd::load_n(x + i, n - i)) & packi(0x7fffffff));
  return __builtin_bit_cast(float, simd::reduce_max(most));
}

/// 255 / P for the largest weight P; 0 for none, for NaN, and for P so small that this would be infinite.
TERN_INLINE float weight_factor(float largest) {
  float const factor = 255.f / largest;
  return largest > 0 && factor <= __FLT_MAX__ ? factor : 0.f;
}

/// p * 255 / P for `n` weights p, zeros behind them up to `room`, whole packs. Returns P / 255.
TERN_INLINE float scale_weights(float const* from, index n, index room, float* to) {
  constexpr index W = simd::lanes;
  float const largest = largest_weight(from, n);
  simd::pack<float> const factor(weight_factor(largest));
  index j = 0;
  for (; j + W <= n; j += W) simd::store(to + j, simd::load(from + j) * factor);
  for (; j < room; j += W) simd::store(to + j, simd::load_n(from + j, n > j ? n - j : 0) * factor);
  return largest / 255.f;
}

/// `lines` times 64 numbers of a block's tokens, of which there are n, or a copy in `own` with zeros behind those.
template <index lines>
TERN_INLINE std::uint8_t const* numbers_of_tokens(std::uint8_t const* block, index n, std::uint8_t* own) {
  if (n >= 64) return block;
  for (index i = 0; i < lines; ++i) {
    __builtin_memset(own + 128 * i, 0, 128);
    __builtin_memcpy(own + 128 * i, block + 128 * i, static_cast<std::size_t>(2 * n));
  }
  return own;
}

/// The largest scales D of some blocks, each a chain of dependent steps, at once; and 1 / D, or 0 where D is none.
struct largest_scales {
  static constexpr index blocks = 4;
  float largest[blocks], inverse[blocks];

  /// Of n blocks in `tiles` tiles with `count` tokens: block(t, i).
  template <class Block>
  TERN_INLINE void find(index n, index count, index tiles, Block const& block) {
    using packi = simd::pack<std::int32_t>;
    TERN_UNROLL
    for (index i = 0; i < blocks; ++i) {
      if (i >= n) break;
      // Of numbers that are not negative the bits are in their order, with those of NaN behind all. Two are a word.
      packi high(0), low(0);
      for (index t = 0; t < tiles; ++t) {
        alignas(64) std::uint8_t own[128];
        std::uint8_t const* const d = numbers_of_tokens<1>(block(t, i), count - 64 * t, own);
        TERN_UNROLL
        for (index j = 0; j < 128; j += 4 * simd::lanes) {
          packi const two = simd::load(reinterpret_cast<std::int32_t const*>(d + j)) & packi(0x7fff7fff);
          high = simd::max(high, two);
          low = simd::max(low, simd::shift_left<16>(two));
        }
      }
      float const all = f16::from_bits(static_cast<std::uint16_t>(simd::reduce_max(simd::max(high, low)) >> 16));
      largest[i] = all;
      inverse[i] = all > 0 ? 1.f / all : 0.f;
    }
  }
};

/// Four numbers x[m] scale[m] below 256 a lane, to the nearest, as the bytes of a word. 2^23 and a number have its nearest integer in their
/// lowest byte, and 0x4b in the highest, which the fourth takes away. These are additions, because Zen 4 does three logical steps in one
/// instruction, where it then cannot multiply.
TERN_INLINE simd::pack<std::int32_t> round_to_bytes(simd::pack<float> const (&x)[4], simd::pack<float> const (&scale)[4]) {
  using packf = simd::pack<float>;
  simd::pack<std::int32_t> n[4];
  TERN_UNROLL
  for (index m = 0; m < 4; ++m)
    n[m] = simd::bit_cast<std::int32_t>(simd::fma(x[m], scale[m], m < 3 ? packf(0x1p23f) : packf(0x1p23f + (0x100 - 0x4b))));
  auto const first = (n[0] + simd::shift_left<8>(n[1])) + simd::shift_left<16>(n[2]);
  return simd::bit_cast<std::int32_t>(
      simd::add_bytes(simd::bit_cast<std::uint8_t>(first), simd::bit_cast<std::uint8_t>(simd::shift_left<24>(n[3]))));
}

/// The weights of a tile's tokens: p * 255 / P, zero behind the last one.
template <int R>
struct tile_weights {
  alignas(64) float p[R][64];
  float most[R];  // P / 255

  TERN_INLINE void take(float const* from, index n) {
    for (index r = 0; r < R; ++r) most[r] = scale_weights(from + r * key_block, n, 64, p[r]);
  }
};

/// The same as 16-bit halves of two words: the first and third number, the second and fourth.
TERN_INLINE void round_to_halves(simd::pack<float> const (&x)[4], simd::pack<float> const (&scale)[4], std::int32_t* first,
                                 std::int32_t* second) {
  using packf = simd::pack<float>;
  simd::pack<std::int32_t> n[4];
  TERN_UNROLL
  for (index m = 0; m < 4; ++m)
    n[m] = simd::bit_cast<std::int32_t>(simd::fma(x[m], scale[m], m < 2 ? packf(0x1p23f) : packf(0x1p23f + (0x10000 - 0x4b00))));
  simd::store(first, n[0] + simd::shift_left<16>(n[2]));
  simd::store(second, n[1] + simd::shift_left<16>(n[3]));
}

/// Whether weights of values in a format are halves of words.
template <class Format>
inline constexpr bool weighs_in_halves = simd::has_pair_sums && Format::bits == 8;

/// The weights of the tokens of a tile as integers, for one block of elements.
template <int R, bool halves = false>
struct tile_integers {
  alignas(64) std::int32_t w[R][halves ? 32 : 16];  // four tokens a word, or in words g and 16 + g
  float factor[R];                                  // of their sums: P D / 255

  TERN_INLINE void make(tile_weights<R> const& of, std::uint8_t const* block, index tokens, float largest, float inverse) {
    using packf = simd::pack<float>;
    alignas(64) std::uint8_t own[128];
    auto const* const d = reinterpret_cast<f16 const*>(numbers_of_tokens<1>(block, tokens, own));
    TERN_UNROLL
    for (index g = 0; g < 16; g += simd::lanes) {
      packf scale[4];
      TERN_UNROLL
      for (index m = 0; m < 4; ++m) scale[m] = simd::load(d + 16 * m + g) * packf(inverse);
      TERN_UNROLL
      for (index r = 0; r < R; ++r) {
        packf p[4];
        TERN_UNROLL
        for (index m = 0; m < 4; ++m) p[m] = simd::load(of.p[r] + 16 * m + g);
        if constexpr (halves)
          round_to_halves(p, scale, w[r] + g, w[r] + 16 + g);
        else
          simd::store(w[r] + g, round_to_bytes(p, scale));
      }
    }
    TERN_UNROLL
    for (index r = 0; r < R; ++r) factor[r] = of.most[r] * largest;
  }
};

/// Turns of tile_fetch in each pass of tile_block: those of a tile's tokens.
inline constexpr index tile_block_turns = 16;

/// o += the weighted values of 32 elements of a tile.
template <int R, class Format, bool halves>
TERN_INLINE void tile_block(std::uint8_t const* codes, tile_integers<R, halves> const& of, tile_fetch const& fetch, char const* next,  //
                            float* o, index o_stride) {
  using packi = simd::pack<std::int32_t>;
  for (index from = 0; from < 16; from += simd::lanes) {
    index const turn = passes_of_line == 1 ? 0 : from / simd::lanes * tile_block_turns;
    packi acc[R][2];
    if constexpr (simd::has_pair_sums) {
      value_sums<R, Format> sums;
      for (index g0 = 0; g0 < 16; g0 += 4) {
        TERN_UNROLL
        for (index g = g0; g < g0 + 4; ++g) {
          fetch(next, turn + g);
          if (from == 0) fetch_group_again<Format>(codes, g);
          sums.add(codes, g, from, of);
        }
        sums.pause();
      }
      TERN_UNROLL
      for (index i = 0; i < 2 * R; ++i) acc[i / 2][i % 2] = sums.end(i / 2, i % 2);
    } else {
      TERN_UNROLL
      for (index r = 0; r < R; ++r) acc[r][0] = acc[r][1] = packi(0);
      for (index g0 = 0; g0 < 16; g0 += 4) {
        TERN_UNROLL
        for (index g = g0; g < g0 + 4; ++g) {
          fetch(next, turn + g);
          if (passes_of_line == 1 || from == 0) fetch_group_again<Format>(codes, g);
          simd::pack<std::uint8_t> x[2];
          tile_codes<Format>(codes, g, from, x);
          TERN_UNROLL
          for (index r = 0; r < R; ++r) {
            simd::pack<std::uint8_t> const y = simd::splat4<std::uint8_t>(of.w[r][g]);
            TERN_UNROLL
            for (index i = 0; i < 2; ++i) acc[r][i] = simd::dot(acc[r][i], y, simd::bit_cast<std::int8_t>(x[i]));
          }
        }
      }
    }
    TERN_UNROLL
    for (index r = 0; r < R; ++r) TERN_UNROLL
    for (index i = 0; i < 2; ++i) {
      float* const to = o + r * o_stride + 16 * i + from;
      simd::store(to, simd::fma(simd::to_float(acc[r][i]), simd::pack<float>(of.factor[r]), simd::load(to)));
    }
  }
}

}  // namespace TERN_ABI
}  // namespace tern::detail
