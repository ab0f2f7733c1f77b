// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/long_gradients.hpp
/// The gradients of tern::long_conv, with the options of the forward call: dy is the gradient of a loss in y,
///
///     long_conv_grad_input(policy, dy, k, du, options...)     du = w .* corr(v .* dy, k) + d dy      corr_m = sum over i of k_(i - m) x_i
///     long_conv_grad_filter(policy, dy, u, dk, options...)    dk_j = sum over i of (v .* dy)_i (u .* w)_(i - j)
///
/// with the index of u as the mode says. dk (channels, taps), summed over the batch, or (batch, channels, taps); a skip does not reach k.
///
/// With the forward call's sparse_spectrum they are those of the forward call with it.
///
/// Shapes  as of long_conv, dy and du as y and u; k may be a long_filter.
/// Types   f32, f16 or bf16 each; f32 inside.
/// Alias   du and dk overlap nothing that is read.
/// Errors  extents that do not fit, no taps, du that is dy.
/// Cost    du that of long_conv; dk two transforms a row and block, and one for each filter.
/// Error   du: long_conv.error(m) |dy|_2 |k|_2; dk: long_conv.error(m) times the sum over the batch of |dy|_2 |u|_2 (with gates applied).
///         Sums over blocks and inputs are compensated: their number does not matter.

#include <tern/conv/long_conv.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// sum += g conj(u), spectra of `size` floats; scaled by what split and join leave. `lost` is what the sum's roundings added too much, as
/// blocks and inputs may be many (Kahan).
inline void add_correlation(float const* g, float const* u, float scale, float* sum, float* lost, index size) noexcept {
  simd::pack<float> const factor(scale);
  for (index i = 0; i < size; i += complex_pack) {
    cpack const p = times_conjugate(load_complex(g + i), load_complex(u + i)), s = load_complex(sum + i), l = load_complex(lost + i);
    cpack const more{simd::fms(factor, p.re, l.re), simd::fms(factor, p.im, l.im)};
    cpack const next{s.re + more.re, s.im + more.im};
    store_complex(lost + i, {(next.re - s.re) - more.re, (next.im - s.im) - more.im});
    store_complex(sum + i, next);
  }
}

/// One filter's gradient over inputs [first, end). memory: tower_buffer + 5 plan.floats().
inline void filter_gradient(long_call const& u, long_call const& dy, long_layout const& l, tower_plan const& plan, index channel,
                            index first, index end, block_sink const& to, float* memory) noexcept {
  index const size = plan.floats(), node = plan.width(1) * complex_pack;
  float* const z = memory + tower_buffer;
  float* const hu = z + size;
  float* const hg = hu + size;
  float* const sum = hg + size;
  float* const lost = sum + size;
  for (index i = 0; i < 2 * size; ++i) sum[i] = 0.f;
  for (index batch = first; batch < end; ++batch)
    for (index block = 0; block < l.blocks; ++block) {
      block_source x = u.source(batch, channel, l, block), g = dy.source(batch, channel, l, block);
      index const begin = block * l.hop, stop = least(begin + l.hop, l.n);
      // hop samples of u meet the block of dy that begins `origin` before them.
      x.start = begin;
      x.periodic = false;
      x.u.n = stop;
      if (x.gate) x.gate.n = stop;
      g.start = begin - l.origin;
      split_block(plan, tower_op::split, x, 1.f, z, hu, memory);
      split_block(plan, tower_op::split, g, 1.f, z, hg, memory);
      plan.each_kept([&](index from, index count) TERN_LAMBDA {
        index const at = from * node;
        add_correlation(hg + at, hu + at, 1.f / static_cast<float>(plan.points()), sum + at, lost + at, count * node);
      });
    }
  run_tower({plan, z, sum, tower_op::join}, {}, to.sink(), memory);
}

/// How the filters' gradients are cut, and the floats of scratch of it: tables, and some for each slot.
struct gradient_cut {
  long_layout layout;
  tower_plan plan;
  index filters, tables, each, slots;
  inline gradient_cut(cpu_policy const& policy, sample_view const& dy, result_view const& dk, long_request const& r)
      : layout(layout_of(r.mode, dy.extent[2] > 0 ? dy.extent[2] : 1, dk.place.extent[2], r.spectrum, true)),
        plan(shape_block(layout)),
        filters(dk.place.extent[0] * dy.extent[1]),
        tables(round_to_multiple(plan.table_floats, 16)),
        each(tower_buffer + 5 * plan.floats()),
        slots(slots_for(policy, filters)) {}
  TERN_INLINE std::size_t bytes() const { return filters == 0 ? 0 : static_cast<std::size_t>(tables + slots * each) * sizeof(float); }
};

inline void filter_gradients(cpu_policy const& policy, sample_view const& dy, sample_view const& u, result_view const& dk,
                             long_request const& r) {
  char const* const op = "long_conv_grad_filter";
  expect_samples(op, "u", u, "dy", dy);
  expect_options(op, r, "dy", dy);
  expect_filter(op, "dk", dk.place, "dy", dy);
  index const taps = dk.place.extent[2], channels = dy.extent[1];
  bool const per_sample = dk.place.extent[0] != 1 || dy.extent[0] == 1;
  index const n = dy.extent[2];
  expect_spectrum(op, r.spectrum, r.mode);
  gradient_cut cut(policy, dy, dk, r);
  if (cut.filters == 0) return;
  long_layout const& l = cut.layout;
  tower_plan& plan = cut.plan;
  workspace::lease const lease(policy.scratch(), cut.bytes());
  float* const memory = reinterpret_cast<float*>(lease.data());
  fill_tower(plan, memory);
  result_view const nothing{};
  long_call const from_u{u, nothing, r.gate_in}, from_dy{dy, nothing, r.gate_out};
  parallel_for(policy, cut.filters, [&](index i, index slot) TERN_LAMBDA {
    index const batch = i / channels, channel = i % channels;
    sample_row const row = dk.place.row(batch, channel);
    index const kept = least(least(l.taps, taps), 2 * plan.points());  // behind them no sample of u meets one of dy
    block_sink const to{&dk, const_cast<void*>(row.data), 0, 0, kept, {}, {}};
    index const first = per_sample ? batch : 0, end = n == 0 ? first : per_sample ? batch + 1 : dy.extent[0];
    filter_gradient(from_u, from_dy, l, plan, channel, first, end, to, memory + cut.tables + slot * cut.each);
    for (index j = kept; j < taps; ++j)  // beyond the samples: nothing, or the circle again
      dk.sample(const_cast<void*>(row.data), j * row.stride, l.periodic() ? row[j - kept] : 0.f);
  });
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// `tern::long_conv_grad_input(policy, dy, k, du, options...)`: see the top of conv/long_gradients.hpp.
inline constexpr struct long_conv_grad_input_fn {
  template <tensor_like G, class K, tensor_like U, detail::long_option... Options>
  void operator()(cpu_policy const& policy, G const& dy, K const& k, U&& du, Options const&... options) const {
    detail::convolve_rows("long_conv_grad_input", policy, detail::samples_of(tern::view(dy)), detail::filter_argument(k),
                          detail::results_of(tern::view(du)), detail::long_request::of(options...), true);
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like G, class K, tensor_like U, detail::long_option... Options>
  std::size_t workspace_size(cpu_policy const& policy, G const& dy, K const& k, U const& du, Options const&... options) const {
    return detail::convolve_bytes("long_conv_grad_input", policy, detail::samples_of(tern::view(dy)), detail::filter_argument(k),
                                  detail::results_of(tern::view(du)), detail::long_request::of(options...), true);
  }
} long_conv_grad_input{};

/// `tern::long_conv_grad_filter(policy, dy, u, dk, options...)`: see the top of conv/long_gradients.hpp.
inline constexpr struct long_conv_grad_filter_fn {
  template <tensor_like G, tensor_like U, tensor_like K, detail::long_option... Options>
  void operator()(cpu_policy const& policy, G const& dy, U const& u, K&& dk, Options const&... options) const {
    detail::filter_gradients(policy, detail::samples_of(tern::view(dy)), detail::samples_of(tern::view(u)),
                             detail::results_of(tern::view(dk)), detail::long_request::of(options...));
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like G, tensor_like U, tensor_like K, detail::long_option... Options>
  std::size_t workspace_size(cpu_policy const& policy, G const& dy, U const&, K const& dk, Options const&... options) const {
    auto const request = detail::long_request::of(options...);
    detail::expect_spectrum("long_conv_grad_filter", request.spectrum, request.mode);
    return detail::gradient_cut(policy, detail::samples_of(tern::view(dy)), detail::results_of(tern::view(dk)), request).bytes();
  }
} long_conv_grad_filter{};

}  // namespace TERN_ABI
}  // namespace tern
