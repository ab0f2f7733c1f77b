// SPDX-License-Identifier: Apache-2.0
// One call of tern on built-in data: its result and its speed beside the same formula written with Eigen.

#include <tern/attention.hpp>

#include <Eigen/Dense>
#include <algorithm>
#include <chrono>
#include <cstdio>

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// softmax(q k^T / sqrt(d)) v
matrix plain(matrix const& q, matrix const& k, matrix const& v) {
  matrix s = q * k.transpose() / std::sqrt(static_cast<float>(q.cols()));
  s.colwise() -= s.rowwise().maxCoeff().eval();
  s = s.array().exp();
  return s.rowwise().sum().cwiseInverse().asDiagonal() * (s * v);
}

template <class F>
double best_milliseconds(F const& f) {
  double best = 1e9;
  for (int i = 0; i < 20; ++i) {
    auto const start = std::chrono::steady_clock::now();
    f();
    best = std::min(best, std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

int main() {
  int const tokens = 2048, dim = 64;
  matrix const q = matrix::Random(tokens, dim), k = matrix::Random(tokens, dim), v = matrix::Random(tokens, dim);
  matrix out(tokens, dim), expected;

  double const ours = best_milliseconds([&] { tern::attention(tern::cpu.on(tern::serial), q, k, v, out); });
  double const theirs = best_milliseconds([&] { expected = plain(q, k, v); });
  double const all_cores = best_milliseconds([&] { tern::attention(tern::cpu, q, k, v, out); });

  std::printf("attention of %d tokens, dimension %d: out(0, 0) = %.6f, Eigen's formula %.6f, largest difference %.1e\n", tokens, dim,
              out(0, 0), expected(0, 0), (out - expected).cwiseAbs().maxCoeff());
  std::printf("one thread: tern %.2f ms, Eigen %.2f ms (%.1f x); all cores: tern %.2f ms\n", ours, theirs, theirs / ours, all_cores);
}
