// SPDX-License-Identifier: Apache-2.0
#include "weight_formats.hpp"

#include <tern/formats/bit_planes.hpp>
#include <tern/formats/dgq.hpp>
#include <tern/formats/exmy.hpp>
#include <tern/formats/gaussian_quantile.hpp>
#include <tern/formats/group_int4.hpp>
#include <tern/formats/int8_rows.hpp>
#include <tern/formats/mid_rise.hpp>
#include <tern/formats/nf4.hpp>
#include <tern/formats/power_of_two.hpp>
#include <tern/matmul/bit_planes.hpp>

#include <cstddef>
#include <utility>
#include <vector>

namespace llm {

namespace {

using tern::index;
namespace formats = tern::formats;
using policy_type = tern::cpu_policy;
using matrix = tern::tensor_view<float const, 2>;  // (n, k)
using made = std::unique_ptr<format_matrix>;

/// The arrays of a matrix: codes, scales and what else its format has.
class arrays {
 public:
  template <class T, class... Extents>
  auto make(Extents... extents) {
    parts_.emplace_back(static_cast<std::size_t>((index{1} * ... * extents)) * sizeof(T));
    return tern::view(reinterpret_cast<T*>(parts_.back().data()), extents...);
  }
  double bytes() const {
    double sum = 0;
    for (auto const& part : parts_) sum += static_cast<double>(part.size());
    return sum;
  }

 private:
  std::vector<std::vector<std::byte>> parts_;
};

template <class Weights>
class held final : public format_matrix {
 public:
  held(arrays owned, Weights const& weights) : owned_(std::move(owned)), weights_(weights) {}
  tern::weights_ref ref() const override { return weights_; }
  double bytes() const override { return owned_.bytes(); }

 private:
  arrays owned_;
  Weights weights_;
};
template <class Weights>
made hold(arrays& owned, Weights const& weights) {
  return std::make_unique<held<Weights>>(std::move(owned), weights);
}

/// A scale for each index of `side`: 0 rows, 1 columns.
template <class Weights, int side>
made int8(policy_type const& policy, matrix w) {
  arrays a;
  auto const q = a.make<std::int8_t>(w.extent(0), w.extent(1));
  auto const scales = a.make<float>(w.extent(side));
  Weights::encode(policy, w, q, scales);
  return hold(a, Weights(q, scales));
}

constexpr index group = 64;

made int4(policy_type const& policy, matrix w) {
  arrays a;
  auto const codes = a.make<std::uint8_t>(w.extent(0), w.extent(1) / 2);
  auto const scales = a.make<tern::f16>(w.extent(0), w.extent(1) / group);
  tern::group_int4::encode(policy, w, codes, scales);
  return hold(a, tern::group_int4(codes, scales));
}
template <class Weights, class Zero>
made int4_and(policy_type const& policy, matrix w) {
  arrays a;
  auto const codes = a.make<std::uint8_t>(w.extent(0), w.extent(1) / 2);
  auto const scales = a.make<tern::f16>(w.extent(0), w.extent(1) / group);
  auto const zeros = a.make<Zero>(w.extent(0), w.extent(1) / group);
  Weights::encode(policy, w, codes, scales, zeros);
  return hold(a, Weights(codes, scales, zeros));
}
made dgq(policy_type const& policy, matrix w) {
  arrays a;
  auto const codes = a.make<std::uint8_t>(w.extent(0), w.extent(1) / 2);
  auto const zeros = a.make<std::uint8_t>(w.extent(0), w.extent(1) / group);
  auto const scales = a.make<std::uint8_t>(w.extent(0), w.extent(1) / group);
  auto const row_scales = a.make<float>(w.extent(0));
  tern::dgq_weights::encode(policy, w, codes, zeros, scales, row_scales);
  return hold(a, tern::dgq_weights(codes, zeros, scales, row_scales));
}

template <class Codebook>
made codebook(policy_type const&, matrix w) {
  arrays a;
  auto const packed = a.make<std::uint8_t>(w.extent(0), w.extent(1) / 2);
  auto const absmax = a.make<float>(w.extent(0), w.extent(1) / 64);
  formats::encode_codebook<Codebook>(w, packed, absmax);
  return hold(a, formats::codebook_weights<Codebook>(packed, absmax));
}
made nf4_nested(policy_type const&, matrix w) {
  arrays a;
  std::vector<float> absmax(static_cast<std::size_t>(w.extent(0) * w.extent(1) / 64));
  auto const full = tern::view(absmax.data(), w.extent(0), w.extent(1) / 64);
  auto const packed = a.make<std::uint8_t>(w.extent(0), w.extent(1) / 2);
  auto const codes = a.make<std::uint8_t>(w.extent(0), w.extent(1) / 64);
  auto const nested = a.make<float>((full.size() + 255) / 256);
  auto const table = a.make<float>(index{256});
  formats::dynamic_map(table.data());
  formats::encode_codebook<formats::nf4>(w, packed, full);
  float const offset = formats::encode_absmax(full, table.data(), codes, nested);
  return hold(a, formats::codebook_weights<formats::nf4>(packed, {codes, nested, table.data(), offset}));
}

/// Scales for each `block` columns; 0: for each row.
template <class Float, class Scale, index block>
made floats(policy_type const&, matrix w) {
  arrays a;
  auto const codes = a.make<std::uint8_t>(w.extent(0), w.extent(1) * Float::bits / 8);
  auto const scales = a.make<Scale>(w.extent(0), block > 0 ? w.extent(1) / block : index{1});
  formats::encode_exmy<Float>(w, codes, scales);
  return hold(a, formats::exmy_weights<Float, Scale>(codes, scales));
}
template <int bits>
made powers_of_two(policy_type const&, matrix w) {
  arrays a;
  auto const codes = a.make<std::uint8_t>(w.extent(0), w.extent(1) * bits / 8);
  auto const scales = a.make<formats::e8m0>(w.extent(0), w.extent(1) / 32);
  formats::encode_power_of_two<bits>(w, codes, scales);
  return hold(a, formats::power_of_two_weights<bits, formats::e8m0>(codes, scales));
}
template <int bits>
made mid_rise(policy_type const&, matrix w) {
  arrays a;
  auto const codes = a.make<std::uint8_t>(w.extent(0), w.extent(1) * bits / 8);
  auto const scales = a.make<float>(w.extent(0));
  formats::encode_mid_rise<bits>(w, codes, scales);
  return hold(a, formats::mid_rise_weights<bits>(codes, scales));
}
template <int bits>
made gaussian(policy_type const&, matrix w) {
  arrays a;
  auto const codes = a.make<std::uint8_t>(w.extent(0), w.extent(1) * bits / 8);
  auto const mean = a.make<float>(w.extent(0)), deviation = a.make<float>(w.extent(0));
  formats::encode_gaussian_quantile<bits>(w, codes, mean, deviation);
  return hold(a, formats::gaussian_quantile_weights<bits>(codes, mean, deviation));
}
template <int bits>
made planes(policy_type const& policy, matrix w) {
  arrays a;
  auto const words = a.make<std::uint64_t>(index{bits}, w.extent(0), (w.extent(1) + 63) / 64);
  auto const scales = a.make<float>(w.extent(0));
  tern::bipolar_planes::encode(policy, w, words, scales, 20);
  return hold(a, tern::bit_plane_weights(tern::bipolar_planes(words, w.extent(1), scales)));
}

using formats::e8m0;

constexpr weight_format all[] = {
    {"int8_rows", "RTN", int8<tern::int8_rows, 0>},
    {"int8_columns", "RTN", int8<tern::int8_columns, 1>},
    {"fp8_e4m3", "RTN", floats<formats::fp8_e4m3, float, 0>},
    {"fp8_e5m2", "RTN", floats<formats::fp8_e5m2, float, 0>},
    {"fp6_e2m3", "RTN", floats<formats::e2m3, e8m0, 32>},
    {"fp4_e2m1", "RTN", floats<formats::e2m1, e8m0, 32>},
    {"int4_minima", "RTN", int4_and<tern::group_int4_minima, tern::f16>},
    {"int4_zeros", "RTN", int4_and<tern::group_int4_zeros, std::uint8_t>},  // GPTQ's and AWQ's numbers
    {"int4", "RTN", int4},
    {"dgq", "DGQ", dgq},
    {"nf4", "RTN", codebook<formats::nf4>},
    {"nf4_nested", "RTN", nf4_nested},
    {"fp4", "RTN", codebook<formats::fp4>},
    {"gaussian_4", "RTN", gaussian<4>},
    {"mid_rise_4", "RTN", mid_rise<4>},
    {"power_of_two_4", "RTN", powers_of_two<4>},
    {"bipolar_4", "RTN", planes<4>},
};

}  // namespace

std::span<weight_format const> weight_formats() { return all; }

}  // namespace llm
