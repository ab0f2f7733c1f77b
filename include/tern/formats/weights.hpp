// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/weights.hpp
/// What matmul takes as weights (n, k): a block_matrix (a GGUF tensor), an interleaved_matrix, a view of numbers, a weights_ref to any of
/// these, or any type of this shape, which is a view and owns nothing:
///
///     struct my_weights {
///       index rows, columns;
///
///       // elements are integers with scales, scale (u - offset) + min: columns are a multiple of 32
///       static constexpr index granule = 32;    // or 16: columns that share a scale and a minimum
///       static constexpr int offset = 8;        // 0 where there is a minimum; codes u lie in [0, 127], with offset 128 in [0, 255]
///       static constexpr bool has_min = false;
///       static constexpr bool row_scale = true;   // optional: scales(row, g) do not depend on g, and there is no minimum
///       void unpack(index row, index g, std::uint8_t* u) const;                // columns 32 g to 32 g + 31
///       void scales(index row, index g, float* scale, float* min) const;       // 32 / granule of each
///
///       // or else any numbers
///       void decode(index row, index k0, index k1, float* out) const;          // k0: a multiple of 32, k1 too or all columns
///     };
///
/// Integers with scales multiply in f32, bf16 and int8; other numbers in f32 and bf16, and as f32 with compute::int8. The engine calls
/// from several threads. Where unpacking through memory is too slow, `load(n, g, out)` fills a row_group with `lanes` rows at once
/// (matmul/row_group.hpp), or `walk(n)` returns what keeps the scales of `lanes` rows and has `load(g, out)`. `load` is called where there
/// are n + lanes rows; `walk` itself, which may be called where there are fewer, reads nothing. With `quads` = true both fill groups a row
/// a lane. Where rows lie in memory, one like the other, `memory(row)` returns a row_memory: what follows is asked for ahead of time,
/// and y may not lie there. With `signed_bytes` = true a row's memory is u - offset of each column in a byte. Where a column is a byte of
/// `memory(row)` that is decoded, `cursor(row, k0)` returns what has `at(k)`, columns k0 + k to k0 + k + lanes - 1 in a register: for up to
/// four rows of x, where the columns are a multiple of the lanes. What it returns has a default constructor.

#include <tern/core/config.hpp>
#include <tern/core/tensor_view.hpp>

#include <concepts>
#include <cstdint>

namespace tern {

/// Where a row's codes lie.
struct row_memory {
  std::uint8_t const* data = nullptr;
  index bytes = 0;   ///< of the row
  index stride = 0;  ///< bytes to the next one
};

/// Weights whose elements are integers with scales.
template <class W>
concept coded_weights = requires(W const& w, index i, std::uint8_t* u, float* s) {
  W::granule;
  W::offset;
  W::has_min;
  w.unpack(i, i, u);
  w.scales(i, i, s, s);
};
/// Codes with one scale for each row: integer sums along all of k.
template <class W>
concept row_scaled_weights = coded_weights<W> && requires { requires W::row_scale; };
/// Weights that are decoded row by row.
template <class W>
concept decoded_weights = requires(W const& w, index i, float* out) { w.decode(i, i, i, out); };
/// What `matmul` takes beside a block_matrix and a view.
template <class W>
concept custom_weights = (coded_weights<W> || decoded_weights<W>) && requires(W const& w) {
  { w.rows } -> std::convertible_to<index>;
  { w.columns } -> std::convertible_to<index>;
};

namespace detail {
inline namespace TERN_ABI {

/// Columns [k0, k1) of a row: k0 a multiple of 32, k1 too or the last.
template <class W>
TERN_INLINE void decode_row(W const& w, index row, index k0, index k1, float* out) {
  if constexpr (decoded_weights<W>) {
    w.decode(row, k0, k1, out);
  } else {
    static_assert(W::granule == 16 || W::granule == 32, "tern: weights' granule is 16 or 32");
    static_assert(!W::has_min || W::offset == 0, "tern: weights with a minimum have no offset");
    std::uint8_t u[32];
    float scale[32 / W::granule], min[32 / W::granule];
    for (index k = k0; k < k1; k += 32) {
      w.unpack(row, k / 32, u);
      w.scales(row, k / 32, scale, min);
      for (index j = 0; j < 32; ++j) {
        float const q = static_cast<float>(u[j] - W::offset) * scale[j / W::granule];
        if constexpr (W::has_min)
          out[k - k0 + j] = q + min[j / W::granule];
        else
          out[k - k0 + j] = q;
      }
    }
  }
}

}  // namespace TERN_ABI
}  // namespace detail
}  // namespace tern
