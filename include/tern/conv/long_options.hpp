// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/long_options.hpp
/// What a call of the long convolutions may carry behind u, k and y, in any order:
///
///     long_mode::causal | circular | same    where the filter stands; causal, if nothing is said
///     gate_in{w}                             u .* w instead of u              w, v: the shape of u, f32, f16 or bf16
///     gate_out{v}                            v .* (...) instead of (...)
///     skip{d}                                + d_c u, behind the gates         d f32 (channels)
///     sparse_spectrum{kept, classes}         some of the filter's frequencies alone: conv/sparse_spectrum.hpp
///
/// Gates are applied where samples are read and results written: they cost no pass over memory of their own. Options hold views: what they
/// refer to must live as long as the call.

#include <tern/conv/long_samples.hpp>
#include <tern/conv/sparse_spectrum.hpp>
#include <tern/core/given_once.hpp>

namespace tern {

/// Which part of the convolution of n samples with K taps is kept.
enum class long_mode {
  causal,    ///< y_i = sum over j <= i of k_j u_(i - j)
  circular,  ///< y_i = sum over j of k_j u_((i - j) mod n)
  same,      ///< y_i = sum over j of k_j u_(i + (K - 1) / 2 - j): the filter's middle stands on i
};

inline namespace TERN_ABI {

/// Multiplies the samples before the convolution.
struct gate_in {
  detail::sample_view samples;
  template <tensor_like W>
  TERN_INLINE explicit gate_in(W&& w) : samples(detail::samples_of(tern::view(w))) {}
};
/// Multiplies the results of the convolution.
struct gate_out {
  detail::sample_view samples;
  template <tensor_like V>
  TERN_INLINE explicit gate_out(V&& v) : samples(detail::samples_of(tern::view(v))) {}
};
/// Adds each channel's multiple of the samples.
struct skip {
  tensor_view<float const, 1> factors;
  template <tensor_like D>
  TERN_INLINE explicit skip(D&& d) : factors(tern::view(d)) {}
};

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {

TERN_INLINE char const* name_of(long_mode m) { return m == long_mode::causal ? "causal" : m == long_mode::circular ? "circular" : "same"; }

/// The options of a call.
struct long_request {
  long_mode mode = long_mode::causal;
  sample_view gate_in = {}, gate_out = {};
  tensor_view<float const, 1> skip = {};
  sparse_spectrum spectrum = {};
  bool has_mode = false, has_skip = false, has_spectrum = false;

  TERN_INLINE void set(long_mode m) {
    mode = m;
    has_mode = true;
  }
  TERN_INLINE void set(tern::gate_in const& g) { gate_in = g.samples; }
  TERN_INLINE void set(tern::gate_out const& g) { gate_out = g.samples; }
  TERN_INLINE void set(tern::skip const& s) {
    skip = s.factors;
    has_skip = true;
  }
  TERN_INLINE void set(sparse_spectrum const& s) {
    spectrum = s;
    has_spectrum = true;
  }
  template <class... Options>
  TERN_INLINE static long_request of(Options const&... options) {
    static_assert(settings<Options...>::template given_once<Options...>, "tern: the same option of a long convolution is given twice");
    long_request r;
    (r.set(options), ...);
    return r;
  }
};
template <class O>
concept long_option = requires(long_request& r, O const& o) { r.set(o); };

[[noreturn]] TERN_COLD inline void fail_long_extent(char const* op, char const* argument, int dimension, index was, char const* other,
                                                    index wanted) {
  static constexpr char const* names[3] = {"batch", "channels", "length"};
  (message() << op << ": " << argument << " has " << names[dimension] << " " << was << ", expected " << other << "'s " << wanted).fail();
}
/// Fails unless `v` has the extents of `w` in dimensions [from, to).
TERN_INLINE void expect_samples(char const* op, char const* argument, sample_view const& v, char const* other, sample_view const& w,
                                int from = 0, int to = 3) {
  for (int d = from; d < to; ++d)
    if (v.extent[d] != w.extent[d]) [[unlikely]]
      fail_long_extent(op, argument, d, v.extent[d], other, w.extent[d]);
}
/// Fails unless it is a spectrum of a convolution that has one.
inline void expect_spectrum(char const* op, sparse_spectrum const& s, long_mode mode) {
  expect_spectrum(op, s);
  if (s.kept < s.classes && mode == long_mode::circular) [[unlikely]]
    (message() << op << ": the mode is circular, expected causal or same with a sparse_spectrum").fail();
}
/// Fails unless the gates and the skip fit u.
inline void expect_options(char const* op, long_request const& r, char const* name, sample_view const& u) {
  if (r.gate_in) expect_samples(op, "gate_in", r.gate_in, name, u);
  if (r.gate_out) expect_samples(op, "gate_out", r.gate_out, name, u);
  if (r.has_skip) expect_equal(op, "skip.extent(0)", r.skip.extent(0), "channels", u.extent[1]);
}
/// Fails unless k (channels, taps) or (batch, channels, taps) fits u.
inline void expect_filter(char const* op, char const* argument, sample_view const& k, char const* name, sample_view const& u) {
  if (k.extent[0] != 1) expect_samples(op, argument, k, name, u, 0, 1);
  expect_samples(op, argument, k, name, u, 1, 2);
  expect(k.extent[2] > 0, op, argument[0] == 'd' ? "dk's number of taps" : "k's number of taps", k.extent[2], "at least 1");
}

}  // namespace TERN_ABI
}  // namespace detail
}  // namespace tern
