// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/two_bit_kernels.hpp
/// Scores and weighted sums over the tiles of formats/kv_two_bits.hpp, with dot products of integers for up to four rows of q at once.
///
/// Scores  k_je = m_e + d_e c_je in a tile. The row q d becomes 8-bit integers, q_e d_e = a z_e with a = max_e |q_e d_e| / 127, and
///             s[j] = sum_e q_e m_e + a sum_e z_e c_je
///         whose second sum is exact;
///             |s[j] - q . k_j| <= sum_e (a / 2) c_je + (dim / lanes + 5) u sum_e |q_e m_e|,  u = 2^-24
///         Four tokens share a byte: what is multiplied is each field with those below it, whose sum is then subtracted.
/// Values  v_je = m_jb + d_jb c_je in a block b of 32 elements. As in tile_kernels.hpp, the weight of token j and its step become one
///         8-bit integer,  p_j d_jb = (P D / 255) w_j, but for all tiles of a block of keys at once: P and D are the largest of them.
///             o += sum_j p_j m_jb + P D / 255 sum_j w_j c_j
///         with |error| <= (P / 510) sum_j D c_j + 8 u sum |o| for each block of keys.
/// Cost    for four rows: a key and its value of 128 elements take 16 dot products of 64 bytes, as those of 8 and 4 bits do, and half the
///         unpacking of 4 bits: fields of a byte stay where they are, and their sums are divided by 4, 16 and 64 at the end. Matrix
///         registers (AMX) were no faster for so few rows: 68 cycles for 16 lines that are unpacked and multiplied at once, 22 where they
///         wait three operands long, and 40 here; with the sums' way through memory the whole step took 10 % more.

#include <tern/attention/tile_kernels.hpp>
#include <tern/formats/kv_two_bits.hpp>
#include <tern/simd/narrow.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Reads codes of a tile's line, 4 a lane: lanes from, from + 1, ... of its four fields. Masks stay in registers.
struct two_bit_codes {
  using packb = simd::pack<std::uint8_t>;
  packb mask[3];
  TERN_INLINE two_bit_codes(int first, int second, int third) {
    int const bits[3] = {first, second, third};
    TERN_UNROLL
    for (index i = 0; i < 3; ++i) mask[i] = simd::in_register(packb(static_cast<std::uint8_t>(bits[i])));
  }
  /// Each field with those below it, as one number.
  TERN_INLINE static two_bit_codes sums() { return {3, 15, 63}; }
  TERN_INLINE void read_sums(std::uint8_t const* line, index from, packb (&x)[4]) const {
    x[3] = simd::load_narrow(line + 4 * from);
    TERN_UNROLL
    for (index i = 0; i < 3; ++i) x[i] = x[3] & mask[i];
  }
  /// Each by itself, times 1, 4, 16 and 16.
  TERN_INLINE static two_bit_codes each() { return {3, 12, 48}; }
  TERN_INLINE void read_each(std::uint8_t const* line, index from, packb (&x)[4]) const {
    packb const y = simd::load_narrow(line + 4 * from);
    TERN_UNROLL
    for (index i = 0; i < 3; ++i) x[i] = y & mask[i];
    x[3] = simd::shift_right<2>(y) & mask[2];
  }
};

/// Room for a number of each of up to four rows, in whole packs.
inline constexpr index two_bit_row_numbers = round_to_multiple(4, simd::lanes);
/// f(first of a pack of them) for all packs.
template <class F>
TERN_INLINE void each_two_bit_pack(F const& f) {
  TERN_UNROLL
  for (index i = 0; i < two_bit_row_numbers; i += simd::lanes) f(i);
}

/// Fields whose sums for four rows fit the registers.
inline constexpr int two_bit_fields = query_tile_rows == 12 ? 4 : 2;

/// Up to four rows of q for one tile of keys.
template <int R>
struct two_bit_queries {
  float step[two_bit_row_numbers], inverse[two_bit_row_numbers];  // a and 1 / a of each row
  float base[two_bit_row_numbers];                                // sum_e q_e m_e

  /// q (R, dim), scaled (R, dim): q d. The scales are read once for all rows.
  TERN_INLINE void scale(float const* q, index q_stride, std::byte const* tile, index dim, float* scaled) {
    using packf = simd::pack<float>;
    constexpr index W = simd::lanes;
    auto const* const d = reinterpret_cast<f16 const*>(tile);
    auto const* const m = d + dim;
    packf most[R], sum[R];
    TERN_UNROLL
    for (index r = 0; r < R; ++r) most[r] = sum[r] = packf(0.f);
    for (index e = 0; e < dim; e += W) {
      packf const steps = simd::load(d + e), least = simd::load(m + e);
      TERN_UNROLL
      for (index r = 0; r < R; ++r) {
        packf const x = simd::load(q + r * q_stride + e), y = x * steps;
        simd::store(scaled + r * dim + e, y);
        most[r] = simd::max(simd::abs(y), most[r]);
        sum[r] = simd::fma(x, least, sum[r]);
      }
    }
    simd::max_each(most, step);
    simd::add_each(sum, base);
    each_two_bit_pack([&](index i) TERN_LAMBDA { take_steps(i); });
  }
  /// z (R, dim)
  TERN_INLINE void round(float const* scaled, index dim, std::int8_t* z) const {
    constexpr index W = simd::lanes;
    TERN_UNROLL
    for (index r = 0; r < R; ++r) {
      simd::pack<float> const factor(inverse[r]);
      auto const code = [&](index e) TERN_LAMBDA { return simd::to_int(simd::load(scaled + r * dim + e) * factor); };
      index e = 0;
      for (; e + 4 * W <= dim; e += 4 * W) simd::store_as_bytes(z + r * dim + e, {code(e), code(e + W), code(e + 2 * W), code(e + 3 * W)});
      for (; e < dim; e += W) simd::store_low_bytes(z + r * dim + e, code(e));
    }
  }

 private:
  /// 1 / a is 0 where no integers stand for q d: for infinity and NaN, and for what is too small. z is then of no account: it is zero
  /// too, or the step or the sum is no number.
  TERN_INLINE void take_steps(index i) {
    using packf = simd::pack<float>;
    packf const largest = simd::load(static_cast<float const*>(step) + i), sum = simd::load(static_cast<float const*>(base) + i);
    packf const zero(0.f), most_finite(__FLT_MAX__), upper(127.f), over = upper / largest;
    auto const finite = largest <= most_finite, numbers = (largest > zero) & (over <= most_finite) & finite;
    simd::store(step + i, simd::select(finite, simd::select(numbers, largest / upper, zero), packf(__builtin_nanf(""))));
    simd::store(inverse + i, simd::select(numbers & (sum - sum == zero), over, zero));
  }
};
/// Words of memory for them and all tiles of a block.
TERN_INLINE constexpr index two_bit_query_words(index dim) { return key_block / formats::keys2::tokens * (4 + 1) * dim; }

/// s = base + step * dot / 4^f for tokens 16 f + from, ..., where dots are of field f and those below it.
template <int R>
TERN_INLINE void two_bit_finish(two_bit_queries<R> const& of, index r, simd::pack<std::int32_t> const* dots, index from, float* s) {
  using packf = simd::pack<float>;
  constexpr float factor[4] = {1, 1 / 4.f, 1 / 16.f, 1 / 64.f};
  TERN_UNROLL
  for (index f = 0; f < 4; ++f) {
    packf const own = simd::to_float(f == 0 ? dots[0] : dots[f] - dots[f > 0 ? f - 1 : 0]);
    simd::store(s + r * key_block + 16 * f + from, simd::fma(own, packf(of.step[r] * factor[f]), packf(of.base[r])));
  }
}

/// The scores of one tile. z (R, dim); s (R, key_block), of which 64 are written.
template <int R>
TERN_INLINE void two_bit_tile(two_bit_queries<R> const& of, std::int8_t const* z, std::uint8_t const* codes, index dim,
                              tile_fetch const& fetch, char const* next, float* s) {
  using packi = simd::pack<std::int32_t>;
  constexpr index W = simd::lanes, F = two_bit_fields;
  two_bit_codes const codes_of = two_bit_codes::sums();
  for (index from = 0; from < 16; from += W) {
    packi dots[R][4];
    for (index f0 = 0; f0 < 4; f0 += F) {
      simd::dot_sums acc[R][F];
      TERN_UNROLL
      for (index i = 0; i < R * F; ++i) acc[i / F][i % F] = simd::as_dot_sums(packi(0));
      for (index g0 = 0; g0 < dim / 4; g0 += 8) {
        TERN_UNROLL
        for (index g = g0; g < g0 + 8; ++g) {
          if (f0 == 0) fetch(next, g);
          simd::pack<std::uint8_t> x[4];
          codes_of.read_sums(codes + 64 * g, from, x);
          TERN_UNROLL
          for (index r = 0; r < R; ++r) {
            simd::pack<std::int8_t> const y = simd::splat4(z + r * dim + 4 * g);
            TERN_UNROLL
            for (index f = 0; f < F; ++f) acc[r][f] = simd::dot(acc[r][f], x[f0 + f], y);
          }
        }
      }
      TERN_UNROLL
      for (index i = 0; i < R * F; ++i) dots[i / F][f0 + i % F] = simd::to_pack(acc[i / F][i % F]);
    }
    TERN_UNROLL
    for (index r = 0; r < R; ++r) two_bit_finish(of, r, dots[r], from, s);
  }
}

/// s[r * key_block + j] = q[r] . k[j] for j < count; s may be written up to the next multiple of 64. Fetches the tiles of `ahead`.
template <int R>
[[gnu::noinline]] inline void two_bit_scores(float const* q, index q_stride,                        // (R, dim)
                                             float* memory,                                         // two_bit_query_words(dim)
                                             std::byte const* const* tile, index count, index dim,  // (count <= key_block) tokens
                                             fetch_ahead const& ahead, float* s) noexcept {         // (R, key_block)
  constexpr index T = formats::keys2::tokens;
  index const tiles = (count + T - 1) / T;
  auto* const z = reinterpret_cast<std::int8_t*>(memory + key_block / T * 4 * dim);
  two_bit_queries<R> of[key_block / T];
  // All queries come before the first product: what is known of those of one tile is waited for while those of the next are read.
  tile_fetch const fetch(ahead, 1, dim / 4);
  for (index t = 0; t < tiles; ++t) of[t].scale(q, q_stride, tile[t], dim, memory + t * R * dim);
  for (index t = 0; t < tiles; ++t) of[t].round(memory + t * R * dim, dim, z + t * R * dim);
  for (index t = 0; t < tiles; ++t) {
    auto const* const codes = reinterpret_cast<std::uint8_t const*>(tile[t]) + formats::keys2::scale_bytes(dim);
    two_bit_tile(of[t], z + t * R * dim, codes, dim, fetch, ahead.at(t, tile[t]), s + T * t);
  }
}

/// The weights of a block of keys as integers, for R rows: w = 255 p d / (P D) to the nearest. P and D are the largest of the block.
template <int R>
struct two_bit_weights {
  using format = formats::values2;
  static constexpr index T = format::tokens;

  float p[R][key_block];  // 255 p / P, zero behind the last
  float most[R];          // P / 255 of each row
  index count;

  /// Of `n` tokens.
  TERN_INLINE void take(float const* from, index n) {
    count = n;
    for (index r = 0; r < R; ++r) most[r] = scale_weights(from + r * key_block, n, divide_up(n, T) * T, p[r]);
  }
  /// The integers of tile t, four tokens a word, of a block of 32 elements with 1 / D; p m is added to `sum`.
  TERN_INLINE void quantize(std::uint8_t const* block, index t, float inverse, std::int32_t (&w)[R][16],
                            simd::pack<float> (&sum)[R]) const {
    using packf = simd::pack<float>;
    alignas(64) std::uint8_t own[format::scale_bytes];
    auto const* const d = reinterpret_cast<f16 const*>(numbers_of_tokens<2>(block, count - t * T, own));
    TERN_UNROLL
    for (index g = 0; g < 16; g += simd::lanes) {
      packf scale[4], least[4];
      TERN_UNROLL
      for (index m = 0; m < 4; ++m) {
        scale[m] = simd::load(d + 16 * m + g) * packf(inverse);
        least[m] = simd::load(d + T + 16 * m + g);
      }
      TERN_UNROLL
      for (index r = 0; r < R; ++r) {
        packf x[4];
        TERN_UNROLL
        for (index m = 0; m < 4; ++m) {
          x[m] = simd::load(p[r] + T * t + 16 * m + g);
          sum[r] = simd::fma(x[m], least[m], sum[r]);
        }
        simd::store(w[r] + g, round_to_bytes(x, scale));
      }
    }
  }
};

/// What 32 elements of a block of values are multiplied by.
template <int R>
struct two_bit_factors {
  alignas(64) std::int32_t w[key_block / formats::values2::tokens][R][16];
  float factor[R], base[two_bit_row_numbers];  // of the integer sums of each row, and beside them

  template <class Block>
  TERN_INLINE void make(two_bit_weights<R> const& of, float largest, float inverse, index b, Block const& block) {
    simd::pack<float> sum[R];
    TERN_UNROLL
    for (index r = 0; r < R; ++r) sum[r] = simd::pack<float>(0.f);
    for (index t = 0; t * of.T < of.count; ++t) of.quantize(block(t, b), t, inverse, w[t], sum);
    simd::add_each(sum, base);
    TERN_UNROLL
    for (index r = 0; r < R; ++r) {
      base[r] *= of.most[r];
      factor[r] = of.most[r] * largest;
    }
  }
};

/// o = alpha o + the weighted values of 32 elements of `tiles` tiles.
template <int R, class Codes, class Fetch>
TERN_INLINE void two_bit_block(Codes const& codes, index tiles, two_bit_factors<R> const& of, float const* alpha, Fetch const& fetch,
                               float* o, index o_stride) {
  using packf = simd::pack<float>;
  using packi = simd::pack<std::int32_t>;
  constexpr index F = two_bit_fields, sums = F == 4 ? 3 : 2;  // of the first field, of 4 times the second, of 16 times the others
  two_bit_codes const codes_of = two_bit_codes::each();
  for (index from = 0; from < 16; from += simd::lanes)
    for (index f0 = 0; f0 < 4; f0 += F) {
      simd::dot_sums acc[R][sums];
      TERN_UNROLL
      for (index i = 0; i < R * sums; ++i) acc[i / sums][i % sums] = simd::as_dot_sums(packi(0));
      for (index t = 0; t < tiles; ++t) {
        std::uint8_t const* const line = codes(t);
        TERN_UNROLL
        for (index g = 0; g < 8; ++g) {
          fetch(t, g);
          simd::pack<std::uint8_t> x[4];
          codes_of.read_each(line + 64 * g, from, x);
          TERN_UNROLL
          for (index r = 0; r < R; ++r) TERN_UNROLL
          for (index f = f0; f < f0 + F; ++f) {
            simd::dot_sums& sum = acc[r][f < 2 ? f : sums % 2 * 2];
            sum = simd::dot(sum, simd::splat4<std::uint8_t>(of.w[t][r][g + f % 2 * 8]), simd::bit_cast<std::int8_t>(x[f]));
          }
        }
      }
      TERN_UNROLL
      for (index r = 0; r < R; ++r) {
        auto const add = [&](index e, packi sum) TERN_LAMBDA {
          float* const to = o + r * o_stride + e + from;
          simd::store(to,
                      simd::fma(simd::load(to), packf(alpha[r]), simd::fma(simd::to_float(sum), packf(of.factor[r]), packf(of.base[r]))));
        };
        if (f0 == 0) add(0, simd::to_pack(acc[r][0]) + simd::shift_right<2>(simd::to_pack(acc[r][1])));
        if (f0 + F == 4) add(16, simd::shift_right<4>(simd::to_pack(acc[r][sums % 2 * 2])));
      }
    }
}

/// o[r] = alpha[r] o[r] + sum_j p[r * key_block + j] v[j] for weights p >= 0. Fetches the tiles of `ahead`.
template <int R, class Format>
  requires(Format::bits == 2)
[[gnu::noinline]] inline void tile_values(float const* p,                                                 // (R, key_block)
                                          std::byte const* const* tile, index count, index dim_v,         // (count <= key_block) tokens
                                          float const* alpha,                                             // (R)
                                          fetch_ahead const& ahead, float* o, index o_stride) noexcept {  // (R, dim_v)
  index const blocks = dim_v / Format::elements, tiles = divide_up(count, Format::tokens);
  auto const block = [&](index t, index b) TERN_LAMBDA { return reinterpret_cast<std::uint8_t const*>(tile[t]) + b * Format::block_bytes; };
  constexpr index turns = 10;  // two of them while weights are made
  tile_fetch const fetch(ahead, blocks, turns);
  two_bit_weights<R> weights;
  weights.take(p, count);
  // What multiplies a block is made before the dot products of the one in front of it, beside which it then runs.
  two_bit_factors<R> of[2];
  largest_scales scales;
  auto const ask = [&](index t, index b, index turn) TERN_LAMBDA { fetch(ahead.at(t, tile[t]) + b * fetch.step, turn); };
  auto const prepare = [&](index b) TERN_LAMBDA {
    for (index t = 0; t < tiles; ++t) {
      ask(t, b, turns - 2);
      ask(t, b, turns - 1);
    }
    index const n = largest_scales::blocks;
    if (b % n == 0) scales.find(blocks - b, count, tiles, [&](index t, index i) TERN_LAMBDA { return block(t, b + i); });
    of[b % 2].make(weights, scales.largest[b % n], scales.inverse[b % n], b, block);
  };
  if (blocks > 0 && tiles > 0) prepare(0);
  for (index b = 0; b < blocks && tiles > 0; ++b) {
    if (b + 1 < blocks) prepare(b + 1);
    two_bit_block([&](index t) TERN_LAMBDA { return block(t, b) + Format::scale_bytes; }, tiles, of[b % 2], alpha,
                  [&](index t, index g) TERN_LAMBDA { ask(t, b, g); }, o + Format::elements * b, o_stride);
  }
}

}  // namespace TERN_ABI
}  // namespace tern::detail
