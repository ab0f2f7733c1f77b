// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/most_similar.hpp
/// For each of some tokens the one among others whose features point most nearly the same way.
///
///     most_similar(policy, metric, sources, targets, best, similarity)
///     most_similar(policy, metric, sources, targets, best, similarity, compute::bf16)      products of another compute type
///
///     best(b, s) = argmax over the targets t of cos(m_s, m_t),     similarity(b, s) = that cosine, s = sources[b][i] in place i
///
/// Shapes    metric (samples, tokens, dim) f32, f16 or bf16, rows contiguous; sources, targets index_lists with a row for each sample;
///           best int32 and similarity f32 (samples, most sources). best holds numbers of tokens.
/// Ties      go to the first target. A cosine that is NaN is that of no target; a source that has none gets its first target, or -1, and
///           -inf. Features of zeros have cosine 0.
/// Composition  dot products are a matmul of up to 512 sources with all targets; scaled by 1 / |m_t| while they are in cache, where the
///           maximum is taken.
/// Threads   samples side by side, or one sample's product on all. The same bits whatever their number.
/// Memory    from the policy, for each sample at a time: a number a token, 512 a target, and what the matmul takes; workspace_size goes by
///           what the lists have room for.
/// Cost      2 sources targets dim flop.
/// Error     |similarity - cos| <= 2^-24 (matmul.accuracy(dim) + 2 sqrt(dim) + 6) with f32, while squares of features are in its range.

#include <tern/matmul/matmul.hpp>
#include <tern/pointwise/argmax.hpp>
#include <tern/tokens/token_map.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// Listed rows of a metric as weights.
template <class T>
struct listed_rows {
  tensor_view<T const, 2> of;
  std::int32_t const* ids;
  index rows, columns = of.extent(1);
  void decode(index row, index k0, index k1, float* out) const {
    convert_row(of.data() + index{ids[row]} * of.stride(0) + k0, out, k1 - k0);
  }
};

/// A list of tokens of one sample.
struct token_list {
  std::int32_t const* ids;
  index count;
};

/// 1 / |x|, and 0 for zeros.
template <class T>
TERN_INLINE float inverse_length(T const* x, index n) {
  float const squares = sum_squares(x, n);
  return squares > 0 ? 1.f / __builtin_sqrtf(squares) : squares == 0 ? 0.f : squares;
}

/// The search in one sample.
struct similarity_search {
  static constexpr index chunk = 512;
  index tokens, sources, targets, dim;  // the most of any sample
  compute mode;

  TERN_INLINE index own_bytes() const {
    index const rows = least(chunk, sources);
    return static_cast<index>(workspace::rounded(static_cast<std::size_t>(tokens + targets + rows * targets) * sizeof(float)));
  }
  template <class T>
  std::size_t bytes(cpu_policy const& policy) const {
    index const rows = least(chunk, sources);
    auto const x = tern::view(static_cast<T const*>(nullptr), rows, dim);
    auto const scores = tern::view(static_cast<float*>(nullptr), rows, targets);
    tensor_view<std::int32_t const, 1> const ids(nullptr, shape<1>{{rows}});
    listed_rows<T> const w{x, nullptr, targets};
    return static_cast<std::size_t>(own_bytes()) +
           workspace::rounded(tern::workspace_size(matmul, policy, x, w, scores, gather{ids}, mode));
  }

  template <class T>
  void run(cpu_policy const& policy, tensor_view<T, 2> const& metric, token_list const& from, token_list const& to, std::byte* memory,
           std::size_t size, std::int32_t* best, float* similarity) const {
    if (from.count == 0) return;
    auto* const inverse = reinterpret_cast<float*>(memory);  // (tokens)
    float* const of_target = inverse + tokens;               // (targets)
    float* const scores = of_target + targets;               // (chunk, targets)
    workspace for_product(memory + own_bytes(), size - static_cast<std::size_t>(own_bytes()));
    for_rows(policy, metric.extent(0), dim,
             [&](index i) TERN_LAMBDA { inverse[i] = inverse_length(metric.data() + i * metric.stride(0), dim); });
    for (index j = 0; j < to.count; ++j) of_target[j] = inverse[to.ids[j]];
    listed_rows<std::remove_const_t<T>> const w{metric, to.ids, to.count};
    for (index first = 0; first < from.count; first += chunk) {
      index const rows = least(chunk, from.count - first);
      tensor_view<std::int32_t const, 1> const ids(from.ids + first, shape<1>{{rows}});
      if (to.count > 0) matmul(policy.with(for_product), metric, w, tern::view(scores, rows, to.count), gather{ids}, mode);
      for_rows(policy, rows, to.count, [&](index r) TERN_LAMBDA {
        float const* const row = scores + r * to.count;
        float value;
        index const at = argmax_packs(
            to.count,
            [&](index j, auto part) TERN_LAMBDA { return load(row + j, part) * load(static_cast<float const*>(of_target) + j, part); },
            value);
        best[first + r] = to.count > 0 ? to.ids[at] : -1;
        similarity[first + r] = value > -__builtin_inff() ? value * inverse[ids[r]] : value;
      });
    }
  }
};

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// most_similar(policy, metric, sources, targets, best, similarity): see the top of this file.
inline constexpr struct most_similar_fn {
  template <tensor_like M>
  void operator()(cpu_policy const& policy, M&& metric, index_lists const& sources, index_lists const& targets,
                  tensor_view<std::int32_t, 2> const& best, tensor_view<float, 2> const& similarity, compute mode = compute::f32) const {
    static_assert(view_of<M>::rank == 3, "tern: most_similar takes a metric (samples, tokens, dim)");
    auto const m = tern::view(metric);
    using element = typename view_of<M>::value_type;
    constexpr char const* op = "most_similar";
    index const samples = m.extent(0), tokens = m.extent(1), dim = m.extent(2);
    detail::expect_rows(op, "metric", m);
    sources.check(op, samples, tokens);
    targets.check(op, samples, tokens);
    index most_sources = 0, most_targets = 0;
    for (index b = 0; b < samples; ++b) {
      most_sources = sources.count(b) > most_sources ? sources.count(b) : most_sources;
      most_targets = targets.count(b) > most_targets ? targets.count(b) : most_targets;
    }
    check_result(op, "best", best, samples, most_sources);
    check_result(op, "similarity", similarity, samples, most_sources);
    detail::similarity_search const search{tokens, most_sources, most_targets, dim, mode};
    std::size_t const all = bytes<element>(policy, search, samples),
                      each = all / static_cast<std::size_t>(detail::slots_for(policy, samples));
    workspace::lease const memory(policy.scratch(), all);
    detail::parallel_for(policy, samples, [&](index b, index slot) {
      search.run(inner(policy, samples), tensor_view<element const, 2>(m[b]), {sources.row(b), sources.count(b)},
                 {targets.row(b), targets.count(b)}, memory.data() + static_cast<std::size_t>(slot) * each, each, &best(b, 0),
                 &similarity(b, 0));
    });
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like M>
  std::size_t workspace_size(cpu_policy const& policy, M&& metric, index_lists const& sources, index_lists const& targets,
                             tensor_view<std::int32_t, 2> const&, tensor_view<float, 2> const&, compute mode = compute::f32) const {
    auto const m = tern::view(metric);
    index const tokens = m.extent(1);
    detail::similarity_search const search{tokens, detail::least(sources.most(), tokens), detail::least(targets.most(), tokens),
                                           m.extent(2), mode};
    return bytes<typename view_of<M>::value_type>(policy, search, m.extent(0));
  }

 private:
  /// A sample's product is all threads' where there is no other sample.
  TERN_INLINE static cpu_policy inner(cpu_policy const& policy, index samples) { return samples > 1 ? policy.on(serial) : policy; }
  template <class T>
  static std::size_t bytes(cpu_policy const& policy, detail::similarity_search const& search, index samples) {
    return static_cast<std::size_t>(detail::slots_for(policy, samples)) *
           workspace::rounded(search.template bytes<T>(inner(policy, samples)));
  }
  template <class T>
  static void check_result(char const* op, char const* name, tensor_view<T, 2> const& v, index samples, index most) {
    detail::expect_equal(op, name, v.extent(0), "the samples", samples);
    detail::expect(v.extent(1) >= most, op, name, v.extent(1), "room for each source");
    detail::expect(v.extent(1) <= 1 || v.stride(1) == 1, op, name, v.stride(1), "a last stride of 1");
  }
} most_similar{};

}  // namespace TERN_ABI
}  // namespace tern
