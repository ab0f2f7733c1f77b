// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "coded.hpp"
#include "message.hpp"
#include "safetensors_writer.hpp"
#include "vectors/int4_files.hpp"

#include <tern/formats/gptq.hpp>
#include <tern/formats/safetensors.hpp>

namespace tern::test {
namespace {

constexpr index n = 16, k = 64, groups = 2;
using words = tensor_view<std::int32_t const, 2>;

/// A file with the matrix in both versions.
std::vector<unsigned char> file_of_vectors() {
  safetensors_writer file;
  file.tensor("l.qweight", "I32", "8,16", list(vectors::gptq_qweight))
      .tensor("l.qzeros", "I32", "2,2", list(vectors::gptq_qzeros_v1))
      .tensor("l.qzeros_v2", "I32", "2,2", list(vectors::gptq_qzeros_v2))
      .tensor("l.scales", "F16", "2,16", list(vectors::int4_scales))
      .tensor("l.g_idx", "I32", "64", list(vectors::gptq_g_idx));
  return file.bytes();
}
template <std::size_t N>
void check_bits(std::vector<float> const& got, std::uint32_t const (&want)[N]) {
  REQUIRE(got.size() == N);
  for (std::size_t i = 0; i < N; ++i)
    if (std::bit_cast<std::uint32_t>(got[i]) != want[i])
      FAIL("element " << i << ": got " << got[i] << ", want " << std::bit_cast<float>(want[i]));
}
std::vector<std::int32_t> groups_in_order(index group) {
  std::vector<std::int32_t> g(static_cast<std::size_t>(k));
  for (index i = 0; i < k; ++i) g[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(i / group);
  return g;
}

}  // namespace

TEST_CASE("GPTQ: both versions decode exactly where they lie in a file") {
  auto const memory = file_of_vectors();
  safetensors_file const file(memory.data(), memory.size());
  auto const weight = file.tensor("l.qweight").view<std::int32_t, 2>();
  auto const scales = file.tensor("l.scales").view<f16, 2>();
  gptq_weights const v1(weight, file.tensor("l.qzeros").view<std::int32_t, 2>(), scales, gptq_version::v1);
  CHECK((v1.rows == n && v1.columns == k && v1.group == 32));
  check_bits(decoded(v1), vectors::gptq_v1_decoded);
  CHECK(within_seven_bits(v1));
  gptq_weights const v2(weight, file.tensor("l.qzeros_v2").view<std::int32_t, 2>(), scales, gptq_version::v2);
  check_bits(decoded(v2), vectors::int4_decoded);
}

TEST_CASE("GPTQ: columns in the order of activations name their groups") {
  auto const memory = file_of_vectors();
  safetensors_file const file(memory.data(), memory.size());
  auto const weight = file.tensor("l.qweight").view<std::int32_t, 2>(), zeros = file.tensor("l.qzeros").view<std::int32_t, 2>();
  auto const scales = file.tensor("l.scales").view<f16, 2>();
  auto const g_idx = file.tensor("l.g_idx").view<std::int32_t, 1>();
  gptq_act_order const w(weight, zeros, scales, g_idx, gptq_version::v1);
  std::vector<float> all(static_cast<std::size_t>(n * k));
  for (index row = 0; row < n; ++row) {
    w.decode(row, 0, 32, all.data() + row * k);
    w.decode(row, 32, k, all.data() + row * k + 32);
  }
  check_bits(all, vectors::gptq_act_order_decoded);
  CHECK_THROWS_WITH(gptq_weights(weight, zeros, scales, g_idx, gptq_version::v1),
                    Catch::EndsWith("expected column / group: weights in the order of activations are tern::gptq_act_order"));
  auto const order = groups_in_order(32);
  check_bits(decoded(gptq_weights(weight, zeros, scales, view(order), gptq_version::v1)), vectors::gptq_v1_decoded);
}

TEST_CASE("GPTQ: repacked weights are the same") {
  auto const memory = file_of_vectors();
  safetensors_file const file(memory.data(), memory.size());
  gptq_weights const w(file.tensor("l.qweight").view<std::int32_t, 2>(), file.tensor("l.qzeros").view<std::int32_t, 2>(),
                       file.tensor("l.scales").view<f16, 2>(), gptq_version::v1);
  matrix_of<std::uint8_t> codes(n, k / 2), zeros(n, groups);
  matrix_of<f16> scales(n, groups);
  repack(cpu, w, codes.view, scales.view, zeros.view);
  group_int4_zeros const packed(codes.view, scales.view, zeros.view);
  check_bits(decoded(packed), vectors::gptq_v1_decoded);
  matrix_of<f16> one(n, 1);
  CHECK_THROWS_WITH(repack(cpu, w, codes.view, one.view, matrix_of<std::uint8_t>(n, 1).view),
                    "repack: scales.extent(1) is 1, expected the groups in a row of the weights = 2");
}

TEST_CASE("GPTQ: one group, and groups of 64 and 128 of many rows") {
  rng r(81);
  for (index const group : {64, 128, 256}) {
    constexpr index rows = 40, columns = 256;
    matrix_of<std::int32_t> weight(columns / 8, rows), zeros(columns / group, rows / 8);
    matrix_of<f16> scales(columns / group, rows);
    for (auto& x : weight.memory) x = static_cast<std::int32_t>(r.bits());
    for (auto& x : zeros.memory) x = static_cast<std::int32_t>(r.bits());
    r.fill(std::span(scales.memory));
    gptq_weights const w(weight.view, zeros.view, scales.view, gptq_version::v2);
    REQUIRE(w.group == group);
    auto const got = decoded(w);
    for (index i = 0; i < rows; ++i)
      for (index j = 0; j < columns; ++j) {
        auto const q = static_cast<std::uint32_t>(weight.view(j / 8, i)) >> (4 * (j % 8)) & 15u;
        auto const z = static_cast<std::uint32_t>(zeros.view(j / group, i / 8)) >> (4 * (i % 8)) & 15u;
        float const want = static_cast<float>(static_cast<int>(q) - static_cast<int>(z)) * float{scales.view(j / group, i)};
        REQUIRE(got[static_cast<std::size_t>(i * columns + j)] == want);
      }
    matrix_of<std::uint8_t> codes(rows, columns / 2), bytes(rows, columns / group);
    matrix_of<f16> repacked(rows, columns / group);
    repack(cpu, w, codes.view, repacked.view, bytes.view);
    CHECK(decoded(group_int4_zeros(codes.view, repacked.view, bytes.view)) == got);
  }
}

TEST_CASE("GPTQ: parts that do not fit") {
  std::vector<std::int32_t> memory(1024);
  std::vector<f16> halves(1024);
  auto const w = [&](index rows, index columns) { return words(memory.data(), shape<2>{{rows, columns}}); };
  auto const s = [&](index rows, index columns) { return tensor_view<f16 const, 2>(halves.data(), shape<2>{{rows, columns}}); };
  auto const make = [&](words q, words z, tensor_view<f16 const, 2> sc) {
    return message_of([&] { gptq_weights(q, z, sc, gptq_version::v1); });
  };
  CHECK(make(w(8, 16), w(2, 2), s(2, 16)) == "no error");
  CHECK(make(w(8, 12), w(2, 1), s(2, 12)) == "gptq_weights: qweight.extent(1) is 12, expected a multiple of 8");
  CHECK(make(w(6, 16), w(2, 2), s(2, 16)) == "gptq_weights: qweight.extent(0) is 6, expected k / 8 with k a multiple of 32");
  CHECK(make(w(8, 16), w(2, 2), s(2, 8)) == "gptq_weights: scales.extent(1) is 8, expected qweight.extent(1) = 16");
  CHECK(make(w(8, 16), w(1, 2), s(2, 16)) == "gptq_weights: qzeros.extent(0) is 1, expected scales.extent(0) = 2");
  CHECK(make(w(8, 16), w(2, 16), s(2, 16)) == "gptq_weights: qzeros.extent(1) is 16, expected qweight.extent(1) / 8 = 2");
  CHECK(make(w(8, 16), w(4, 2), s(4, 16)) ==
        "gptq_weights: scales.extent(0) is 4, expected the number of groups, each of a multiple of 32 columns");
  CHECK(make(w(8, 16), w(0, 2), s(0, 16)) == "gptq_weights: scales.extent(0) is 0, expected at least one group");
  std::vector<std::int32_t> g(64);
  auto const act_order = [&] {
    return message_of([&] { gptq_act_order(w(8, 16), w(2, 2), s(2, 16), view(std::as_const(g)), gptq_version::v1); });
  };
  CHECK(act_order() == "no error");
  g[5] = 2;
  CHECK(act_order() == "gptq_act_order: an element of g_idx is 2, expected at least 0 and less than scales.extent(0)");
  g[5] = -1;
  CHECK(act_order() == "gptq_act_order: an element of g_idx is -1, expected at least 0 and less than scales.extent(0)");
  g.resize(63);
  CHECK(act_order() == "gptq_act_order: g_idx.extent(0) is 63, expected the number of columns = 64");
}

}  // namespace tern::test
