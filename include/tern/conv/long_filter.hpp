// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/long_filter.hpp
/// Filters of a long convolution made ready once: their spectra, and the tables of the transforms, for all calls with inputs of one length.
///
///     long_filter filter(policy, k, n);                  k (channels, taps) or (batch, channels, taps), f32, f16 or bf16
///     long_filter filter(policy, k, n, long_mode::same);
///     long_filter filter(policy, k, n, long_mode::causal, sparse_spectrum{1, 4});   conv/sparse_spectrum.hpp
///     long_conv(policy, u, filter, y);                   u (batch, channels, n)
///
/// It holds no view of k. Memory: about 8 bytes a sample and filter, and tables of about 16 / lanes bytes a sample.

#include <tern/conv/long_run.hpp>
#include <tern/core/owned_floats.hpp>

namespace tern {
inline namespace TERN_ABI {

/// Prepared filters: see the top of conv/long_filter.hpp.
class long_filter {
 public:
  template <tensor_like K>
  long_filter(cpu_policy const& policy, K&& k, index length, long_mode mode = long_mode::causal, sparse_spectrum spectrum = {})
      : long_filter(policy, detail::samples_of(tern::view(k)), length, mode, spectrum) {}

  long_filter(long_filter&& other) noexcept = default;
  long_filter& operator=(long_filter&& other) noexcept = default;
  ~long_filter() {}

  TERN_INLINE index channels() const { return channels_; }
  TERN_INLINE index taps() const { return taps_; }
  TERN_INLINE index length() const { return filters_.layout.n; }
  TERN_INLINE long_mode mode() const { return filters_.layout.mode; }
  TERN_INLINE sparse_spectrum spectrum() const { return spectrum_; }
  TERN_INLINE detail::long_filters const& filters() const { return filters_; }
  /// How many inputs the filters are for: 1 for any number that shares them.
  TERN_INLINE index batch() const { return batch_; }

 private:
  inline long_filter(cpu_policy const& policy, detail::sample_view const& k, index length, long_mode mode, sparse_spectrum spectrum)
      : channels_(k.extent[1]), taps_(k.extent[2]), batch_(k.extent[0]), spectrum_(spectrum) {
    detail::expect(taps_ > 0, "long_filter", "k's number of taps", taps_, "at least 1");
    detail::expect(length > 0, "long_filter", "length", length, "at least 1");
    detail::expect_spectrum("long_filter", spectrum, mode);
    filters_.layout = detail::layout_of(mode, length, taps_, spectrum);
    filters_.per_sample = k.extent[0] != 1;
    filters_.count = k.extent[0] * k.extent[1];
    filters_.shape();
    tables_ = detail::owned_floats(filters_.table_floats());
    filters_.fill(tables_.data());
    spectra_ = detail::owned_floats(filters_.count * filters_.each());
    filters_.spectra = spectra_.data();
    index const scratch = detail::slots_for(policy, filters_.count) * detail::scratch_floats(filters_);
    workspace::lease const lease(policy.scratch(), static_cast<std::size_t>(scratch) * sizeof(float));
    detail::prepare_filters(policy, k, filters_, spectra_.data(), reinterpret_cast<float*>(lease.data()));
  }

  index channels_, taps_, batch_;
  sparse_spectrum spectrum_;
  detail::long_filters filters_;
  detail::owned_floats tables_, spectra_;
};

}  // namespace TERN_ABI
}  // namespace tern
