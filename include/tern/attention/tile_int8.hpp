// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/tile_int8.hpp
/// The compute tile of the prompt path on dot products of bytes, added up in int32 exactly. What is stored as q8_0, q4_0 or e8p keeps its
/// codes; the rest is rounded to 8 bits while it is packed:
///
///     q, k      blocks of 32 dims of a row:    x = scale c,  |c| <= 127,  scale = max |x| / 127
///     v         columns of a block of keys:    the same (also of q8_0: its scales lie across the sum)
///     p         rows of a block of keys:       p = 2^(s - b) with b the row's highest score in the block: p = c / 254 with codes that are
///     differences of rounded sums,  0 <= c <= 255
///
/// Errors, with Q, K the largest |q|, |k| of a block of 32, V the largest |v| of a column in the block of keys, and M the largest weight of
/// a row in it (2^(b - m), at most 1):
///
///     score     sum over blocks of (Q sum |k_d| + K sum |q_d|) / 254 + Q K / 2016, without the terms in K where codes were kept
///     output    sum over blocks of keys of (V / 254) sum_j p_j + (M / 254) sum_j |v_jd|, over l
///
/// at most; signs are random, so that the sums over j grow with the square root. What rounding leaves of a weight is carried to the next
/// key of the lane: a long tail of small weights keeps its mass, to half a step a lane. |x| below 2^-100 counts as zero. Infinity and NaN
/// have no code: in a block of q or k they make its scores NaN, in a column of v all outputs of that column that see the block of keys.

#include <tern/attention/tile_bf16.hpp>
#include <tern/simd/narrow.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// What multiplies to give codes of at most 127, and what gives the numbers back: NaN where `odd` is (x * 0 summed up).
TERN_INLINE void code_scales(simd::pack<float> largest, simd::pack<float> odd, simd::pack<float>& inverse, simd::pack<float>& scale) {
  using packf = simd::pack<float>;
  inverse = simd::select(largest > packf(0x1p-100f), packf(127.f) / largest, packf(0.f));
  scale = largest * packf(1 / 127.f) + odd;
}
/// x * inverse to the nearest integer; some code where that is NaN.
TERN_INLINE simd::pack<std::int32_t> codes_of(simd::pack<float> x, simd::pack<float> inverse) {
  return simd::to_int(simd::max(x * inverse, simd::pack<float>(-127.f)));
}

/// Elements d to d + 32 of a row, of which `left` exist, as codes + offset; returns the scale.
template <int offset = 0, float_storage T>
inline float quantize_dims(T const* row, index d, index left, std::int8_t* code) noexcept {
  using packf = simd::pack<float>;
  constexpr index W = simd::lanes, packs = 32 / W;
  packf x[packs], largest(0.f), odd(0.f), inverse, scale;
  for (index i = 0; i < packs; ++i) {
    index const n = left - i * W;
    x[i] = n <= 0 ? packf(0.f) : read_pack_n(row, d + i * W, n < W ? n : W);
    largest = simd::max(largest, simd::abs(x[i]));
    odd = simd::fma(x[i], packf(0.f), odd);
  }
  code_scales(packf(simd::reduce_max(largest)), packf(simd::reduce_add(odd)), inverse, scale);
  for (index i = 0; i < packs; ++i) simd::store_low_bytes(code + i * W, codes_of(x[i], inverse) + simd::pack<std::int32_t>(offset));
  float lane[W];
  simd::store(static_cast<float*>(lane), scale);
  return lane[0];
}

/// Blocks of 32 dims of a panel of keys: (8, panel_width) words of 4 codes, then (panel_width) scales and (panel_width) times -128 sum of
/// codes, which undoes that q is stored as q + 128. Values: panels of columns (key_block / 4, panel_width) words of 4 keys, then a scale a
/// column. Queries: (blocks, 8, rows) words, then (blocks, rows) scales. Weights: (rows, key_block) bytes, then a factor a row.
struct int8_tile {
  static constexpr index group_rows = query_tile_rows, rows = prompt_tile_rows, row_step = group_rows;
  static constexpr int exp2_degree = 3;
  static constexpr bool relative_to_block = true;
  static constexpr bool weights_like_scores = false;

  TERN_INLINE static void start() {}
  TERN_INLINE static void finish() {}

  TERN_INLINE static index blocks(index dim) { return (dim + 31) / 32; }
  TERN_INLINE static index query_bytes(index dim) { return round_to_multiple(36 * rows * blocks(dim), 64); }
  TERN_INLINE static index key_bytes(index dim) { return 40 * key_block * blocks(dim); }
  TERN_INLINE static index value_bytes(index dim_v) {
    return round_to_multiple((key_block + 4) * round_to_multiple(dim_v, simd::lanes), 64);
  }
  TERN_INLINE static index weight_bytes(index) { return round_to_multiple((key_block + 4) * rows, 64); }

  TERN_INLINE static void pack_queries(float const* const* q, index dim, std::byte* dst) {
    constexpr index W = simd::lanes;
    float* const words = reinterpret_cast<float*>(dst);
    float* const scales = words + 8 * rows * blocks(dim);
    for (index g = 0; g < rows; g += W)
      for (index d = 0; d < dim; d += 32) {
        std::int8_t code[W][32 < 4 * W ? 4 * W : 32] = {};
        for (index i = 0; i < W && g + i < rows; ++i) scales[d / 32 * rows + g + i] = quantize_dims<128>(q[g + i], d, dim - d, code[i]);
        auto read = [&](index i, index t) TERN_LAMBDA { return read_words(code[i] + 4 * t); };
        auto place = [&](index t) TERN_LAMBDA { return words + (d / 4 + t) * rows + g; };
        transpose_words(read, 8, place, rows - g < W ? rows - g : W);
      }
  }

  /// Rows behind `count`, to the end of the last panel, are zero.
  template <tile_source T>
  static void pack_keys(T const* const* row, index count, index dim, std::byte* dst) {
    constexpr index W = simd::lanes;
    for (index j = 0; j < count; j += panel_width)
      for (index g = 0; g < panel_width; g += W) {
        index const live = count - j - g < W ? count - j - g : W;
        std::byte* const to = dst + 40 * j * blocks(dim) + 4 * g;
        for (index d = 0; d < dim; d += chunk) pack_key_chunk(row + j + g, live, dim, d, to + d / 32 * 40 * panel_width);
      }
  }

  /// Rows behind `count`, to the end of the last panel, and columns behind dim_v, to a whole pack, are zero.
  template <tile_source T>
  static void pack_values(T const* const* row, index count, index dim_v, std::byte* dst) {
    using packf = simd::pack<float>;
    constexpr index W = simd::lanes;
    index const all = (count + panel_width - 1) / panel_width * panel_width;
    float* const scales = reinterpret_cast<float*>(dst + key_block * round_to_multiple(dim_v, simd::lanes));
    for (index d = 0; d < dim_v; d += W) {
      float column[key_block][W];
      packf largest(0.f), odd(0.f), inverse, scale;
      for (index j = 0; j < count; ++j) {
        packf const x = read_pack_n(row[j], d, dim_v - d < W ? dim_v - d : W);
        largest = simd::max(largest, simd::abs(x));
        odd = simd::fma(x, packf(0.f), odd);
        simd::store(static_cast<float*>(column[j]), x);
      }
      for (index j = count; j < all; ++j) simd::store(static_cast<float*>(column[j]), packf(0.f));
      code_scales(largest, odd, inverse, scale);
      simd::store(scales + d, scale);
      index const panel = d / panel_width * panel_width, width = dim_v - panel > W ? panel_width : W;
      std::int8_t* const to = reinterpret_cast<std::int8_t*>(dst) + panel * key_block + 4 * (d - panel);
      for (index j = 0; j < all; j += 4) {
        simd::pack<std::int32_t> c[4];
        for (index i = 0; i < 4; ++i) c[i] = codes_of(simd::load(static_cast<float const*>(column[j + i])), inverse);
        simd::store(to + j * width, simd::join_bytes(c));
      }
    }
  }

  static void scores(std::byte const* q, std::byte const* k, index dim, index some, index begin, index end, float* s) {
    index const n = blocks(dim);
    for (index i = begin / panel_width; i < divide_up(end, panel_width); ++i)
      for (index r = 0; r < some; r += score_rows)
        score_product(reinterpret_cast<std::uint8_t const*>(q) + 4 * r, reinterpret_cast<float const*>(q) + 8 * rows * n + r,
                      k + 40 * panel_width * n * i, n, s + r * key_block + i * panel_width);
  }

  /// Where the weights of row r go.
  struct weight_row {
    std::int8_t* to;
    simd::pack<float> sum[2] = {simd::pack<float>(0.f), simd::pack<float>(0.f)};  // of 254 p so far, by lane
    simd::pack<std::int32_t> given[2] = {zero(), zero()};                         // and of codes
    TERN_INLINE weight_row(std::byte* p, index r) : to(reinterpret_cast<std::int8_t*>(p) + r * key_block) {}
    /// Those of the two packs of key panel n.
    TERN_INLINE void put(index n, simd::pack<float> a, simd::pack<float> b) {
      simd::store_low_bytes(to + n * panel_width, code(a, sum[0], given[0]));
      simd::store_low_bytes(to + n * panel_width + simd::lanes, code(b, sum[1], given[1]));
    }

   private:
    /// Adding 3 * 2^22 rounds a number to an integer and leaves it in the low bits.
    static constexpr float magic = 0x1.8p23f;
    TERN_INLINE static simd::pack<std::int32_t> zero() { return simd::bit_cast<std::int32_t>(simd::pack<float>(magic)); }
    /// The code of p in the low byte: what the rounded sum has grown by. NaN gives some code: its row is NaN through l.
    TERN_INLINE static simd::pack<std::int32_t> code(simd::pack<float> p, simd::pack<float>& sum, simd::pack<std::int32_t>& given) {
      sum = simd::fma(p, simd::pack<float>(254.f), sum);
      simd::pack<std::int32_t> const before = given;
      given = simd::bit_cast<std::int32_t>(sum + simd::pack<float>(magic));
      return given - before;
    }
  };

  /// What the weights of rows r to r + n are to be multiplied by.
  TERN_INLINE static void put_factors(std::byte* p, index r, index n, simd::pack<float> factor) {
    simd::store_n(reinterpret_cast<float*>(p + rows * key_block) + r, factor * simd::pack<float>(1 / 254.f), n);
  }

  TERN_INLINE static void values(std::byte const* p, std::byte const* v, index dim_v, index some, index begin, index end,
                                 float const* alpha, float* o, index o_stride) {
    constexpr index W = simd::lanes;
    index const first = begin / 4, steps = divide_up(end, 4) - first;  // of 4 keys
    auto const* const weights = reinterpret_cast<std::uint8_t const*>(p) + 4 * first;
    auto const* const factors = reinterpret_cast<float const*>(p + rows * key_block);
    auto const* const scales = reinterpret_cast<float const*>(v + key_block * round_to_multiple(dim_v, simd::lanes));
    auto const* const codes = reinterpret_cast<std::int8_t const*>(v);
    for (index d = 0; d < dim_v; d += panel_width)
      for (index r = 0; r < some; r += group_rows) {
        std::uint8_t const* const of = weights + r * key_block;
        std::int8_t const* const to_sum = codes + d * key_block;
        float* const to = o + r * o_stride + d;
        if (dim_v - d > W)
          value_product<2>(of, factors + r, to_sum + 4 * first * panel_width, scales + d, steps, alpha + r, to, o_stride);
        else
          value_product<1>(of, factors + r, to_sum + 4 * first * W, scales + d, steps, alpha + r, to, o_stride);
      }
  }

 private:
  /// Rows of a register tile that holds sums of both integers and floats.
  static constexpr index score_rows = group_rows / 2;
  /// Dims that are transposed together: whole blocks and whole packs.
  static constexpr index chunk = 4 * simd::lanes < 32 ? 32 : 4 * simd::lanes;

  /// The words of a pack as bits of f32.
  TERN_INLINE static simd::pack<float> read_words(std::int8_t const* code) {
    return simd::bit_cast<float>(simd::bit_cast<std::int32_t>(simd::load(code)));
  }

  /// The codes and scale of 32 dims of a key.
  template <float_storage T>
  TERN_INLINE static float key_codes(T const* row, index d, index dim, std::int8_t* code) {
    return quantize_dims(row, d, dim - d, code);
  }
  TERN_INLINE static f16 key_codes(formats::q8_0::block const* row, index d, index, std::int8_t* code) {
    __builtin_memcpy(code, row[d / 32].q, 32);
    return row[d / 32].d;
  }
  TERN_INLINE static f16 key_codes(formats::q4_0::block const* row, index d, index, std::int8_t* code) {
    for (index j = 0; j < 16; ++j) {
      code[j] = static_cast<std::int8_t>((row[d / 32].q[j] & 15) - 8);
      code[j + 16] = static_cast<std::int8_t>((row[d / 32].q[j] >> 4) - 8);
    }
    return row[d / 32].d;
  }
  TERN_INLINE static f16 key_codes(formats::e8p::block const* row, index d, index, std::int8_t* code) {
    std::uint8_t u[32];
    formats::e8p::unpack(row[d / 32], 0, u);
    for (index j = 0; j < 32; ++j) code[j] = static_cast<std::int8_t>(u[j] - formats::e8p::offset);
    return row[d / 32].d;
  }

  /// Dims d to d + chunk of one pack of keys, of which `live` exist.
  template <tile_source T>
  static void pack_key_chunk(T const* const* row, index live, index dim, index d, std::byte* dst) {
    constexpr index W = simd::lanes, stored = 10 * panel_width;
    using scale_of = decltype(key_codes(row[0], 0, 0, nullptr));
    index const some = (dim - d < chunk ? blocks(dim - d) : chunk / 32);
    std::int8_t code[W][chunk];
    scale_of scale[chunk / 32][W];
    for (index i = 0; i < W; ++i)
      for (index b = 0; b < chunk / 32; ++b) {
        if (i < live && b < some) {
          scale[b][i] = key_codes(row[i], d + 32 * b, dim, code[i] + 32 * b);
        } else {
          __builtin_memset(code[i] + 32 * b, 0, 32);
          scale[b][i] = scale_of(0.f);
        }
      }
    float* const to = reinterpret_cast<float*>(dst);
    auto read = [&](index i, index t) TERN_LAMBDA { return read_words(code[i] + 4 * t); };
    auto place = [&](index t) TERN_LAMBDA { return to + t / 8 * stored + t % 8 * panel_width; };
    transpose_words(read, 8 * some, place);
    for (index b = 0; b < some; ++b) {
      simd::store(to + b * stored + 8 * panel_width, simd::load(static_cast<scale_of const*>(scale[b])));
      simd::pack<std::int32_t> sum(0);
      for (index t = 0; t < 8; ++t)
        sum = simd::dot(sum, simd::pack<std::uint8_t>(128),
                        simd::load(reinterpret_cast<std::int8_t const*>(to + b * stored + t * panel_width)));
      simd::store(reinterpret_cast<std::int32_t*>(to + b * stored + 9 * panel_width), -sum);
    }
  }

  /// `score_rows` rows against a panel of keys.
  [[gnu::noinline]] static void score_product(std::uint8_t const* TERN_RESTRICT q, float const* TERN_RESTRICT q_scale,
                                              std::byte const* TERN_RESTRICT k, index n, float* TERN_RESTRICT s) noexcept {
    using packf = simd::pack<float>;
    constexpr index W = simd::lanes, R = score_rows;
    packf sum[R][2];
    TERN_UNROLL
    for (index r = 0; r < R; ++r) sum[r][0] = sum[r][1] = packf(0.f);
    for (index b = 0; b < n; ++b) {
      auto const* const scale = reinterpret_cast<float const*>(k) + 8 * panel_width;
      auto const* const taken = reinterpret_cast<std::int32_t const*>(k) + 9 * panel_width;
      auto const* code = reinterpret_cast<std::int8_t const*>(k);
      simd::dot_sums acc[R][2];
      TERN_UNROLL
      for (index r = 0; r < R; ++r) {
        acc[r][0] = simd::as_dot_sums(simd::load(taken));
        acc[r][1] = simd::as_dot_sums(simd::load(taken + W));
      }
      for (index t = 0; t < 8; ++t) {
        simd::pack<std::int8_t> const x0 = simd::load(code), x1 = simd::load(code + 4 * W);
        TERN_UNROLL
        for (index r = 0; r < R; ++r) {
          simd::pack<std::uint8_t> const y = simd::splat4<std::uint8_t>(q + 4 * r);
          acc[r][0] = simd::dot(acc[r][0], y, x0);
          acc[r][1] = simd::dot(acc[r][1], y, x1);
        }
        code += 4 * panel_width;
        q += 4 * rows;
      }
      TERN_UNROLL
      for (index r = 0; r < R; ++r) {
        packf const f(q_scale[r]);
        sum[r][0] = simd::fma(simd::to_float(simd::to_pack(acc[r][0])) * f, simd::load(scale), sum[r][0]);
        sum[r][1] = simd::fma(simd::to_float(simd::to_pack(acc[r][1])) * f, simd::load(scale + W), sum[r][1]);
      }
      k += 40 * panel_width;
      q_scale += rows;
    }
    TERN_UNROLL
    for (index r = 0; r < R; ++r) {
      simd::store(s + r * key_block, sum[r][0]);
      simd::store(s + r * key_block + W, sum[r][1]);
    }
  }

  /// o = diag(alpha) o + diag(factor) (p v) diag(scale) for `packs` packs of columns and 4 keys a step.
  template <int packs>
  [[gnu::noinline]] static void value_product(std::uint8_t const* TERN_RESTRICT p, float const* TERN_RESTRICT factor,
                                              std::int8_t const* TERN_RESTRICT v, float const* TERN_RESTRICT scale, index steps,
                                              float const* TERN_RESTRICT alpha, float* TERN_RESTRICT o, index o_stride) noexcept {
    using packf = simd::pack<float>;
    constexpr index W = simd::lanes, R = group_rows;
    simd::dot_sums acc[R][packs];
    TERN_UNROLL
    for (index r = 0; r < R; ++r) TERN_UNROLL
    for (index n = 0; n < packs; ++n) acc[r][n] = simd::as_dot_sums(simd::pack<std::int32_t>(0));
    for (index t = 0; t < steps; ++t) {
      simd::pack<std::int8_t> x[packs];
      TERN_UNROLL
      for (index n = 0; n < packs; ++n) x[n] = simd::load(v + 4 * n * W);
      TERN_UNROLL
      for (index r = 0; r < R; ++r) {
        simd::pack<std::uint8_t> const y = simd::splat4<std::uint8_t>(p + r * key_block);
        TERN_UNROLL
        for (index n = 0; n < packs; ++n) acc[r][n] = simd::dot(acc[r][n], y, x[n]);
      }
      p += 4;
      v += 4 * packs * W;
    }
    TERN_UNROLL
    for (index r = 0; r < R; ++r) TERN_UNROLL
    for (index n = 0; n < packs; ++n) {
      float* const to = o + r * o_stride + n * W;
      packf const sum = simd::to_float(simd::to_pack(acc[r][n])) * (simd::load(scale + n * W) * packf(factor[r]));
      simd::store(to, simd::fma(simd::load(static_cast<float const*>(to)), packf(alpha[r]), sum));
    }
  }
};

/// What computes with 8-bit keys and values. Matrix registers multiply bf16 faster than sums of bytes can be scaled by block; where there
/// is nothing, f32 is as fast.
using best_int8_tile = std::conditional_t<simd::tiles::exist, bf16_tile, std::conditional_t<simd::has_int8_dot, int8_tile, f32_tile>>;

}  // namespace TERN_ABI
}  // namespace tern::detail
