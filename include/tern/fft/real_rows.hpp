// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file fft/real_rows.hpp
/// Real rows of even length n as complex ones of m = n / 2, z_j = x_2j + i x_(2j + 1), whose transforms are untangled:
///
///     y_f = e_f + w o_f,  conj(y_(m - f)) = e_f - w o_f        e_f = (z_f + conj(z_(m - f))) / 2, o_f the same with a minus, over i
///
/// w = e^(-2 pi i f / n); and back. Rows of odd length have imaginary parts of zero, or conjugates, beside them.

#include <tern/fft/fft.hpp>

namespace tern {
inline namespace TERN_ABI {

/// What the real transforms of one length need, made once: see the top of fft/real_fft.hpp.
class real_fft_plan {
 public:
  /// Fails unless n is at least 1.
  inline explicit real_fft_plan(index n) : size_(n), inner_(n > 0 && n % 2 == 0 ? n / 2 : n) {
    if (n % 2 != 0) return;
    roots_ = detail::owned_floats(2 * roots());
    for (index f = 0; f < roots(); ++f) {
      detail::unit const w = detail::turn(-static_cast<double>(f) / static_cast<double>(n));
      roots_.data()[f] = static_cast<float>(w.re);
      roots_.data()[roots() + f] = static_cast<float>(w.im);
    }
  }
  real_fft_plan(real_fft_plan&& other) noexcept = default;
  real_fft_plan& operator=(real_fft_plan&& other) noexcept = default;
  ~real_fft_plan() {}

  TERN_INLINE index size() const { return size_; }
  TERN_INLINE fft_plan const& inner() const { return inner_; }
  /// w for f up to a register beyond n / 4: real and imaginary parts apart.
  TERN_INLINE float const* root_re() const { return roots_.data(); }
  TERN_INLINE float const* root_im() const { return roots_.data() + roots(); }

  /// |y - y*|_2 relative to the norm of all of the spectrum.
  TERN_INLINE double error() const { return inner_.error() + 0x1p-22; }

 private:
  TERN_INLINE index roots() const { return size_ / 4 + 1 + 2 * simd::lanes; }

  index size_;
  fft_plan inner_;
  detail::owned_floats roots_;
};

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {

/// y_f and y_(m - f) of z_f and z_(m - f), or twice the way back, for lanes of f.
TERN_INLINE void untangle(cpack& a, cpack& b, cpack const& w) {
  simd::pack<float> const half(0.5f);
  cpack const e{half * (a.re + b.re), half * (a.im - b.im)}, o{half * (a.im + b.im), half * (b.re - a.re)}, p = o * w;
  a = e + p;
  b = {e.re - p.re, p.im - e.im};
}
TERN_INLINE void tangle(cpack& a, cpack& b, cpack const& w) {
  cpack const e{a.re + b.re, a.im - b.im}, d{a.re - b.re, a.im + b.im}, o = times_conjugate(d, w);
  a = {e.re - o.im, e.im + o.re};
  b = {e.re + o.im, o.re - e.im};
}
TERN_INLINE cpack reversed(cpack const& x) { return {simd::reverse(x.re), simd::reverse(x.im)}; }

/// Numbers f and m - f, 0 < f < m, from one place to another, which may be the same; `meet` is untangle or tangle, of any f of them. A
/// register and its mirror meet; those in the middle share what they have in common.
template <class Meet>
TERN_INLINE void meet_mirrored(real_fft_plan const& plan, points_view const& from, points_view const& to, Meet&& meet) {
  constexpr index W = simd::lanes;
  index const m = plan.size() / 2;
  index f = 1;
  for (index left = m - 1; left >= W; left = m - 2 * f + 1) {
    index const mirror = m - f - W + 1;
    cpack a = load_points(from, f, W), b = reversed(load_points(from, mirror, W));
    meet(a, b, {simd::load(plan.root_re() + f), simd::load(plan.root_im() + f)});
    store_points(to, f, W, a);
    store_points(to, mirror, W, reversed(b));
    f += W;
  }
  index const left = m - 2 * f + 1;
  if (left <= 0) return;
  alignas(64) float part[2 * W], mirror[2 * W] = {};
  store_complex(part, load_points(from, f, left));
  for (index l = 0; l < left; ++l) {
    mirror[l] = part[left - 1 - l];
    mirror[W + l] = part[W + left - 1 - l];
  }
  cpack a = load_complex(part), b = load_complex(mirror);
  meet(a, b, {simd::load(plan.root_re() + f), simd::load(plan.root_im() + f)});
  store_points(to, f, left, a);
}

/// The transform of x's pairs, in y, becomes that of x.
inline void untangle_row(real_fft_plan const& plan, points_view const& y) noexcept {
  index const m = plan.size() / 2;
  float const re = y.at(0)[0], im = y.at(0)[1];
  y.at(0)[0] = re + im;
  y.at(0)[1] = 0.f;
  y.at(m)[0] = re - im;
  y.at(m)[1] = 0.f;
  meet_mirrored(plan, y, y, [](cpack& a, cpack& b, cpack const& w) TERN_LAMBDA { untangle(a, b, w); });
}
/// y as the transform of x's pairs, twice, where x will be.
inline void tangle_row(real_fft_plan const& plan, points_view const& y, points_view const& pairs) noexcept {
  float const first = y.at(0)[0], last = y.at(plan.size() / 2)[0];
  meet_mirrored(plan, y, pairs, [](cpack& a, cpack& b, cpack const& w) TERN_LAMBDA { tangle(a, b, w); });
  pairs.at(0)[0] = first + last;
  pairs.at(0)[pairs.apart] = first - last;
}

/// Rows of even length, in the places of x and y.
inline void transform_even_rows(cpu_policy const& policy, real_fft_plan const& plan, float_rows_view const& x, float_rows_view const& y,
                                bool inverse) {
  fft_shape const& s = plan.inner().shape();
  points_view const pairs{x.data, 2 * x.stride, x.stride}, bins{y.data, y.stride, 1};
  points_call const forward{pairs, bins, x.row_stride, y.row_stride};
  points_call const backward{pairs, pairs, x.row_stride, x.row_stride, -1.f, 1.f / static_cast<float>(plan.size())};
  auto const row = [](points_view v, index step, index r) TERN_LAMBDA {
    v.data += r * step;
    return v;
  };
  transform_all_rows(
      policy, s, inverse ? backward : forward, x.rows, 0,
      [&](points_call const& c, index first, index count, float*) TERN_LAMBDA {
        for (index r = first; inverse && r < first + count; ++r) tangle_row(plan, row(bins, y.row_stride, r), row(pairs, x.row_stride, r));
        return c;
      },
      [&](index first, index count, float*) TERN_LAMBDA {
        for (index r = first; !inverse && r < first + count; ++r) untangle_row(plan, row(bins, y.row_stride, r));
      });
}

/// Rows of odd length, by way of whole complex rows.
inline void transform_odd_rows(cpu_policy const& policy, real_fft_plan const& plan, float_rows_view const& x, float_rows_view const& y,
                               bool inverse) {
  index const n = plan.size();
  transform_all_rows(
      policy, plan.inner().shape(), {{}, {}, 2 * n, 2 * n, inverse ? -1.f : 1.f, inverse ? 1.f / static_cast<float>(n) : 1.f}, x.rows,
      2 * n * plan.inner().shape().together(),
      [&](points_call c, index first, index count, float* memory) TERN_LAMBDA {
        c.x.data = c.y.data = memory;
        for (index i = 0; i < count * n; ++i) {
          index const r = first + i / n, j = i % n, f = 2 * j < n ? j : n - j;
          float const* const bin = y.row(r) + f * y.stride;
          memory[2 * i] = inverse ? bin[0] : x.row(r)[j * x.stride];
          memory[2 * i + 1] = inverse && f > 0 ? (f == j ? bin[1] : -bin[1]) : 0.f;
        }
        return c;
      },
      [&](index first, index count, float* memory) TERN_LAMBDA {
        for (index r = 0; r < count; ++r) {
          float const* const from = memory + 2 * r * n;
          if (inverse)
            for (index j = 0; j < n; ++j) x.row(first + r)[j * x.stride] = from[2 * j];
          else
            for (index j = 0; j < 2 * y.n; ++j) y.row(first + r)[j / 2 * y.stride + j % 2] = from[j];
        }
      });
}

/// x (rows, n), y (rows, n / 2 + 1): from x to y, or back.
inline void transform_real_rows(cpu_policy const& policy, real_fft_plan const& plan, float_rows_view const& x, float_rows_view const& y,
                                bool inverse) {
  if (plan.size() % 2 == 0)
    transform_even_rows(policy, plan, x, y, inverse);
  else
    transform_odd_rows(policy, plan, x, y, inverse);
}
TERN_INLINE std::size_t real_bytes(cpu_policy const& policy, index n, index rows) {
  bool const even = n > 0 && n % 2 == 0;
  fft_shape const s = shape_fft(even ? n / 2 : n);
  return rows_bytes(policy, s, rows, even ? 0 : 2 * n * s.together());
}

}  // namespace TERN_ABI
}  // namespace detail
}  // namespace tern
