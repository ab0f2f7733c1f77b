// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/long_conv.hpp
/// Convolutions of sequences with filters as long as themselves, or longer, or shorter, by transforms that never leave the cache.
///
///     long_conv(policy, u, k, y)                                       y_i = sum over j <= i of k_j u_(i - j)
///     long_conv(policy, u, k, y, long_mode::circular)                  also long_mode::same (conv/long_options.hpp)
///     long_conv(policy, u, k, y, gate_in{w}, gate_out{v}, skip{d})     y = v .* ((u .* w) conv k) + d u
///     long_conv(policy, u, filter, y, ...)                             a long_filter, whose spectra are made once (conv/long_filter.hpp)
///     long_conv(policy, u, k, y, sparse_spectrum{1, 4})                a quarter of k's frequencies alone (conv/sparse_spectrum.hpp)
///
/// Shapes  u, y, w, v (batch, channels, n), (channels, n) or (n); k (channels, taps), (taps), or (batch, channels, taps) with a filter for
///         each input; d (channels). Any n, any number of taps from 1 on, any strides.
/// Types   u, k, y, w, v each f32, f16 or bf16; d f32; f32 inside.
/// Alias   y overlaps nothing that is read: a block's samples reach into the next.
/// Errors  extents that do not fit, no taps; y that overlaps u, k or a gate; a mode or a spectrum given beside a long_filter that has
/// another. Memory  from the policy; `workspace_size` of one length may exceed that of a longer one, which is cut into other blocks.
/// Special one infinity or NaN of a row, or of its filter, may spread over the row's results: each is a sum of all.
/// Cost    per row about 6 n (log2 n + 6) / lanes vector operations, u and a spectrum of 8 n bytes read, y written; filters that are not
///         prepared cost two thirds of a row each. A circle costs little more than half of that where n is an odd number up to 9 times a
///         power of two from 64 lanes on (conv/long_circle.hpp), otherwise the same. Short filters are cut to blocks by cost
///         (conv/long_layout.hpp), a handful of taps is multiplied directly.
/// Error   |y - y*| <= long_conv.error(m) |u|_2 |k|_2 for each row, |.|_2 the root of the sum of squares (of u .* w; circular: of k wound
///         around the circle), m = n + taps: the bound of a transform, which grows as log2 m. Gates and skip round once more, relatively.
/// Same    a row's results depend on its own samples, filter and options alone, not on threads or on other rows.
/// Source  Fu et al., "FlashFFTConv", 2023, and "Simple Hardware-Efficient Long Convolutions", 2023, for the operator (from knowledge);
///         fft/tower.hpp for the transform.

#include <tern/conv/long_filter.hpp>
#include <tern/conv/own_memory.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// The call that options describe: forward, or backward to u, where the gates change places.
inline long_call call_of(sample_view const& in, result_view const& out, long_request const& r, bool backward) {
  long_call c{in, out};
  c.in_gate = backward ? r.gate_out : r.gate_in;
  c.out_gate = backward ? r.gate_in : r.gate_out;
  c.correlate = backward;
  if (!r.has_skip) return c;
  c.added = in;
  c.factors = r.skip;
  return c;
}
inline long_filters filters_for(char const* op, sample_view const& in, sample_view const& k, long_request const& r, bool backward = false) {
  expect_filter(op, "k", k, backward ? "dy" : "u", in);
  expect_spectrum(op, r.spectrum, r.mode);
  long_filters f{layout_of(r.mode, in.extent[2], k.extent[2], r.spectrum)};
  f.shape();
  f.per_sample = k.extent[0] != 1;
  f.count = k.extent[0] * k.extent[1];
  return f;
}
inline memory_place place_of(sample_view const& v) { return {v.data, v.bytes, 3, v.extent, v.stride}; }
inline void check_long(char const* op, sample_view const& in, result_view const& out, long_request const& r, bool backward) {
  expect_samples(op, backward ? "du" : "y", out.place, backward ? "dy" : "u", in);
  expect_own_memory(op, backward ? "du" : "y", place_of(out.place), backward ? "dy" : "u", place_of(in));
  expect_options(op, r, backward ? "dy" : "u", in);
  if (r.gate_in) expect_own_memory(op, backward ? "du" : "y", place_of(out.place), "gate_in", place_of(r.gate_in));
  if (r.gate_out) expect_own_memory(op, backward ? "du" : "y", place_of(out.place), "gate_out", place_of(r.gate_out));
}

/// Forward and backward, with filters as a view of taps.
inline void convolve_rows(char const* op, cpu_policy const& policy, sample_view const& in, sample_view const& k, result_view const& out,
                          long_request const& r, bool backward) {
  check_long(op, in, out, r, backward);
  expect_own_memory(op, backward ? "du" : "y", place_of(out.place), "k", place_of(k));
  long_filters f = filters_for(op, in, k, r, backward);
  if (in.extent[0] * in.extent[1] * in.extent[2] == 0) return;
  if (backward) f.layout = f.layout.transposed();
  run_long(policy, call_of(in, out, r, backward), k, f);
}
/// The same with filters that are ready.
inline void convolve_rows(char const* op, cpu_policy const& policy, sample_view const& in, long_filter const& k, result_view const& out,
                          long_request const& r, bool backward) {
  check_long(op, in, out, r, backward);
  if (r.has_mode && r.mode != k.mode()) [[unlikely]]
    (message() << op << ": the mode is " << name_of(r.mode) << ", expected the filter's: " << name_of(k.mode())).fail();
  if (sparse_spectrum const s = r.spectrum, own = k.spectrum(); r.has_spectrum && (s.kept != own.kept || s.classes != own.classes))
      [[unlikely]]
    (message() << op << ": the spectrum is " << s.kept << " of " << s.classes << ", expected the filter's: " << own.kept << " of "
               << own.classes)
        .fail();
  expect_equal(op, "the filter's channels()", k.channels(), "channels", in.extent[1]);
  expect_equal(op, "the filter's length()", k.length(), "length", in.extent[2]);
  if (k.batch() != 1) expect_equal(op, "the filter's batch()", k.batch(), "batch", in.extent[0]);
  if (in.extent[0] * in.extent[1] == 0) return;
  long_call const call = call_of(in, out, r, backward);
  long_filters f = k.filters();
  if (backward) f.layout = f.layout.transposed();
  workspace::lease const lease(policy.scratch(), static_cast<std::size_t>(rows_floats(policy, call, f)) * sizeof(float));
  run_rows(policy, call, f, reinterpret_cast<float*>(lease.data()));
}

/// Bytes of scratch of the same.
inline std::size_t convolve_bytes(char const* op, cpu_policy const& policy, sample_view const& in, sample_view const& k,
                                  result_view const& out, long_request const& r, bool backward) {
  long_filters f = filters_for(op, in, k, r, backward);
  if (backward) f.layout = f.layout.transposed();
  return long_memory(policy, call_of(in, out, r, backward), f).bytes();
}
inline std::size_t convolve_bytes(char const*, cpu_policy const& policy, sample_view const& in, long_filter const& k,
                                  result_view const& out, long_request const& r, bool backward) {
  long_filters f = k.filters();
  if (backward) f.layout = f.layout.transposed();
  return static_cast<std::size_t>(rows_floats(policy, call_of(in, out, r, backward), f)) * sizeof(float);
}

template <class K>
TERN_INLINE decltype(auto) filter_argument(K const& k) {
  if constexpr (std::is_same_v<K, long_filter>)
    return (k);
  else
    return samples_of(tern::view(k));
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// `tern::long_conv(policy, u, k, y, options...)`: see the top of conv/long_conv.hpp.
inline constexpr struct long_conv_fn : takes_policy {
  using takes_policy::operator();

  template <tensor_like U, class K, tensor_like Y, class... Options>
  void operator()(cpu_policy const& policy, U const& u, K const& k, Y&& y, Options const&... options) const {
    static_assert(
        (detail::long_option<Options> && ...),
        "tern: an option of long_conv is gate_in, gate_out, skip, sparse_spectrum or a long_mode: long_mode::causal (which is what "
        "it does if nothing is said), long_mode::circular or long_mode::same, not causal{}");
    detail::convolve_rows("long_conv", policy, detail::samples_of(tern::view(u)), detail::filter_argument(k),
                          detail::results_of(tern::view(y)), detail::long_request::of(options...), false);
  }

  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like U, class K, tensor_like Y, detail::long_option... Options>
  std::size_t workspace_size(cpu_policy const& policy, U const& u, K const& k, Y const& y, Options const&... options) const {
    return detail::convolve_bytes("long_conv", policy, detail::samples_of(tern::view(u)), detail::filter_argument(k),
                                  detail::results_of(tern::view(y)), detail::long_request::of(options...), false);
  }

  /// Relative to the product of the norms: a rounding for each of log2 m levels of three transforms, and some for products and roots. As
  /// roundings do not conspire, and each element gets a small part of the row's error, this is far on the safe side.
  static constexpr double error(index m) { return 0x1p-24 * (8 + 3 * static_cast<double>(detail::log2_of(m) + 1)); }
} long_conv{};

}  // namespace TERN_ABI
}  // namespace tern
