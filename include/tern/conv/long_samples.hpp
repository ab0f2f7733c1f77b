// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/long_samples.hpp
/// Tensors (batch, channels, length) of f32, f16 or bf16 as the long convolutions read and write them: rows of samples whose element type
/// is known to a function pointer alone, so that one engine serves all types, gates and lengths.

#include <tern/core/tensor_view.hpp>
#include <tern/fft/tower_run.hpp>
#include <tern/simd/convert.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

template <class T>
inline void load_packs(void const* data, index stride, index first, index packs, float* out, index step) noexcept {
  T const* const p = static_cast<T const*>(data) + first * stride;
  if (stride == 1) {
    for (index i = 0; i < packs; ++i) simd::store(out + i * step, simd::load(p + i * simd::lanes));
    return;
  }
  for (index i = 0; i < packs; ++i)
    for (index j = 0; j < simd::lanes; ++j) out[i * step + j] = static_cast<float>(p[(i * simd::lanes + j) * stride]);
}
/// to = from times the samples; `from` may be `to`.
template <class T>
inline void times_packs(void const* data, index first, index packs, float const* from, index from_step, float* to, index to_step) noexcept {
  T const* const p = static_cast<T const*>(data) + first;
  for (index i = 0; i < packs; ++i) simd::store(to + i * to_step, simd::load(from + i * from_step) * simd::load(p + i * simd::lanes));
}
template <class T>
inline float load_sample(void const* data, index at) noexcept {
  return static_cast<float>(static_cast<T const*>(data)[at]);
}
template <class T>
inline void store_packs(void* data, index stride, index first, index packs, float const* in, index step) noexcept {
  T* const p = static_cast<T*>(data) + first * stride;
  if (stride == 1) {
    for (index i = 0; i < packs; ++i) simd::store(p + i * simd::lanes, simd::load(in + i * step));
    return;
  }
  for (index i = 0; i < packs; ++i)
    for (index j = 0; j < simd::lanes; ++j) p[(i * simd::lanes + j) * stride] = static_cast<T>(in[i * step + j]);
}
template <class T>
inline void store_sample(void* data, index at, float x) noexcept {
  static_cast<T*>(data)[at] = static_cast<T>(x);
}

/// One row of samples.
struct sample_row {
  void const* data = nullptr;
  index stride = 1;
  index n = 0;
  void (*packs)(void const* data, index stride, index first, index packs, float* out, index step) = nullptr;
  void (*times)(void const* data, index first, index packs, float const* from, index from_step, float* to, index to_step) = nullptr;
  float (*sample)(void const* data, index at) = nullptr;

  TERN_INLINE explicit operator bool() const { return packs != nullptr; }
  TERN_INLINE float operator[](index i) const { return sample(data, i * stride); }
  /// Whether it is floats one after the other.
  TERN_INLINE bool is_dense() const { return stride == 1 && packs == &load_packs<float>; }

  /// Samples first, first + 1, ... into registers `step` floats apart: zeros outside of the row, or the row again and again.
  inline void read(index first, index count, bool periodic, float* out, index step) const noexcept {
    constexpr index W = simd::lanes;
    while (count > 0) {
      if (periodic) first = (first % n + n) % n;
      index whole = 1;
      if (first >= 0 && first + W <= n) {
        whole = least((n - first) / W, count);
        packs(data, stride, first, whole, out, step);
      } else if (!periodic && (first + W <= 0 || first >= n)) {
        simd::store(out, simd::pack<float>(0.f));
      } else {
        for (index j = 0, i = first; j < W; ++j, ++i) {
          if (periodic && i >= n) i = 0;
          out[j] = i >= 0 && i < n ? sample(data, i * stride) : 0.f;
        }
      }
      out += whole * step;
      first += whole * W;
      count -= whole;
    }
  }

  /// to = from times samples first, first + 1, ...: at most tower_chunk registers.
  inline void multiply(index first, index count, bool periodic, float const* from, index from_step, float* to,
                       index to_step) const noexcept {
    constexpr index W = simd::lanes;
    if (stride == 1 && first >= 0 && first + count * W <= n) return times(data, first, count, from, from_step, to, to_step);
    float factor[tower_chunk * W];
    read(first, count, periodic, factor, W);
    times_packs<float>(factor, 0, count, from, from_step, to, to_step);
  }
};

/// n floats one after the other as a row.
TERN_INLINE sample_row row_of_floats(float const* data, index n) {
  return {data, 1, n, &load_packs<float>, &times_packs<float>, &load_sample<float>};
}

/// (batch, channels, length), read only.
struct sample_view {
  char const* data = nullptr;
  index extent[3] = {}, stride[3] = {};
  index bytes = 0;  // of an element
  sample_row form = {};

  TERN_INLINE explicit operator bool() const { return bytes > 0; }
  TERN_INLINE sample_row row(index batch, index channel) const {
    sample_row r = form;
    r.data = data + (batch * stride[0] + channel * stride[1]) * bytes;
    r.stride = stride[2];
    r.n = extent[2];
    return r;
  }
};
/// The same, to be written.
struct result_view {
  sample_view place;
  void (*packs)(void* data, index stride, index first, index packs, float const* in, index step) = nullptr;
  void (*sample)(void* data, index at, float x) = nullptr;
};

/// A view of one to three dimensions as (batch, channels, length).
template <class T, int Rank>
TERN_INLINE sample_view samples_of(tensor_view<T, Rank> const& v) {
  static_assert(float_storage<T>, "tern: samples are float, tern::f16 or tern::bf16");
  static_assert(Rank <= 3, "tern: samples are (batch, channels, length), (channels, length) or (length)");
  using element = std::remove_const_t<T>;
  sample_view s;
  s.data = reinterpret_cast<char const*>(v.data());
  for (int d = 0; d < 3; ++d) {
    s.extent[d] = d < 3 - Rank ? 1 : v.extent(d - (3 - Rank));
    s.stride[d] = d < 3 - Rank ? 0 : v.stride(d - (3 - Rank));
  }
  s.bytes = sizeof(element);
  s.form.packs = &load_packs<element>;
  s.form.times = &times_packs<element>;
  s.form.sample = &load_sample<element>;
  return s;
}
template <class T, int Rank>
TERN_INLINE result_view results_of(tensor_view<T, Rank> const& v) {
  static_assert(!std::is_const_v<T>, "tern: results are written to elements that are not const");
  return {samples_of(v), &store_packs<T>, &store_sample<T>};
}

/// Samples of a block, times a gate's if there is one.
struct block_source {
  sample_row u, gate;
  index start;  // of the block, in u
  bool periodic;

  /// As a tower reads it; *this must outlive that.
  TERN_INLINE tower_source source() const {
    tower_source s{this, &block_source::read, periodic ? index{1} << 60 : u.n - start};
    if (!u.is_dense() || (gate && !gate.is_dense())) return s;
    s.dense = static_cast<float const*>(u.data);
    s.dense_begin = -start;
    s.dense_end = u.n - start;
    if (gate) s.gate = static_cast<float const*>(gate.data);
    return s;
  }
  inline static void read(void const* object, index first, index packs, float* out, index step) noexcept {
    auto const& s = *static_cast<block_source const*>(object);
    s.u.read(s.start + first, packs, s.periodic, out, step);
    if (s.gate) s.gate.multiply(s.start + first, packs, s.periodic, out, step, out, step);
  }
};

/// Results of a block: those from `begin` to `end` of the row y are kept, times a gate's samples, plus a multiple of others.
struct block_sink {
  result_view const* to;
  void* data;   // the row
  index shift;  // element of y = place in the block + shift
  index begin, end;
  sample_row gate, added;
  float factor = 0.f;
  bool past = false;  // whether results go past the caches

  /// As a tower writes it; *this must outlive that.
  TERN_INLINE tower_sink sink() const {
    tower_sink s{this, &block_sink::write, begin - shift, end - shift};
    if (added || to->place.stride[2] != 1 || to->packs != &store_packs<float> || (gate && !gate.is_dense())) return s;
    s.dense_begin = s.begin;
    s.dense_end = s.end;
    s.dense = static_cast<float*>(data) + begin;
    if (gate) s.gate = static_cast<float const*>(gate.data) + begin;
    s.past = past;
    return s;
  }
  inline static void write(void const* object, index first, index packs, float const* in, index step) noexcept {
    constexpr index W = simd::lanes;
    auto const& s = *static_cast<block_sink const*>(object);
    index at = first + s.shift;
    if (at + packs * W <= s.begin || at >= s.end) return;
    float result[tower_chunk * W];
    if (s.gate || s.added) {
      s.finish(at, packs, in, step, result);
      in = result;
      step = W;
    }
    index const stride = s.to->place.stride[2];
    while (packs > 0) {
      index whole = 1;
      if (at >= s.begin && at + W <= s.end) {
        whole = least((s.end - at) / W, packs);
        s.to->packs(s.data, stride, at, whole, in, step);
      } else {
        for (index j = 0; j < W; ++j)
          if (at + j >= s.begin && at + j < s.end) s.to->sample(s.data, (at + j) * stride, in[j]);
      }
      in += whole * step;
      at += whole * W;
      packs -= whole;
    }
  }

 private:
  inline void finish(index at, index packs, float const* in, index step, float* result) const noexcept {
    constexpr index W = simd::lanes;
    if (gate) {
      gate.multiply(at, packs, false, in, step, result, W);
    } else {
      for (index i = 0; i < packs; ++i) simd::store(result + i * W, simd::load(in + i * step));
    }
    if (!added) return;
    float other[tower_chunk * W];
    added.read(at, packs, false, other, W);
    for (index i = 0; i < packs; ++i)
      simd::store(result + i * W, simd::fma(simd::pack<float>(factor), simd::load(static_cast<float const*>(other + i * W)),
                                            simd::load(static_cast<float const*>(result + i * W))));
  }
};

}  // namespace TERN_ABI
}  // namespace tern::detail
