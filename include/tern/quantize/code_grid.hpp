// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file quantize/code_grid.hpp
/// The values that an element of a block can take once the block's scales are fixed: scale (u - offset) + min for each code, as
/// formats/q4.hpp has it.

#include <tern/quantize/problem.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// The scale and the min of one element.
struct element_scale {
  float scale, min;
};

template <class Format>
struct code_grid {
  static constexpr bool has_levels = requires { Format::levels; };

  /// What decoding gives for a code.
  TERN_INLINE static float value(int code, element_scale s) {
    int u = code;
    if constexpr (has_levels) u = Format::levels[code];
    float const product = static_cast<float>(u - Format::offset) * s.scale;
    return Format::has_min ? product + s.min : product;
  }
  /// The code whose value is nearest to w.
  TERN_INLINE static int nearest(float w, element_scale s) {
    if constexpr (has_levels) {
      return best(s, [w](float v) TERN_LAMBDA { return __builtin_fabsf(w - v); });
    } else {
      int const below = at_most(w, s), above = below + 1 < Format::codes ? below + 1 : below;
      return __builtin_fabsf(w - value(below, s)) <= __builtin_fabsf(w - value(above, s)) ? below : above;
    }
  }
  /// The codes on both sides of w; one of them twice where w lies on it, or outside.
  TERN_INLINE static void around(float w, element_scale s, int& one, int& other) {
    if constexpr (has_levels) {
      one = best(s, [w](float v) TERN_LAMBDA { return v <= w ? w - v : __builtin_inff(); });
      other = best(s, [w](float v) TERN_LAMBDA { return v >= w ? v - w : __builtin_inff(); });
    } else {
      one = at_most(w, s);
      other = one + 1 < Format::codes ? one + 1 : one;
    }
  }
  /// The code of an integer that `unpack` gives.
  TERN_INLINE static int code_of(std::uint8_t u) {
    if constexpr (has_levels) {
      for (int c = 0; c < Format::codes; ++c)
        if (Format::levels[c] == u) return c;
    }
    return u;
  }

  /// Of a block, the scale of each element.
  static void scales(typename Format::block const& block, element_scale* out) {
    constexpr index granule = Format::granule;
    for (index g = 0; g < Format::elements / 32; ++g) {
      float scale[32 / granule] = {}, min[32 / granule] = {};
      Format::scales(block, g, scale, min);
      for (index j = 0; j < 32; ++j) out[32 * g + j] = {scale[j / granule], min[j / granule]};
    }
  }
  /// Of a block, the code of each element.
  static void codes(typename Format::block const& block, std::uint8_t* out) {
    for (index g = 0; g < Format::elements / 32; ++g) {
      Format::unpack(block, g, out + 32 * g);
      for (index j = 0; j < 32; ++j) out[32 * g + j] = static_cast<std::uint8_t>(code_of(out[32 * g + j]));
    }
  }

 private:
  /// In steps of the scale from code 0, rounded down: the last code but one at most.
  TERN_INLINE static int at_most(float w, element_scale s) {
    float const min = Format::has_min ? s.min : 0.f;
    float const x = s.scale != 0.f ? (w - min) / s.scale + static_cast<float>(Format::offset) : static_cast<float>(Format::offset);
    float const last = static_cast<float>(Format::codes - 1);
    return x >= last ? Format::codes - 1 : x > 0.f ? static_cast<int>(x) : 0;
  }
  /// The first code of least distance.
  template <class Distance>
  TERN_INLINE static int best(element_scale s, Distance const& distance) {
    int found = 0;
    float least = distance(value(0, s));
    for (int c = 1; c < Format::codes; ++c) {
      float const d = distance(value(c, s));
      if (!(d < least)) continue;
      least = d;
      found = c;
    }
    return found;
  }
};

}  // namespace TERN_ABI
}  // namespace tern::detail
