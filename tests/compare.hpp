// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/compare.hpp
/// What every test leans on: a comparator against the float64 oracle, buffers that notice a stray write, seeded inputs, and
/// the lengths worth trying. All of it is tested by compare_test.cpp.
///
///     rng r(7);                                    // the seed appears in each failure message
///     auto x = r.normal<f16>(n);                      // std::vector<f16>
///     guarded<float> out(n, 1);                       // misaligned by one element, full of NaN, canaries around
///     ...run the kernel...
///     CHECK(compare(out.span(), want, magnitude, tolerance));
///     CHECK(out.intact());

#include <tern/core/float16.hpp>
#include <tern/core/tensor_view.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <ostream>
#include <span>
#include <sstream>
#include <string>
#include <vector>

namespace tern::test {

/// The seed of the latest `rng`, for failure messages.
inline std::uint64_t current_seed = 0;

/// The outcome of a comparison: true, or the first bad element and how many there are.
struct comparison {
  bool equal = true;
  std::string message = "equal";
  explicit operator bool() const { return equal; }
  friend std::ostream& operator<<(std::ostream& os, comparison const& c) { return os << c.message; }
};

/// The least number of eight binary digits, as bf16 has, that is not below x.
inline double rounded_up_to_bf16(double x) {
  int exponent;
  double const digits = std::frexp(x, &exponent);
  return std::ldexp(std::ceil(std::ldexp(digits, 8)), exponent - 8);
}

namespace detail {

/// Half a unit in the last place of a stored result, relative and at the bottom of the range. f32 has none: its rounding is
/// part of the kernel's stated tolerance.
template <class T>
constexpr double storage_rounding = 0;
template <>
inline constexpr double storage_rounding<f16> = 0x1p-11;
template <>
inline constexpr double storage_rounding<bf16> = 0x1p-8;
template <class T>
constexpr double storage_least = 0;
template <>
inline constexpr double storage_least<f16> = 0x1p-25;
template <>
inline constexpr double storage_least<bf16> = 0x1p-134;

/// Whether one element is right. Written so that a NaN anywhere is wrong, unless NaN is what is wanted.
template <class T>
bool close(T stored, double want, double magnitude, double tolerance) {
  double const got = static_cast<double>(stored);
  if (std::isnan(want)) return std::isnan(got);
  if (std::isinf(want)) return got == want;
  double const bound = tolerance * magnitude + storage_rounding<T> * std::abs(want) + storage_least<T>;
  return std::isfinite(got) && std::abs(got - want) <= bound;
}

/// Calls f(element) in row-major order of indices, whatever the strides.
template <class T, int Rank, class F>
void each(tensor_view<T, Rank> const& v, F&& f) {
  for (index i = 0; i < v.extent(0); ++i) {
    if constexpr (Rank == 1)
      f(v[i]);
    else
      each(v[i], f);
  }
}

}  // namespace detail

/// Whether |got - want| <= tolerance * magnitude for every element. `want` and `magnitude` are dense, in row-major order of
/// got's indices. The magnitude is what errors are relative to: the sum of absolute values of what was added up, for one.
/// Storing an f16 or bf16 may add half a unit in the last place. A wanted infinity or NaN must be met exactly.
template <tensor_like Got>
comparison compare(Got const& got, std::span<double const> want, std::span<double const> magnitude, double tolerance) {
  auto const v = tern::view(got);
  std::ostringstream text;
  text.precision(9);
  if (v.size() != static_cast<index>(want.size()) || want.size() != magnitude.size()) {
    text << "got " << v.size() << " elements, wanted " << want.size() << ", magnitudes " << magnitude.size();
    return {false, text.str()};
  }
  std::size_t at = 0, first = 0, bad = 0;
  double first_got = 0, worst = 0;
  detail::each(v, [&](auto const& element) {
    double const g = static_cast<double>(element);
    if (!detail::close(element, want[at], magnitude[at], tolerance)) {
      if (bad++ == 0) {
        first = at;
        first_got = g;
      }
    }
    double const ratio = std::abs(g - want[at]) / (tolerance * magnitude[at]);
    if (ratio > worst) worst = ratio;
    ++at;
  });
  if (bad == 0) return {};
  text << bad << " of " << at << " elements are wrong, first [" << first << "]: got " << first_got << ", want " << want[first] << ", error "
       << std::abs(first_got - want[first]) << ", allowed " << tolerance << " * " << magnitude[first] << "; worst error is " << worst
       << " of what is allowed; seed " << current_seed;
  return {false, text.str()};
}
template <class T>
comparison compare(T const* got, double const* want, double const* magnitude, index n, double tolerance) {
  auto const count = static_cast<std::size_t>(n);
  return compare(std::span<T const>(got, count), std::span<double const>(want, count), std::span<double const>(magnitude, count),
                 tolerance);
}

/// The value that fills memory nobody may read or should have overwritten: a NaN of our own, or an unlikely integer.
template <class T>
T poison() {
  if constexpr (std::is_same_v<T, float>)
    return std::bit_cast<float>(0x7fc5a5a5u);
  else if constexpr (std::is_same_v<T, double>)
    return std::bit_cast<double>(std::uint64_t{0x7ff8a5a5a5a5a5a5u});
  else if constexpr (std::is_same_v<T, f16>)
    return f16::from_bits(0x7e5a);
  else if constexpr (std::is_same_v<T, bf16>)
    return bf16::from_bits(0x7fe5);
  else
    return static_cast<T>(0xa5a5a5a5a5a5a5a5u);
}

/// A buffer of n elements between two canaries, poisoned throughout, whose first element is `misalignment` elements away from
/// a multiple of 64 bytes.
template <class T>
class guarded {
 public:
  explicit guarded(index n, index misalignment = 0)
      : n_(static_cast<std::size_t>(n)), front_(canary + static_cast<std::size_t>(misalignment)), total_(front_ + n_ + canary) {
    memory_ = static_cast<T*>(::operator new(total_ * sizeof(T), std::align_val_t{64}));
    for (std::size_t i = 0; i < total_; ++i) memory_[i] = poison<T>();
  }
  guarded(std::vector<T> const& values, index misalignment = 0) : guarded(static_cast<index>(values.size()), misalignment) {
    for (std::size_t i = 0; i < n_; ++i) data()[i] = values[i];
  }
  guarded(guarded const&) = delete;
  guarded& operator=(guarded const&) = delete;
  ~guarded() { ::operator delete(memory_, std::align_val_t{64}); }

  T* data() { return memory_ + front_; }
  T const* data() const { return memory_ + front_; }
  std::size_t size() const { return n_; }
  std::span<T> span() { return {data(), n_}; }
  T& operator[](index i) { return data()[i]; }

  /// Whether both canaries still live.
  bool intact() const {
    for (std::size_t i = 0; i < total_; ++i)
      if ((i < front_ || i >= front_ + n_) && !poisoned(memory_[i])) return false;
    return true;
  }
  /// Whether, besides, nothing was written between the elements of `v`, a view into this buffer: the gaps that strides leave.
  template <class U, int Rank>
  bool untouched_outside(tensor_view<U, Rank> const& v) const {
    std::vector<char> inside(n_, 0);
    detail::each(v, [&](auto const& element) { inside[static_cast<std::size_t>(&element - data())] = 1; });
    for (std::size_t i = 0; i < n_; ++i)
      if (!inside[i] && !poisoned(data()[i])) return false;
    return intact();
  }

 private:
  static constexpr std::size_t canary = 128;  // elements: at least 64 bytes of any type, so the alignment stays
  static bool poisoned(T const& x) {
    T const p = poison<T>();
    return std::memcmp(&x, &p, sizeof(T)) == 0;
  }
  std::size_t n_, front_, total_;
  T* memory_;
};

/// Repeatable random numbers (SplitMix64).
class rng {
 public:
  explicit rng(std::uint64_t seed) : state_(seed) { current_seed = seed; }

  std::uint64_t bits() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  /// In [0, 1).
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }
  /// In [low, high].
  index integer(index low, index high) { return low + static_cast<index>(bits() % static_cast<std::uint64_t>(high - low + 1)); }
  /// Mean 0, deviation 1 (Box-Muller).
  double normal() {
    double const u = 1 - uniform(), v = uniform();
    return std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v);
  }
  /// n normal numbers times `scale`, rounded to T.
  template <class T = float>
  std::vector<T> normal(index n, double scale = 1) {
    std::vector<T> x(static_cast<std::size_t>(n));
    fill(std::span<T>(x), scale);
    return x;
  }
  template <class T>
  void fill(std::span<T> x, double scale = 1) {
    for (T& e : x) e = static_cast<T>(static_cast<float>(scale * normal()));
  }

 private:
  std::uint64_t state_;
};

/// The stored values as the oracle takes them.
template <class T>
std::vector<double> widened(std::span<T> x) {
  std::vector<double> y;
  y.reserve(x.size());
  for (auto const& e : x) y.push_back(static_cast<double>(e));
  return y;
}
template <class T>
std::vector<double> widened(std::vector<T> const& x) {
  return widened(std::span<T const>(x));
}

/// Lengths where loops over vectors of `lanes` elements go wrong.
inline std::vector<index> lengths_around(index lanes) {
  std::vector<index> all = {0, 1, lanes - 1, lanes, lanes + 1, 4 * lanes / 3, 2 * lanes - 1, 3 * lanes, 8 * lanes + 2}, distinct;
  for (index n : all) {
    bool seen = false;
    for (index m : distinct) seen = seen || m == n;
    if (!seen) distinct.push_back(n);
  }
  return distinct;
}
/// Misalignments in elements: none, one, a quarter of a vector.
inline std::vector<index> misalignments(index lanes) { return lanes > 4 ? std::vector<index>{0, 1, lanes / 4} : std::vector<index>{0, 1}; }

}  // namespace tern::test
