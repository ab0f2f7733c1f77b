// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/tcnca.hpp
/// TCNCA, a temporal convolution network with chunked attention: a stack of dilated causal convolutions carries what is far away, and
/// softmax attention looks within chunks of the text.
///
///     y_l[t, c] = sum over j < width of w_l[j, c] y_(l - 1)[t - (width - 1 - j) growth^l, c],   y_(-1) = x,  l = 0, 1, ...
///     out_i = softmax over the keys j <= i of i's chunk of (q_i . k_j / sqrt(dim)) v_j
///
///     tcnca_convolve(policy, x, w, growth, y)                          a function of registers (act::*, each) may follow: of each layer
///     tcnca_convolve(policy, x, w, growth, y, tcnca_state{s, first})   the next tokens of a sequence: one, or any number
///     tcnca_attention(policy, q, k, v, out, chunk, options...)         attention's options
///     tcnca_attention(policy, q, k, v, out, chunk, position)           one query at `position`, keys from its chunk's first on to its own
///
/// Shapes  x, y (batch, length, C), w (layers, width, C): f32, channels contiguous; w[l, width - 1] meets the token itself. s (batch,
///         tcnca_rows(layers, width, growth), C), first (layers): the layers' rings of inputs, all zeros before a sequence begins. q, k, v,
///         out as in attention, with as many keys as tokens; of a step q and out have one token, k and v position % chunk + 1.
/// Bits    a sequence in pieces gives the same as in one.
/// Memory  tcnca_convolve: scratch from the policy for one tensor like y.
/// Cost    2 layers width flop an element, and a pass over memory a layer. Four layers of 17 taps that see all of n tokens, of 64 channels,
///         take 1.15 times as long as a long_conv of n taps at n = 8192, 0.89 times at 32768, 0.93 times at 131072 (AVX-512, one thread):
///         far from the paper's ratios on GPUs, as long_conv keeps within the cache. heads tokens chunk / 2 pairs of attention.
/// Source  Terzic et al., "TCNCA", 2023, arXiv:2312.05605, abstract, for the parts; width 17 and one kernel a channel are from knowledge.

#include <tern/attention/attention.hpp>
#include <tern/attention/even_groups.hpp>
#include <tern/conv/causal_conv.hpp>

namespace tern {
inline namespace TERN_ABI {

/// The rows of all layers' rings.
TERN_INLINE constexpr index tcnca_rows(index layers, index width, index growth) {
  index rows = 0;
  for (index l = 0, apart = 1; l < layers; ++l, apart *= growth) rows += (width - 1) * apart;
  return rows;
}

/// The inputs of all layers before a piece of a sequence: see the top of this file.
struct tcnca_state {
  tensor_view<float, 3> values;  // (batch, tcnca_rows(layers, width, growth), C)
  tensor_view<index, 1> first;   // (layers): each ring's oldest row
};

/// tcnca_convolve(policy, x, w, growth, y[, state][, function]): see the top of this file.
inline constexpr struct tcnca_convolve_fn {
  template <detail::causal_option... Functions>
  void operator()(cpu_policy const& policy, tensor_view<float const, 3> const& x, tensor_view<float const, 3> const& w, index growth,
                  tensor_view<float, 3> const& y, Functions const&... functions) const {
    run(policy, x, w, growth, y, nullptr, functions...);
  }
  template <detail::causal_option... Functions>
  void operator()(cpu_policy const& policy, tensor_view<float const, 3> const& x, tensor_view<float const, 3> const& w, index growth,
                  tensor_view<float, 3> const& y, tcnca_state const& state, Functions const&... functions) const {
    constexpr char const* op = "tcnca_convolve";
    check_growth(w.extent(0), growth);
    detail::expect_equal(op, "state.first.extent(0)", state.first.extent(0), "w's layers", w.extent(0));
    index const rows = tcnca_rows(w.extent(0), w.extent(1), growth);
    detail::expect_equal(op, "state.values.extent(1)", state.values.extent(1), "tcnca_rows(layers, width, growth)", rows);
    for (index l = 0, apart = 1; l < w.extent(0); ++l, apart *= growth)  // all of them before the first ring moves on
      if (index const at = state.first[l]; at != 0)
        detail::expect(at > 0 && at < (w.extent(1) - 1) * apart, op, "an element of state.first", at, "a row of its ring");
    run(policy, x, w, growth, y, &state, functions...);
  }

 private:
  TERN_INLINE static void check_growth(index layers, index growth) {
    constexpr char const* op = "tcnca_convolve";
    detail::expect(growth >= 1, op, "growth", growth, "at least 1");
    for (index l = 1, apart = 1; l < layers; ++l, apart *= growth)
      detail::expect(apart <= detail::most_causal_dilation / growth, op, "growth", growth, "a dilation of at most 2^31 in every layer");
  }
  template <class... Functions>
  static void run(cpu_policy const& policy, tensor_view<float const, 3> const& x, tensor_view<float const, 3> const& w, index growth,
                  tensor_view<float, 3> const& y, tcnca_state const* state, Functions const&... functions) {
    static_assert((detail::register_function<Functions> && ...), "tern: tcnca_convolve takes functions of registers (act::*)");
    constexpr char const* op = "tcnca_convolve";
    index const layers = w.extent(0);
    detail::expect(layers >= 1, op, "w.extent(0)", layers, "at least 1");
    check_growth(layers, growth);
    detail::expect_like(op, "y", y, "x", x);
    detail::expect_own_memory(op, "y", y, "x", x);
    workspace::lease const memory(policy.scratch(), layers > 1 ? static_cast<std::size_t>(y.size()) * sizeof(float) : 0);
    tensor_view<float, 3> const other(reinterpret_cast<float*>(memory.data()), shape<3>{{y.extent(0), y.extent(1), y.extent(2)}});
    tensor_view<float const, 3> from = x;
    for (index l = 0, apart = 1, row = 0; l < layers; ++l, apart *= growth) {
      tensor_view<float, 3> const& to = (layers - l) % 2 != 0 ? y : other;  // the last one is y
      index const end = row + (w.extent(1) - 1) * apart;
      if (state != nullptr)
        causal_conv(policy, from, w[l], to, dilation{apart}, conv_state{state->values.slice(1, row, end), state->first[l]}, functions...);
      else
        causal_conv(policy, from, w[l], to, dilation{apart}, functions...);
      from = to;
      row = end;
    }
  }
} tcnca_convolve{};

/// tcnca_attention(policy, q, k, v, out, chunk, options...), tcnca_attention(policy, q, k, v, out, chunk, position): see the top of this
/// file.
inline constexpr struct tcnca_attention_fn {
  template <tensor_like Q, detail::key_source K, detail::key_source V, tensor_like O, detail::attention_option... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, index chunk, Options const&... options) const {
    attention(policy, q, k, v, out, even_groups{chunk}, causal{}, options...);
  }
  template <tensor_like Q, tensor_like K, detail::key_source V, tensor_like O>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, index chunk, index position) const {
    constexpr char const* op = "tcnca_attention";
    detail::expect(chunk >= 1, op, "chunk", chunk, "at least 1");
    detail::expect(position >= 0, op, "position", position, "at least 0");
    index const keys = tern::view(k).extent(view_of<K>::rank - 2);
    detail::expect_equal(op, "the keys of k", keys, "position % chunk + 1", position % chunk + 1);
    attention(policy, q, k, v, out);
  }
} tcnca_attention{};

}  // namespace TERN_ABI
}  // namespace tern
