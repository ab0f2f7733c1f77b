// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "coded.hpp"
#include "message.hpp"

#include <tern/formats/dgq.hpp>

#include <utility>

namespace tern::test {
namespace {

struct stored {
  matrix_of<std::uint8_t> codes, zeros, steps;
  std::vector<float> row_scales;
  stored(index n, index k, index group)
      : codes(n, k / 2), zeros(n, k / group), steps(n, k / group), row_scales(static_cast<std::size_t>(n), 1.f) {}
  stored(std::vector<float> const& x, index n, index group) : stored(n, static_cast<index>(x.size()) / n, group) {
    dgq_weights::encode(cpu, view(x.data(), n, static_cast<index>(x.size()) / n), codes.view, zeros.view, steps.view, view(row_scales));
  }
  dgq_weights weights() const { return {codes.view, zeros.view, steps.view, view(row_scales)}; }
};

}  // namespace

TEST_CASE("DGQ: integers of eight bits made of four") {
  constexpr index n = 3, k = 128, group = 64;
  rng r(111);
  stored s(n, k, group);
  s.row_scales = r.normal(n);
  for (std::size_t g = 0; g < s.zeros.memory.size(); ++g) {
    s.zeros.memory[g] = static_cast<std::uint8_t>(r.integer(0, 15));
    s.steps.memory[g] = static_cast<std::uint8_t>(r.integer(1, 8));  // 15 * 8 < 127: any code fits
  }
  for (auto& x : s.codes.memory) x = static_cast<std::uint8_t>(r.bits());
  auto const w = s.weights();
  CHECK((w.rows == n && w.columns == k && w.group == group));
  auto const got = decoded(w);
  for (index i = 0; i < n; ++i)
    for (index j = 0; j < k; ++j) {
      std::uint8_t const byte = s.codes.view(i, j / 32 * 16 + j % 16);
      int const q = j % 32 < 16 ? byte & 15 : byte >> 4;
      int const w8 = (q - s.zeros.view(i, j / group)) * s.steps.view(i, j / group);
      REQUIRE(got[static_cast<std::size_t>(i * k + j)] == s.row_scales[static_cast<std::size_t>(i)] * static_cast<float>(w8));
    }
}

TEST_CASE("DGQ: encoding leaves the integers in range, and errs little more than four bits alone") {
  rng r(112);
  constexpr index n = 12, k = 512;
  for (index const group : {32, 128, 512})
    for (int kind = 0; kind < 4; ++kind) {
      INFO("group " << group << ", numbers of kind " << kind);
      auto x = r.normal(n * k);
      for (std::size_t i = 0; i < x.size(); ++i) {
        if (kind == 1) x[i] *= std::pow(2.f, static_cast<float>(i / 32 % 5));
        if (kind == 2) x[i] = x[i] * x[i] * x[i];
        if (kind == 3) x[i] = 1e-20f * std::abs(x[i]);
      }
      stored const s(x, n, group);
      double const error = relative_error(x, decoded(s.weights()));
      matrix_of<std::uint8_t> codes(n, k / 2), zeros(n, k / group);
      matrix_of<f16> scales(n, k / group);
      if (kind == 3) {
        CHECK(error < 0.2);
        continue;
      }
      group_int4_zeros::encode(cpu, view(x.data(), n, k), codes.view, scales.view, zeros.view);
      double const four = relative_error(x, decoded(group_int4_zeros(codes.view, scales.view, zeros.view)));
      // What the second grain costs: scales that are integers from about 10 on, so off by at most a twentieth; and the search's own.
      CHECK(error < 1.25 * four);
      CHECK(error > 0.8 * four);
    }
}

TEST_CASE("DGQ: odd inputs") {
  std::vector<float> x(2 * 64, 0.f);
  auto const zeros = decoded(stored(x, 2, 32).weights());
  CHECK(std::all_of(zeros.begin(), zeros.end(), [](float y) { return y == 0.f; }));
  x[3] = NAN;
  x[4] = 5.f;
  x[70] = INFINITY;
  auto const y = decoded(stored(x, 2, 32).weights());
  CHECK(y[3] == 0.f);
  CHECK(std::abs(y[4] - 5.f) < 0.1f);
  CHECK(std::isfinite(y[70]));
}

TEST_CASE("DGQ: parts that do not fit, and integers that overflow") {
  stored s(2, 64, 32);
  s.zeros.memory.assign(4, 8);
  s.steps.memory.assign(4, 15);
  s.codes.memory.assign(64, 0x88);
  CHECK(message_of([&] { s.weights(); }) == "no error");
  s.codes.memory[40] = 0xf8;
  CHECK(message_of([&] { s.weights(); }) == "no error");  // 7 * 15 = 105
  s.steps.memory[2] = 19;
  CHECK(message_of([&] { s.weights(); }) == "dgq_weights: (code - zero) scale is 133, expected at least -127 and at most 127");
  s.codes.memory[40] = 0x81;
  CHECK(message_of([&] { s.weights(); }) == "dgq_weights: (code - zero) scale is -133, expected at least -127 and at most 127");
  s.codes.memory[40] = 0x88;
  s.steps.memory[3] = 0;
  CHECK(message_of([&] { s.weights(); }) == "dgq_weights: a group's scale is 0, expected 1 to 127");
  s.steps.memory[3] = 128;
  CHECK(message_of([&] { s.weights(); }) == "dgq_weights: a group's scale is 128, expected 1 to 127");
  s.steps.memory[3] = 1;
  s.zeros.memory[1] = 16;
  CHECK(message_of([&] { s.weights(); }) == "dgq_weights: a zero is 16, expected at most 15");
  s.zeros.memory[1] = 8;
  CHECK(message_of([&] { dgq_weights(s.codes.view, s.zeros.view, matrix_of<std::uint8_t>(2, 4).view, view(s.row_scales)); }) ==
        "dgq_weights: scales.extent(1) is 4, expected the number of groups in a row, each of a multiple of 32 columns");
  CHECK(message_of([&] { dgq_weights(s.codes.view, matrix_of<std::uint8_t>(2, 1).view, s.steps.view, view(s.row_scales)); }) ==
        "dgq_weights: zeros.extent(1) is 1, expected scales.extent(1) = 2");
  s.row_scales.resize(1);
  CHECK(message_of([&] { s.weights(); }) == "dgq_weights: row_scales.extent(0) is 1, expected the number of rows = 2");
}

TEST_CASE("DGQ: the search says how far it is, and a row does not depend on the others") {
  constexpr index n = 600, k = 64, group = 32;
  rng r(113);
  std::vector<float> const x = r.normal<float>(n * k);
  stored all(n, k, group);
  std::vector<std::pair<index, index>> said;
  dgq_weights::encode(cpu, view(x.data(), n, k), all.codes.view, all.zeros.view, all.steps.view, view(all.row_scales),
                      [&](index done, index total) { said.emplace_back(done, total); });
  CHECK(said == std::vector<std::pair<index, index>>{{256, 600}, {512, 600}, {600, 600}});
  for (index i : {0, 255, 256, 511, 512, 599}) {
    stored const one({x.begin() + i * k, x.begin() + (i + 1) * k}, 1, group);
    CHECK(all.row_scales[static_cast<std::size_t>(i)] == one.row_scales[0]);
    for (index j = 0; j < k / 2; ++j) CHECK(all.codes.view(i, j) == one.codes.view(0, j));
    for (index g = 0; g < k / group; ++g)
      CHECK((all.zeros.view(i, g) == one.zeros.view(0, g) && all.steps.view(i, g) == one.steps.view(0, g)));
  }
}

}  // namespace tern::test
