// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "coded.hpp"
#include "message.hpp"
#include "safetensors_writer.hpp"
#include "vectors/int4_files.hpp"

#include <tern/formats/awq.hpp>
#include <tern/formats/safetensors.hpp>

namespace tern::test {
namespace {

constexpr index n = 16, k = 64;

bool is_the_vector(std::vector<float> const& got) {
  bool same = got.size() == std::size(vectors::int4_decoded);
  for (std::size_t i = 0; same && i < got.size(); ++i) same = std::bit_cast<std::uint32_t>(got[i]) == vectors::int4_decoded[i];
  return same;
}

}  // namespace

TEST_CASE("AWQ: decodes exactly where it lies in a file, and repacked") {
  safetensors_writer writer;
  writer.tensor("l.qweight", "I32", "64,2", list(vectors::awq_qweight))
      .tensor("l.qzeros", "I32", "2,2", list(vectors::awq_qzeros))
      .tensor("l.scales", "F16", "2,16", list(vectors::int4_scales));
  auto const memory = writer.bytes();
  safetensors_file const file(memory.data(), memory.size());
  awq_weights const w(file.tensor("l.qweight").view<std::int32_t, 2>(), file.tensor("l.qzeros").view<std::int32_t, 2>(),
                      file.tensor("l.scales").view<f16, 2>());
  CHECK((w.rows == n && w.columns == k && w.group == 32));
  CHECK(is_the_vector(decoded(w)));
  CHECK(within_seven_bits(w));
  matrix_of<std::uint8_t> codes(n, k / 2), zeros(n, 2);
  matrix_of<f16> scales(n, 2);
  repack(cpu, w, codes.view, scales.view, zeros.view);
  CHECK(is_the_vector(decoded(group_int4_zeros(codes.view, scales.view, zeros.view))));
}

TEST_CASE("AWQ: parts that do not fit") {
  std::vector<std::int32_t> memory(1024);
  std::vector<f16> halves(1024);
  auto const make = [&](index k0, index n8, index g0, index z8, index g1, index s1) {
    return message_of([&] {
      awq_weights(view(std::as_const(memory).data(), k0, n8), view(std::as_const(memory).data(), g0, z8),
                  view(std::as_const(halves).data(), g1, s1));
    });
  };
  CHECK(make(64, 2, 2, 2, 2, 16) == "no error");
  CHECK(make(64, 2, 1, 2, 1, 16) == "no error");
  CHECK(make(60, 2, 2, 2, 2, 16) == "awq_weights: qweight.extent(0) is 60, expected a multiple of 32");
  CHECK(make(64, 2, 2, 2, 2, 8) == "awq_weights: scales.extent(1) is 8, expected 8 qweight.extent(1) = 16");
  CHECK(make(64, 2, 1, 2, 2, 16) == "awq_weights: qzeros.extent(0) is 1, expected scales.extent(0) = 2");
  CHECK(make(64, 2, 2, 16, 2, 16) == "awq_weights: qzeros.extent(1) is 16, expected qweight.extent(1) = 2");
  CHECK(make(64, 2, 4, 2, 4, 16) == "awq_weights: scales.extent(0) is 4, expected the number of groups, each of a multiple of 32 columns");
  CHECK(make(64, 2, 0, 2, 0, 16) == "awq_weights: scales.extent(0) is 0, expected the number of groups, each of a multiple of 32 columns");
}

}  // namespace tern::test
