// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/two_bit_kernels.hpp
/// Scores and weighted sums over the tiles of formats/kv_two_bits.hpp, with dot products of integers for up to four rows of q at once.
///
/// Scores  k_je = m_e + d_e c_je in a tile. The row q d becomes 8-bit integers, q_e d_e = a z_e with a = max_e |q_e d_e| / 127, and
///             s[j] = sum_e q_e m_e + a sum_e z_e c_je
///         whose second sum is exact; |s[j] - q . k_j| <= sum_e (a / 2) c_je + (dim / lanes + 5) u sum_e |q_e m_e|,  u = 2^-24
/// Values  v_je = m_jb + d_jb c_je in a block b of 32 elements. As in tile_kernels.hpp, the weight of token j and its step become one
///         8-bit integer,  p_j d_jb = (P D / 255) w_j, and
///             o += sum_j p_j m_jb + P D / 255 sum_j w_j c_j
///         with |error| <= (P / 510) sum_j D c_j + 8 u sum |o| for each tile.
/// Cost    for four rows: a key and its value of 128 elements take 16 dot products of 64 bytes, as those of 8 and 4 bits do, and half the
///         unpacking of 4 bits: fields of a byte stay where they are, and their sums are divided by 4 and 16 at the end.

#include <tern/attention/tile_kernels.hpp>
#include <tern/formats/kv_two_bits.hpp>
#include <tern/simd/narrow.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Four packs of codes, 4 a lane, times 1, 4, 16 and 16: lanes from, from + 1, ... of a line's four fields.
TERN_INLINE void two_bit_codes(std::uint8_t const* line, index from, simd::pack<std::uint8_t> (&x)[4]) {
  using packb = simd::pack<std::uint8_t>;
  packb const y = simd::load_narrow(line + 4 * from);
  x[0] = y & packb(std::uint8_t{3});
  x[1] = y & packb(std::uint8_t{12});
  x[2] = y & packb(std::uint8_t{48});
  x[3] = simd::shift_right<2>(y) & packb(std::uint8_t{48});
}
inline constexpr float two_bit_factor[4] = {1, 1 / 4.f, 1 / 16.f, 1 / 16.f};

/// Fields whose sums for four rows fit the registers.
inline constexpr int two_bit_fields = query_tile_rows == 12 ? 4 : 2;

/// Rows of q for one tile of keys.
template <int R>
struct two_bit_queries {
  float step[R];  // a
  float base[R];  // sum_e q_e m_e

  /// q (R, dim), z (R, dim). The scales are read once for all rows.
  TERN_INLINE two_bit_queries(float const* q, index q_stride, std::uint8_t const* tile, index dim, std::int8_t* z) {
    using packf = simd::pack<float>;
    constexpr index W = simd::lanes;
    auto const* const d = reinterpret_cast<f16 const*>(tile);
    auto const* const m = d + dim;
    packf most[R], sum[R], factor[R];
    TERN_UNROLL
    for (index r = 0; r < R; ++r) most[r] = sum[r] = packf(0.f);
    for (index e = 0; e < dim; e += W) {
      packf const steps = simd::load(d + e), least = simd::load(m + e);
      TERN_UNROLL
      for (index r = 0; r < R; ++r) {
        packf const x = simd::load(q + r * q_stride + e);
        most[r] = simd::max(simd::abs(x * steps), most[r]);
        sum[r] = simd::fma(x, least, sum[r]);
      }
    }
    simd::reduce_add_each(sum, base);
    TERN_UNROLL
    for (index r = 0; r < R; ++r) factor[r] = packf(inverse_step(r, simd::reduce_max(most[r])));
    for (index e = 0; e < dim; e += W) {
      packf const steps = simd::load(d + e), none(0.f);
      TERN_UNROLL
      for (index r = 0; r < R; ++r) {
        packf const x = simd::load(q + r * q_stride + e) * steps * factor[r];
        simd::store_low_bytes(z + r * dim + e, simd::to_int(simd::select(factor[r] > none, x, none)));
      }
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

/// s[r * key_block + j] = q[r] . k[j] for j < count; s may be written up to the next multiple of 64. Fetches the tiles of `ahead`.
template <int R>
[[gnu::noinline]] inline void two_bit_scores(float const* q, index q_stride,                        // (R, dim)
                                             std::int8_t* z,                                        // (R, dim), for its own use
                                             std::byte const* const* tile, index count, index dim,  // (count <= key_block) tokens
                                             fetch_ahead const& ahead, float* s) noexcept {         // (R, key_block)
  using packf = simd::pack<float>;
  using packi = simd::pack<std::int32_t>;
  constexpr index W = simd::lanes, T = formats::keys2::tokens, F = two_bit_fields;
  index const lines = dim / 4;
  tile_fetch const fetch(ahead, lines, 1);
  for (index j = 0; j < count; j += T) {
    auto const* const at = reinterpret_cast<std::uint8_t const*>(tile[j / T]);
    two_bit_queries<R> const of(q, q_stride, at, dim, z);
    char const* const next = ahead.at(j / T, at);
    for (index from = 0; from < 16; from += W)
      for (index f0 = 0; f0 < 4; f0 += F) {
        simd::dot_sums acc[R][F];
        TERN_UNROLL
        for (index i = 0; i < R * F; ++i) acc[i / F][i % F] = simd::as_dot_sums(packi(0));
        for (index g0 = 0; g0 < lines; g0 += 8) {
          TERN_UNROLL
          for (index g = g0; g < g0 + 8; ++g) {
            fetch(next + g * fetch.step, 0);
            simd::pack<std::uint8_t> x[4];
            two_bit_codes(at + formats::keys2::scale_bytes(dim) + 64 * g, from, x);
            TERN_UNROLL
            for (index r = 0; r < R; ++r) {
              simd::pack<std::int8_t> const y = simd::splat4(z + r * dim + 4 * g);
              TERN_UNROLL
              for (index f = 0; f < F; ++f) acc[r][f] = simd::dot(acc[r][f], x[f0 + f], y);
            }
          }
        }
        TERN_UNROLL
        for (index r = 0; r < R; ++r) TERN_UNROLL
        for (index f = 0; f < F; ++f) {
          packf const dots = simd::to_float(simd::to_pack(acc[r][f]));
          simd::store(s + r * key_block + j + 16 * (f0 + f) + from,
                      simd::fma(dots, packf(of.step[r] * two_bit_factor[f0 + f]), packf(of.base[r])));
        }
      }
  }
}

/// Sums over the tokens of a tile of p_j m_jb, for each row; p as tile_weights has it.
template <int R>
TERN_INLINE void two_bit_bases(tile_weights<R> const& weights, std::uint8_t const* block, index tokens, float (&base)[R]) {
  using packf = simd::pack<float>;
  constexpr index W = simd::lanes, T = formats::values2::tokens;
  auto const* const m = reinterpret_cast<f16 const*>(block) + T;
  packf sum[R];
  TERN_UNROLL
  for (index r = 0; r < R; ++r) sum[r] = packf(0.f);
  for (index j = 0; j < T; j += W) {
    packf const x = j + W <= tokens ? simd::load(m + j) : simd::load_n(m + j, tokens > j ? tokens - j : 0);
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
  for (index from = 0; from < 16; from += simd::lanes)
    for (index f0 = 0; f0 < 4; f0 += F) {
      simd::dot_sums acc[R][F];
      TERN_UNROLL
      for (index i = 0; i < R * F; ++i) acc[i / F][i % F] = simd::as_dot_sums(packi(0));
      TERN_UNROLL
      for (index g = 0; g < 8; ++g) {
        fetch(next, g);
        simd::pack<std::uint8_t> x[4];
        two_bit_codes(codes + 64 * g, from, x);
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
