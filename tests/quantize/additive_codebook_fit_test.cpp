// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "compare.hpp"
#include "message.hpp"

#include <tern/formats/decode.hpp>
#include <tern/quantize/additive_codebook_fit.hpp>

namespace tern::test::codebook_fit {
namespace {

template <class Code>
double relative_error(std::vector<float> const& w, additive_codebook<Code> const& fit) {
  std::vector<float> row(static_cast<std::size_t>(fit.columns));
  double lost = 0, all = 0;
  for (index i = 0; i < fit.rows; ++i) {
    decode(fit.view(), i, row.data());
    for (index k = 0; k < fit.columns; ++k) {
      double const x = static_cast<double>(w[static_cast<std::size_t>(i * fit.columns + k)]);
      lost += std::pow(x - static_cast<double>(row[static_cast<std::size_t>(k)]), 2);
      all += x * x;
    }
  }
  return lost / all;
}

}  // namespace

TEST_CASE("fitting additive codebooks: no round makes the error larger, and it is the result's") {
  rng r(161);
  index const rows = 48, columns = 128;
  auto const w = r.normal(rows * columns, 0.05);
  for (index books : {1, 2, 3}) {
    INFO(books << " books");
    additive_codebook_options o;
    o.books = books;
    o.bits = 5;
    o.tolerance = 0;
    o.rounds = 8;
    std::vector<double> errors;
    o.progress = [&](index round, double e) {
      CHECK(round == static_cast<index>(errors.size()));
      errors.push_back(e);
    };
    auto const fit = fit_additive_codebook(cpu, view(w.data(), rows, columns), o);
    for (std::size_t i = 1; i < errors.size(); ++i) CHECK(errors[i] <= errors[i - 1] * (1 + 1e-12));
    CHECK(errors.back() < (books == 1 ? 1 : 0.98) * errors.front());  // one book is what k-means left it
    CHECK(fit.relative_error == errors.back());
    CHECK(relative_error(w, fit) == Approx(fit.relative_error).epsilon(1e-5));
    // Shannon: no code of R bits an element loses less of independent normal numbers than 2^(-2 R); codebooks are fitted to few
    // groups here, which gains somewhat. And a book more must help by far.
    double const rate = 5. * static_cast<double>(books) / 8;
    CHECK(fit.relative_error > 0.5 * std::exp2(-2 * rate));
    CHECK(fit.relative_error < 1.3 * std::exp2(-2 * rate));
  }
}

TEST_CASE("fitting additive codebooks finds what was made of them") {
  rng r(162);
  index const rows = 40, columns = 160;
  auto const vectors = r.normal(2 * 8 * 8);
  std::vector<float> w;
  for (index i = 0; i < rows; ++i)
    for (index j = 0; j < columns / 8; ++j) {
      index const a = r.integer(0, 7), b = r.integer(8, 15);
      for (index e = 0; e < 8; ++e)
        w.push_back((vectors[static_cast<std::size_t>(8 * a + e)] + 0.3f * vectors[static_cast<std::size_t>(8 * b + e)]) *
                    static_cast<float>(1 + i % 3));
    }
  additive_codebook_options o;
  o.bits = 6;  // enough to have one vector for each sum, and far from enough for what has no structure
  auto const fit = fit_additive_codebook(cpu, view(w.data(), rows, columns), o);
  CHECK(relative_error(w, fit) < 1e-3);
}

TEST_CASE("fitting additive codebooks: a wider beam is no worse, seeds repeat, 16-bit codes") {
  rng r(163);
  index const rows = 32, columns = 64;
  auto const w = r.normal(rows * columns);
  additive_codebook_options o;
  o.bits = 4;
  o.rounds = 5;
  o.beam = 1;
  auto const narrow = fit_additive_codebook(cpu, view(w.data(), rows, columns), o);
  o.beam = 16;
  auto const wide = fit_additive_codebook(cpu, view(w.data(), rows, columns), o);
  CHECK(wide.relative_error < narrow.relative_error);
  auto const again = fit_additive_codebook<std::uint16_t>(cpu.on(serial), view(w.data(), rows, columns), o);
  CHECK(again.vectors == wide.vectors);
  CHECK(std::equal(again.codes.begin(), again.codes.end(), wide.codes.begin(), wide.codes.end()));
  o.seed = 1;
  CHECK(fit_additive_codebook(cpu, view(w.data(), rows, columns), o).vectors != wide.vectors);
}

TEST_CASE("fitting additive codebooks: zeros, and what is wrong") {
  std::vector<float> w(64, 0.f);
  additive_codebook_options o;
  o.bits = 2;
  auto const fit = fit_additive_codebook(cpu, view(std::as_const(w).data(), 4, 16), o);
  std::vector<float> row(16);
  decode(fit.view(), 3, row.data());
  for (float e : row) CHECK(e == 0.f);
  CHECK(message_of([&] { fit_additive_codebook(cpu, view(std::as_const(w).data(), 4, 12), o); }) ==
        "fit_additive_codebook: w.extent(1) is 12, expected a multiple of 8");
  o.bits = 9;
  CHECK(message_of([&] { fit_additive_codebook(cpu, view(std::as_const(w).data(), 4, 16), o); }) ==
        "fit_additive_codebook: bits is 9, expected 1 to the bits of a code");
  o.bits = 12;
  CHECK(message_of([&] { fit_additive_codebook<std::uint16_t>(cpu, view(std::as_const(w).data(), 4, 16), o); }) ==
        "fit_additive_codebook: books times 2^bits is 8192, expected at most 4096, or one book");
  o.bits = 2;
  w[20] = std::numeric_limits<float>::infinity();
  CHECK(message_of([&] { fit_additive_codebook(cpu, view(std::as_const(w).data(), 4, 16), o); }) ==
        "fit_additive_codebook: w: a row that holds NaN or infinity is 1, expected finite weights");
}

}  // namespace tern::test::codebook_fit
