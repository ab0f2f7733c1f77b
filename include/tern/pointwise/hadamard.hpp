// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file pointwise/hadamard.hpp
/// The orthogonal Hadamard transform of each row, which spreads outliers over all elements:
///
///     y = H x / sqrt(n),   H of +1 and -1 with H H^T = n I
///
///     hadamard(policy, x, y)            n = 2^a, or 2^a (a >= 2) times 3, 5, 7, 9, 11 or 15
///     hadamard(policy, x, y, block)     each `block` elements of a row on their own
///
/// n = 2^a: H(i, j) = (-1)^(number of ones in i and j), symmetric, so that the transform undoes itself. n = 2^a q: the Kronecker
/// product of Paley's matrix of order 4 q with that of 2^(a - 2); `hadamard_inverse` undoes it.
///
/// Shapes  x, y (..., n); rows contiguous, leading dimensions of any strides; y may be x.
/// Types   x f32, f16 or bf16; y f32.
/// Cost    n log2 n additions, n 4 q for the odd part; one pass over memory.
/// Error   |y - y*| <= hadamard.error(n) sqrt(sum x^2).
/// Errors  lengths for which no matrix is known here, blocks that do not divide n.
/// Source  Paley, "On Orthogonal Matrices", 1933; Ashkboos et al., "QuaRot", and "HALO", 2025, for the use (from knowledge).

#include <tern/pointwise/rows.hpp>
#include <tern/simd/shuffle.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// A Hadamard matrix of order 4 q by Paley: with a prime p = 4 q - 1 from the squares modulo p, or with a prime p = 2 q - 1
/// (one more than a multiple of four) from the squares modulo p and a doubling.
class paley_matrix {
 public:
  static constexpr int most = 60;
  int order = 1;

  paley_matrix() { sign_[0][0] = 1; }
  /// odd: 3, 5, 7, 9, 11 or 15.
  explicit paley_matrix(int odd) : order(4 * odd) {
    if (odd == 7 || odd == 9)
      double_conference(2 * odd - 1);
    else
      border(4 * odd - 1);
  }
  TERN_INLINE static bool exists(index odd) { return odd == 3 || odd == 5 || odd == 7 || odd == 9 || odd == 11 || odd == 15; }
  TERN_INLINE float sign(int i, int j) const { return static_cast<float>(sign_[i][j]); }
  TERN_INLINE void transpose() {
    for (int i = 0; i < order; ++i)
      for (int j = 0; j < i; ++j) {
        std::int8_t const s = sign_[i][j];
        sign_[i][j] = sign_[j][i];
        sign_[j][i] = s;
      }
  }

 private:
  std::int8_t sign_[most][most] = {};

  /// 1 for a square modulo p, -1 for none, 0 for 0.
  static int character(int a, int p) {
    if (a % p == 0) return 0;
    for (int s = 1; s <= p / 2; ++s)
      if (s * s % p == (a % p + p) % p) return 1;
    return -1;
  }
  void put(int i, int j, int s) { sign_[i][j] = static_cast<std::int8_t>(s); }
  /// I + S, S the bordered and skew matrix of characters.
  void border(int p) {
    for (int i = 0; i <= p; ++i)
      for (int j = 0; j <= p; ++j) {
        int const s = i == 0 ? 1 : j == 0 ? -1 : character(i - j, p);
        put(i, j, i == j ? 1 : s);
      }
  }
  /// A symmetric conference matrix C, 0 -> (1 -1; -1 -1), 1 -> (1 1; 1 -1).
  void double_conference(int p) {
    for (int i = 0; i <= p; ++i)
      for (int j = 0; j <= p; ++j) {
        int const c = i == j ? 0 : i == 0 || j == 0 ? 1 : character(i - j, p);
        put(2 * i, 2 * j, c == 0 ? 1 : c);
        put(2 * i, 2 * j + 1, c == 0 ? -1 : c);
        put(2 * i + 1, 2 * j, c == 0 ? -1 : c);
        put(2 * i + 1, 2 * j + 1, c == 0 ? -1 : -c);
      }
  }
};

/// x (groups, 2 half): sums and differences of each group's halves.
TERN_INLINE void butterfly(float* x, index n, index half) {
  for (index g = 0; g < n; g += 2 * half)
    each_pack(0, half, [&](index i, auto part) TERN_LAMBDA {
      auto const a = load(x + g + i, part), b = load(x + g + half + i, part);
      store(x + g + i, a + b, part);
      store(x + g + half + i, a - b, part);
    });
}
/// The transforms of each `lanes` elements, for lanes^2 of them, in registers.
TERN_INLINE void butterflies_within(float* x) {
  constexpr index W = simd::lanes;
  simd::pack<float> tile[W];
  TERN_UNROLL
  for (index i = 0; i < W; ++i) tile[i] = simd::load(x + i * W);
  simd::transpose(tile);
  TERN_UNROLL
  for (index half = 1; half < W; half *= 2) {
    TERN_UNROLL
    for (index i = 0; i < W; ++i)
      if ((i & half) == 0) {
        auto const a = tile[i], b = tile[i + half];
        tile[i] = a + b;
        tile[i + half] = a - b;
      }
  }
  simd::transpose(tile);
  TERN_UNROLL
  for (index i = 0; i < W; ++i) simd::store(x + i * W, tile[i]);
}
/// Each n elements, n = 2^a, of `total`, without scale.
inline void walsh_hadamard(float* x, index n, index total) noexcept {
  constexpr index W = simd::lanes;
  index half = n / 2;
  if (n >= W && total % (W * W) == 0) {
    for (; half >= W; half /= 2) butterfly(x, total, half);
    for (index i = 0; i < total; i += W * W) butterflies_within(x + i);
    return;
  }
  for (; half >= 1; half /= 2) butterfly(x, total, half);
}

/// The transform for one length.
class hadamard_plan {
 public:
  /// Fails if no matrix of order n is known here.
  TERN_INLINE explicit hadamard_plan(index n, bool inverse = false) : power_(1), scale_(1.f) {
    index odd = n > 0 ? n : 1;
    while (odd % 2 == 0) {
      odd /= 2;
      power_ *= 2;
    }
    if (odd != 1) {
      expect(paley_matrix::exists(odd) && power_ >= 4, "hadamard", "the length of a row or block", n,
             "a power of two, or one of at least 4 times 3, 5, 7, 9, 11 or 15");
      power_ /= 4;
      paley_ = paley_matrix(static_cast<int>(odd));
      if (inverse) paley_.transpose();
    }
    expect(n > 0, "hadamard", "the length of a row or block", n, "at least 1");
    scale_ = 1.f / __builtin_sqrtf(static_cast<float>(n));
  }
  TERN_INLINE index size() const { return power_ * paley_.order; }
  /// x: `total` elements, a multiple of size().
  TERN_INLINE void operator()(float* x, index total) const {
    walsh_hadamard(x, power_, total);
    if (paley_.order > 1)
      for (index i = 0; i < total; i += size()) mix(x + i);
    each_pack(0, total, [&](index i, auto part) TERN_LAMBDA { store(x + i, load(x + i, part) * simd::pack<float>(scale_), part); });
  }

 private:
  /// x (order, power): Paley's matrix along the first dimension.
  TERN_INLINE void mix(float* x) const {
    each_pack(0, power_, [&](index i, auto part) TERN_LAMBDA {
      simd::pack<float> column[paley_matrix::most];
      for (int j = 0; j < paley_.order; ++j) column[j] = load(x + j * power_ + i, part);
      for (int r = 0; r < paley_.order; ++r) {
        simd::pack<float> sum(0.f);
        for (int j = 0; j < paley_.order; ++j) sum = simd::fma(simd::pack<float>(paley_.sign(r, j)), column[j], sum);
        store(x + r * power_ + i, sum, part);
      }
    });
  }
  index power_;
  float scale_;
  paley_matrix paley_;
};

template <class X, class Y>
TERN_INLINE void hadamard_rows(cpu_policy const& policy, X const& xs, Y const& ys, index block, bool inverse) {
  static_assert(std::is_same_v<typename Y::element_type, float>, "tern: hadamard writes f32");
  row_list const from(xs);
  row_list const to(ys);
  if (from.n == 0 || from.count == 0) return;
  index const each = block > 0 ? block : from.n;
  expect_divisor("hadamard", "block", each, "a divisor of the rows' length", from.n);
  hadamard_plan const plan(each, inverse);
  for_rows(policy, from.count, from.n, [&](index r) TERN_LAMBDA {
    if (static_cast<void const*>(to[r]) != static_cast<void const*>(from[r])) convert_row(from[r], to[r], from.n);
    plan(to[r], from.n);
  });
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// `tern::hadamard(policy, x, y, block = 0)`: see the top of pointwise/hadamard.hpp. y is f32.
inline constexpr struct hadamard_fn {
  template <tensor_like X, tensor_like Y>
  void operator()(cpu_policy const& policy, X&& x, Y&& y, index block = 0) const {
    auto const xs = tern::view(x);  // (..., n)
    auto const ys = tern::view(y);  // (..., n)
    detail::expect_rows("hadamard", "x", xs);
    detail::expect_like("hadamard", "y", ys, "x", xs);
    detail::hadamard_rows(policy, xs, ys, block, false);
  }
  /// Relative to the row's norm: a rounding for each of log2 n levels (4 q terms in the odd part), and the scale's.
  static constexpr double error(index n) {
    double levels = 64;
    for (index i = n; i > 1; i /= 2) levels += 1;
    return levels * 0x1p-24;
  }
} hadamard{};

/// `tern::hadamard_inverse(policy, x, y, block = 0)`: y = H^T x / sqrt(n).
inline constexpr struct hadamard_inverse_fn {
  template <tensor_like X, tensor_like Y>
  void operator()(cpu_policy const& policy, X&& x, Y&& y, index block = 0) const {
    auto const xs = tern::view(x);  // (..., n)
    auto const ys = tern::view(y);  // (..., n)
    detail::expect_rows("hadamard_inverse", "x", xs);
    detail::expect_like("hadamard_inverse", "y", ys, "x", xs);
    detail::hadamard_rows(policy, xs, ys, block, true);
  }
} hadamard_inverse{};

}  // namespace TERN_ABI
}  // namespace tern
