// SPDX-License-Identifier: Apache-2.0
#include "layer.hpp"

namespace tern::test::gptq_recursion {
namespace {

constexpr weight_type gptq_types[] = {weight_type::q4_0, weight_type::q4_1, weight_type::q5_0, weight_type::q8_0, weight_type::q2_k,
                                      weight_type::q3_k, weight_type::q4_k, weight_type::q5_k, weight_type::q6_k, weight_type::iq4_nl};

double& at(matrix& m, index k, index i, index j) { return m[static_cast<std::size_t>(i * k + j)]; }

/// X^T X + damping mean(diag) I
matrix damped_hessian(calibration const& seen, double damping) {
  index const k = seen.k();
  matrix h;
  for (index i = 0; i < k; ++i) h.insert(h.end(), seen.products(i), seen.products(i) + k);
  double mean = 0;
  for (index i = 0; i < k; ++i) mean += at(h, k, i, i) / static_cast<double>(k);
  for (index i = 0; i < k; ++i) at(h, k, i, i) += damping * mean;
  return h;
}
/// By Gauss and Jordan; h is positive definite.
matrix inverse(matrix h, index k) {
  matrix r(h.size());
  for (index i = 0; i < k; ++i) at(r, k, i, i) = 1;
  for (index c = 0; c < k; ++c) {
    double const pivot = at(h, k, c, c);
    for (index j = 0; j < k; ++j) at(h, k, c, j) /= pivot, at(r, k, c, j) /= pivot;
    for (index i = 0; i < k; ++i) {
      double const factor = i == c ? 0 : at(h, k, i, c);
      for (index j = 0; factor != 0 && j < k; ++j) at(h, k, i, j) -= factor * at(h, k, c, j), at(r, k, i, j) -= factor * at(r, k, c, j);
    }
  }
  return r;
}
/// The upper U of m = U^T U.
matrix upper_cholesky(matrix m, index k) {
  matrix u(m.size());
  for (index i = 0; i < k; ++i)
    for (index j = i; j < k; ++j) {
      double sum = at(m, k, i, j);
      for (index p = 0; p < i; ++p) sum -= at(u, k, p, i) * at(u, k, p, j);
      at(u, k, i, j) = j == i ? std::sqrt(sum) : sum / at(u, k, i, i);
    }
  return u;
}

/// The paper's recursion, column by column, each change at once in all later columns. Returns what the codes say.
template <class Format>
std::vector<float> naive_gptq(layer const& l, calibration const& seen, double damping) {
  matrix u = upper_cholesky(inverse(damped_hessian(seen, damping), l.k), l.k);
  std::vector<float> result;
  for (index r = 0; r < l.n; ++r) {
    std::vector<double> w(l.w.begin() + r * l.k, l.w.begin() + (r + 1) * l.k);
    typename Format::block block;
    for (index i = 0; i < l.k; ++i) {
      index const first = i / Format::elements * Format::elements;
      if (i == first) {
        std::vector<float> now(w.begin() + first, w.begin() + first + Format::elements);
        block = Format::encode(now.data());
      }
      float nearest = 0;
      for (int c = 0; c < Format::codes; ++c) {
        std::uint8_t code[Format::elements] = {};
        code[i - first] = static_cast<std::uint8_t>(c);
        Format::put(block, code);
        float x[Format::elements];
        Format::decode(block, x);
        float const v = x[i - first];
        if (c == 0 || std::abs(w[static_cast<std::size_t>(i)] - static_cast<double>(v)) <
                          std::abs(w[static_cast<std::size_t>(i)] - static_cast<double>(nearest)))
          nearest = v;
      }
      result.push_back(nearest);
      double const error = (w[static_cast<std::size_t>(i)] - static_cast<double>(nearest)) / at(u, l.k, i, i);
      for (index j = i; j < l.k; ++j) w[static_cast<std::size_t>(j)] -= error * at(u, l.k, i, j);
    }
  }
  return result;
}

/// All rows but one must agree: a weight may lie within rounding of a tie, and everything after it then differs.
template <class Format>
void check_naive(weight_type type, index n, index k) {
  INFO(info(type).name);
  rng r(91);
  layer const l(r, n, k, 3 * k);
  calibration seen(k);
  seen.add(cpu, l.inputs());
  auto const q = decoded(gptq(cpu, l.weights(), seen, type));
  auto const want = naive_gptq<Format>(l, seen, 0.01);
  index same = 0;
  for (index i = 0; i < n; ++i) same += std::equal(q.begin() + i * k, q.begin() + (i + 1) * k, want.begin() + i * k);
  CHECK(same >= n - 1);
}

}  // namespace

TEST_CASE("gptq chooses what the paper's recursion chooses in float64, without blocks of columns") {
  check_naive<formats::q4_0>(weight_type::q4_0, 6, 160);
  check_naive<formats::q4_1>(weight_type::q4_1, 6, 160);
  check_naive<formats::q5_0>(weight_type::q5_0, 6, 160);
  check_naive<formats::iq4_nl>(weight_type::iq4_nl, 6, 160);
  check_naive<formats::q3_k>(weight_type::q3_k, 4, 512);
  check_naive<formats::q4_k>(weight_type::q4_k, 4, 512);
}

TEST_CASE("gptq loses clearly less of a layer's outputs than rounding, where inputs are correlated") {
  rng r(92);
  layer const l(r, 16, 512, 1536);
  calibration seen(l.k);
  seen.add(cpu, l.inputs());
  feedback const in_order(cpu, seen), descending(cpu, seen, 0.01, true);
  for (weight_type type : gptq_types) {
    double const rounded = naive_error(l, round_to_nearest(cpu, l.weights(), type));
    auto const q = gptq(cpu, l.weights(), in_order, type);
    double const error = naive_error(l, q), by_size = naive_error(l, gptq(cpu, l.weights(), descending, type));
    INFO(info(type).name << ": " << rounded << ", gptq " << error << ", by size " << by_size);
    CHECK(error < 0.7 * rounded);
    CHECK(by_size < 0.7 * rounded);
    CHECK(bytes_of(q) == bytes_of(gptq(cpu, l.weights(), seen, type)));
    CHECK(bytes_of(q) == bytes_of(gptq(cpu, l.weights(), l.inputs(), type)));
  }
}

TEST_CASE("gptq gives the same bytes on any number of threads") {
  rng r(93);
  layer const l(r, 19, 512, 600);
  thread_pool pool(3);
  for (weight_type type : {weight_type::q4_0, weight_type::q4_k})
    for (bool act_order : {false, true})
      CHECK(bytes_of(gptq(cpu.on(serial), l.weights(), l.inputs(), type, {.act_order = act_order})) ==
            bytes_of(gptq(cpu.on(pool), l.weights(), l.inputs(), type, {.act_order = act_order})));
}

TEST_CASE("how many columns gptq passes on together is no matter of the result") {
  rng r(94);
  layer const l(r, 4, 256, 600);
  auto const q = decoded(gptq(cpu, l.weights(), l.inputs(), weight_type::q4_0));
  for (index block : {1, 32, 100, 4096}) CHECK(q == decoded(gptq(cpu, l.weights(), l.inputs(), weight_type::q4_0, {.block = block})));
}

TEST_CASE("columns without inputs are rounded to nearest, and without any gptq is rounding") {
  rng r(95);
  layer l(r, 6, 64, 200);
  for (index s = 0; s < l.samples; ++s)
    for (index j = 32; j < 64; ++j) l.x[static_cast<std::size_t>(s * l.k + j)] = 0;
  for (bool act_order : {false, true}) {
    auto const q = decoded(gptq(cpu, l.weights(), l.inputs(), weight_type::q4_1, {.act_order = act_order}));
    auto const rounded = decoded(round_to_nearest(cpu, l.weights(), weight_type::q4_1));
    bool changed = false;
    for (std::size_t i = 0; i < q.size(); ++i) {
      if (i % 64 >= 32) CHECK(q[i] == rounded[i]);
      changed |= q[i] != rounded[i];
    }
    CHECK(changed);
    std::vector<float> const nothing(64 * 3);
    CHECK(decoded(gptq(cpu, l.weights(), view(nothing.data(), 3, 64), weight_type::q4_1, {.act_order = act_order})) == rounded);
  }
}

TEST_CASE("weights that the format can hold stay as they are under gptq") {
  rng r(96);
  layer l(r, 8, 256, 300);
  l.w = decoded(round_to_nearest(cpu, l.weights(), weight_type::q8_0));
  CHECK(decoded(gptq(cpu, l.weights(), l.inputs(), weight_type::q8_0)) == l.w);
}

TEST_CASE("gptq checks its arguments") {
  rng r(97);
  layer l(r, 2, 64, 10);
  auto const w = l.weights(), x = l.inputs();
  auto const q4 = weight_type::q4_0;
  CHECK_THROWS_WITH(gptq(cpu, w, x.slice(1, 0, 32), q4), "gptq: x.extent(1) is 32, expected w.extent(1) = 64");
  CHECK_THROWS_WITH(gptq(cpu, w, x.slice(0, 0, 0), q4), "gptq: x.extent(0) is 0, expected at least 1");
  CHECK_THROWS_WITH(gptq(cpu, w, calibration(64), q4), "gptq: the calibration's samples is 0, expected at least 1");
  CHECK_THROWS_WITH(gptq(cpu, w, x, weight_type::q4_k), "gptq: w.extent(1) is 64, expected a multiple of the format's 256");
  CHECK_THROWS_WITH(gptq(cpu, w, x, q4, {.block = 0}), "gptq: block is 0, expected more than 0");
  CHECK_THROWS_WITH(gptq(cpu, w, x, q4, {.damping = -1}), "gptq: damping, rounded, is -1, expected a number, at least 0");
  std::vector<float> alike(128, 1.f);
  CHECK_THROWS_WITH(gptq(cpu, w, view(alike.data(), 2, 64), q4, {.damping = 0}),
                    "gptq: a column that others determine is 62, expected inputs that vary, or damping");
  calibration seen(32);
  seen.add(cpu, x.slice(1, 0, 32));
  CHECK_THROWS_WITH(gptq(cpu, w, feedback(cpu, seen), q4), "gptq: the feedback's k is 32, expected w.extent(1) = 64");
  l.w[100] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH(gptq(cpu, w, x, q4), "gptq: w: a row that holds NaN or infinity is 1, expected finite weights");
}

}  // namespace tern::test::gptq_recursion
