// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/formats/elements.hpp
/// All elements of weights in either form, and what integer products count on.

#include "catch.hpp"
#include "compare.hpp"

#include <tern/formats/decode.hpp>

namespace tern::test {

/// Row by row; decoding in pieces, and tern::decode, must give what decoding at once gives.
template <custom_weights W>
std::vector<float> elements(W const& w) {
  guarded<float> all(w.rows * w.columns);
  for (index i = 0; i < w.rows; ++i) {
    float* const row = all.data() + i * w.columns;
    if constexpr (coded_weights<W>) {
      static_assert(W::offset >= 0 && W::offset <= 128 && (!W::has_min || W::offset == 0));
      for (index g = 0; g < w.columns / 32; ++g) {
        std::uint8_t u[32];
        float scale[32 / W::granule], min[32 / W::granule] = {};
        w.unpack(i, g, u);
        w.scales(i, g, scale, min);
        for (index j = 0; j < 32; ++j) {
          CHECK(u[j] <= (W::offset == 128 ? 255 : 127));
          row[32 * g + j] = scale[j / W::granule] * static_cast<float>(u[j] - W::offset);
          if constexpr (W::has_min) row[32 * g + j] += min[j / W::granule];
        }
      }
    } else {
      w.decode(i, 0, w.columns, row);
      for (index k = 0; k < w.columns; k += 32) {
        index const end = std::min(k + 32, w.columns);
        guarded<float> part(end - k, 1);
        w.decode(i, k, end, part.data());
        CHECK(std::memcmp(part.data(), row + k, static_cast<std::size_t>(end - k) * 4) == 0);
        CHECK(part.intact());
        if constexpr (requires { w.cursor(i, k); }) {
          auto const registers = w.cursor(i, k);
          for (index j = 0; k + j + simd::lanes <= w.columns; j += simd::lanes) {
            float lane[simd::lanes];
            simd::store(lane, registers.at(j));
            CHECK(std::memcmp(lane, row + k + j, sizeof(lane)) == 0);
          }
        }
      }
    }
    guarded<float> whole(w.columns, 1);
    decode(w, i, whole.data());
    CHECK(std::memcmp(whole.data(), row, static_cast<std::size_t>(w.columns) * 4) == 0);
    CHECK(whole.intact());
  }
  CHECK(all.intact());
  return {all.data(), all.data() + w.rows * w.columns};
}

/// a as a matrix.
template <class T>
tensor_view<T const, 2> matrix(std::vector<T> const& a, index rows) {
  return {a.data(), shape<2>{{rows, static_cast<index>(a.size()) / (rows > 0 ? rows : 1)}}};
}
template <class T>
tensor_view<T, 2> matrix(std::vector<T>& a, index rows) {
  return {a.data(), shape<2>{{rows, static_cast<index>(a.size()) / (rows > 0 ? rows : 1)}}};
}

}  // namespace tern::test
