// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/long_direct.hpp
/// The direct form for a handful of taps: r_i = sum over j of t_j x_(i + j), in pieces of a row that stay in cache.

#include <tern/conv/long_layout.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Results of a piece: what source and sink of a tower take at a time.
inline constexpr index direct_piece = tower_chunk * simd::lanes;
/// Floats that a piece is computed in.
TERN_INLINE index direct_floats(index taps) { return 2 * direct_piece + (taps + simd::lanes) / simd::lanes * simd::lanes; }

/// Four registers of results at a time.
inline void direct_results(float const* x, float const* taps, index count, float* r) noexcept {
  constexpr index W = simd::lanes;
  for (index i = 0; i < direct_piece; i += 4 * W) {
    simd::pack<float> a(0.f), b(0.f), c(0.f), d(0.f);
    for (index j = 0; j < count; ++j) {
      simd::pack<float> const t(taps[j]);
      float const* const at = x + i + j;
      a = simd::fma(t, simd::load(at), a);
      b = simd::fma(t, simd::load(at + W), b);
      c = simd::fma(t, simd::load(at + 2 * W), c);
      d = simd::fma(t, simd::load(at + 3 * W), d);
    }
    simd::store(r + i, a);
    simd::store(r + i + W, b);
    simd::store(r + i + 2 * W, c);
    simd::store(r + i + 3 * W, d);
  }
}

/// Results 0 to n - 1; source and sink count from there. memory: direct_floats(count).
inline void run_direct(float const* taps, index count, index n, tower_source const& in, tower_sink const& out, float* memory) noexcept {
  constexpr index W = simd::lanes;
  float* const x = memory + direct_piece;
  for (index i = 0; i < n; i += direct_piece) {
    for (index part = 0, packs = divide_up(direct_piece + count - 1, W); part < packs; part += tower_chunk)
      in.read(in.object, i + part * W, least(tower_chunk, packs - part), x + part * W, W);
    direct_results(x, taps, count, memory);
    out.write(out.object, i, tower_chunk, memory, W);
  }
}

}  // namespace TERN_ABI
}  // namespace tern::detail
