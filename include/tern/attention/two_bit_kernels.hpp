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
///         8-bit integer,  p_j d_jb = (P D / 255) w_j, and
///             o += sum_j p_j m_jb + P D / 255 sum_j w_j c_j
///         with |error| <= (P / 510) sum_j D c_j + 8 u sum |o| for each tile.
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

/// Fields whose sums for four rows fit the registers.
inline constexpr int two_bit_fields = query_tile_rows == 12 ? 4 : 2;

/// Up to four rows of q for one tile of keys.
template <int R>
struct two_bit_queries {
  float step[R];  // a
  float base[R];  // sum_e q_e m_e

  /// q (R, dim), z (R, dim), scaled (R, dim): q d. The scales are read once for all rows.
  TERN_INLINE void take(float const* q, index q_stride, std::byte const* tile, index dim, float* scaled, std::int8_t* z,
                        tile_fetch const& fetch, char const* next) {
    using packf = simd::pack<float>;
    constexpr index W = simd::lanes;
    auto const* const d = reinterpret_cast<f16 const*>(tile);
    auto const* const m = d + dim;
    packf most[R], sum[R];
    TERN_UNROLL
    for (index r = 0; r < R; ++r) most[r] = sum[r] = packf(0.f);
    for (index e = 0; e < dim; e += W) {
      fetch(next, e / W);
      packf const steps = simd::load(d + e), least = simd::load(m + e);
      TERN_UNROLL
      for (index r = 0; r < R; ++r) {
        packf const x = simd::load(q + r * q_stride + e), y = x * steps;
        simd::store(scaled + r * dim + e, y);
        most[r] = simd::max(simd::abs(y), most[r]);
        sum[r] = simd::fma(x, least, sum[r]);
      }
    }
    simd::reduce_add_each(sum, base);
    TERN_UNROLL
    for (index r = 0; r < R; ++r) {
      // Where 1 / a is zero, z is of no account: it is zero too, or the step or the sum is no number.
      packf const factor(inverse_step(r, simd::reduce_max(most[r])));
      auto const code = [&](index e) TERN_LAMBDA { return simd::to_int(simd::load(scaled + r * dim + e) * factor); };
      index e = 0;
      for (; e + 4 * W <= dim; e += 4 * W) simd::store_as_bytes(z + r * dim + e, {code(e), code(e + W), code(e + 2 * W), code(e + 3 * W)});
      for (; e < dim; e += W) simd::store_low_bytes(z + r * dim + e, code(e));
    }
  }

 private:
  /// 1 / a, or 0 where no integers stand for q d: for infinity and NaN, and for what is too small. Sets the step.
  TERN_INLINE float inverse_step(index r, float largest) {
    float const inverse = largest > 0 ? 127.f / largest : 0.f;
    bool const numbers = inverse <= __FLT_MAX__ && largest <= __FLT_MAX__;
    step[r] = largest <= __FLT_MAX__ ? (numbers ? largest / 127.f : 0.f) : __builtin_nanf("");
    return numbers && base[r] - base[r] == 0 ? inverse : 0.f;
  }
};
/// Words of memory for them and all tiles of a block.
TERN_INLINE constexpr index two_bit_query_words(index dim) { return 4 * dim + key_block / formats::keys2::tokens * dim; }

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
TERN_INLINE void two_bit_tile(two_bit_queries<R> const& of, std::int8_t const* z, std::uint8_t const* codes, index dim, char const* next,
                              float* s) {
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
          fetch_line(next + 64 * g);
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
  auto* const z = reinterpret_cast<std::int8_t*>(memory + 4 * dim);
  two_bit_queries<R> of[key_block / T];
  // A line is asked for with each line of codes, and the others of the tile ahead before. All queries come before the first product: what
  // is known of those of one tile is waited for while those of the next are read.
  index const lines = dim / 4, more = ahead.bytes > 64 * lines ? ahead.bytes - 64 * lines : 0;
  tile_fetch const fetch({ahead.row, ahead.count, more}, 1, dim / simd::lanes);
  auto const next = [&](index t) TERN_LAMBDA { return ahead.at(t, tile[t]); };
  for (index t = 0; t < tiles; ++t) of[t].take(q, q_stride, tile[t], dim, memory, z + t * R * dim, fetch, next(t));
  for (index t = 0; t < tiles; ++t) {
    auto const* const codes = reinterpret_cast<std::uint8_t const*>(tile[t]) + formats::keys2::scale_bytes(dim);
    two_bit_tile(of[t], z + t * R * dim, codes, dim, next(t) + more, s + T * t);
  }
}

/// Sums over the tokens of a tile of p_j m_jb, for each row; p as tile_weights has it.
template <int R>
TERN_INLINE void two_bit_bases(tile_weights<R> const& weights, std::uint8_t const* block, index tokens, float (&base)[R]) {
  using packf = simd::pack<float>;
  constexpr index T = formats::values2::tokens;
  auto const* const m = reinterpret_cast<f16 const*>(block) + T;
  packf sum[R];
  TERN_UNROLL
  for (index r = 0; r < R; ++r) sum[r] = packf(0.f);
  TERN_UNROLL
  for (index j = 0; j < T; j += simd::lanes) {
    packf const x = j + simd::lanes <= tokens ? simd::load(m + j) : simd::load_n(m + j, tokens > j ? tokens - j : 0);
    TERN_UNROLL
    for (index r = 0; r < R; ++r) sum[r] = simd::fma(simd::load(weights.p[r] + j), x, sum[r]);
  }
  simd::reduce_add_each(sum, base);
  for (index r = 0; r < R; ++r) base[r] *= weights.most[r];
}

/// o += the weighted values of 32 elements of a tile.
template <int R>
TERN_INLINE void two_bit_block(std::uint8_t const* codes, std::int32_t const (&w)[R][16], float const (&factor)[R], float const (&base)[R],
                               tile_fetch const& fetch, char const* next, float* o, index o_stride) {
  using packf = simd::pack<float>;
  using packi = simd::pack<std::int32_t>;
  constexpr index F = two_bit_fields;
  two_bit_codes const codes_of = two_bit_codes::each();
  for (index from = 0; from < 16; from += simd::lanes)
    for (index f0 = 0; f0 < 4; f0 += F) {
      simd::dot_sums acc[R][F];
      TERN_UNROLL
      for (index i = 0; i < R * F; ++i) acc[i / F][i % F] = simd::as_dot_sums(packi(0));
      TERN_UNROLL
      for (index g = 0; g < 8; ++g) {
        fetch(next, g);
        simd::pack<std::uint8_t> x[4];
        codes_of.read_each(codes + 64 * g, from, x);
        TERN_UNROLL
        for (index r = 0; r < R; ++r) TERN_UNROLL
        for (index f = 0; f < F; ++f)
          acc[r][f] = simd::dot(acc[r][f], simd::splat4<std::uint8_t>(w[r][g + f % 2 * 8]), simd::bit_cast<std::int8_t>(x[f0 + f]));
      }
      TERN_UNROLL
      for (index r = 0; r < R; ++r) TERN_UNROLL
      for (index f = 0; f < F; f += 2) {
        // 1 and 4 times the codes; 16 times both.
        packi const first = simd::to_pack(acc[r][f]), second = simd::to_pack(acc[r][f + 1]);
        packi const sum = f0 + f == 0 ? first + simd::shift_right<2>(second) : simd::shift_right<4>(first + second);
        float* const to = o + r * o_stride + 8 * (f0 + f) + from;
        simd::store(to, simd::load(to) + simd::fma(simd::to_float(sum), packf(factor[r]), packf(base[r])));
      }
    }
}

}  // namespace TERN_ABI
}  // namespace tern::detail
