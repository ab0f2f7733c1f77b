// SPDX-License-Identifier: Apache-2.0
// How the cases of the matrix are compared; they are compiled in matrix_0_test.cpp and its neighbours.
#include "matrix_case.hpp"

namespace tern::test::matrix {
namespace {

constexpr double half_bf16 = 0x1p16;  // 2^-8, in units of 2^-24

/// What rounding q to integers, or q and k to bf16, adds to a score at most, in units of 2^-24.
double rounded_score(setting const& s, oracle::attended const& e, std::vector<double> const& rounded, std::size_t row) {
  if (!s.bf16_scores()) return rounded[row] * 0x1p24;
  bool const k_holds_bf16 = s.f.value[0] == static_cast<int>(source::bf16) && s.f.value[5] == 0;
  return (k_holds_bf16 ? 1 : 2) * 1.01 * half_bf16 * e.growth[row];
}
/// And to the sum of values, for a sum of magnitudes of 1: weights and v are rounded, and a weight moves by more than its slope says.
double rounded_sum(setting const& s, double of_score) {
  double const moved = std::expm1(2 * of_score * 0x1p-24) / (s.bf16_scores() ? 2 : 1) * 0x1p24;
  bool const v_holds_bf16 = s.f.value[1] == static_cast<int>(source::bf16);
  return moved + (s.bf16_weights() ? (v_holds_bf16 ? 1 : 2) * 1.01 * half_bf16 : 0);
}
/// What integers for weights add to the sum of values (tile_kernels.hpp), in units of 2^-24: P / 510 sum_j D |c_j| in each tile, with P at
/// most the largest weight of the row, and D |c| at most the largest value, 2, or the next step. Of a hard choice one weight is not zero.
double rounded_weights(setting const& s, oracle::attended const& e, double of_score, std::size_t row) {
  if (!s.integer_weights() || !std::isfinite(e.row_max[row])) return 0;
  double const step = 2 * (128 / 127.) / 510 * 0x1p24;
  if (s.f.value[4] == by_hard) return step;
  return static_cast<double>(s.keys) * std::exp(e.row_max[row] - e.lse[row] + 2 * of_score * 0x1p-24) * step;
}
/// By how much the scores of a row may be off, in units of 2^-24.
double score_error(setting const& s, oracle::attended const& e, std::vector<double> const& rounded, std::size_t row) {
  double const most = std::isfinite(e.row_max[row]) ? std::abs(e.row_max[row]) : 0;
  return attention_accuracy::b0 + attention_accuracy::b1 * std::sqrt(static_cast<double>(s.dim)) * e.growth[row] + 2 * most +
         rounded_score(s, e, rounded, row);
}

/// The ids are those of the largest scores, in their order, as far as errors let one know.
void check_top(setting const& s, results const& got, oracle::attended const& e, std::vector<double> const& rounded) {
  for (std::size_t n = 0; n < e.top_ids.size(); ++n) {
    std::size_t const row = n / 3;
    index const id = got.id.data()[n], want = e.top_ids[n];
    float const score = got.top.data()[n];
    CAPTURE(row, n % 3, id, want, score);
    if (want < 0) {
      REQUIRE(id == -1);
      REQUIRE(score == -std::numeric_limits<float>::infinity());
      continue;
    }
    double const* const scores = e.score.data() + static_cast<index>(row) * s.keys;
    double const error = score_error(s, e, rounded, row) * 0x1p-24;
    REQUIRE((id >= 0 && id < s.keys));
    REQUIRE(std::abs(static_cast<double>(score) - scores[want]) <= error);
    REQUIRE((id == want || std::abs(scores[id] - scores[want]) <= 2 * error));
    for (std::size_t m = row * 3; m < n; ++m) REQUIRE(got.id.data()[m] != id);
  }
}

}  // namespace

void check(setting const& s, results const& got, oracle::attended e, std::vector<double> const& rounded) {
  using a = attention_accuracy;
  std::vector<double> lse_error, max_error;
  for (std::size_t row = 0; row < e.lse.size(); ++row) {
    double const allowed =
        a::b0 + a::b1 * std::sqrt(static_cast<double>(s.dim)) * e.growth[row] + a::b2 * std::sqrt(static_cast<double>(s.keys));
    double const of_score = rounded_score(s, e, rounded, row), of_sum = rounded_sum(s, of_score);
    double const of_weights = rounded_weights(s, e, of_score, row);
    lse_error.push_back(allowed + of_score + 2 * std::abs(std::isfinite(e.lse[row]) ? e.lse[row] : 0));
    max_error.push_back(score_error(s, e, rounded, row));
    e.weight_magnitude[row] *= allowed + of_sum;
    bool const tie = s.f.value[4] == by_hard && e.lead[row] <= 2 * max_error[row] * 0x1p-24;  // either of two keys is right
    for (index d = 0; d < s.dim_v; ++d) {
      double& m = e.magnitude[row * static_cast<std::size_t>(s.dim_v) + static_cast<std::size_t>(d)];
      m = tie ? std::numeric_limits<double>::infinity() : m * (allowed + of_sum) + of_weights;
    }
  }
  INFO("factors " << [&] {
    std::ostringstream text;
    for (int x : s.f.value) text << x << ' ';
    return text.str();
  }());
  REQUIRE(compare(got.out_view, e.value, e.magnitude, 0x1p-24));
  CHECK(got.out.intact());
  if (s.f.value[4] <= with_sinks) REQUIRE(compare(got.lse_view, e.lse, lse_error, 0x1p-24));
  if (s.f.value[4] <= by_hard)
    REQUIRE(compare(got.max_view, e.row_max, max_error, 0x1p-24));
  else
    REQUIRE(compare(got.sum_view, e.weight_sum, e.weight_magnitude, 0x1p-24));
  if (s.f.value[6] == and_top_keys) check_top(s, got, e, rounded);
}

TEST_CASE("attention matrix: rows and cases") {
  CHECK(row_count == 55);
  CHECK(every_pair_meets());
}

}  // namespace tern::test::matrix
