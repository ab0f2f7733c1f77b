// SPDX-License-Identifier: Apache-2.0
#include "elements.hpp"
#include "message.hpp"

#include <tern/formats/additive_codebook.hpp>

namespace tern::test {
namespace {

using namespace tern::formats;

template <class Code, class T>
void check_decode(index books, index names, index rows, index groups) {
  INFO(books << " books of " << names);
  rng r(141);
  auto const count = [](index n) { return static_cast<std::size_t>(n); };
  std::vector<Code> codes(count(rows * groups * books));
  for (auto& c : codes) c = static_cast<Code>(r.integer(0, names - 1));
  codes[0] = static_cast<Code>(names - 1);
  guarded<T> const codebooks(r.normal<T>(books * names * 8), 3);
  auto const scales = r.normal(rows);
  additive_codebook_weights<Code, T> const w(view(std::as_const(codes).data(), rows, groups, books),
                                             view(codebooks.data(), books, names, 8), view(scales));
  auto const got = elements(w);
  for (index i = 0; i < rows; ++i)
    for (index j = 0; j < groups; ++j)
      for (index e = 0; e < 8; ++e) {
        // Each step rounded to f32.
        double sum = 0, exact = 0, magnitude = 0;
        for (index m = 0; m < books; ++m) {
          index const code = codes[count((i * groups + j) * books + m)];
          auto const v = static_cast<double>(static_cast<float>(codebooks.data()[(m * names + code) * 8 + e]));
          sum = static_cast<double>(static_cast<float>(sum + v));
          exact += v;
          magnitude += std::abs(v);
        }
        double const scale = static_cast<double>(scales[count(i)]);
        double const have = static_cast<double>(got[count((i * groups + j) * 8 + e)]);
        REQUIRE(have == static_cast<double>(static_cast<float>(sum * scale)));
        REQUIRE(std::abs(have - exact * scale) <= 0x1p-24 * static_cast<double>(books + 1) * magnitude * std::abs(scale));
      }
}

}  // namespace

TEST_CASE("additive codebooks decode to scaled sums of vectors") {
  check_decode<std::uint8_t, float>(2, 256, 3, 12);
  check_decode<std::uint8_t, f16>(2, 256, 3, 13);
  check_decode<std::uint8_t, bf16>(4, 100, 2, 5);
  check_decode<std::uint16_t, f16>(1, 65536, 3, 8);
  check_decode<std::uint16_t, float>(3, 1024, 2, 9);
}

TEST_CASE("additive codebooks check what they are told") {
  std::vector<std::uint8_t> codes(32, 7);
  std::vector<float> const books(2 * 16 * 8), scales(4);
  auto const message = [&](index rows, index m, index names, index width, index scale) {
    return message_of([&] {
      additive_codebook_weights<std::uint8_t>(view(std::as_const(codes).data(), rows, 4, 2), view(books.data(), m, names, width),
                                              view(scales.data(), scale));
    });
  };
  CHECK(message(4, 2, 16, 8, 4) == "no error");
  CHECK(message(4, 1, 16, 8, 4) == "additive_codebook_weights: codebooks.extent(0) is 1, expected codes.extent(2) = 2");
  CHECK(message(4, 2, 32, 4, 4) == "additive_codebook_weights: codebooks.extent(2) is 4, expected the elements of a vector = 8");
  CHECK(message(3, 2, 16, 8, 4) == "additive_codebook_weights: scales.extent(0) is 4, expected codes.extent(0) = 3");
  codes[31] = 16;
  CHECK(message(4, 2, 16, 8, 4) == "additive_codebook_weights: a code is 16, expected less than codebooks.extent(1)");
}

}  // namespace tern::test
