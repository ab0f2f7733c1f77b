// SPDX-License-Identifier: Apache-2.0
// Every family through the table, against plain loops in float64.
#include "families.hpp"

#include "check.hpp"

#include <cmath>
#include <limits>
#include <tern/core/float16.hpp>
#include <tern/dispatch.hpp>
#include <vector>

namespace {

using tern::index;
constexpr double u = 0x1p-24;

struct tensor {
  index n0, n1, n2;
  std::vector<float> data;
  tensor(index a, index b, index c, float scale, unsigned seed) : n0(a), n1(b), n2(c), data(static_cast<std::size_t>(a * b * c)) {
    for (float& v : data) v = scale * (static_cast<float>((seed = seed * 1664525u + 1013904223u) >> 8) / 8388608.f - 1.f);
  }
  double operator()(index i, index j, index k) const { return double(data[static_cast<std::size_t>((i * n1 + j) * n2 + k)]); }
  tern::tensor_view<float const, 3> all() const { return tern::view(data.data(), n0, n1, n2); }
  tern::tensor_view<float const, 2> matrix() const { return tern::view(data.data(), n0 * n1, n2); }
  tern::tensor_view<float const, 1> row() const { return tern::view(data.data(), n0 * n1 * n2); }
  tern::tensor_view<float, 3> all() { return tern::view(data.data(), n0, n1, n2); }
  tern::tensor_view<float, 2> matrix() { return tern::view(data.data(), n0 * n1, n2); }
};

bool near(double got, double expected, double tolerance) { return std::fabs(got - expected) <= tolerance; }

void check_attention(families const& f, index tokens) {
  index const heads = 4, kv_heads = 2, keys = 70, dim = 24, dim_v = 20;
  tensor const q(heads, tokens, dim, 1.f, 1), k(kv_heads, keys, dim, 1.f, 2), v(kv_heads, keys, dim_v, 1.f, 3);
  tensor out(heads, tokens, dim_v, 0.f, 0), lse(1, heads, tokens, 0.f, 0);
  f.attend(q.all(), k.all(), v.all(), out.all(), lse.matrix());
  for (index h = 0; h < heads; ++h)
    for (index t = 0; t < tokens; ++t) {
      index const seen = t + 1 + keys - tokens;
      std::vector<double> s(static_cast<std::size_t>(seen));
      double sum = 0, most = 0;
      for (index j = 0; j < seen; ++j) {
        double dot = 0, size = 0;
        for (index d = 0; d < dim; ++d) {
          dot += q(h, t, d) * k(h / 2, j, d);
          size += std::fabs(q(h, t, d) * k(h / 2, j, d));
        }
        sum += s[static_cast<std::size_t>(j)] = std::exp(dot / std::sqrt(double(dim)));
        most = std::fmax(most, size / std::sqrt(double(dim)));
      }
      for (index d = 0; d < dim_v; ++d) {
        double o = 0, magnitude = 0;
        for (index j = 0; j < seen; ++j) {
          double const term = s[static_cast<std::size_t>(j)] / sum * v(h / 2, j, d);
          o += term;
          magnitude += std::fabs(term);
        }
        CHECK(near(out(h, t, d), o, u * (16 + 4 * most) * magnitude));  // attention_accuracy
      }
      CHECK(near(lse(0, h, t), std::log(sum), u * (16 + 4 * most) * (1 + std::fabs(std::log(sum)))));
    }
}

void check_pointwise(families const& f) {
  index const rows = 5, n = 67;
  tensor const x(1, rows, n, 3.f, 4), up(1, rows, n, 2.f, 5), weight(1, 1, n, 1.f, 6);
  tensor norm(1, rows, n, 0.f, 0), gated = norm, soft = norm;
  f.rms_norm(x.matrix(), weight.row(), norm.matrix());
  f.swiglu(x.matrix(), up.matrix(), gated.matrix());
  f.softmax(x.matrix(), soft.matrix());
  for (index r = 0; r < rows; ++r) {
    double square = 0, sum = 0;
    for (index i = 0; i < n; ++i) {
      square += x(0, r, i) * x(0, r, i);
      sum += std::exp(x(0, r, i));
    }
    double const scale = 1 / std::sqrt(square / double(n) + 1e-6);
    for (index i = 0; i < n; ++i) {
      double const a = x(0, r, i) * scale * weight(0, 0, i);
      double const b = x(0, r, i) / (1 + std::exp(-x(0, r, i))) * up(0, r, i);
      double const c = std::exp(x(0, r, i)) / sum;
      CHECK(near(norm(0, r, i), a, u * 64 * std::fabs(a)));
      CHECK(near(gated(0, r, i), b, u * 16 * std::fabs(b)));
      CHECK(near(soft(0, r, i), c, u * 64 * std::fabs(c)));
    }
  }
}

void check_matmul(families const& f, index rows) {
  index const n = 37, k = 96;
  tensor const x(1, rows, k, 1.f, 7), w(1, n, k, 1.f, 8);
  tensor y(1, rows, n, 0.f, 0);
  f.matmul(x.matrix(), tern::block_matrix(w.matrix()), y.matrix(), false);
  std::vector<std::uint8_t> blocks;  // q8_0: a scale in f16 and 32 bytes
  for (index i = 0; i < n * k; ++i) {
    std::uint16_t const one_64th = 0x2400;
    if (i % 32 == 0) blocks.insert(blocks.end(), {std::uint8_t(one_64th & 255), std::uint8_t(one_64th >> 8)});
    blocks.push_back(static_cast<std::uint8_t>(static_cast<std::int8_t>(w.data[static_cast<std::size_t>(i)] * 127)));
  }
  tern::block_matrix const q8(blocks.data(), tern::weight_type::q8_0, n, k);
  tensor y8(1, rows, n, 0.f, 0), y8f(1, rows, n, 0.f, 0);
  f.matmul(x.matrix(), q8, y8.matrix(), true);
  f.matmul(x.matrix(), q8, y8f.matrix(), false);
  for (index r = 0; r < rows; ++r)
    for (index i = 0; i < n; ++i) {
      double sum = 0, magnitude = 0, sum8 = 0, magnitude8 = 0, rounding = 0;
      for (index b = 0; b < k; b += 32) {
        double largest = 0, weights = 0;
        for (index j = b; j < b + 32; ++j) {
          sum += x(0, r, j) * w(0, i, j);
          magnitude += std::fabs(x(0, r, j) * w(0, i, j));
          double const w8 = double(static_cast<std::int8_t>(w.data[static_cast<std::size_t>(i * k + j)] * 127)) / 64;
          sum8 += x(0, r, j) * w8;
          magnitude8 += std::fabs(x(0, r, j) * w8);
          weights += std::fabs(w8);
          largest = std::fmax(largest, std::fabs(x(0, r, j)));
        }
        rounding += largest / 254 * weights;  // half a step of a block's 127 on each activation
      }
      CHECK(near(y(0, r, i), sum, u * double(k + 8) * magnitude));
      CHECK(near(y8f(0, r, i), sum8, u * double(k + 8) * magnitude8));
      CHECK(near(y8(0, r, i), sum8, u * double(k + 8) * magnitude8 + rounding * 1.01));
    }
}

}  // namespace

void check_families(char const* architecture) {
  families const& f = tern::dispatch<families>(architecture);
  check_attention(f, 1);
  check_attention(f, 33);
  check_pointwise(f);
  check_matmul(f, 1);
  check_matmul(f, 19);
  tensor const q(2, 1, 8, 1.f, 1), k(2, 3, 9, 1.f, 2);
  tensor out(2, 1, 8, 0.f, 0), lse(1, 2, 1, 0.f, 0);
  CHECK(message_of<tern::error>([&] { f.attend(q.all(), k.all(), k.all(), out.all(), lse.matrix()); }) ==
        "attention: k.extent(2) is 9, expected q.extent(2) = 8");
}
