// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/mix_tokens.hpp
/// Every token as a mixture of a few others: the way back from few tokens to many.
///
///     mix_tokens(policy, ids, weights, from, to)        to(b, i) = sum_k weights(b, i, k) from(b, ids(b, i, k))
///
/// Shapes    ids int32, weights f32 (samples, tokens, k), as top_keys and softmax write them; an id of -1 counts nothing; from (samples,
///           others, channels), to (samples, tokens, channels) f32, f16 or bf16 each, rows contiguous.
/// Cost      reads k rows and writes one a token.
/// Error     |to - to*| <= 2^-24 k sum of |weights from|, and the rounding of to's type.

#include <tern/pointwise/rows.hpp>

namespace tern {
inline namespace TERN_ABI {

/// mix_tokens(policy, ids, weights, from, to): see the top of this file.
inline constexpr struct mix_tokens_fn {
  template <tensor_like From, tensor_like To>
  void operator()(cpu_policy const& policy, tensor_view<std::int32_t const, 3> const& ids, tensor_view<float const, 3> const& weights,
                  From&& from, To&& to) const {
    static_assert(view_of<From>::rank == 3 && view_of<To>::rank == 3, "tern: mix_tokens takes tensors (samples, tokens, channels)");
    constexpr char const* op = "mix_tokens";
    auto const x = tern::view(from);
    auto const y = tern::view(to);
    detail::expect_rows(op, "from", x);
    detail::expect_rows(op, "to", y);
    for (int d = 0; d < 3; ++d) detail::expect_extent(op, "weights", weights, d, "ids", ids, d);
    detail::expect_extent(op, "to", y, 0, "ids", ids, 0);
    detail::expect_extent(op, "to", y, 1, "ids", ids, 1);
    detail::expect_extent(op, "from", x, 0, "ids", ids, 0);
    detail::expect_extent(op, "from", x, 2, "to", y, 2);
    index const samples = ids.extent(0), tokens = ids.extent(1), k = ids.extent(2);
    for (index b = 0; b < samples; ++b)
      for (index i = 0; i < tokens; ++i)
        for (index n = 0; n < k; ++n)
          detail::expect(ids(b, i, n) >= -1 && ids(b, i, n) < x.extent(1), op, "an id", index{ids(b, i, n)}, "-1 or a token of from");
    detail::for_rows(policy, samples * tokens, x.extent(2) * (k + 1), [&](index r) TERN_LAMBDA {
      index const b = r / tokens, i = r % tokens;
      detail::each_pack(0, x.extent(2), [&](index c, auto part) TERN_LAMBDA {
        simd::pack<float> sum(0.f);
        for (index n = 0; n < k; ++n)
          if (ids(b, i, n) >= 0) sum = simd::fma(simd::pack<float>(weights(b, i, n)), detail::load(&x(b, ids(b, i, n), 0) + c, part), sum);
        detail::store(&y(b, i, 0) + c, sum, part);
      });
    });
  }
} mix_tokens{};

}  // namespace TERN_ABI
}  // namespace tern
