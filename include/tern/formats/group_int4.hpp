// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/group_int4.hpp
/// Weights of four bits in groups of a row, of a size that is known at run time: 32, 64, 128, the whole row, or any other multiple
/// of 32 that divides it. w is (n, k); q in 0..15, s an f16 for each group.
///
///     group_int4           s (q - 8)      4 + 16 / group bits an element
///     group_int4_zeros     s (q - z)      z: an integer from 0 to 16 in a byte for each group, as GPTQ and AWQ have it
///     group_int4_minima    s q + m        m: an f16 for each group
///
///     codes  (n, k / 2) bytes    within each 32 columns, byte j holds column j in its low half and column j + 16 in its high half
///     scales (n, k / group)      and zeros, or minima
///
///     group_int4::encode(policy, w, codes, scales)           writes them; zeros or minima come last where there are any
///     group_int4 const weights(codes, scales)                what matmul takes
///
/// Views own nothing; rows may be any distance apart. `encode` chooses scales, and zeros or minima, by a search for the least squared
/// error in each group (formats/scale_search.hpp), for f32, f16 or bf16 weights of any strides; NaN becomes 0. Cost: about a hundred passes
/// over the weights in cache.
///
/// Systems: GLM-130B (Zeng et al. 2022) stores weights as symmetric INT4 with a scale for each row: group_int4 with group = k. (It
/// scales by the largest magnitude; the search here errs less. From the abstract and from knowledge.) FineQuant (Kim et al. 2023)
/// has symmetric groups whose size adapts to the weights, halved where that pays: `choose_group_size`. (From the abstract; there the
/// criterion is the range of a group, here it is the error itself.)

#include <tern/formats/float_rows.hpp>
#include <tern/formats/weights.hpp>
#include <tern/simd/convert.hpp>
#include <tern/simd/rows.hpp>

namespace tern {

/// What is stored for each group beside its scale.
enum class group_zero { none, integer, minimum };

namespace detail {
inline namespace TERN_ABI {

template <group_zero kind>
struct group_int4_parts {
  using zero_type = std::uint8_t;
};
template <>
struct group_int4_parts<group_zero::minimum> {
  using zero_type = f16;
};

/// A group as codes, a byte each, and its parts.
struct int4_group {
  f16 scale, min;
  std::uint8_t zero;
};
TERN_INLINE void round_group(float const* x, index n, float scale, float zero, std::uint8_t* q) {
  float const inverse = scale != 0.f ? 1.f / scale : 0.f;
  for (index i = 0; i < n; ++i) q[i] = static_cast<std::uint8_t>(formats::detail::nearest_int(x[i] * inverse + zero, 15));
}
/// The levels of group_int4. Large groups have far elements that are better clipped: trials down to a range of half of theirs.
struct group_levels : formats::detail::even_levels<8, 16> {
  static constexpr float reach_step = 0.2f;
  static constexpr int reaches = 40;
};
/// A line for s q + m: trials down to half of the range that suits the block formats.
inline formats::detail::line search_group_line(float const* x, int n) {
  using namespace formats::detail;
  line const widest = best_line<15>(x, n);
  line best = widest;
  float least = line_error<15>(x, n, best);
  for (int i = 1; i <= 8; ++i) {
    float const scale = widest.scale * (1.f - 0.0625f * static_cast<float>(i)), low = widest.min + 7.5f * (widest.scale - scale);
    line trial{scale, low < 0.f ? low : 0.f};
    for (int turn = 0; turn < 3; ++turn) {
      trial = fit_line<15>(x, n, trial);
      float const error = line_error<15>(x, n, trial);
      if (!(error < least)) break;
      least = error;
      best = trial;
    }
  }
  return best;
}
/// Scale and zero for s (q - z): zeros near the best line's, each with scales from the one that covers the range down to half of it.
inline int4_group search_zero(float const* x, index count) {
  using namespace formats::detail;
  int const n = static_cast<int>(count);
  extremes const range = extremes_of(x, count);
  line const fit = best_line<15>(x, n);
  int4_group best{f16(0.f), f16(0.f), 8};
  float least = line_error<15>(x, n, {0.f, 0.f});
  int const near = fit.scale > 0.f ? nearest_int(-fit.min / fit.scale, 15) : fit.min < 0.f ? 15 : 0;
  for (int zero = near > 0 ? near - 1 : 0; zero <= near + 1 && zero <= 15; ++zero) {
    auto const z = static_cast<float>(zero);
    float const above = zero < 15 ? range.most / (15.f - z) : 0.f, below = zero > 0 ? -range.least / z : 0.f;
    float const cover = above > below ? above : below;
    for (int i = 0; i <= 8; ++i) {
      float scale = cover * (1.f - 0.0625f * static_cast<float>(i));
      for (int turn = 0; turn < 3 && scale > 0.f; ++turn) {
        f16 const rounded = nearest_f16(scale);
        line const trial{rounded, -static_cast<float>(rounded) * z};
        float const error = line_error<15>(x, n, trial);
        if (error < least) {
          least = error;
          best = {rounded, f16(0.f), static_cast<std::uint8_t>(zero)};
        }
        line_sums const sums = sum_line<15>(x, n, trial);
        float const vv = sums.cc - 2.f * z * sums.c + z * z * static_cast<float>(n);
        scale = vv > 0.f ? (sums.xc - z * sums.x) / vv : 0.f;
      }
    }
  }
  return best;
}
/// Scale, zero and codes of n elements.
template <group_zero kind>
inline int4_group encode_group(float* x, index n, std::uint8_t* q) {
  using namespace formats::detail;
  int4_group g{f16(0.f), f16(0.f), 0};
  if constexpr (kind == group_zero::none) {
    g.scale = nearest_f16(best_scale<group_levels>(x, static_cast<int>(n)));
    round_group(x, n, g.scale, 8.f, q);
  } else if constexpr (kind == group_zero::integer) {
    g = search_zero(x, n);
    round_group(x, n, g.scale, static_cast<float>(g.zero), q);
  } else {
    // The lines of the search have minima of at most 0: below the largest element there are no others.
    float const most = extremes_of(x, n).most;
    for (index i = 0; i < n; ++i) x[i] -= most;
    line const fit = search_group_line(x, static_cast<int>(n));
    g.scale = nearest_f16(fit.scale);
    g.min = nearest_f16(fit.min + most);
    for (index i = 0; i < n; ++i) x[i] += most - static_cast<float>(g.min);
    round_group(x, n, g.scale, 0.f, q);
  }
  return g;
}
/// Codes of n elements, a multiple of 32, as halves of bytes.
TERN_INLINE void pack_int4(std::uint8_t const* q, index n, std::uint8_t* codes) {
  for (index i = 0; i < n; i += 32) formats::detail::pack_halves(q + i, 16, codes + i / 2);
}
/// The relative error of group_int4 with groups of this size.
template <class T>
double int4_error(cpu_policy const& policy, tensor_view<T, 2> const& w, index group) {
  using levels = group_levels;
  index const rows = w.extent(0), n = group;
  workspace::lease const scratch(policy.scratch(), static_cast<std::size_t>(2 * rows) * sizeof(double));
  auto* const sums = reinterpret_cast<double*>(scratch.data());
  for_each_float_row(policy, w, 65504.f * 8.f, [&](index row, float const* x, std::uint8_t*) {
    sums[2 * row] = sums[2 * row + 1] = 0;
    for (index i = 0; i < w.extent(1); i += n) {
      float const scale = formats::detail::nearest_f16(formats::detail::best_scale<levels>(x + i, static_cast<int>(n)));
      sums[2 * row] += static_cast<double>(formats::detail::scale_error<levels>(x + i, static_cast<int>(n), scale));
      sums[2 * row + 1] += static_cast<double>(formats::detail::scale_error<levels>(x + i, static_cast<int>(n), 0.f));
    }
  });
  double error = 0, square = 0;
  for (index row = 0; row < rows; ++row) {
    error += sums[2 * row];
    square += sums[2 * row + 1];
  }
  return square > 0 ? __builtin_sqrt(error / square) : 0;
}
/// A row of codes, two a byte.
TERN_INLINE row_memory int4_memory(tensor_view<std::uint8_t const, 2> const& codes, index row) {
  return {codes.data() + row * codes.stride(0), codes.extent(1), codes.stride(0)};
}
inline void expect_int4_columns(char const* op, index columns) {
  expect(columns % 32 == 0, op, "the number of columns", columns, "a multiple of 32");
}
/// Checks that parts fit weights of (rows, columns), and returns the group's size.
template <class Scale, class Zero>
index expect_group_int4(char const* op, index rows, index columns, tensor_view<std::uint8_t const, 2> const& codes,
                        tensor_view<Scale const, 2> const& scales, tensor_view<Zero const, 2> const* zeros) {
  expect_int4_columns(op, columns);
  expect_equal(op, "codes.extent(0)", codes.extent(0), "the number of rows", rows);
  expect_equal(op, "codes.extent(1)", codes.extent(1), "half the number of columns", columns / 2);
  expect(codes.extent(1) <= 1 || codes.stride(1) == 1, op, "codes.stride(1)", codes.stride(1), "1");
  expect_equal(op, "scales.extent(0)", scales.extent(0), "the number of rows", rows);
  index const groups = scales.extent(1);
  expect(columns == 0 || (groups > 0 && columns % (32 * groups) == 0), op, "scales.extent(1)", groups,
         "the number of groups in a row, each of a multiple of 32 columns");
  if (zeros != nullptr) {
    expect_equal(op, "zeros.extent(0)", zeros->extent(0), "the number of rows", rows);
    expect_equal(op, "zeros.extent(1)", zeros->extent(1), "scales.extent(1)", groups);
  }
  return groups > 0 ? columns / groups : 32;
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// Weights of four bits in groups: see the top of formats/group_int4.hpp.
template <group_zero kind>
struct basic_group_int4 {
  using zero_type = typename detail::group_int4_parts<kind>::zero_type;

  static constexpr index granule = 32;
  static constexpr int offset = kind == group_zero::none ? 8 : kind == group_zero::integer ? 16 : 0;
  static constexpr bool has_min = kind == group_zero::minimum;

  index rows, columns, group;
  tensor_view<std::uint8_t const, 2> codes;
  tensor_view<f16 const, 2> scale;
  tensor_view<zero_type const, 2> zero;

  /// codes: (n, k / 2), scales: (n, k / group).
  basic_group_int4(tensor_view<std::uint8_t const, 2> const& codes_in, tensor_view<f16 const, 2> const& scales_in)
    requires(kind == group_zero::none)
      : basic_group_int4(codes_in, scales_in, nullptr) {}
  /// zeros: (n, k / group). Fails if an integer among them is above 16.
  basic_group_int4(tensor_view<std::uint8_t const, 2> const& codes_in, tensor_view<f16 const, 2> const& scales_in,
                   tensor_view<zero_type const, 2> const& zeros_in)
    requires(kind != group_zero::none)
      : basic_group_int4(codes_in, scales_in, &zeros_in) {
    if constexpr (kind == group_zero::integer)
      for (index i = 0; i < rows; ++i)
        for (index g = 0; g < zero.extent(1); ++g) detail::expect(zero(i, g) <= 16, "group_int4", "a zero", zero(i, g), "at most 16");
  }

  /// The 32 integers of columns 32 g to 32 g + 31: an element is scale (u - offset) + min.
  TERN_INLINE void unpack(index row, index g, std::uint8_t* u) const {
    formats::detail::unpack_halves(memory(row).data + 16 * g, u);
    if constexpr (kind == group_zero::integer) {
      auto const shift = static_cast<std::uint64_t>(16 - zero(row, g * 32 / group)) * formats::detail::each_byte;
      for (int j = 0; j < 32; j += 8) formats::detail::store8(u + j, formats::detail::load8(u + j) + shift);
    }
  }
  TERN_INLINE void scales(index row, index g, float* s, [[maybe_unused]] float* min) const {
    s[0] = scale(row, g * 32 / group);
    if constexpr (has_min) min[0] = zero(row, g * 32 / group);
  }

  /// For matmul: `lanes` rows from n on in registers, scales and zeros kept for a group.
  struct lane_walk {
    basic_group_int4 const& w;
    index n, from = 0, end = 0;  // columns of the group
    std::uint8_t const* codes;
    simd::pack<float> scale{0.f}, min{0.f};
    simd::pack<std::uint8_t> shift[4];

    TERN_INLINE lane_walk(basic_group_int4 const& weights, index row) : w(weights), n(row), codes(weights.memory(row).data) {}
    template <class Group>
    TERN_INLINE void load(index g, Group& out) {
      if (32 * g < from || 32 * g >= end) enter(32 * g / w.group);
      simd::pack<std::uint8_t> v[4];
      simd::load_rows16(codes + 16 * g, w.codes.stride(0), v);
      simd::split_halves(v, out.u);
      TERN_UNROLL
      for (index r = 0; r < 4; ++r) {
        out.u[0][r] = shifted(out.u[0][r], r);
        out.u[1][r] = shifted(out.u[1][r], r);
      }
      out.scale[0] = scale;
      if constexpr (has_min) out.min[0] = min;
    }

   private:
    void enter(index next) {
      from = next * w.group;
      end = from + w.group;
      scale = parts(w.scale, next);
      if constexpr (has_min) min = parts(w.zero, next);
      if constexpr (kind == group_zero::integer) {
        std::int32_t each[simd::lanes];  // a row a lane, in all of its bytes
        for (index i = 0; i < simd::lanes; ++i) each[i] = (16 - w.zero(n + i, next)) * 0x01010101;
        for (auto& s : shift) s = simd::bit_cast<std::uint8_t>(simd::load(static_cast<std::int32_t const*>(each)));
        simd::transpose_quads(shift);
      }
    }
    /// Column `next` of `lanes` rows of `of`.
    TERN_INLINE simd::pack<float> parts(tensor_view<f16 const, 2> const& of, index next) const {
      auto const* const first = reinterpret_cast<std::uint8_t const*>(of.data() + n * of.stride(0) + next * of.stride(1));
      index const stride = index{sizeof(f16)} * of.stride(0);
      if (next % 32 == 0)  // a line; the next rows' is asked for, which may lie past the end
        for (index i = simd::lanes; i < 2 * simd::lanes; ++i)
          __builtin_prefetch(
              reinterpret_cast<void const*>(reinterpret_cast<std::uintptr_t>(first) + static_cast<std::uintptr_t>(i * stride)), 0, 2);
      return simd::row_places(first, stride).load_f16(0);
    }
    /// Codes and what is added to them stay below 32.
    TERN_INLINE simd::pack<std::uint8_t> shifted(simd::pack<std::uint8_t> u, index r) const {
      if constexpr (kind != group_zero::integer) return u;
      return simd::bit_cast<std::uint8_t>(simd::bit_cast<std::int32_t>(u) + simd::bit_cast<std::int32_t>(shift[r]));
    }
  };
  TERN_INLINE lane_walk walk(index n) const { return {*this, n}; }
  TERN_INLINE row_memory memory(index row) const { return detail::int4_memory(codes, row); }

  /// Rounds w (n, k) into codes (n, k / 2) and scales (n, k / group).
  template <tensor_like W>
  static void encode(cpu_policy const& policy, W&& w, tensor_view<std::uint8_t, 2> const& codes, tensor_view<f16, 2> const& scales)
    requires(kind == group_zero::none)
  {
    encode_rows(policy, tern::view(w), codes, scales, nullptr);
  }
  /// And into zeros (n, k / group).
  template <tensor_like W>
  static void encode(cpu_policy const& policy, W&& w, tensor_view<std::uint8_t, 2> const& codes, tensor_view<f16, 2> const& scales,
                     tensor_view<zero_type, 2> const& zeros)
    requires(kind != group_zero::none)
  {
    encode_rows(policy, tern::view(w), codes, scales, &zeros);
  }

 private:
  basic_group_int4(tensor_view<std::uint8_t const, 2> const& c, tensor_view<f16 const, 2> const& s,
                   tensor_view<zero_type const, 2> const* z)
      : rows(c.extent(0)),
        columns(2 * c.extent(1)),
        group(detail::expect_group_int4<f16, zero_type>("group_int4", rows, columns, c, s, z)),
        codes(c),
        scale(s) {
    if (z != nullptr) zero = *z;
  }

  template <class T>
  static void encode_rows(cpu_policy const& policy, tensor_view<T, 2> const& w, tensor_view<std::uint8_t, 2> const& codes,
                          tensor_view<f16, 2> const& scales, tensor_view<zero_type, 2> const* zeros) {
    tensor_view<zero_type const, 2> const read_zeros = zeros != nullptr ? *zeros : tensor_view<zero_type, 2>();
    index const group = detail::expect_group_int4<f16, zero_type>("group_int4::encode", w.extent(0), w.extent(1), codes, scales,
                                                                  zeros != nullptr ? &read_zeros : nullptr);
    detail::for_each_float_row(policy, w, kind == group_zero::none ? 65504.f * 8.f : 65504.f, [&](index row, float* x, std::uint8_t* q) {
      for (index g = 0; g < scales.extent(1); ++g) {
        detail::int4_group const parts = detail::encode_group<kind>(x + g * group, group, q + g * group);
        scales(row, g) = parts.scale;
        if constexpr (kind == group_zero::integer) (*zeros)(row, g) = parts.zero;
        if constexpr (kind == group_zero::minimum) (*zeros)(row, g) = parts.min;
      }
      detail::pack_int4(q, w.extent(1), codes.data() + row * codes.stride(0));
    });
  }
};

/// s (q - 8).
using group_int4 = basic_group_int4<group_zero::none>;
/// s (q - z) with integers z.
using group_int4_zeros = basic_group_int4<group_zero::integer>;
/// s q + m.
using group_int4_minima = basic_group_int4<group_zero::minimum>;

/// Copies weights whose elements are s (q - z) in groups of a row (gptq_weights, awq_weights) into what group_int4_zeros reads: codes
/// (n, k / 2), scales and zeros (n, k / group). Exact. In stripes of 16 rows, so that each cache line of the source is read once.
template <class From>
void repack(cpu_policy const& policy, From const& from, tensor_view<std::uint8_t, 2> const& codes, tensor_view<f16, 2> const& scales,
            tensor_view<std::uint8_t, 2> const& zeros) {
  tensor_view<std::uint8_t const, 2> const read_zeros = zeros;
  index const group = detail::expect_group_int4<f16, std::uint8_t>("repack", from.rows, from.columns, codes, scales, &read_zeros);
  detail::expect_equal("repack", "scales.extent(1)", scales.extent(1), "the groups in a row of the weights", from.columns / from.group);
  constexpr index stripe = 16;
  detail::parallel_for(policy, (from.rows + stripe - 1) / stripe, [&](index item, index) {
    index const first = item * stripe, last = first + stripe < from.rows ? first + stripe : from.rows;
    for (index g = 0; g < from.columns / 32; ++g)
      for (index row = first; row < last; ++row) {
        std::uint8_t q[32];
        from.codes(row, g, q);
        detail::pack_int4(q, 32, codes.data() + row * codes.stride(0) + 16 * g);
        if (32 * g % group != 0) continue;
        scales(row, 32 * g / group) = from.scale(row, g);
        zeros(row, 32 * g / group) = static_cast<std::uint8_t>(from.zero(row, g));
      }
  });
}

/// The largest of k, 128, 64 and 32 for which group_int4 rounds w (n, k) with a relative error of at most `tolerance`: the square root
/// of the sum of squared errors over that of squares. 32 if none does. Call it for blocks of rows to let each have its own.
template <tensor_like W>
index choose_group_size(cpu_policy const& policy, W&& w, float tolerance) {
  auto const x = tern::view(w);
  detail::expect_int4_columns("choose_group_size", x.extent(1));
  index const columns = x.extent(1);
  index const sizes[] = {columns, 128, 64};
  for (index const group : sizes)
    if (group > 32 && columns % group == 0 && detail::int4_error(policy, x, group) <= static_cast<double>(tolerance)) return group;
  return 32;
}

}  // namespace TERN_ABI
}  // namespace tern
