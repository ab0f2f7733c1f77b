// SPDX-License-Identifier: Apache-2.0
#include "elements.hpp"
#include "message.hpp"

#include <tern/formats/binary.hpp>

namespace tern::test {

using namespace tern::formats;

TEST_CASE("binary weights are the sign times the row's mean magnitude") {
  rng r(121);
  for (index columns : {32, 64, 96, 256}) {
    index const rows = 3, words_each = (columns + 63) / 64;
    auto x = r.normal(rows * columns);
    x[5] = 0.f;
    std::vector<std::uint64_t> words(static_cast<std::size_t>(rows * words_each), ~std::uint64_t{0});
    std::vector<float> scales(rows);
    encode_binary(matrix(std::as_const(x), rows), matrix(words, rows), view(scales));
    auto const got = elements(binary_weights(matrix(std::as_const(words), rows), columns, view(std::as_const(scales))));
    auto const signs = elements(binary_weights(matrix(std::as_const(words), rows), columns));
    auto const n = static_cast<std::size_t>(columns);
    for (std::size_t i = 0; i < rows; ++i) {
      double mean = 0;
      for (std::size_t k = 0; k < n; ++k) mean += std::abs(static_cast<double>(x[i * n + k])) / static_cast<double>(n);
      REQUIRE(scales[i] == Approx(mean).epsilon(1e-6));
      for (std::size_t k = 0; k < n; ++k) {
        float const sign = x[i * n + k] < 0 ? -1.f : 1.f;
        REQUIRE(signs[i * n + k] == sign);
        REQUIRE(got[i * n + k] == sign * scales[i]);
        bool const bit = words[i * static_cast<std::size_t>(words_each) + k / 64] >> k % 64 & 1;
        REQUIRE(bit == (sign > 0));
      }
    }
  }
}

TEST_CASE("binary weights check what they are told") {
  std::vector<std::uint64_t> words(4);
  std::vector<float> const scales(3);
  CHECK(message_of([&] { binary_weights(matrix(std::as_const(words), 2), 96); }) == "no error");
  CHECK(message_of([&] { binary_weights(matrix(std::as_const(words), 2), 65); }) == "binary_weights: k is 65, expected a multiple of 32");
  CHECK(message_of([&] { binary_weights(matrix(std::as_const(words), 2), 64); }) ==
        "binary_weights: words.extent(1) is 2, expected k / 64 rounded up = 1");
  CHECK(message_of([&] { binary_weights(matrix(std::as_const(words), 2), 96, view(scales)); }) ==
        "binary_weights: scales.extent(0) is 3, expected 0 or the rows of words");
  std::vector<float> const w(96);
  CHECK(message_of([&] { encode_binary(matrix(w, 1), matrix(words, 2)); }) ==
        "encode_binary: words.extent(0) is 2, expected w.extent(0) = 1");
}

}  // namespace tern::test
