// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file bench/matmul_systems.hpp
/// Weights (m, k) of the published systems' formats, for matmul_systems_bench: each is a class that holds the bytes, made of normal
/// weights, and shows them as a view.

#include "matmul_problem.hpp"

#include <tern/formats.hpp>

#include <memory>

namespace tern::bench {

inline constexpr index m = 1536, k = 1536;
inline std::size_t at(index i) { return static_cast<std::size_t>(i); }

/// Normal weights (m, k) with deviation 1 / sqrt(k), and activations.
inline std::vector<float> normal_weights(index rows = m, index columns = k, std::uint64_t seed = 1) {
  return fast_normal(rows * columns, 1 / std::sqrt(static_cast<double>(columns)), seed);
}

// What holds the bytes of each format: made from weights (m, k), shown as a view.
struct int8_bytes {
  std::vector<std::int8_t> q;
  std::vector<float> scales;
  explicit int8_bytes(std::vector<float> const& w) : q(w.size()), scales(w.size() / at(k)) {
    int8_rows::encode(cpu, tern::view(w.data(), m, k), tern::view(q.data(), m, k), tern::view(scales));
  }
  int8_rows view() const { return {tern::view(q.data(), m, k), tern::view(scales)}; }
};
template <index group>
struct group_bytes {
  std::vector<std::uint8_t> codes = std::vector<std::uint8_t>(at(m * k / 2));
  std::vector<f16> scales = std::vector<f16>(at(m * k / group));
  explicit group_bytes(std::vector<float> const& w) {
    group_int4::encode(cpu, tern::view(w.data(), m, k), tern::view(codes.data(), m, k / 2), tern::view(scales.data(), m, k / group));
  }
  group_int4 view() const { return {tern::view(codes.data(), m, k / 2), tern::view(scales.data(), m, k / group)}; }
};
struct dgq_bytes {
  static constexpr index group = 128;
  std::vector<std::uint8_t> codes = std::vector<std::uint8_t>(at(m * k / 2)), zeros = std::vector<std::uint8_t>(at(m * k / group)),
                            steps = zeros;
  std::vector<float> scales = std::vector<float>(at(m));
  explicit dgq_bytes(std::vector<float> const& w) {
    dgq_weights::encode(cpu, tern::view(w.data(), m, k), tern::view(codes.data(), m, k / 2), tern::view(zeros.data(), m, k / group),
                        tern::view(steps.data(), m, k / group), tern::view(scales));
  }
  dgq_weights view() const {
    return {tern::view(codes.data(), m, k / 2), tern::view(zeros.data(), m, k / group), tern::view(steps.data(), m, k / group),
            tern::view(scales)};
  }
};
/// The four bits of a file, at random: their values do not matter to the time.
struct file_bytes {
  static constexpr index group = 128;
  std::vector<std::int32_t> q = std::vector<std::int32_t>(at(m * k / 8)), zeros = std::vector<std::int32_t>(at(m / 8 * k / group));
  std::vector<f16> scales = std::vector<f16>(at(m * k / group), f16(0.005f));
  explicit file_bytes(std::vector<float> const&) {
    test::rng r(7);
    for (auto* v : {&q, &zeros})
      for (auto& e : *v) e = static_cast<std::int32_t>(static_cast<std::uint32_t>(r.bits()));
  }
};
struct awq_bytes : file_bytes {
  using file_bytes::file_bytes;
  awq_weights view() const {
    return {tern::view(q.data(), k, m / 8), tern::view(zeros.data(), k / group, m / 8), tern::view(scales.data(), k / group, m)};
  }
};
struct gptq_bytes : file_bytes {
  using file_bytes::file_bytes;
  gptq_weights view() const {
    return {tern::view(q.data(), k / 8, m), tern::view(zeros.data(), k / group, m / 8), tern::view(scales.data(), k / group, m),
            gptq_version::v1};
  }
};
template <class Float>
struct float_bytes {
  static constexpr index row_bytes = k * Float::bits / 8;
  std::vector<std::uint8_t> codes = std::vector<std::uint8_t>(at(m * row_bytes));
  std::vector<float> scales = std::vector<float>(at(m));
  explicit float_bytes(std::vector<float> const& w) {
    formats::encode_exmy<Float>(tern::view(w.data(), m, k), tern::view(codes.data(), m, row_bytes), tern::view(scales.data(), m, 1));
  }
  formats::exmy_weights<Float> view() const { return {tern::view(codes.data(), m, row_bytes), tern::view(scales.data(), m, 1)}; }
};
struct nf4_bytes {
  std::vector<std::uint8_t> packed = std::vector<std::uint8_t>(at(m * k / 2));
  std::vector<float> absmax = std::vector<float>(at(m * k / 64));
  explicit nf4_bytes(std::vector<float> const& w) {
    formats::encode_codebook<formats::nf4>(tern::view(w.data(), m, k), tern::view(packed.data(), m, k / 2),
                                           tern::view(absmax.data(), m, k / 64));
  }
  formats::codebook_weights<formats::nf4> view() const {
    return {tern::view(packed.data(), m, k / 2), tern::view(absmax.data(), m, k / 64)};
  }
};
/// NF4 whose scales are quantized once more.
struct nested_nf4_bytes : nf4_bytes {
  std::vector<float> table = std::vector<float>(256), nested = std::vector<float>(at(m * k / 64 / 256));
  std::vector<std::uint8_t> codes = std::vector<std::uint8_t>(at(m * k / 64));
  float offset;
  explicit nested_nf4_bytes(std::vector<float> const& w) : nf4_bytes(w) {
    formats::dynamic_map(table.data());
    offset =
        formats::encode_absmax(tern::view(absmax.data(), m, k / 64), table.data(), tern::view(codes.data(), m, k / 64), tern::view(nested));
  }
  formats::codebook_weights<formats::nf4> view() const {
    return {tern::view(packed.data(), m, k / 2),
            formats::nested_absmax{tern::view(codes.data(), m, k / 64), tern::view(nested), table.data(), offset}};
  }
};
struct mid_rise_bytes {
  std::vector<std::uint8_t> codes = std::vector<std::uint8_t>(at(m * k / 4));
  std::vector<float> scales = std::vector<float>(at(m));
  explicit mid_rise_bytes(std::vector<float> const& w) {
    formats::encode_mid_rise<2>(tern::view(w.data(), m, k), tern::view(codes.data(), m, k / 4), tern::view(scales));
  }
  formats::mid_rise_weights<2> view() const { return {tern::view(codes.data(), m, k / 4), tern::view(scales)}; }
};
struct shift_bytes {
  std::vector<std::uint8_t> codes = std::vector<std::uint8_t>(at(m * k / 2));
  std::vector<float> scales = std::vector<float>(at(m));
  explicit shift_bytes(std::vector<float> const& w) {
    formats::encode_power_of_two<4>(tern::view(w.data(), m, k), tern::view(codes.data(), m, k / 2), tern::view(scales.data(), m, 1));
  }
  formats::power_of_two_weights<4, float> view() const { return {tern::view(codes.data(), m, k / 2), tern::view(scales.data(), m, 1)}; }
};
struct binary_bytes {
  std::vector<std::uint64_t> words = std::vector<std::uint64_t>(at(m * k / 64));
  std::vector<float> scales = std::vector<float>(at(m));
  explicit binary_bytes(std::vector<float> const& w) {
    formats::encode_binary(tern::view(w.data(), m, k), tern::view(words.data(), m, k / 64), tern::view(scales));
  }
  formats::binary_weights view() const { return {tern::view(words.data(), m, k / 64), k, tern::view(scales)}; }
};
/// Random codes and codebooks of 2x8.
struct codebook_bytes {
  std::vector<std::uint8_t> codes = std::vector<std::uint8_t>(at(m * k / 8 * 2));
  std::vector<float> books = fast_normal(2 * 256 * 8, 1, 9), scales = std::vector<float>(at(m), 0.02f);
  explicit codebook_bytes(std::vector<float> const&) {
    test::rng r(8);
    for (auto& c : codes) c = static_cast<std::uint8_t>(r.bits());
  }
  formats::additive_codebook_weights<std::uint8_t, float, float> view() const {
    return {tern::view(codes.data(), m, k / 8, 2), tern::view(books.data(), 2, 256, 8), tern::view(scales)};
  }
};
struct plane_bytes {
  index n;
  int planes;
  std::vector<std::uint64_t> words;
  std::vector<float> scales;
  plane_bytes(std::vector<float> const& w, index rows, int bits)
      : n(rows), planes(bits), words(at(bits * rows * k / 64)), scales(at(rows)) {
    bit_planes<bit_code::bipolar>::encode(cpu, tern::view(w.data(), n, k), tern::view(words.data(), index{planes}, n, k / 64),
                                          tern::view(scales));
  }
  bit_planes<bit_code::bipolar> view() const { return {tern::view(words.data(), index{planes}, n, k / 64), k, tern::view(scales)}; }
};

/// A system's weights as matmul_problem takes them.
template <class Bytes>
struct shown {
  std::shared_ptr<Bytes> bytes = std::make_shared<Bytes>(normal_weights());
  auto operator[](index) const { return bytes->view(); }
  void decode(index i, float* out) const { tern::decode(bytes->view(), i, out); }
};
struct q4_0_bytes {
  block_array blocks;
  explicit q4_0_bytes(std::vector<float> const& w) : blocks(weight_type::q4_0, m, k) {
    auto const bytes = encode(weight_type::q4_0, w);
    std::memcpy(blocks.row(0), bytes.data(), bytes.size());
  }
  block_matrix view() const { return blocks; }
};

}  // namespace tern::bench
