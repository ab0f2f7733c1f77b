// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/nf4.hpp
/// NF4 and FP4 as bitsandbytes stores them: four bits name one of 16 values v in [-1, 1], blocks of 64 along k share a scale.
///
///     w = absmax v[code]                      rounded once
///     nf4   v: quantiles of a normal distribution, 0 among them: Phi^-1 at 8 even steps from 0.9677083 down to 1/2, and at 7 with
///           their sign turned, over the largest
///     fp4   v: +- 0, 1/192, 2/3, 1, 1/3, 1/2, 1/6, 1/4 (codes 0 to 7; 8 to 15 are the same negated, 8 as -0)
///     packed  (n, k / 2)   element 2 j is the high half of byte j, 2 j + 1 the low half
///     absmax  (n, k / 64)  f32
///
/// Double quantization stores absmax in 8 bits too, in blocks of 256 over all of the matrix in row-major order:
///
///     absmax = table[absmax code] nested[block / 256] + offset       product and sum are each rounded
///     table   256 floats, a stored file's own or `dynamic_map`: 0, 1, and +- 10^(i - 6) (1/10 + 9/10 (j + 1/2) / 2^i) for
///             i = 0..6, j = 0..2^i - 1, in ascending order
///     offset  the mean of absmax
///
/// Encoding goes to the nearest value: the error is at most half the gap around it, which for nf4 is 0.152 absmax. Ties go to the
/// lower code (nf4) or the smaller magnitude (fp4). NaN counts as 0 and infinity as f32's largest. 4.5 bits an element, or 4.127.
///
/// Sources: "QLoRA: Efficient Finetuning of Quantized LLMs" and bitsandbytes' formats (values, order of halves and the dynamic map
/// were read in public code). Used by "Understanding the Impact of Post-Training Quantization on Large Language Models" (NF4, FP4,
/// FP4-DQ) and "Quantized Side Tuning: Fast and Memory-Efficient Tuning of Quantized Large Language Models" (QST: NF4, doubly quantized).

#include <tern/core/error.hpp>
#include <tern/core/tensor_view.hpp>
#include <tern/formats/weights.hpp>
#include <tern/simd/convert.hpp>
#include <tern/simd/pairs.hpp>
#include <tern/simd/shuffle.hpp>

#include <concepts>
#include <cstdint>

namespace tern::formats {
inline namespace TERN_ABI {

/// The values of NF4's codes, ascending.
struct nf4 {
  static constexpr float values[16] = {-1.f,
                                       -0.6961928009986877f,
                                       -0.5250730514526367f,
                                       -0.39491748809814453f,
                                       -0.28444138169288635f,
                                       -0.18477343022823334f,
                                       -0.09105003625154495f,
                                       0.f,
                                       0.07958029955625534f,
                                       0.16093020141124725f,
                                       0.24611230194568634f,
                                       0.33791524171829224f,
                                       0.44070982933044434f,
                                       0.5626170039176941f,
                                       0.7229568362236023f,
                                       1.f};
  /// The code nearest to x.
  TERN_INLINE static std::uint8_t encode(float x) {
    int code = 0;
    for (int c = 1; c < 16; ++c) code += x > 0.5f * (values[c - 1] + values[c]);
    return static_cast<std::uint8_t>(code);
  }
};

/// The values of bitsandbytes' FP4 codes. Not MX's (formats/mxfp4.hpp, formats/exmy.hpp).
struct fp4 {
  static constexpr float values[16] = {0.f,  0.005208333333f,  0.66666667f,  1.f,  0.33333333f,  0.5f,  0.16666667f,  0.25f,
                                       -0.f, -0.005208333333f, -0.66666667f, -1.f, -0.33333333f, -0.5f, -0.16666667f, -0.25f};
  /// The code nearest to x.
  TERN_INLINE static std::uint8_t encode(float x) {
    constexpr std::uint8_t ascending[8] = {0, 1, 6, 7, 4, 5, 2, 3};
    float const magnitude = __builtin_fabsf(x);
    int code = 0;
    for (int c = 1; c < 8; ++c) code += magnitude > 0.5f * (values[ascending[c - 1]] + values[ascending[c]]);
    return static_cast<std::uint8_t>(ascending[code] | (x < 0.f ? 8 : 0));
  }
};

/// What `codebook_weights` name their 16 values by.
template <class C>
concept codebook16 = requires(float x) {
  { C::values[15] } -> std::convertible_to<float>;
  { C::encode(x) } -> std::same_as<std::uint8_t>;
};

/// The 256 values of bitsandbytes' dynamic map of 8 bits, ascending; what is stored may differ from them in the last bit.
inline void dynamic_map(float* table) {
  table[127] = 0.f;
  table[255] = 1.f;
  float* out = table + 128;
  float* negative = table + 126;
  double scale = 1e-6;
  for (int i = 0; i < 7; ++i, scale *= 10)
    for (int j = 0; j < 1 << i; ++j) {
      float const value = static_cast<float>(scale * (0.1 + 0.9 * (j + 0.5) / (1 << i)));
      *out++ = value;
      *negative-- = -value;
    }
}

/// Scales of blocks in 8 bits: (codes, nested, table, offset) as above. `blocks` and `nested` are row-major, without gaps.
struct nested_absmax {
  tensor_view<std::uint8_t const, 2> codes;  // (n, k / 64)
  tensor_view<float const, 1> nested;        // one for each 256 of them
  float const* table;                        // 256 values
  float offset;
};

namespace detail {
inline constexpr index absmax_block = 64, nested_block = 256;

/// a b + c with both roundings: nothing but memory keeps compilers from fusing them, even where a conversion from double stands between.
TERN_INLINE float multiply_round_add(float a, float b, float c) {
  float const volatile product = a * b;
  return product + c;
}
TERN_INLINE float take_finite(float x) {
  constexpr float largest = 0x1.fffffep127f;
  return x != x ? 0.f : x > largest ? largest : x < -largest ? -largest : x;
}
}  // namespace detail

/// Weights (rows, columns) of NF4 or FP4, owned by somebody else. columns: a multiple of 64.
template <codebook16 Codebook>
class codebook_weights {
 public:
  index rows, columns;

  /// With a scale in f32 for each 64 columns.
  TERN_INLINE codebook_weights(tensor_view<std::uint8_t const, 2> const& packed, tensor_view<float const, 2> const& absmax)
      : codebook_weights(packed) {
    expect_blocks("absmax", absmax);
    absmax_ = absmax.data();
    absmax_stride_ = absmax.stride(0);
  }
  /// Doubly quantized.
  TERN_INLINE codebook_weights(tensor_view<std::uint8_t const, 2> const& packed, nested_absmax const& absmax) : codebook_weights(packed) {
    expect_blocks("absmax.codes", absmax.codes);
    tern::detail::expect(absmax.codes.is_contiguous(), "codebook_weights", "absmax.codes.stride(0)", absmax.codes.stride(0),
                         "absmax.codes.extent(1): blocks are numbered through");
    tern::detail::expect_equal("codebook_weights", "absmax.nested.extent(0)", absmax.nested.extent(0), "the blocks of 256 of absmax.codes",
                               (absmax.codes.size() + detail::nested_block - 1) / detail::nested_block);
    tern::detail::expect(absmax.nested.is_contiguous(), "codebook_weights", "absmax.nested.stride(0)", absmax.nested.stride(0), "1");
    tern::detail::expect(absmax.table != nullptr, "codebook_weights", "absmax.table", 0, "not null");
    codes_ = absmax.codes.data();
    absmax_ = absmax.nested.data();
    table_ = absmax.table;
    offset_ = absmax.offset;
  }

  TERN_INLINE row_memory memory(index row) const { return {packed_ + row * row_bytes_, columns / 2, row_bytes_}; }
  /// Columns k0 to k1 of a row; k0 a multiple of 32.
  TERN_INLINE void decode(index row, index k0, index k1, float* TERN_RESTRICT out) const {
    simd::float_table const values = simd::load_table(Codebook::values);
    std::uint8_t const* const q = packed_ + row * row_bytes_;
    for (index k = k0; k < k1; k += 32, out += 32) {
      simd::pack<float> const scale(block_scale(row, k / detail::absmax_block));
      for (index j = 0; j < 16; j += simd::lanes) {
        simd::pack<std::int32_t> const pair = simd::load_widened(q + k / 2 + j);
        auto const first = simd::lookup(values, simd::shift_right<4>(pair)) * scale;
        auto const second = simd::lookup(values, pair & simd::pack<std::int32_t>(std::int32_t{15})) * scale;
        simd::store_interleaved(out + 2 * j, first, second);
      }
    }
  }

 private:
  TERN_INLINE explicit codebook_weights(tensor_view<std::uint8_t const, 2> const& packed)
      : rows(packed.extent(0)), columns(packed.extent(1) * 2), packed_(packed.data()), row_bytes_(packed.stride(0)) {
    tern::detail::expect(packed.extent(1) % 32 == 0, "codebook_weights", "packed.extent(1)", packed.extent(1),
                         "a multiple of 32: whole blocks of 64 elements");
    tern::detail::expect(packed.extent(1) <= 1 || packed.stride(1) == 1, "codebook_weights", "packed.stride(1)", packed.stride(1), "1");
    tern::detail::expect(packed.size() == 0 || packed.data() != nullptr, "codebook_weights", "packed.data()", 0, "not null");
  }
  template <class T>
  TERN_INLINE void expect_blocks(char const* name, tensor_view<T, 2> const& blocks) const {
    tern::detail::expect(blocks.extent(0) == rows, "codebook_weights", name, blocks.extent(0), "as many rows as packed has");
    tern::detail::expect(blocks.extent(1) * detail::absmax_block == columns, "codebook_weights", name, blocks.extent(1),
                         "one column for each 64 elements");
    tern::detail::expect(blocks.extent(1) <= 1 || blocks.stride(1) == 1, "codebook_weights", name, blocks.stride(1), "contiguous rows");
    tern::detail::expect(blocks.size() == 0 || blocks.data() != nullptr, "codebook_weights", name, 0, "not null");
  }
  TERN_INLINE float block_scale(index row, index block) const {
    if (codes_ == nullptr) return absmax_[row * absmax_stride_ + block];
    index const at = row * (columns / detail::absmax_block) + block;
    return detail::multiply_round_add(table_[codes_[at]], absmax_[at / detail::nested_block], offset_);
  }

  std::uint8_t const* packed_;
  index row_bytes_;
  std::uint8_t const* codes_ = nullptr;
  float const* absmax_ = nullptr;
  index absmax_stride_ = 0;
  float const* table_ = nullptr;
  float offset_ = 0.f;
};

/// Codes and scales of w (n, k), k a multiple of 64: packed (n, k / 2), absmax (n, k / 64).
template <codebook16 Codebook>
inline void encode_codebook(tensor_view<float const, 2> const& w, tensor_view<std::uint8_t, 2> const& packed,
                            tensor_view<float, 2> const& absmax) {
  codebook_weights<Codebook> const checked(packed, absmax);
  tern::detail::expect_equal("encode_codebook", "packed.extent(0)", checked.rows, "w.extent(0)", w.extent(0));
  tern::detail::expect_equal("encode_codebook", "2 packed.extent(1)", checked.columns, "w.extent(1)", w.extent(1));
  for (index i = 0; i < w.extent(0); ++i)
    for (index b = 0; b < absmax.extent(1); ++b) {
      float x[detail::absmax_block], most = 0.f;
      for (index j = 0; j < detail::absmax_block; ++j) {
        x[j] = detail::take_finite(w(i, b * detail::absmax_block + j));
        most = __builtin_fabsf(x[j]) > most ? __builtin_fabsf(x[j]) : most;
      }
      absmax(i, b) = most;
      float const divisor = most > 0.f ? most : 1.f;
      for (index j = 0; j < detail::absmax_block; j += 2)
        packed(i, (b * detail::absmax_block + j) / 2) =
            static_cast<std::uint8_t>(Codebook::encode(x[j] / divisor) << 4 | Codebook::encode(x[j + 1] / divisor));
    }
}

/// Double quantization of absmax (n, k / 64): codes of the same extents and nested, one for each 256 of them; `table` as stored or
/// `dynamic_map`, ascending. Returns the offset. An absmax is off by at most half a gap of the table times its nested scale.
inline float encode_absmax(tensor_view<float const, 2> const& absmax, float const* table, tensor_view<std::uint8_t, 2> const& codes,
                           tensor_view<float, 1> const& nested) {
  index const n = absmax.size(), blocks = (n + detail::nested_block - 1) / detail::nested_block;
  tern::detail::expect_equal("encode_absmax", "codes.extent(0)", codes.extent(0), "absmax.extent(0)", absmax.extent(0));
  tern::detail::expect_equal("encode_absmax", "codes.extent(1)", codes.extent(1), "absmax.extent(1)", absmax.extent(1));
  tern::detail::expect_equal("encode_absmax", "nested.extent(0)", nested.extent(0), "the blocks of 256 of absmax", blocks);
  auto const at = [&](index i) TERN_LAMBDA { return absmax(i / absmax.extent(1), i % absmax.extent(1)); };
  double sum = 0;
  for (index i = 0; i < n; ++i) sum += static_cast<double>(at(i));
  float const offset = n > 0 ? static_cast<float>(sum / static_cast<double>(n)) : 0.f;
  for (index b = 0; b < blocks; ++b) {
    index const begin = b * detail::nested_block, end = begin + detail::nested_block < n ? begin + detail::nested_block : n;
    float most = 0.f;
    for (index i = begin; i < end; ++i) {
      float const m = __builtin_fabsf(at(i) - offset);
      most = m > most ? m : most;
    }
    nested[b] = most;
    for (index i = begin; i < end; ++i) {
      float const x = most > 0.f ? (at(i) - offset) / most : 0.f;
      int code = 0;
      for (int c = 1; c < 256; ++c) code += x > 0.5f * (table[c - 1] + table[c]);
      codes(i / absmax.extent(1), i % absmax.extent(1)) = static_cast<std::uint8_t>(code);
    }
  }
  return offset;
}

}  // namespace TERN_ABI
}  // namespace tern::formats
