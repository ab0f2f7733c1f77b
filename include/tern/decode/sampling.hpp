// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file decode/sampling.hpp
/// Draws the next token from its logits.
///
///     p = softmax(logits / temperature), ranked from the largest, equal ones by index
///     top_k   keeps the first k
///     top_p   keeps, of those, the shortest prefix that has at least this share of their probability, and at least one
///     min_p   keeps, of those, the ones with at least this share of the largest probability
///     token i is drawn with probability p_i / (sum over the kept)
///
/// Shapes   logits (vocabulary), contiguous, f32, f16 or bf16.
/// Special  -infinity is never drawn; +infinity always, the first one. Temperature 0 (or below the smallest normal f32) takes the
///          largest logit, the first of equal ones, and draws no number.
/// Errors   a NaN; no logit above -infinity; options out of range.
/// Draw     one number u in [0, 1) of the generator; the token is the first, by index, where the running sum of kept weights
///          passes u times their total. Weights are f32, 2 units in the last place from exact and relative to the largest;
///          each 256 of them are added in f32, then in f64: a probability is off by at most 2^-17 of itself. Machines
///          with other registers agree on the token unless u or a share lies that close to a border.
/// Cost     one pass over the logits for the largest, one with exponentials for the total; top_k, one more without; top_p without
///          top_k, up to six more. Never a sort. Scratch memory: 4 bytes for 256 logits; with top_k, 12 bytes for each of
///          k + max(k, 256) and a few; with top_p alone 12 bytes a logit.
/// Source   top_p: Holtzman et al., "The Curious Case of Neural Text Degeneration", 2019.

#include <tern/core/random.hpp>
#include <tern/decode/candidates.hpp>

#include <limits>

namespace tern {

/// How the next token is chosen. The defaults draw from the whole distribution.
struct sampling {
  float temperature = 1.f;
  /// 0 stands for all.
  index top_k = 0;
  /// 1 stands for all.
  float top_p = 1.f;
  /// 0 stands for all.
  float min_p = 0.f;
};

namespace detail {
inline namespace TERN_ABI {

/// Logits whose weights are added up in f32.
inline constexpr index mass_block = 256;

TERN_INLINE index mass_blocks(index n) { return (n + mass_block - 1) / mass_block; }

/// The weights of the kept logits from x[i] on, lane by lane; zero for the others.
TERN_INLINE simd::pack<float> kept_weights(simd::pack<float> v, index i, cut const& keep, softmax_weight const& weight) {
  using simd::lanes;
  using pack = simd::pack<float>;
  index const left = keep.last - i;  // lanes up to this one keep equals
  float const last = static_cast<float>(left < -1 ? -1 : (left > lanes ? lanes : left));
  pack const value(keep.value);
  auto const kept = (v > value) | ((v == value) & (simd::iota<float>() <= pack(last)));
  if (!simd::any(kept)) return pack(0.f);
  return simd::select(kept, weight(v), pack(0.f));
}

/// The weights of kept logits in each block, and their total.
template <class T>
inline double add_masses(T const* x, index n, cut const& keep, softmax_weight const& weight, float* masses) noexcept {
  double total = 0;
  for (index b = 0; b < mass_blocks(n); ++b) {
    index const end = (b + 1) * mass_block < n ? (b + 1) * mass_block : n;
    simd::pack<float> sum(0.f);
    each_logits(x, b * mass_block, end, [&](simd::pack<float> v, index i) TERN_LAMBDA { sum += kept_weights(v, i, keep, weight); });
    masses[b] = simd::reduce_add(sum);
    total += static_cast<double>(masses[b]);
  }
  return total;
}

/// The first kept logit where the running sum of weights passes `target`.
template <class T>
inline index find_mass(T const* x, index n, cut const& keep, softmax_weight const& weight, float const* masses, double target) noexcept {
  double sum = 0;
  index block = -1;
  for (index b = 0; b < mass_blocks(n); ++b) {
    if (masses[b] == 0.f) continue;
    if (block >= 0) sum += static_cast<double>(masses[block]);
    block = b;
    if (sum + static_cast<double>(masses[b]) > target) break;
  }
  index found = -1;
  bool passed = false;
  index const end = (block + 1) * mass_block < n ? (block + 1) * mass_block : n;
  each_logits(x, block * mass_block, end, [&](simd::pack<float> v, index i) TERN_LAMBDA {
    float lane[simd::lanes];
    simd::store(lane, kept_weights(v, i, keep, weight));
    for (index l = 0; l < simd::lanes && !passed; ++l) {
      if (lane[l] == 0.f) continue;
      found = i + l;  // stays if rounding leaves the sum below the target
      sum += static_cast<double>(lane[l]);
      passed = sum > target;
    }
  });
  return found;
}

/// The cut after the shortest prefix of n logits that has this share of the whole mass.
template <class T>
inline cut cut_at_share(T const* x, index n, double share, softmax_weight const& weight, candidate* c, float* masses) noexcept {
  constexpr float lowest = -std::numeric_limits<float>::max();
  double const total = add_masses(x, n, cut{}, weight, masses), goal = share * total;
  // All logits that weigh less than (1 - share) total / n have less than 1 - share together, so the prefix ends before them. Half of
  // that leaves room for rounding.
  double const least = 0.5 * (1 - share) * total / static_cast<double>(n);
  float const border = weight.top + static_cast<float>(__builtin_log(least)) / weight.inverse_temperature;
  bracket b{border > lowest ? border : lowest, std::numeric_limits<float>::infinity()};
  if (n > 4096)
    for (int round = 0; round < 3; ++round) b = narrowed(x, n, b, goal, weight);
  double const above = b.high <= weight.top ? add_masses(x, n, cut{b.high, n}, weight, masses) : 0;
  index const count = collect(x, n, b, c);
  weigh(c, count, weight);
  return cut_at_mass(c, count, goal - above);
}

/// What `sampling` keeps of n logits.
template <class T>
inline cut choose_cut(T const* x, index n, sampling const& options, softmax_weight const& weight, candidate* c, float* masses) noexcept {
  cut keep;
  double const share = static_cast<double>(options.top_p);
  if (options.top_k > 0 && options.top_k < n) {
    index const count = collect_top_k(x, n, options.top_k, c);
    keep = last_of(c, count);
    if (options.top_p < 1.f) keep = cut_at_mass(c, count, share * weigh(c, count, weight));
  } else if (options.top_p < 1.f) {
    keep = cut_at_share(x, n, share, weight, c, masses);
  }
  if (options.min_p > 0.f) {
    float const least = weight.top + __builtin_logf(options.min_p) / weight.inverse_temperature;
    if (least > keep.value) keep = {least, n};
  }
  return keep;
}

/// Bytes for the candidates, after those for the masses.
TERN_INLINE std::size_t candidate_bytes(sampling const& options, index n) {
  if (options.top_k > 0 && options.top_k < n) return sizeof(candidate) * static_cast<std::size_t>(top_k_capacity(options.top_k));
  return options.top_p < 1.f ? sizeof(candidate) * static_cast<std::size_t>(n) : 0;
}
TERN_INLINE std::size_t mass_bytes(index n) { return workspace::rounded(sizeof(float) * static_cast<std::size_t>(mass_blocks(n))); }

[[noreturn]] TERN_COLD inline void fail_nan(index at) { (message() << "sample: logits[" << at << "] is NaN, expected a number").fail(); }
[[noreturn]] TERN_COLD inline void fail_sampling(char const* what) { (message() << "sample: " << what).fail(); }

TERN_INLINE void expect_sampling(sampling const& o) {
  if (!(o.temperature >= 0.f)) [[unlikely]]
    fail_sampling("sampling.temperature is negative or NaN, expected at least 0");
  expect(o.top_k >= 0, "sample", "sampling.top_k", o.top_k, "at least 0");
  if (!(o.top_p >= 0.f)) [[unlikely]]
    fail_sampling("sampling.top_p is negative or NaN, expected at least 0");
  if (!(o.min_p >= 0.f && o.min_p <= 1.f)) [[unlikely]]
    fail_sampling("sampling.min_p is outside [0, 1]");
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// `tern::sample(policy, logits, sampling, generator)`, the policy may be left out; returns the token's index. See the top of
/// decode/sampling.hpp.
inline constexpr struct sample_fn {
  template <tensor_like L, random_generator G>
  index operator()(cpu_policy const& policy, L&& logits, sampling const& options, G& generator) const {
    auto const xs = tern::view(logits);  // (vocabulary)
    static_assert(decltype(xs)::rank == 1, "sample: logits has one dimension");
    detail::expect_rows("sample", "logits", xs);
    detail::expect_sampling(options);
    index const n = xs.extent(0);
    detail::expect(n > 0 && n <= std::numeric_limits<std::int32_t>::max(), "sample", "logits.extent(0)", n, "1 to 2^31 - 1");
    auto const* const x = xs.data();
    constexpr float infinity = std::numeric_limits<float>::infinity();

    float const top = detail::largest(x, n);
    if (top != top) detail::fail_nan(detail::first_nan(x));
    if (top == -infinity) detail::fail_sampling("all logits are -infinity, expected at least one that can be drawn");
    if (options.temperature < std::numeric_limits<float>::min() || top == infinity) return detail::first_equal(x, n, top);

    workspace::lease const scratch(policy.scratch(), workspace_size(policy, logits, options, generator));
    float* const masses = reinterpret_cast<float*>(scratch.data());
    auto* const candidates = reinterpret_cast<detail::candidate*>(scratch.data() + detail::mass_bytes(n));
    detail::softmax_weight const weight{top, 1.f / options.temperature};
    detail::cut const keep = detail::choose_cut(x, n, options, weight, candidates, masses);
    double const total = detail::add_masses(x, n, keep, weight, masses);
    return detail::find_mass(x, n, keep, weight, masses, tern::uniform(generator) * total);
  }
  template <tensor_like L, random_generator G>
  index operator()(L&& logits, sampling const& options, G& generator) const {
    return (*this)(cpu, logits, options, generator);
  }

  /// Scratch memory, in bytes.
  template <tensor_like L, class G>
  std::size_t workspace_size(cpu_policy const&, L&& logits, sampling const& options, G&) const {
    index const n = tern::view(logits).extent(0);
    return detail::mass_bytes(n) + workspace::rounded(detail::candidate_bytes(options, n));
  }
} sample{};

}  // namespace TERN_ABI
}  // namespace tern
