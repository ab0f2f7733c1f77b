// SPDX-License-Identifier: Apache-2.0
// Every family through the table, against plain loops in float64.
#include "families.hpp"

#include "check.hpp"

#include <cmath>
#include <complex>
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

void check_depthwise_conv(families const& f) {
  index const n = 9, channels = 21, k = 3;
  tensor const x(n, n, channels, 1.f, 9), w(k, k, channels, 1.f, 10);
  tensor y(n, n, channels, 0.f, 0);
  f.depthwise_conv(tern::view(x.data.data(), 1, n, n, channels), w.all(), tern::view(y.data.data(), 1, n, n, channels));
  for (index i = 0; i < n; ++i)
    for (index j = 0; j < n; ++j)
      for (index c = 0; c < channels; ++c) {
        double sum = 0, magnitude = 0;
        for (index p = 0; p < k; ++p)
          for (index q = 0; q < k; ++q) {
            index const h = i + p - 1, v = j + q - 1;
            if (h < 0 || v < 0 || h >= n || v >= n) continue;
            sum += x(h, v, c) * w(p, q, c);
            magnitude += std::fabs(x(h, v, c) * w(p, q, c));
          }
        CHECK(near(y(i, j, c), sum, u * 5 * magnitude));  // depthwise_conv.accuracy
      }
}

/// A few taps are multiplied directly, many by transforms.
void check_long_conv(families const& f, index taps) {
  index const channels = 3, n = 400;
  tensor const x(1, channels, n, 1.f, 11), k(1, channels, taps, 1.f, 12);
  tensor y(1, channels, n, 0.f, 0);
  f.long_conv(x.matrix(), k.matrix(), y.matrix());
  for (index c = 0; c < channels; ++c) {
    double samples = 0, filter = 0, difference = 0;
    for (index i = 0; i < n; ++i) {
      double sum = 0;
      for (index j = 0; j <= i && j < taps; ++j) sum += k(0, c, j) * x(0, c, i - j);
      difference += (y(0, c, i) - sum) * (y(0, c, i) - sum);
      samples += x(0, c, i) * x(0, c, i);
    }
    for (index j = 0; j < taps; ++j) filter += k(0, c, j) * k(0, c, j);
    CHECK(near(std::sqrt(difference), 0, u * 38 * std::sqrt(samples * filter)));  // long_conv.error of up to 2^10
  }
}

/// Lengths of small factors, as a matrix and several together, and a prime.
void check_fft(families const& f, index n) {
  index const rows = 3, bins = n / 2 + 1;
  tensor const x(rows, n, 2, 1.f, 13), real(1, rows, n, 1.f, 14);
  tensor y(rows, n, 2, 0.f, 0), half(rows, bins, 2, 0.f, 0);
  f.fft(x.all(), y.all());
  f.real_fft(real.matrix(), half.all());
  for (index r = 0; r < rows; ++r) {
    double lost = 0, size = 0, real_lost = 0, real_size = 0;
    for (index k = 0; k < n; ++k) {
      double re = 0, im = 0, real_re = 0, real_im = 0;
      for (index j = 0; j < n; ++j) {
        double const angle = -6.283185307179586 * double(j * k % n) / double(n), c = std::cos(angle), s = std::sin(angle);
        re += x(r, j, 0) * c - x(r, j, 1) * s;
        im += x(r, j, 0) * s + x(r, j, 1) * c;
        real_re += real(0, r, j) * c;
        real_im += real(0, r, j) * s;
      }
      lost += std::norm(std::complex<double>(y(r, k, 0) - re, y(r, k, 1) - im));
      size += re * re + im * im;
      if (k < bins) real_lost += std::norm(std::complex<double>(half(r, k, 0) - real_re, half(r, k, 1) - real_im));
      real_size += real_re * real_re + real_im * real_im;
    }
    CHECK(near(std::sqrt(lost), 0, u * 156 * std::sqrt(size)));  // fft_plan(257).error(), the largest here
    CHECK(near(std::sqrt(real_lost), 0, u * 160 * std::sqrt(real_size)));
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
  check_depthwise_conv(f);
  check_long_conv(f, 5);
  check_long_conv(f, 300);
  check_fft(f, 30);
  check_fft(f, 300);
  check_fft(f, 257);
  tensor const q(2, 1, 8, 1.f, 1), k(2, 3, 9, 1.f, 2);
  tensor out(2, 1, 8, 0.f, 0), lse(1, 2, 1, 0.f, 0);
  CHECK(message_of<tern::error>([&] { f.attend(q.all(), k.all(), k.all(), out.all(), lse.matrix()); }) ==
        "attention: k.extent(2) is 9, expected q.extent(2) = 8");
}
