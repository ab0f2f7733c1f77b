// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/kernelized_rpe.hpp
/// Kernelized attention with relative positional encoding: the weights of a linear attention times a factor for each distance, which is
/// a convolution along the sequence for each pair of a feature and a value.
///
///     out_i = sum over j of e^b_(j - i) (phi(q_i) . phi(k_j)) v_j / sum over j of e^b_(j - i) (phi(q_i) . phi(k_j))
///
///     kernelized_rpe(policy, q, k, v, b, out, positive_random_features{w})             every key
///     kernelized_rpe(policy, q, k, v, b, out, elu_features{}, causal{})                keys up to the query's own, j <= i
///
/// The sums over j are, for a feature f and a value d, phi_f(q) .* (e^b conv (phi_f(k) .* v_d)): a long_conv with both gates, and ones
/// as one more value for the denominator.
///
///     positive_random_features{w}    phi(x) = e^(w x / |x|), w (m, dim): rows drawn from a normal distribution once. Factors that all
///                                    tokens share, such as e^(-1/2) / sqrt(m), cancel
///     elu_features{}                 phi(x) = elu(x) + 1: x + 1 above 0, e^x below; m = dim
///
/// Features of one's own are a type with count(dim), how many, and write(policy, x, phi): x (tokens, dim), phi (count, tokens).
///
/// Shapes  q, k (heads, n, dim), v, out (heads, n, dim_v), b (heads, 2 n - 1): the distance j - i at j - i + n - 1; a causal call reads the
///         first n of a row. f32; rows of k and w are contiguous. out may be v, q or k.
/// Errors  extents that do not fit; a causal mask with an offset.
/// Special a row of b is finite or -inf, and not all of it -inf. Its largest number is subtracted, which cancels.
/// Memory  scratch from the policy: (2 m + 3 dim_v + 5) n floats, and what matmul and long_conv take.
/// Cost    heads m (dim_v + 1) long convolutions of n samples with n or 2 n - 1 taps: n log n, but 2 m (dim_v + 1) transforms. With m = 32
///         and dim_v = 64, causal, the direct sum of n^2 / 2 (m + dim_v) multiply-adds by matmul takes 0.7 times as long at 1024 tokens,
///         1.8 times at 4096, 9 times at 16384 (AVX-512, one thread).
/// Error   of each of the m dim_v convolutions that of long_conv, relative to |phi_f(k) v_d|_2 |e^b|_2: keys that are damped by e^b far
///         below the largest factor are blurred.
/// Source  Luo et al., "Stable, Fast and Accurate: Kernelized Attention with Relative Positional Encoding", NeurIPS 2021: its abstract, and
///         for normalized queries and keys its formula from knowledge; Katharopoulos et al. 2020 for elu + 1.

#include <tern/attention/mask.hpp>
#include <tern/conv/long_conv.hpp>
#include <tern/matmul/matmul.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// An epilogue: y(r, i) = e^(y(r, i) factors[i]).
struct exp_of_columns {
  float const* factors;
  TERN_INLINE void check(index, index) const {}
  void finish(float* y, index, index n0, index n1) const {
    each_pack(0, n1 - n0,
              [&](index i, auto part) TERN_LAMBDA { store(y + i, simd::exp(load(y + i, part) * load(factors + n0 + i, part)), part); });
  }
};

/// Rows of n floats, one of the two factors of each a number for the whole matrix.
TERN_INLINE tensor_view<float const, 3> repeated_row(float const* row, index times, index n) {
  return {row, shape<3>{{times, 1, n}}, shape<3>{{0, 0, 1}}};
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// e^(w x / |x|): see the top of attention/systems/kernelized_rpe.hpp.
struct positive_random_features {
  tensor_view<float const, 2> w;  // (m, dim)
  template <tensor_like W>
  TERN_INLINE explicit positive_random_features(W&& weights) : w(tern::view(weights)) {}

  TERN_INLINE index count(index dim) const {
    detail::expect_equal("kernelized_rpe", "w.extent(1)", w.extent(1), "q.extent(2)", dim);
    return w.extent(0);
  }
  inline void write(cpu_policy const& policy, tensor_view<float const, 2> const& x, tensor_view<float, 2> const& phi) const {
    index const n = x.extent(0), dim = x.extent(1);
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(n) * sizeof(float));
    auto* const factors = reinterpret_cast<float*>(memory.data());
    detail::for_rows(policy, n, dim, [&](index i) TERN_LAMBDA {
      double sum = 0;
      for (index d = 0; d < dim; ++d) sum += static_cast<double>(x(i, d)) * static_cast<double>(x(i, d));
      factors[i] = sum > 0 ? static_cast<float>(1 / __builtin_sqrt(sum)) : 0.f;
    });
    matmul(policy, w, x, phi, detail::exp_of_columns{factors});
  }
};

/// elu(x) + 1: see the top of attention/systems/kernelized_rpe.hpp.
struct elu_features {
  TERN_INLINE index count(index dim) const { return dim; }
  inline void write(cpu_policy const& policy, tensor_view<float const, 2> const& x, tensor_view<float, 2> const& phi) const {
    index const n = x.extent(0);
    detail::for_rows(policy, phi.extent(0), n, [&](index d) TERN_LAMBDA {
      float* const row = &phi(d, 0);
      for (index i = 0; i < n; ++i) row[i] = x(i, d);
      detail::each_pack(0, n, [&](index i, auto part) TERN_LAMBDA {
        simd::pack<float> const z = detail::load(row + i, part), zero(0.f);
        detail::store(row + i, simd::select(z < zero, simd::exp(z), z + simd::pack<float>(1.f)), part);
      });
    });
  }
};

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {

/// What one head needs, in memory of its caller's: see `floats`.
struct rpe_head {
  index n, m, rows;  // tokens, features, values and one
  float *factors, *phi_q, *phi_k, *values, *part, *sums;

  TERN_INLINE static index floats(index n, index m, index rows) { return 2 * n + 2 * m * n + 3 * rows * n; }
  TERN_INLINE rpe_head(index tokens, index features, index count, float* memory)
      : n(tokens),
        m(features),
        rows(count),
        factors(memory),
        phi_q(memory + 2 * n),
        phi_k(phi_q + m * n),
        values(phi_k + m * n),
        part(values + rows * n),
        sums(part + rows * n) {}

  /// e^(b - its largest number) from the last distance to the first: tap t is that of the key t places before the query's last one.
  inline void set_factors(tensor_view<float const, 1> const& b, index taps) const noexcept {
    float most = b[0];
    for (index t = 1; t < taps; ++t) most = b[t] > most ? b[t] : most;
    for (index t = 0; t < taps; ++t) factors[t] = b[taps - 1 - t] - most;
    each_pack(0, taps, [&](index i, auto part_of) TERN_LAMBDA { store(factors + i, simd::exp(load(factors + i, part_of)), part_of); });
  }
  /// Values by rows, and a row of ones.
  inline void set_values(cpu_policy const& policy, tensor_view<float const, 2> const& v) const {
    for_rows(policy, rows, n, [&](index d) TERN_LAMBDA {
      for (index i = 0; i < n; ++i) values[d * n + i] = d < rows - 1 ? v(i, d) : 1.f;
    });
  }
  /// The sums over keys of all features.
  inline void add_features(cpu_policy const& policy, index taps, long_mode mode) const {
    tensor_view<float const, 3> const u(values, shape<3>{{rows, 1, n}});
    auto const total = tern::view(sums, rows, n), one = tern::view(part, rows, n);
    for (index f = 0; f < m; ++f) {
      long_conv(policy, u, tern::view(static_cast<float const*>(factors), 1, taps), tern::view(f == 0 ? sums : part, rows, 1, n), mode,
                gate_in{repeated_row(phi_k + f * n, rows, n)}, gate_out{repeated_row(phi_q + f * n, rows, n)});
      if (f == 0) continue;
      for_pieces(policy, rows, n, [&](index r, index begin, index end) TERN_LAMBDA {
        each_pack(begin, end, [&](index i, auto part_of) TERN_LAMBDA {
          store(&total(r, i), load(&total(r, i), part_of) + load(&one(r, i), part_of), part_of);
        });
      });
    }
  }
  inline void divide(cpu_policy const& policy, tensor_view<float, 2> const& out) const {
    for_rows(policy, n, rows, [&](index i) TERN_LAMBDA {
      for (index d = 0; d < rows - 1; ++d) out(i, d) = sums[d * n + i] / sums[(rows - 1) * n + i];
    });
  }
};

TERN_INLINE void check_rpe(tensor_view<float const, 3> const& q, tensor_view<float const, 3> const& k, tensor_view<float const, 3> const& v,
                           tensor_view<float const, 2> const& b, tensor_view<float, 3> const& out) {
  constexpr char const* op = "kernelized_rpe";
  expect_like(op, "k", k, "q", q);
  for (int d = 0; d < 2; ++d) expect_extent(op, "v", v, d, "q", q, d);
  for (int d = 0; d < 3; ++d) expect_extent(op, "out", out, d, "v", v, d);
  expect_extent(op, "b", b, 0, "q", q, 0);
  if (q.extent(1) > 0) expect_equal(op, "b.extent(1)", b.extent(1), "2 q.extent(1) - 1", 2 * q.extent(1) - 1);
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// kernelized_rpe(policy, q, k, v, b, out, features[, causal{}]): see the top of this file.
inline constexpr struct kernelized_rpe_fn {
  template <class Features>
  void operator()(cpu_policy const& policy, tensor_view<float const, 3> const& q, tensor_view<float const, 3> const& k,
                  tensor_view<float const, 3> const& v, tensor_view<float const, 2> const& b, tensor_view<float, 3> const& out,
                  Features const& features) const {
    run(policy, q, k, v, b, out, features, long_mode::same);
  }
  template <class Features>
  void operator()(cpu_policy const& policy, tensor_view<float const, 3> const& q, tensor_view<float const, 3> const& k,
                  tensor_view<float const, 3> const& v, tensor_view<float const, 2> const& b, tensor_view<float, 3> const& out,
                  Features const& features, causal const& mask) const {
    detail::expect(mask.offset == causal{}.offset || mask.offset == 0, "kernelized_rpe", "the offset of causal", mask.offset, "none");
    run(policy, q, k, v, b, out, features, long_mode::causal);
  }

 private:
  template <class Features>
  static void run(cpu_policy const& policy, tensor_view<float const, 3> const& q, tensor_view<float const, 3> const& k,
                  tensor_view<float const, 3> const& v, tensor_view<float const, 2> const& b, tensor_view<float, 3> const& out,
                  Features const& features, long_mode mode) {
    detail::check_rpe(q, k, v, b, out);
    index const n = q.extent(1), m = features.count(q.extent(2)), rows = v.extent(2) + 1;
    if (out.size() == 0) return;
    detail::expect(m > 0, "kernelized_rpe", "the number of features", m, "at least 1");
    index const taps = mode == long_mode::causal ? n : 2 * n - 1;
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(detail::rpe_head::floats(n, m, rows)) * sizeof(float));
    detail::rpe_head const head(n, m, rows, reinterpret_cast<float*>(memory.data()));
    for (index h = 0; h < q.extent(0); ++h) {
      head.set_factors(b[h], taps);
      head.set_values(policy, v[h]);
      features.write(policy, q[h], tern::view(head.phi_q, m, n));
      features.write(policy, k[h], tern::view(head.phi_k, m, n));
      head.add_features(policy, taps, mode);
      head.divide(policy, out[h]);
    }
  }
} kernelized_rpe{};

}  // namespace TERN_ABI
}  // namespace tern
