// SPDX-License-Identifier: Apache-2.0
// y = x w^T: weights (m, k) in the formats of model files, few and many rows of x. Weights of up to 32 rows are cold: a model's
// next layer is never in the caches.
#include "harness.hpp"
#include "inputs.hpp"
#include "peers.hpp"

#include <tern/matmul.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

namespace tern::bench {
namespace {

/// w as blocks of a format, from f32.
template <class Format>
std::vector<std::uint8_t> encode(std::vector<float> const& w) {
  using block = typename Format::block;
  std::vector<std::uint8_t> bytes(w.size() / static_cast<std::size_t>(Format::elements) * sizeof(block));
  auto* out = bytes.data();
  for (std::size_t i = 0; i < w.size(); i += static_cast<std::size_t>(Format::elements), out += sizeof(block)) {
    block const b = Format::encode(w.data() + i);
    std::memcpy(out, &b, sizeof b);
  }
  return bytes;
}
/// Blocks of a format that has no encoder here: random codes, with scales (the block's first `scales` f16) that are plausible.
std::vector<std::uint8_t> random_blocks(weight_info const& format, index elements, index scales) {
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(elements / format.elements * format.bytes));
  fill_bytes(bytes.data(), bytes.size());
  f16 const scale(0.002f);
  for (std::size_t i = 0; i < bytes.size(); i += static_cast<std::size_t>(format.bytes))
    for (index s = 0; s < scales; ++s) std::memcpy(bytes.data() + i + 2 * s, &scale, 2);
  return bytes;
}
template <class T>
std::vector<std::uint8_t> rounded(std::vector<float> const& w) {
  std::vector<std::uint8_t> bytes(w.size() * sizeof(T));
  for (std::size_t i = 0; i < w.size(); ++i) {
    T const x(w[i]);
    std::memcpy(bytes.data() + i * sizeof(T), &x, sizeof x);
  }
  return bytes;
}
std::vector<std::uint8_t> weights(weight_type type, index m, index k) {
  if (type == weight_type::q4_k) return random_blocks(info(type), m * k, 2);
  auto const w = fast_normal(m * k, 1 / std::sqrt(static_cast<double>(k)));
  switch (type) {
    case weight_type::q4_0:
      return encode<formats::q4_0>(w);
    case weight_type::q4_1:
      return encode<formats::q4_1>(w);
    case weight_type::q8_0:
      return encode<formats::q8_0>(w);
    case weight_type::f16:
      return rounded<f16>(w);
    case weight_type::bf16:
      return rounded<bf16>(w);
    default:
      return rounded<float>(w);
  }
}

struct shape {
  weight_type type;
  compute mode;
  index m, k, rows;
  bool cold() const { return rows <= 32; }
};

struct problem {
  shape s;
  rotating<std::uint8_t> w;
  buffer<float> x, y;

  explicit problem(shape of)
      : s(of), w(weights(of.type, of.m, of.k), of.cold() ? 0 : 1), x(fast_normal(of.rows * of.k)), y(of.rows * of.m) {}

  block_matrix matrix(index call) { return block_matrix(w[call], s.type, s.m, s.k); }
  float const* floats(index call) { return reinterpret_cast<float const*>(w[call]); }

  /// A sample of y against f64. Activations may be rounded as the compute type does: to 1/254 of their row's largest (int8), or
  /// to bf16; sums are in f32.
  test::comparison check() {
    std::vector<float> row(static_cast<std::size_t>(s.k)), got;
    std::vector<double> want, magnitude;
    bool const integers = s.mode == compute::int8 && info(s.type).elements > 1;
    for (index i : sample(s.m, 13)) {
      decode(matrix(0), i, row.data());
      for (index r : sample(s.rows, 5)) {
        double sum = 0, absolute = 0, largest = 0;
        for (index c = 0; c < s.k; ++c) {
          double const a = x[r * s.k + c], b = row[static_cast<std::size_t>(c)];
          sum += a * b;
          absolute += std::abs(integers ? b : a * b);
          largest = std::max(largest, std::abs(a));
        }
        want.push_back(sum);
        magnitude.push_back(integers ? absolute * largest : absolute);
        got.push_back(y[r * s.m + i]);
      }
    }
    double const rounding = integers ? 1 / 254. + 0x1p-10 : s.mode == compute::bf16 ? 0x1p-7 : 0;
    return test::compare(std::span<float const>(got), want, magnitude, rounding + static_cast<double>(s.k) * 0x1p-24);
  }
};

template <class Data, class Call>
void check_and_time(run& r, Data& data, Call&& call) {
  std::fill(data.y.begin(), data.y.end(), std::nanf(""));
  bool const right = r.check([&] {
    call(index{0});
    return data.check();
  });
  if (right) r.time(call);
}

template <class Lazy>
void add_f32_peers([[maybe_unused]] workload const& w, [[maybe_unused]] Lazy data) {
#if TERN_BENCH_HAVE_EIGEN
  w.add("eigen", [data](run& r) {
    problem& p = data();
    set_peer_threads(r.threads());
    using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    Eigen::Map<matrix const> const x(p.x.data(), p.s.rows, p.s.k);
    Eigen::Map<matrix> y(p.y.data(), p.s.rows, p.s.m);
    check_and_time(r, p, [&](index i) { y.noalias() = x * Eigen::Map<matrix const>(p.floats(i), p.s.m, p.s.k).transpose(); });
  });
#endif
#if TERN_BENCH_HAVE_OPENBLAS
  w.add("openblas", [data](run& r) {
    problem& p = data();
    set_peer_threads(r.threads());
    auto const m = static_cast<int>(p.s.m), k = static_cast<int>(p.s.k), rows = static_cast<int>(p.s.rows);
    check_and_time(r, p, [&](index i) {
      if (rows == 1)
        cblas_sgemv(CblasRowMajor, CblasNoTrans, m, k, 1.f, p.floats(i), k, p.x.data(), 1, 0.f, p.y.data(), 1);
      else
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, m, k, 1.f, p.x.data(), k, p.floats(i), k, 0.f, p.y.data(), m);
    });
  });
#endif
#if TERN_BENCH_HAVE_ONEDNN
  w.add("onednn", [data](run& r) {
    problem& p = data();
    set_peer_threads(r.threads());
    check_and_time(r, p, [&](index i) {
      dnnl_sgemm('N', 'T', p.s.rows, p.s.m, p.s.k, 1.f, p.x.data(), p.s.k, p.floats(i), p.s.k, 0.f, p.y.data(), p.s.m);
    });
  });
#endif
}

void add_matmul(char const* format, shape s) {
  auto const data = lazy([s] { return problem(s); });
  double const weight_bytes = static_cast<double>(s.m * s.k / info(s.type).elements * info(s.type).bytes);
  bool const integers = s.mode == compute::int8;
  workload const w{.op = "matmul",
                   .name = std::string(format) + "_m" + std::to_string(s.m) + "_k" + std::to_string(s.k) + "_rows" +
                           std::to_string(s.rows) + (s.cold() ? "_cold" : ""),
                   .flops = 2.0 * static_cast<double>(s.m * s.k * s.rows),
                   .bytes = weight_bytes + 4.0 * static_cast<double>(s.rows * (s.m + s.k)),
                   .peak = integers                  ? unit::int8
                           : s.mode == compute::bf16 ? unit::bf16
                                                     : unit::f32};
  w.add("tern", [data](run& r) {
    problem& p = data();
    tensor_view<float const, 2> const x(p.x.data(), {p.s.rows, p.s.k});
    tensor_view<float, 2> const y(p.y.data(), {p.s.rows, p.s.m});
    check_and_time(r, p, [&](index i) { matmul(r.policy(), x, p.matrix(i), y, p.s.mode); });
  });
  if (s.type == weight_type::f32) add_f32_peers(w, data);
#if TERN_BENCH_HAVE_GGML
  w.add("ggml", [data](run& r) {
    problem& p = data();
    ggml_tensor* weight = nullptr;
    ggml_operator product(r.threads(), [&](ggml_context* c) {
      weight = ggml_new_tensor_2d(c, static_cast<ggml_type>(p.s.type), p.s.k, p.s.m);
      ggml_tensor* const x = ggml_new_tensor_2d(c, GGML_TYPE_F32, p.s.k, p.s.rows);
      x->data = p.x.data();
      ggml_tensor* const y = ggml_mul_mat(c, weight, x);
      y->data = p.y.data();
      return y;
    });
    check_and_time(r, p, [&](index i) {
      weight->data = p.w[i];
      product();
    });
  });
#endif
}

}  // namespace

void register_benchmarks() {
  struct {
    char const* name;
    weight_type type;
    compute mode;
  } const formats[] = {{"f32", weight_type::f32, compute::f32},    {"f16", weight_type::f16, compute::f32},
                       {"bf16", weight_type::bf16, compute::bf16}, {"q8_0", weight_type::q8_0, compute::int8},
                       {"q4_0", weight_type::q4_0, compute::int8}, {"q4_1", weight_type::q4_1, compute::int8},
                       {"q4_k", weight_type::q4_k, compute::int8}};
  for (auto const& f : formats)
    for (auto const& [m, k] : {std::pair<index, index>{4096, 4096}, {4096, 14336}, {1536, 576}})
      for (index rows : {1, 4, 32, 512})
        if (k % info(f.type).elements == 0) add_matmul(f.name, {f.type, f.mode, m, k, rows});
}

}  // namespace tern::bench
