// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file decode/candidates.hpp
/// The likeliest tokens, found without sorting. Tokens are ranked by logit, equal ones by index, so that "the first k" and "the
/// shortest prefix with mass p" are single sets; either is described by a `cut`, its last member.

#include <tern/pointwise/rows.hpp>
#include <tern/simd/math.hpp>

#include <cstdint>
#include <limits>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// Keeps logits above `value`, and equal ones up to index `last`. The default keeps all but -infinity.
struct cut {
  float value = -std::numeric_limits<float>::infinity();
  index last = -1;
};

/// Probabilities up to a common factor: e^((x - top) / temperature).
struct softmax_weight {
  float top;
  float inverse_temperature;
  TERN_INLINE simd::pack<float> operator()(simd::pack<float> x) const {
    return simd::exp_nonpositive((x - simd::pack<float>(top)) * simd::pack<float>(inverse_temperature));
  }
};

struct candidate {
  float value;
  std::int32_t at;
  float weight;
};
TERN_INLINE bool before(candidate const& a, candidate const& b) { return a.value > b.value || (a.value == b.value && a.at < b.at); }

/// Calls body(pack, i) for all packs of x; lanes past the end hold -infinity.
template <class T, class Body>
TERN_INLINE void each_logits(T const* x, index begin, index end, Body&& body) {
  each_pack(begin, end,
            [&](index i, auto part) TERN_LAMBDA { body(or_else(load(x + i, part), -std::numeric_limits<float>::infinity(), part), i); });
}

/// Partitions c[lo, hi) (at least two) around one of its members: [lo, first.end) come before it or are it, [second, hi) come after
/// it or are it; at most one lies between.
struct partition_point {
  index first_end;
  index second;
};
inline partition_point partition(candidate* c, index lo, index hi) noexcept {
  candidate const a = c[lo], b = c[lo + (hi - lo) / 2], d = c[hi - 1];
  candidate const pivot = before(a, b) ? (before(b, d) ? b : (before(a, d) ? d : a)) : (before(a, d) ? a : (before(b, d) ? d : b));
  index i = lo, j = hi - 1;
  while (i <= j) {
    while (before(c[i], pivot)) ++i;
    while (before(pivot, c[j])) --j;
    if (i > j) break;
    candidate const t = c[i];
    c[i++] = c[j];
    c[j--] = t;
  }
  return {j + 1, i};
}

/// Moves the first k of n candidates (1 <= k <= n) to the front, in any order.
inline void first_to_front(candidate* c, index n, index k) noexcept {
  index lo = 0, hi = n;
  while (hi - lo > 1) {
    auto const [first_end, second] = partition(c, lo, hi);
    if (k <= first_end)
      hi = first_end;
    else if (k > second)
      lo = second;
    else
      return;
  }
}

/// The last of n candidates (n >= 1).
inline cut last_of(candidate const* c, index n) noexcept {
  candidate worst = c[0];
  for (index i = 1; i < n; ++i)
    if (before(worst, c[i])) worst = c[i];
  return {worst.value, worst.at};
}

/// Space that `collect_top_k` needs: a full buffer is cut back to k.
TERN_INLINE index top_k_capacity(index k) { return k + (k > 256 ? k : 256) + simd::lanes; }

/// Writes the first k of n logits to c, in any order, and returns how many there are: fewer if the others are -infinity.
template <class T>
inline index collect_top_k(T const* x, index n, index k, candidate* c) noexcept {
  index const capacity = top_k_capacity(k);
  index size = 0;
  float threshold = -std::numeric_limits<float>::infinity();
  each_logits(x, 0, n, [&](simd::pack<float> v, index i) TERN_LAMBDA {
    if (!simd::any(v > simd::pack<float>(threshold))) return;
    float lane[simd::lanes];
    simd::store(lane, v);
    for (index l = 0; l < simd::lanes; ++l)
      if (lane[l] > threshold) c[size++] = {lane[l], static_cast<std::int32_t>(i + l), 0.f};
    if (size + simd::lanes > capacity) {
      first_to_front(c, size, k);
      size = k;
      threshold = last_of(c, k).value;  // an equal logit that comes later ranks after it
    }
  });
  if (size > k) {
    first_to_front(c, size, k);
    size = k;
  }
  return size;
}

/// Values between which something lies: low <= v < high.
struct bracket {
  float low;
  float high;
};

/// Writes the logits inside `b` to c and returns how many there are.
template <class T>
inline index collect(T const* x, index n, bracket const& b, candidate* c) noexcept {
  index size = 0;
  each_logits(x, 0, n, [&](simd::pack<float> v, index i) TERN_LAMBDA {
    if (!simd::any((v >= simd::pack<float>(b.low)) & (v < simd::pack<float>(b.high)))) return;
    float lane[simd::lanes];
    simd::store(lane, v);
    for (index l = 0; l < simd::lanes; ++l)
      if (lane[l] >= b.low && lane[l] < b.high) c[size++] = {lane[l], static_cast<std::int32_t>(i + l), 0.f};
  });
  return size;
}

/// Narrows the bracket of the value where the weights, added up from the largest, reach `goal`, to about an eighth: one pass over
/// the logits for seven sums. The bracket stays wider than their rounding could make wrong.
template <class T>
inline bracket narrowed(T const* x, index n, bracket b, double goal, softmax_weight const& weight) noexcept {
  using pack = simd::pack<float>;
  constexpr index steps = 7, block = 256;
  float const top = b.high < weight.top ? b.high : weight.top;
  float at[steps];
  pack sums[steps];
  for (index k = 0; k < steps; ++k) {
    float const t = top + (b.low - top) * static_cast<float>(k + 1) / static_cast<float>(steps + 1);
    at[k] = t > b.low ? t : b.low;
    sums[k] = pack(0.f);
  }
  for (index i = 0; i < n; i += block) {
    pack part[steps];
    for (index k = 0; k < steps; ++k) part[k] = pack(0.f);
    each_logits(x, i, i + block < n ? i + block : n, [&](pack v, index) TERN_LAMBDA {
      if (!simd::any(v >= pack(at[steps - 1]))) return;
      pack const w = weight(v);
      TERN_UNROLL
      for (index k = 0; k < steps; ++k) part[k] += simd::select(v >= pack(at[k]), w, pack(0.f));
    });
    for (index k = 0; k < steps; ++k) sums[k] += part[k];
  }
  double const slack = 0x1p-23 * static_cast<double>(block / simd::lanes + n / block + 8);
  for (index k = 0; k < steps; ++k) {
    double const mass = static_cast<double>(simd::reduce_add(sums[k]));
    if (mass < goal * (1 - slack)) b.high = at[k];
    if (mass > goal * (1 + slack)) {
      b.low = at[k];
      break;
    }
  }
  return b;
}

/// Fills in the weights and returns their sum.
inline double weigh(candidate* c, index n, softmax_weight const& weight) noexcept {
  double sum = 0;
  for (index i = 0; i < n; i += simd::lanes) {
    index const count = n - i < simd::lanes ? n - i : simd::lanes;
    float lane[simd::lanes] = {};
    for (index l = 0; l < count; ++l) lane[l] = c[i + l].value;
    simd::store(lane, weight(simd::load(static_cast<float const*>(lane))));
    for (index l = 0; l < count; ++l) {
      c[i + l].weight = lane[l];
      sum += static_cast<double>(lane[l]);
    }
  }
  return sum;
}

/// The cut after the shortest prefix of n weighed candidates (n >= 1) whose weights add up to `goal`.
inline cut cut_at_mass(candidate* c, index n, double goal) noexcept {
  index lo = 0, hi = n;  // the last of the prefix is among these
  double before_lo = 0;  // what those ahead of `lo` weigh
  while (hi - lo > 1) {
    auto const [first_end, second] = partition(c, lo, hi);
    double sum = before_lo;
    for (index i = lo; i < first_end; ++i) sum += static_cast<double>(c[i].weight);
    if (sum >= goal) {
      hi = first_end;
      continue;
    }
    for (index i = first_end; i < second; ++i) sum += static_cast<double>(c[i].weight);
    if (sum >= goal || second == hi) return {c[second - 1].value, c[second - 1].at};
    before_lo = sum;
    lo = second;
  }
  return {c[lo].value, c[lo].at};
}

/// The largest of n >= 1 logits; NaN if one is NaN.
template <class T>
inline float largest(T const* x, index n) noexcept {
  using pack = simd::pack<float>;
  pack most(-std::numeric_limits<float>::infinity());
  auto numbers = most == most;
  each_logits(x, 0, n, [&](pack v, index) TERN_LAMBDA {
    numbers = numbers & (v == v);
    most = simd::max(v, most);
  });
  return simd::all(numbers) ? simd::reduce_max(most) : std::numeric_limits<float>::quiet_NaN();
}

/// The first of n logits that equals `value`, which one does.
template <class T>
inline index first_equal(T const* x, index n, float value) noexcept {
  index i = 0;
  while (i + simd::lanes <= n && !simd::any(simd::load(x + i) == simd::pack<float>(value))) i += simd::lanes;
  while (static_cast<float>(x[i]) != value) ++i;
  return i;
}
/// The first logit that is NaN, which one is.
template <class T>
TERN_COLD inline index first_nan(T const* x) noexcept {
  index i = 0;
  while (static_cast<float>(x[i]) == static_cast<float>(x[i])) ++i;
  return i;
}

}  // namespace TERN_ABI
}  // namespace detail
}  // namespace tern
