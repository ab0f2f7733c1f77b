// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file pointwise/select_top.hpp
/// The largest of many scores, found without sorting.
///
///     select_top(scores, k, to)              the indices of the k largest scores, ascending; of equal scores the first
///     select_above(scores, threshold, to)    the indices of the scores above a threshold, ascending
///
/// Both return how many there are, at most what `to` holds. A score of -inf is never selected; NaN counts as the largest. The result
/// follows from the scores alone.
///
/// select_top compares scores as integers that order as they do. A sample of 1024 says between which two of them the k-th largest
/// probably lies; one pass counts what is above and copies what is between, where buckets of a 256th of the range find it; another pass
/// writes the indices. Where the sample was wrong, or too many lie between, the next one is taken within the bounds that were found; at the
/// last, four passes go digit by digit.
/// Memory  36 KiB of stack. Cost: two passes over contiguous scores, as a rule; five over scores with a stride.

#include <tern/core/error.hpp>
#include <tern/core/tensor_view.hpp>
#include <tern/simd/compress.hpp>

#include <bit>
#include <cstdint>
#include <limits>

namespace tern {

namespace detail {

/// An integer that orders as the score does; 0 for -inf, the largest for NaN.
TERN_INLINE std::uint32_t order_of(float x) {
  if (x != x) return 0xff7fffffu;
  auto const bits = std::bit_cast<std::uint32_t>(x + 0.f);  // one zero
  std::uint32_t const order = (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
  return order - 0x007fffffu;  // that of -inf
}

inline namespace TERN_ABI {

/// The same as integers with a sign, which registers compare: order_of(x) is signed_order(x) minus that of -inf. The least and the largest
/// integer are no score's.
TERN_INLINE simd::pack<std::int32_t> signed_order(simd::pack<float> x) {
  using words = simd::pack<std::int32_t>;
  words const low(0x7fffffff), bits = simd::bit_cast<std::int32_t>(x + 0.f);
  return simd::select((bits & low) > words(0x7f800000), words(0x7ffffffe), bits ^ (simd::shift_right<31>(bits) & low));
}
inline constexpr std::int32_t order_of_nothing = -0x7f800001;  // signed_order(-inf)
TERN_INLINE std::int32_t signed_order(float x) {
  return static_cast<std::int32_t>(order_of(x) + static_cast<std::uint32_t>(order_of_nothing));
}

/// A value and how many of those that are equal to it belong to the k largest.
struct ranked_order {
  std::int32_t value;
  index equal;
};

/// The k-th largest (1 <= k <= n) of n values in [low, high], which it changes: those in the k-th's bucket move to the front.
inline ranked_order kth_in(std::int32_t* v, index n, index k, std::int32_t low, std::int32_t high) noexcept {
  while (true) {
    std::uint32_t const range = static_cast<std::uint32_t>(high) - static_cast<std::uint32_t>(low);
    if (range == 0) return {low, k};
    int const width = static_cast<int>(std::bit_width(range)), shift = width > 8 ? width - 8 : 0;
    auto const bucket_of = [&](std::int32_t x)
                               TERN_LAMBDA { return (static_cast<std::uint32_t>(x) - static_cast<std::uint32_t>(low)) >> shift; };
    std::int32_t histogram[256] = {};
    for (index i = 0; i < n; ++i) ++histogram[bucket_of(v[i])];
    std::uint32_t bucket = range >> shift;
    for (; histogram[bucket] < k; --bucket) k -= histogram[bucket];
    index front = 0;
    for (index i = 0; i < n; ++i) {
      std::int32_t const x = v[i];
      v[front] = x;
      front += bucket_of(x) == bucket;
    }
    n = front;
    std::uint32_t const first = static_cast<std::uint32_t>(low) + (bucket << shift), last = first + ((std::uint32_t{1} << shift) - 1);
    if (static_cast<std::uint32_t>(high) - first > last - first) high = static_cast<std::int32_t>(last);
    low = static_cast<std::int32_t>(first);
  }
}

/// Bounds of what is looked for: the rank-th largest of `count` values above `low` and below `high`.
struct order_bounds {
  std::int32_t low = std::numeric_limits<std::int32_t>::min(), high = std::numeric_limits<std::int32_t>::max();
  index count, rank;
};

/// The k-th largest of contiguous scores.
class order_search {
 public:
  TERN_INLINE order_search(float const* x, index n) : x_(x), n_(n) {}

  /// Whether it was found.
  bool find(index k, ranked_order& result) noexcept {
    order_bounds b{.count = n_, .rank = k};
    if (n_ <= room - simd::lanes) {
      for (index i = 0; i < n_; i += simd::lanes) simd::store(between_ + i, signed_order(at(i)));
      result = kth_in(between_, n_, k, b.low, b.high);
      return true;
    }
    for (int round = 0; round < 3; ++round)
      if (narrow(b, result)) return true;
    return false;
  }

 private:
  static constexpr index room = 8192, sample = 1024;

  TERN_INLINE simd::pack<float> at(index i) const { return i + simd::lanes <= n_ ? simd::load(x_ + i) : simd::load_n(x_ + i, n_ - i); }
  /// Values within the bounds from all over the scores.
  TERN_INLINE index take_sample(order_bounds const& b) {
    index const wanted = n_ / b.count * sample < n_ ? n_ / b.count * sample : n_, step = n_ / wanted;
    index size = 0;
    for (index i = step / 2; i < n_ && size < sample; i += step) {
      std::int32_t const v = signed_order(x_[i]);
      sample_[size] = v;
      size += v > b.low && v < b.high;
    }
    return size;
  }
  /// The value of this rank in the sample, from the largest.
  TERN_INLINE std::int32_t of_sample(index size, double rank, order_bounds const& b) {
    for (index i = 0; i < size; ++i) between_[i] = sample_[i];
    return kth_in(between_, size, static_cast<index>(rank), b.low, b.high).value;
  }
  bool narrow(order_bounds& b, ranked_order& result) noexcept {
    index const size = take_sample(b);
    if (size < 64) return false;
    double const share = static_cast<double>(b.rank) / static_cast<double>(b.count), m = static_cast<double>(size);
    double const middle = share * m, reach = 3 * __builtin_sqrt(m * share * (1 - share)) + 2;  // three deviations
    order_bounds const whole = b;
    std::int32_t const high = middle - reach < 1 ? whole.high : of_sample(size, middle - reach, whole);
    std::int32_t const low = middle + reach > m ? whole.low : of_sample(size, middle + reach, whole);
    return count_between(low, high, b, result);
  }
  /// Counts the values around and between `low` and `high` in one pass, which finds the value or better bounds.
  bool count_between(std::int32_t low, std::int32_t high, order_bounds& b, ranked_order& result) noexcept {
    using words = simd::pack<std::int32_t>;
    words const one(1), none(0), lowest(low), highest(high);
    words above(0), at_high(0), at_low(0);
    index between = 0, kept = 0;
    for (index i = 0; i < n_; i += simd::lanes) {
      words v = signed_order(at(i));
      if (i + simd::lanes > n_) v = simd::select(simd::first<std::int32_t>(n_ - i), v, words(std::numeric_limits<std::int32_t>::min()));
      above += simd::select(v > highest, one, none);
      at_high += simd::select(v == highest, one, none);
      at_low += simd::select(v == lowest, one, none);
      auto const inside = (v > lowest) & (v < highest);
      if (!simd::any(inside)) continue;
      index const count = simd::compress_store(between_ + kept, v, inside);
      between += count;
      kept = kept + count <= room - simd::lanes ? kept + count : kept;
    }
    // What is above the bounds of before has been taken off the rank.
    index const more = high < b.high ? simd::reduce_add(above) : above_, equal_high = high < b.high ? simd::reduce_add(at_high) : 0;
    index rank = b.rank - (more - above_);
    if (rank <= 0) return set(b, high, b.high, b.rank, more - above_);
    if (rank <= equal_high) return found(result, high, rank);
    rank -= equal_high;
    if (rank <= between) {
      if (between == kept) {
        result = kth_in(between_, between, rank, low, high);
        return true;
      }
      above_ = more + equal_high;
      return set(b, low, high, rank, between);
    }
    rank -= between;
    index const equal_low = low > b.low ? simd::reduce_add(at_low) : 0;
    if (rank <= equal_low) return found(result, low, rank);
    index const below = b.count - (more - above_) - equal_high - between - equal_low;
    above_ = more + equal_high + between + equal_low;
    return set(b, b.low, low, rank - equal_low, below);
  }
  TERN_INLINE static bool found(ranked_order& result, std::int32_t value, index equal) {
    result = {value, equal};
    return true;
  }
  TERN_INLINE static bool set(order_bounds& b, std::int32_t low, std::int32_t high, index rank, index count) {
    b = {low, high, count, rank};
    return false;
  }

  float const* x_;
  index n_, above_ = 0;  // how many are above the bounds, or at the upper one
  alignas(64) std::int32_t between_[room];
  std::int32_t sample_[sample + 1];
};

/// The order of the k-th largest score, and how many of that order belong to the k largest; 1 <= k <= the number of scores.
struct kth_score {
  std::uint32_t order = 0;
  index equal;

  inline kth_score(tensor_view<float const, 1> const& scores, index k) noexcept : equal(k) {
    if (scores.stride(0) == 1) {
      order_search search(scores.data(), scores.extent(0));
      ranked_order result;
      if (search.find(k, result)) {
        order = static_cast<std::uint32_t>(result.value) - static_cast<std::uint32_t>(order_of_nothing);
        equal = result.equal;
        return;
      }
    }
    by_digits(scores, [](index) TERN_LAMBDA { return index{1}; });
  }
  /// Where score i stands for times(i) equal ones, of which there are at least k together.
  template <class Times>
  TERN_INLINE kth_score(tensor_view<float const, 1> const& scores, index k, Times const& times) : equal(k) {
    by_digits(scores, times);
  }

 private:
  /// Digits of 8 bits.
  template <class Times>
  TERN_INLINE void by_digits(tensor_view<float const, 1> const& scores, Times const& times) {
    for (int shift = 24; shift >= 0; shift -= 8) {
      index histogram[256] = {};
      std::uint32_t const above = shift == 24 ? 0 : ~std::uint32_t{0} << (shift + 8);
      for (index i = 0; i < scores.extent(0); ++i) {
        std::uint32_t const x = order_of(scores[i]);
        if ((x & above) == order) histogram[(x >> shift) & 255u] += times(i);
      }
      std::uint32_t digit = 255;
      for (; digit > 0 && histogram[digit] < equal; --digit) equal -= histogram[digit];
      order |= digit << shift;
    }
  }
};

/// Calls take(i) for ascending i, and writes those i that it chooses to `to`; returns how many there are, at most what `to` holds.
template <class Chosen>
TERN_INLINE index write_chosen(tensor_view<float const, 1> const& scores, tensor_view<std::int32_t, 1> const& to, Chosen const& chosen) {
  using words = simd::pack<std::int32_t>;
  index const n = scores.extent(0), room = to.extent(0);
  index count = 0;
  for (index i = 0; i < n && count < room; i += simd::lanes) {
    float lane[simd::lanes];
    index const some = n - i < simd::lanes ? n - i : simd::lanes;
    bool const whole = some == simd::lanes && scores.stride(0) == 1;
    if (!whole)
      for (index l = 0; l < simd::lanes; ++l) lane[l] = l < some ? scores[i + l] : -std::numeric_limits<float>::infinity();
    auto const m = chosen(whole ? simd::load(scores.data() + i) : simd::load(static_cast<float const*>(lane)));
    if (!simd::any(m)) continue;
    words const ids = simd::iota<std::int32_t>() + words(static_cast<std::int32_t>(i));
    if (to.stride(0) == 1 && count + simd::lanes <= room) {
      count += simd::compress_store(to.data() + count, ids, m);
      continue;
    }
    std::int32_t found[simd::lanes];
    index const here = simd::compress_store(found, ids, m);
    for (index l = 0; l < here && count < room; ++l) to[count++] = found[l];
  }
  return count;
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// The indices of the k largest scores, ascending; returns how many there are. See the top of this file.
inline index select_top(tensor_view<float const, 1> const& scores, index k, tensor_view<std::int32_t, 1> const& to) noexcept {
  using words = simd::pack<std::int32_t>;
  index const n = scores.extent(0);
  k = k < n ? k : n;
  k = k < to.extent(0) ? k : to.extent(0);
  if (k <= 0) return 0;
  detail::kth_score const last(scores, k);
  auto const order = static_cast<std::int32_t>(last.order + static_cast<std::uint32_t>(detail::order_of_nothing));
  words const value(order), below(order - 1);
  index equal = last.order == 0 ? 0 : last.equal;  // -inf is not selected
  return detail::write_chosen(scores, to, [&](simd::pack<float> x) TERN_LAMBDA {
    words const v = detail::signed_order(x);
    auto const from = v > below;
    if (!simd::any(from)) return from;
    auto const above = v > value, at = v == value;
    if (equal == 0 || !simd::any(at)) return above;
    std::int32_t first[simd::lanes];  // the first `equal` of the lanes that are at the value
    simd::store(static_cast<std::int32_t*>(first), simd::select(at, words(1), words(0)));
    for (index l = 0; l < simd::lanes; ++l) {
      first[l] = first[l] != 0 && equal > 0;
      equal -= first[l];
    }
    return above | (simd::load(static_cast<std::int32_t const*>(first)) > words(0));
  });
}

/// The indices of the scores above `threshold`, ascending; returns how many there are. See the top of this file.
inline index select_above(tensor_view<float const, 1> const& scores, float threshold, tensor_view<std::int32_t, 1> const& to) noexcept {
  using words = simd::pack<std::int32_t>;
  words const value(detail::signed_order(threshold)), nothing(detail::order_of_nothing);
  return detail::write_chosen(scores, to, [&](simd::pack<float> x) TERN_LAMBDA {
    words const v = detail::signed_order(x);
    return (v > value) & (v > nothing);
  });
}

}  // namespace TERN_ABI
}  // namespace tern
