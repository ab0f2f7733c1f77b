// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/dgq.hpp
/// Weights of four bits that become eight, in two grains: groups of a row have integers, the row has the only float. w is (n, k):
///
///     w8(n, k) = (q(n, k) - z(n, g)) s(n, g) in [-127, 127],    w(n, k) = r(n) w8(n, k)
///
/// so that a product with 8-bit activations is a sum of integers over all of k. q in 0..15, z in 0..15, s in 1..127.
///
///     codes (n, k / 2) bytes    within each 32 columns, byte j holds column j in its low half and column j + 16 in its high half
///     zeros (n, k / group), scales (n, k / group) bytes    row_scales (n) f32      groups of a multiple of 32 columns
///
/// The view's constructor reads all codes once and fails where w8 leaves its range: nothing that is multiplied overflows.
///
/// `encode` searches in two phases. First each group alone: a float scale and a zero, among 20 ranges from 1.009 down to 0.8 of the
/// group's own. Then the row: r among 80 values from 1.01 down to 0.2 of max |w| / 127, under each s = the group's scale / r rounded,
/// and codes clipped to where w8 stays in range. Both keep what has the least sum of squared errors. Cost: about 100 passes.
///
/// System: DGQ, "Dual Grained Quantization: Efficient Fine-Grained Quantization for LLM" (Zhang et al. 2023), A8W4. The formula, the two
/// grids and the clipping of codes: read from the authors' code (dgq/quant/quantizer_helper.py). Own: the error is that of the weights,
/// there of the layer's outputs for given inputs; ranges include zero, so that z is one of the codes; s is at most 127; the layout.

#include <tern/formats/group_int4.hpp>
#include <tern/simd/shuffle.hpp>

namespace tern {

namespace detail {
inline namespace TERN_ABI {

/// What a group becomes under a row's scale: codes around `zero` for which |q - zero| step is at most 127.
struct dgq_group {
  int zero, step;
  TERN_INLINE int least() const { return zero - 127 / step > 0 ? zero - 127 / step : 0; }
  TERN_INLINE int most() const { return zero + 127 / step < 15 ? zero + 127 / step : 15; }
  TERN_INLINE int code(float x, float inverse) const {
    int const q = formats::detail::nearest_int(x * inverse + static_cast<float>(zero), 15);
    return q < least() ? least() : q > most() ? most() : q;
  }
};
/// The squared error of a group whose elements are scale (q - zero).
inline float dgq_error(float const* x, index n, float scale, dgq_group const& g) {
  float const inverse = scale > 0.f ? 1.f / scale : 0.f;
  return formats::detail::sum_of(static_cast<int>(n), [&](int i) TERN_LAMBDA {
    float const e = x[i] - scale * static_cast<float>(g.code(x[i], inverse) - g.zero);
    return e * e;
  });
}
/// A group alone: a float scale, and a zero.
struct dgq_fit {
  float scale;
  int zero;
};
inline dgq_fit fit_dgq_group(float const* x, index n) {
  formats::detail::extremes const range = formats::detail::extremes_of(x, n);
  float const low = range.least < 0.f ? range.least : 0.f, width = (range.most > 0.f ? range.most : 0.f) - low;
  dgq_fit best{0.f, 8};
  float least = __builtin_inff();
  for (int i = 1; i <= 20 && width > 0.f; ++i) {
    float const scale = width * (1.02f - 0.011f * static_cast<float>(i)) / 15.f;
    if (!(scale > 0.f)) continue;
    int const zero = formats::detail::nearest_int(-low / width * 15.f, 15);
    float const error = dgq_error(x, n, scale, {zero, 1});
    if (!(error < least)) continue;
    least = error;
    best = {scale, zero};
  }
  return best;
}
struct no_progress {
  TERN_INLINE void operator()(index, index) const {}
};
TERN_INLINE int dgq_step(float scale, float row_scale) {
  int const step = formats::detail::nearest_int(scale / row_scale, 127);
  return step < 1 ? 1 : step;
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// DGQ's weights: see the top of formats/dgq.hpp.
struct dgq_weights {
  static constexpr index granule = 32;
  static constexpr int offset = 128;
  static constexpr bool has_min = false;
  static constexpr bool row_scale = true;

  index rows, columns, group;
  tensor_view<std::uint8_t const, 2> codes, zeros, steps;
  tensor_view<float const, 1> row_scales;

  /// codes (n, k / 2), zeros (n, k / group), scales (n, k / group), row_scales (n).
  dgq_weights(tensor_view<std::uint8_t const, 2> const& codes_in, tensor_view<std::uint8_t const, 2> const& zeros_in,
              tensor_view<std::uint8_t const, 2> const& scales_in, tensor_view<float const, 1> const& row_scales_in)
      : rows(codes_in.extent(0)),
        columns(2 * codes_in.extent(1)),
        group(expect_shapes("dgq_weights", rows, columns, codes_in, zeros_in, scales_in, row_scales_in.extent(0))),
        codes(codes_in),
        zeros(zeros_in),
        steps(scales_in),
        row_scales(row_scales_in) {
    for (index i = 0; i < rows; ++i)
      for (index g = 0; g < steps.extent(1); ++g) check_group(i, g);
  }

  /// The 32 integers of columns 32 g to 32 g + 31: an element is scale (u - offset).
  TERN_INLINE void unpack(index row, index g, std::uint8_t* u) const {
    formats::detail::unpack_halves(memory(row).data + 16 * g, u);
    int const step = steps(row, 32 * g / group), shift = offset - step * zeros(row, 32 * g / group);
    for (int j = 0; j < 32; ++j) u[j] = static_cast<std::uint8_t>(u[j] * step + shift);
  }
  TERN_INLINE void scales(index row, index, float* s, float*) const { s[0] = row_scales[row]; }

  TERN_INLINE row_memory memory(index row) const { return detail::int4_memory(codes, row); }
  /// For matmul: `lanes` rows from n on in registers. In a group, each row looks its 16 integers up in a table of its own.
  struct lane_walk {
    dgq_weights const& w;
    index n, at = -1;
    simd::pack<float> scale{0.f};
    simd::pack<std::int8_t> table[4];

    TERN_INLINE lane_walk(dgq_weights const& weights, index row) : w(weights), n(row) {}
    template <class Group>
    TERN_INLINE void load(index g, Group& out) {
      if (32 * g / w.group != at) enter(32 * g / w.group);
      simd::pack<std::uint8_t> v[4];
      simd::load_rows16(w.memory(n).data + 16 * g, w.codes.stride(0), v);
      simd::split_halves(v, out.u);
      TERN_UNROLL
      for (index r = 0; r < 4; ++r) {
        out.u[0][r] = simd::bit_cast<std::uint8_t>(simd::lookup(table[r], out.u[0][r]));
        out.u[1][r] = simd::bit_cast<std::uint8_t>(simd::lookup(table[r], out.u[1][r]));
      }
      out.scale[0] = scale;
    }

   private:
    void enter(index next) {
      at = next;
      using words = simd::pack<std::int32_t>;
      float own[simd::lanes];
      std::int32_t step[simd::lanes], shift[simd::lanes];
      for (index i = 0; i < simd::lanes; ++i) {
        own[i] = w.row_scales[n + i];
        step[i] = w.steps(n + i, next);
        shift[i] = ((offset - step[i] * w.zeros(n + i, next)) & 255) * 0x00010001;
      }
      scale = simd::load(static_cast<float const*>(own));
      words const by = simd::load(static_cast<std::int32_t const*>(step)), from = simd::load(static_cast<std::int32_t const*>(shift));
      words const low(0x00ff00ff);
      // The bytes of q = 4 j to 4 j + 3 by twos, a row a lane; then a row's 16 side by side.
      simd::pack<std::uint8_t> entries[4];
      for (std::int32_t j = 0; j < 4; ++j) {
        words const even = by * words(0x00020000 + 4 * j * 0x00010001) + from, odd = by * words(0x00030001 + 4 * j * 0x00010001) + from;
        entries[j] = simd::bit_cast<std::uint8_t>((even & low) | simd::shift_left<8>(odd & low));
      }
      simd::transpose_quads(entries);
      for (index r = 0; r < 4; ++r) table[r] = simd::bit_cast<std::int8_t>(entries[r]);
    }
  };
  TERN_INLINE lane_walk walk(index n) const { return {*this, n}; }

  /// Rounds w (n, k), f32, f16 or bf16 of any strides, into what the constructor takes. NaN becomes 0. `progress(done, total)` is called
  /// after each 256 rows and at the end, by the thread that called.
  template <tensor_like W, class Progress = detail::no_progress>
  static void encode(cpu_policy const& policy, W&& w, tensor_view<std::uint8_t, 2> const& codes, tensor_view<std::uint8_t, 2> const& zeros,
                     tensor_view<std::uint8_t, 2> const& scales, tensor_view<float, 1> const& row_scales, Progress const& progress = {}) {
    auto const from = tern::view(w);
    index const rows = from.extent(0);
    index const group = expect_shapes("dgq_weights::encode", rows, from.extent(1), codes, zeros, scales, row_scales.extent(0));
    // Squares of more would leave the range of floats.
    for (index first = 0, end; first < rows; first = end) {
      end = rows - first > 256 ? first + 256 : rows;
      detail::for_each_float_row(policy, from.slice(0, first, end), 0x1p60f, [&](index of, float const* x, std::uint8_t* q) {
        index const row = first + of;
        row_scales[row] = encode_row(x, from.extent(1), group, q, zeros[row], scales[row]);
        detail::pack_int4(q, from.extent(1), codes.data() + row * codes.stride(0));
      });
      progress(end, rows);
    }
  }

 private:
  TERN_INLINE static index expect_shapes(char const* op, index rows, index columns, tensor_view<std::uint8_t const, 2> const& codes,
                                         tensor_view<std::uint8_t const, 2> const& zeros, tensor_view<std::uint8_t const, 2> const& scales,
                                         index row_scales) {
    index const group = detail::expect_group_int4<std::uint8_t, std::uint8_t>(op, rows, columns, codes, scales, &zeros);
    detail::expect_equal(op, "row_scales.extent(0)", row_scales, "the number of rows", rows);
    return group;
  }
  void check_group(index row, index g) const {
    constexpr char const* op = "dgq_weights";
    int const zero = zeros(row, g), step = steps(row, g);
    detail::expect(zero <= 15, op, "a zero", zero, "at most 15");
    detail::expect(step >= 1 && step <= 127, op, "a group's scale", step, "1 to 127");
    std::uint8_t const* const q = codes.data() + row * codes.stride(0) + g * group / 2;
    for (index i = 0; i < group / 2; ++i) {
      int const low = ((q[i] & 15) - zero) * step, high = ((q[i] >> 4) - zero) * step;
      detail::expect(low >= -127 && low <= 127, op, "(code - zero) scale", low, "at least -127 and at most 127");
      detail::expect(high >= -127 && high <= 127, op, "(code - zero) scale", high, "at least -127 and at most 127");
    }
  }
  /// Codes (a byte each), zeros and scales of a row; returns the row's own. Until the codes are known, their place holds the scales
  /// that the first phase finds.
  static float encode_row(float const* x, index n, index group, std::uint8_t* q, tensor_view<std::uint8_t, 1> const& zeros,
                          tensor_view<std::uint8_t, 1> const& steps) {
    auto* const alone = reinterpret_cast<float*>(q);
    index const groups = n / group;
    for (index g = 0; g < groups; ++g) {
      detail::dgq_fit const fit = detail::fit_dgq_group(x + g * group, group);
      alone[g] = fit.scale;
      zeros[g] = static_cast<std::uint8_t>(fit.zero);
    }
    float const widest = detail::absmax_of(x, n) / 127.f;
    float best = 0.f, least = __builtin_inff();
    for (int i = 1; i <= 80; ++i) {
      float const scale = widest * (1.02f - 0.01025f * static_cast<float>(i));
      if (!(scale > 0.f)) break;
      float error = 0.f;
      for (index g = 0; g < groups; ++g) {
        int const step = detail::dgq_step(alone[g], scale);
        error += detail::dgq_error(x + g * group, group, scale * static_cast<float>(step), {zeros[g], step});
      }
      if (!(error < least)) continue;
      least = error;
      best = scale;
    }
    for (index g = 0; g < groups; ++g) steps[g] = static_cast<std::uint8_t>(best > 0.f ? detail::dgq_step(alone[g], best) : 1);
    for (index g = 0; g < groups; ++g) {
      detail::dgq_group const coded{zeros[g], steps[g]};
      float const scale = best * static_cast<float>(coded.step), inverse = scale > 0.f ? 1.f / scale : 0.f;
      for (index j = g * group; j < (g + 1) * group; ++j) q[j] = static_cast<std::uint8_t>(coded.code(x[j], inverse));
    }
    return best;
  }
};

}  // namespace TERN_ABI
}  // namespace tern
