// SPDX-License-Identifier: Apache-2.0
// softmax(q k^T / sqrt(d)) v: prompts (as many queries as keys) and decoding (one query a head over a long cache). Names:
// prefill_<type of k and v>_h<heads>x<kv heads>_n<tokens>_d<dim>_<mask>. Operations count visible pairs only.
#include "harness.hpp"
#include "inputs.hpp"
#include "peers.hpp"

#include <tern/attention.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

namespace tern::bench {
namespace {

struct shape {
  index heads, kv_heads, queries, keys, dim;
  bool causal;
  double pairs() const {
    auto const all = static_cast<double>(queries) * static_cast<double>(keys);
    return causal ? all - static_cast<double>(queries) * static_cast<double>(queries - 1) / 2 : all;
  }
};

template <class T>
buffer<T> random_tensor(index n, double deviation) {
  buffer<T> x(n);
  auto const values = fast_normal(n < (index{1} << 20) ? n : (index{1} << 20) + 7, deviation);
  index const period = static_cast<index>(values.size());
  for (index i = 0; i < n; ++i) x[i] = static_cast<T>(values[static_cast<std::size_t>(i % period)]);
  return x;
}

template <class T>
struct problem {
  shape s;
  buffer<float> q;    // (heads, queries, dim)
  buffer<T> k, v;     // (kv_heads, keys, dim)
  buffer<float> out;  // (heads, queries, dim)

  explicit problem(shape of)
      : s(of),
        q(random_tensor<float>(of.heads * of.queries * of.dim, 1)),
        k(random_tensor<T>(of.kv_heads * of.keys * of.dim, 1)),
        v(random_tensor<T>(of.kv_heads * of.keys * of.dim, 1)),
        out(of.heads * of.queries * of.dim) {}

  /// A sample of `got` against f64. Peers round probabilities, keys' products and sums as T does; `rounding` says how far.
  test::comparison check(double rounding, bool token_major = false) const {
    std::vector<float> got;
    std::vector<double> want, magnitude, p(static_cast<std::size_t>(s.keys));
    for (index h : sample(s.heads, 3))
      for (index i : sample(s.queries, 4)) {
        index const visible = s.causal ? s.keys - s.queries + i + 1 : s.keys, head = h / (s.heads / s.kv_heads);
        float const* const row = q.data() + (h * s.queries + i) * s.dim;
        T const* const keys = k.data() + head * s.keys * s.dim;
        T const* const values = v.data() + head * s.keys * s.dim;
        double most = -std::numeric_limits<double>::infinity(), sum = 0;
        for (index j = 0; j < visible; ++j) {
          double dot = 0;
          for (index d = 0; d < s.dim; ++d)
            dot += static_cast<double>(row[d]) * static_cast<double>(static_cast<float>(keys[j * s.dim + d]));
          p[static_cast<std::size_t>(j)] = dot / std::sqrt(static_cast<double>(s.dim));
          most = std::max(most, p[static_cast<std::size_t>(j)]);
        }
        for (index j = 0; j < visible; ++j) sum += p[static_cast<std::size_t>(j)] = std::exp(p[static_cast<std::size_t>(j)] - most);
        for (index d = 0; d < s.dim; d += 7) {
          double value = 0, absolute = 0;
          for (index j = 0; j < visible; ++j) {
            double const term = p[static_cast<std::size_t>(j)] / sum * static_cast<double>(static_cast<float>(values[j * s.dim + d]));
            value += term;
            absolute += std::abs(term);
          }
          want.push_back(value);
          magnitude.push_back(absolute);
          got.push_back(out[(token_major ? i * s.heads + h : h * s.queries + i) * s.dim + d]);
        }
      }
    return test::compare(std::span<float const>(got), want, magnitude, rounding);
  }
};

/// Twice the bound that attention/attention.hpp states for these scores (|q.k| scale is below 40), and what peers with f32 sums reach.
constexpr double f32_rounding = 2 * (16 + 4 * 40) * 0x1p-24;

template <class T, class Call>
void check_and_time(run& r, problem<T>& p, double rounding, Call&& call, bool token_major = false) {
  std::fill(p.out.begin(), p.out.end(), std::nanf(""));
  bool const right = r.check([&] {
    call(index{0});
    return p.check(rounding, token_major);
  });
  if (right) r.time(call);
}

/// Softmax of a block of scores (rows, keys), row i of which sees `visible + i` keys; the rest become zero. As a user writes it.
[[maybe_unused]] void softmax_rows(float* scores, index rows, index keys, index visible, float scale) {
  for (index i = 0; i < rows; ++i, scores += keys) {
    index const n = std::min(keys, visible + i);
#if TERN_BENCH_HAVE_EIGEN
    Eigen::Map<Eigen::ArrayXf> row(scores, n);
    row = ((row - row.maxCoeff()) * scale).exp();
    row *= 1 / row.sum();
#else
    float most = scores[0], sum = 0;
    for (index j = 1; j < n; ++j) most = std::max(most, scores[j]);
    for (index j = 0; j < n; ++j) sum += scores[j] = std::exp((scores[j] - most) * scale);
    for (index j = 0; j < n; ++j) scores[j] /= sum;
#endif
    std::fill(scores + n, scores + keys, 0.f);
  }
}

/// gemm, softmax, gemm in blocks of 128 queries, leaving out keys that a block does not see. `multiply(a, b, transposed, c, m, n, k)`.
template <class Multiply>
void in_blocks(problem<float>& p, std::vector<float>& scores, Multiply multiply) {
  shape const& s = p.s;
  float const scale = 1 / std::sqrt(static_cast<float>(s.dim));
  for (index h = 0; h < s.heads; ++h) {
    index const head = h / (s.heads / s.kv_heads);
    for (index i = 0; i < s.queries; i += 128) {
      index const rows = std::min<index>(128, s.queries - i), first = s.causal ? s.keys - s.queries + i + 1 : s.keys;
      index const keys = std::min(s.keys, first + rows - 1);
      multiply(p.q.data() + (h * s.queries + i) * s.dim, p.k.data() + head * s.keys * s.dim, true, scores.data(), rows, keys, s.dim);
      softmax_rows(scores.data(), rows, keys, first, scale);
      multiply(scores.data(), p.v.data() + head * s.keys * s.dim, false, p.out.data() + (h * s.queries + i) * s.dim, rows, s.dim, keys);
    }
  }
}

template <class Lazy>
void add_block_peers([[maybe_unused]] workload const& w, [[maybe_unused]] Lazy data) {
#if TERN_BENCH_HAVE_EIGEN
  w.add("eigen_blocks", [data](run& r) {
    problem<float>& p = data();
    set_peer_threads(r.threads());
    std::vector<float> scores(static_cast<std::size_t>(128 * p.s.keys));
    using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    using view = Eigen::Map<matrix const>;
    check_and_time(r, p, f32_rounding, [&](index) {
      in_blocks(p, scores, [](float const* a, float const* b, bool transposed, float* c, index m, index n, index k) {
        Eigen::Map<matrix> result(c, m, n);
        if (transposed)
          result.noalias() = view(a, m, k) * view(b, n, k).transpose();
        else
          result.noalias() = view(a, m, k) * view(b, k, n);
      });
    });
  });
#endif
#if TERN_BENCH_HAVE_OPENBLAS
  w.add("openblas_blocks", [data](run& r) {
    problem<float>& p = data();
    set_peer_threads(r.threads());
    std::vector<float> scores(static_cast<std::size_t>(128 * p.s.keys));
    check_and_time(r, p, f32_rounding, [&](index) {
      in_blocks(p, scores, [](float const* a, float const* b, bool transposed, float* c, index m, index n, index k) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, transposed ? CblasTrans : CblasNoTrans, static_cast<int>(m), static_cast<int>(n),
                    static_cast<int>(k), 1.f, a, static_cast<int>(k), b, static_cast<int>(transposed ? k : n), 0.f, c, static_cast<int>(n));
      });
    });
  });
#endif
}

#if TERN_BENCH_HAVE_GGML
template <class T, class Lazy>
void add_ggml(workload const& w, Lazy data) {
  w.add("ggml", [data](run& r) {
    problem<T>& p = data();
    shape const& s = p.s;
    std::vector<std::uint16_t> mask;
    if (s.causal) {
      mask.resize(static_cast<std::size_t>(s.keys * s.queries));
      for (index i = 0; i < s.queries; ++i)
        for (index j = s.keys - s.queries + i + 1; j < s.keys; ++j) mask[static_cast<std::size_t>(i * s.keys + j)] = 0xfc00;  // -infinity
    }
    ggml_operator attend(r.threads(), [&](ggml_context* c) {
      ggml_type const type = std::is_same_v<T, float> ? GGML_TYPE_F32 : std::is_same_v<T, f16> ? GGML_TYPE_F16 : GGML_TYPE_BF16;
      auto tensor = [c](ggml_type t, index a, index b, index h, void* at) {
        ggml_tensor* const x = ggml_new_tensor_3d(c, t, a, b, h);
        x->data = at;
        return x;
      };
      ggml_tensor* const m = s.causal ? tensor(GGML_TYPE_F16, s.keys, s.queries, 1, mask.data()) : nullptr;
      ggml_tensor* const out = ggml_flash_attn_ext(
          c, tensor(GGML_TYPE_F32, s.dim, s.queries, s.heads, p.q.data()), tensor(type, s.dim, s.keys, s.kv_heads, p.k.data()),
          tensor(type, s.dim, s.keys, s.kv_heads, p.v.data()), m, 1 / std::sqrt(static_cast<float>(s.dim)), 0.f, 0.f);
      out->data = p.out.data();
      return out;
    });
    // ggml rounds q to the type of k and adds up the values in it, one rounding a key.
    double const rounding = std::is_same_v<T, float> ? f32_rounding : 0x1p-10 * std::sqrt(static_cast<double>(s.keys));
    check_and_time(r, p, rounding, [&](index) { attend(); }, true);
  });
}
#endif

template <class T>
void add_attention(std::string const& name, shape s) {
  auto const data = lazy([s] { return problem<T>(s); });
  workload const w{
      .op = "attention",
      .name = name,
      .flops = 4.0 * s.pairs() * static_cast<double>(s.heads * s.dim),
      .bytes = static_cast<double>(2 * s.kv_heads * s.keys * s.dim) * sizeof(T) + 8.0 * static_cast<double>(s.heads * s.queries * s.dim),
      .peak = unit::f32};
  w.add("tern", [data](run& r) {
    problem<T>& p = data();
    shape const& n = p.s;
    tensor_view<float const, 3> const q(p.q.data(), {n.heads, n.queries, n.dim});
    tensor_view<T const, 3> const k(p.k.data(), {n.kv_heads, n.keys, n.dim}), v(p.v.data(), {n.kv_heads, n.keys, n.dim});
    tensor_view<float, 3> const out(p.out.data(), {n.heads, n.queries, n.dim});
    check_and_time(r, p, f32_rounding, [&](index) {
      if (n.causal)
        attention(r.policy(), q, k, v, out, causal{});
      else
        attention(r.policy(), q, k, v, out);
    });
  });
  if constexpr (std::is_same_v<T, float>)
    if (s.queries > 1) add_block_peers(w, data);
#if TERN_BENCH_HAVE_GGML
  add_ggml<T>(w, data);
#endif
}

template <class T>
void add_type(std::string const& type) {
  for (shape s : {shape{16, 16, 1024, 1024, 64, false}, {32, 8, 2048, 2048, 128, false}, {32, 8, 4096, 4096, 128, false}})
    for (bool causal : {true, false}) {
      s.causal = causal;
      add_attention<T>("prefill_" + type + "_h" + std::to_string(s.heads) + "x" + std::to_string(s.kv_heads) + "_n" +
                           std::to_string(s.queries) + "_d" + std::to_string(s.dim) + (causal ? "_causal" : "_full"),
                       s);
    }
  for (index n : {4096, 16384, 65536})
    add_attention<T>("decode_" + type + "_h32x8_n" + std::to_string(n) + "_d128", {32, 8, 1, n, 128, false});
}

}  // namespace

void register_benchmarks() {
  add_type<float>("f32");
  add_type<f16>("f16");
}

}  // namespace tern::bench
