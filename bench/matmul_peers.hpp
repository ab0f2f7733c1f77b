// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file bench/matmul_peers.hpp
/// The peers of matrix products with weights in blocks: Eigen, OpenBLAS, oneDNN, MKL and ggml, as far as they take a format.
///
/// `ggml` has the weights as files have them, `ggml_repack` and `ggml_amx` in layouts that it makes of them when it loads a model;
/// all round x to 8 bits where weights are in blocks, as tern does. `onednn` has its weights prepacked. Where oneDNN and MKL multiply bf16
/// or integers they are given x rounded already, and in q8_0's workloads weights with one scale a row; MKL's integers stay without scales:
/// their times are those of the products alone.

#include "matmul_problem.hpp"
#include "mkl.hpp"
#include "peers.hpp"

#include <functional>

#if TERN_BENCH_HAVE_ONEDNN
#include <oneapi/dnnl/dnnl.hpp>

#include <unordered_map>
#endif
#if TERN_BENCH_HAVE_GGML
#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cctype>
#include <cstdio>
#endif

namespace tern::bench {

using block_problem = matmul_problem<block_weights>;
using block_data = std::function<block_problem&()>;

/// x or w with 8 bits an element and one scale for each of `rows` parts.
struct int8_matrix {
  buffer<std::int8_t> q;
  std::vector<float> scale;

  int8_matrix(index rows, index columns) : q(rows * columns), scale(static_cast<std::size_t>(rows)) {}
  void set(index r, std::span<float const> values) {
    float most = 0;
    for (float v : values) most = std::max(most, std::abs(v));
    float const inverse = most > 0 ? 127 / most : 0.f;
    scale[static_cast<std::size_t>(r)] = most / 127;
    auto* out = q.data() + r * static_cast<index>(values.size());
    for (float v : values) *out++ = static_cast<std::int8_t>(std::lround(v * inverse));
  }
  /// One scale for all of x's first `rows` rows.
  static int8_matrix of_x(block_problem const& p, index rows) {
    int8_matrix all(1, rows * p.k);
    all.set(0, {p.x.data(), static_cast<std::size_t>(rows * p.k)});
    return all;
  }
  /// A scale for each row of w.
  static int8_matrix of_w(block_problem& p) {
    int8_matrix w(p.m, p.k);
    std::vector<float> row(static_cast<std::size_t>(p.k));
    for (index i = 0; i < p.m; ++i) {
      p.w.decode(i, row.data());
      w.set(i, row);
    }
    return w;
  }
};
inline buffer<bf16> bf16_of_x(block_problem const& p, index rows) {
  buffer<bf16> x(rows * p.k);
  for (index i = 0; i < rows * p.k; ++i) x[i] = bf16(p.x[i]);
  return x;
}

#if TERN_BENCH_HAVE_EIGEN
inline void time_eigen(run& r, block_problem& p, index rows) {
  using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  Eigen::Map<matrix const> const x(p.x.data(), rows, p.k);
  Eigen::Map<matrix> y(p.y.data(), rows, p.m);
  check_and_time(r, p, rows, factors::exact,
                 [&](index i) { y.noalias() = x * Eigen::Map<matrix const>(p.w.floats(copy_of(i, rows)), p.m, p.k).transpose(); });
}
#endif

#if TERN_BENCH_HAVE_OPENBLAS
inline void time_openblas(run& r, block_problem& p, index rows) {
  int const m = static_cast<int>(p.m), k = static_cast<int>(p.k), n = static_cast<int>(rows);
  check_and_time(r, p, rows, factors::exact, [&](index i) {
    float const* const w = p.w.floats(copy_of(i, rows));
    if (n == 1)
      cblas_sgemv(CblasRowMajor, CblasNoTrans, m, k, 1.f, w, k, p.x.data(), 1, 0.f, p.y.data(), 1);
    else
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, m, k, 1.f, p.x.data(), k, w, k, 0.f, p.y.data(), m);
  });
}
#endif

#if TERN_BENCH_HAVE_ONEDNN
/// A product whose weights are in the layout that oneDNN chooses for it. It keeps x and what it makes of w; y is the problem's.
class onednn_product {
 public:
  using type = dnnl::memory::data_type;

  /// `w`: (m, k) of `element`. `scale`: one for each row of w, or none.
  onednn_product(block_problem& p, index rows, type element, buffer<std::uint8_t> x, void* w, std::vector<float> const& scale)
      : x_(std::move(x)), scale_(scale) {
    using dnnl::memory;
    memory::desc const from({rows, p.k}, element, memory::format_tag::ab), to({rows, p.m}, type::f32, memory::format_tag::ab);
    memory::desc const any({p.k, p.m}, element, memory::format_tag::any), plain({p.k, p.m}, element, memory::format_tag::ba);
    auto const d = describe(from, any, to);
    memory packed(d.weights_desc(), engine_), unpacked(plain, engine_, w);
    dnnl::reorder(unpacked, packed).execute(stream_, unpacked, packed);
    stream_.wait();
    w_ = rotating<std::uint8_t>(
        std::span<std::uint8_t const>(static_cast<std::uint8_t*>(packed.get_data_handle()), packed.get_desc().get_size()),
        rows <= most_cold_rows ? 0 : 1);
    product_ = dnnl::matmul(d);
    weights_ = memory(d.weights_desc(), engine_, w_[0]);
    arguments_.insert({DNNL_ARG_SRC, memory(from, engine_, x_.data())});
    arguments_.insert({DNNL_ARG_WEIGHTS, weights_});
    arguments_.insert({DNNL_ARG_DST, memory(to, engine_, p.y.data())});
#if DNNL_VERSION_MAJOR >= 3
    if (!scale_.empty()) {
      memory::desc const vector({p.m}, type::f32, memory::format_tag::a);
      arguments_.insert({DNNL_ARG_ATTR_SCALES | DNNL_ARG_WEIGHTS, memory(vector, engine_, scale_.data())});
    }
#endif
  }
  void operator()(index call) {
    weights_.set_data_handle(w_[call]);
    product_.execute(stream_, arguments_);
    stream_.wait();
  }

 private:
  dnnl::matmul::primitive_desc describe(dnnl::memory::desc const& x, dnnl::memory::desc const& w, dnnl::memory::desc const& y) const {
    dnnl::primitive_attr attributes;
    constexpr int each_output = 1 << 1;
#if DNNL_VERSION_MAJOR >= 3
    if (!scale_.empty()) attributes.set_scales_mask(DNNL_ARG_WEIGHTS, each_output);
    return {engine_, x, w, y, attributes};
#else
    if (!scale_.empty()) attributes.set_output_scales(each_output, scale_);
    return {{x, w, y}, attributes, engine_};
#endif
  }

  buffer<std::uint8_t> x_;
  std::vector<float> scale_;
  rotating<std::uint8_t> w_;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  dnnl::matmul product_;
  dnnl::memory weights_;
  std::unordered_map<int, dnnl::memory> arguments_;
};

template <class T>
buffer<std::uint8_t> bytes_of(T const* x, index n) {
  return buffer<std::uint8_t>(
      std::span<std::uint8_t const>(reinterpret_cast<std::uint8_t const*>(x), static_cast<std::size_t>(n) * sizeof(T)));
}
inline onednn_product pack_onednn(block_problem& p, index rows) {
  using type = onednn_product::type;
  switch (p.w.type()) {
    case weight_type::f32:
      return onednn_product(p, rows, type::f32, bytes_of(p.x.data(), rows * p.k), p.w.bytes(0), {});
    case weight_type::bf16:
      return onednn_product(p, rows, type::bf16, bytes_of(bf16_of_x(p, rows).data(), rows * p.k), p.w.bytes(0), {});
    default:
      auto const x = int8_matrix::of_x(p, rows);
      auto w = int8_matrix::of_w(p);
      for (float& s : w.scale) s *= x.scale[0];
      return onednn_product(p, rows, type::s8, bytes_of(x.q.data(), rows * p.k), w.q.data(), w.scale);
  }
}
inline void time_onednn(run& r, block_problem& p, index rows, factors rounded) {
  auto& product = p.packed.get(r.name(), [&] { return pack_onednn(p, rows); });
  check_and_time(r, p, rows, rounded, [&](index i) { product(i); });
}
#endif

#if TERN_BENCH_HAVE_MKL
inline void time_mkl_f32(run& r, block_problem& p, index rows) {
  mkl const& f = mkl::with_threads(r.threads());
  int const m = static_cast<int>(p.m), k = static_cast<int>(p.k), n = static_cast<int>(rows);
  check_and_time(r, p, rows, factors::exact, [&](index i) {
    float const* const w = p.w.floats(copy_of(i, rows));
    if (n == 1)
      f.sgemv(f.row_major, f.as_is, m, k, 1.f, w, k, p.x.data(), 1, 0.f, p.y.data(), 1);
    else
      f.sgemm(f.row_major, f.as_is, f.transposed, n, m, k, 1.f, p.x.data(), k, w, k, 0.f, p.y.data(), m);
  });
}
inline void time_mkl_bf16(run& r, block_problem& p, index rows) {
  mkl const& f = mkl::with_threads(r.threads());
  int const m = static_cast<int>(p.m), k = static_cast<int>(p.k), n = static_cast<int>(rows);
  auto const rounded = bf16_of_x(p, rows);
  auto const* const x = reinterpret_cast<std::uint16_t const*>(rounded.data());
  check_and_time(r, p, rows, factors::bf16, [&](index i) {
    auto const* const w = reinterpret_cast<std::uint16_t const*>(p.w.bytes(copy_of(i, rows)));
    f.gemm_bf16bf16f32(f.row_major, f.as_is, f.transposed, n, m, k, 1.f, x, k, w, k, 0.f, p.y.data(), m);
  });
}
inline void time_mkl_int8(run& r, block_problem& p, index rows) {
  struct packed {
    rotating<std::int8_t> w;
    std::vector<float> scale;
  };
  mkl const& f = mkl::with_threads(r.threads());
  int const m = static_cast<int>(p.m), k = static_cast<int>(p.k), n = static_cast<int>(rows);
  auto& weights = p.packed.get("mkl_int8", [&] {
    auto const w = int8_matrix::of_w(p);
    return packed{rotating<std::int8_t>(w.q), w.scale};
  });
  auto const signed_x = int8_matrix::of_x(p, rows);
  buffer<std::uint8_t> x(rows * p.k);
  for (index i = 0; i < rows * p.k; ++i) x[i] = static_cast<std::uint8_t>(signed_x.q[i] + 128);
  buffer<std::int32_t> y(rows * p.m);
  std::int32_t const zero = 0;
  check_and_time(
      r, p, rows, factors::int8_whole,
      [&](index i) {
        f.gemm_s8u8s32(f.row_major, f.as_is, f.transposed, f.one_offset, n, m, k, 1.f, x.data(), k, std::int8_t{-128},
                       weights.w[copy_of(i, rows)], k, 0, 0.f, y.data(), m, &zero);
      },
      [&] {
        for (index i = 0; i < rows * p.m; ++i)
          p.y[i] = static_cast<float>(y[i]) * signed_x.scale[0] * weights.scale[static_cast<std::size_t>(i % p.m)];
      });
}
#endif

#if TERN_BENCH_HAVE_GGML
/// A layout that ggml repacks weights into when it loads a model: for its "amx", "repack" and other kernels.
struct ggml_layout {
  std::string name;
  ggml_backend_buffer_type_t buffers;

  static ggml_backend_dev_t device() { return ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0); }
};

/// Weights of ggml's in memory of its own, in such a layout.
class ggml_repacked {
 public:
  /// Is nothing if the layout is not for weights like these.
  ggml_repacked(ggml_layout const& layout, weight_type type, index m, index k)
      : context_(ggml_init({ggml_tensor_overhead() * 4, nullptr, true})),
        weight_(ggml_new_tensor_2d(context_.get(), static_cast<ggml_type>(type), k, m)),
        buffer_(ggml_backend_alloc_ctx_tensors_from_buft(context_.get(), layout.buffers)) {
    ggml_tensor* const x = ggml_new_tensor_2d(context_.get(), GGML_TYPE_F32, k, 1);
    if (!buffer_ || !ggml_backend_dev_supports_op(layout.device(), ggml_mul_mat(context_.get(), weight_, x))) weight_ = nullptr;
  }
  explicit operator bool() const { return weight_ != nullptr; }

  void fill(void const* w, index copies) {
    ggml_backend_tensor_set(weight_, w, 0, ggml_nbytes(weight_));
    std::size_t const size = ggml_backend_buft_get_alloc_size(ggml_backend_buffer_get_type(buffer_.get()), weight_);
    copies_ = rotating<std::uint8_t>(std::span<std::uint8_t const>(static_cast<std::uint8_t*>(weight_->data), size), copies);
  }
  ggml_tensor* weight() { return weight_; }
  void use(index call) { weight_->data = copies_[call]; }

 private:
  struct release {
    void operator()(ggml_context* c) const { ggml_free(c); }
    void operator()(ggml_backend_buffer_t b) const { ggml_backend_buffer_free(b); }
  };
  std::unique_ptr<ggml_context, release> context_;
  ggml_tensor* weight_;
  std::unique_ptr<ggml_backend_buffer, release> buffer_;
  rotating<std::uint8_t> copies_;
};

/// x (rows, k) and y (rows, m) in our memory; weight: (m, k), with data or not yet.
inline ggml_tensor* ggml_product(ggml_context* c, ggml_tensor* weight, float* x, float* y, index rows) {
  ggml_tensor* const right = ggml_new_tensor_2d(c, GGML_TYPE_F32, weight->ne[0], rows);
  right->data = x;
  ggml_tensor* const product = ggml_mul_mat(c, weight, right);
  product->data = y;
  return product;
}

/// Whether a small product in this layout comes to its end, tried in a process of its own: AMX kernels that gcc 12 compiles die,
/// as it drops most of the tiles' configuration.
inline bool survives(ggml_layout const& layout) {
  pid_t const child = fork();
  if (child == 0) {
    constexpr index m = 64, k = 512, rows = 4;
    ggml_repacked w(layout, weight_type::q4_0, m, k);
    if (w) {
      std::vector<float> x(rows * k), y(rows * m);
      w.fill(std::vector<std::uint8_t>(m * k / 32 * 18).data(), 1);
      ggml_operator product(1, [&](ggml_context* c) { return ggml_product(c, w.weight(), x.data(), y.data(), rows); });
      product();
    }
    _exit(0);
  }
  int status = 0;
  if (waitpid(child, &status, 0) == child && WIFEXITED(status)) return true;
  std::fprintf(stderr, "ggml_%s is left out: it dies in this build of ggml\n", layout.name.c_str());
  return false;
}

/// The layouts of this build of ggml that work.
inline std::vector<ggml_layout> const& ggml_layouts() {
  static std::vector<ggml_layout> const layouts = [] {
    ggml_cpu_init();
    ggml_log_set(
        [](ggml_log_level level, char const* text, void*) {
          if (level == GGML_LOG_LEVEL_WARN || level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
        },
        nullptr);
    std::vector<ggml_layout> all;
    auto const get = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(
        ggml_backend_reg_get_proc_address(ggml_backend_cpu_reg(), "ggml_backend_dev_get_extra_bufts"));
    if (get == nullptr) return all;
    for (auto* at = get(ggml_layout::device()); at != nullptr && *at != nullptr; ++at) {
      std::string name = ggml_backend_buft_name(*at);
      if (name.starts_with("CPU_")) name.erase(0, 4);
      for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      if (ggml_layout const layout{name, *at}; survives(layout)) all.push_back(layout);
    }
    return all;
  }();
  return layouts;
}

inline void time_ggml(run& r, block_problem& p, index rows, factors rounded) {
  ggml_tensor* weight = nullptr;
  ggml_operator product(r.threads(), [&](ggml_context* c) {
    weight = ggml_new_tensor_2d(c, static_cast<ggml_type>(p.w.type()), p.k, p.m);
    return ggml_product(c, weight, p.x.data(), p.y.data(), rows);
  });
  check_and_time(r, p, rows, rounded, [&](index i) {
    weight->data = p.w.bytes(copy_of(i, rows));
    product();
  });
}
inline void time_ggml_repacked(run& r, block_problem& p, index rows, factors rounded, ggml_layout const& layout) {
  auto& weights = p.packed.get("ggml_" + layout.name, [&] {
    ggml_repacked w(layout, p.w.type(), p.m, p.k);
    w.fill(p.w.bytes(0), p.w.copies());
    return w;
  });
  ggml_operator product(r.threads(), [&](ggml_context* c) { return ggml_product(c, weights.weight(), p.x.data(), p.y.data(), rows); });
  check_and_time(r, p, rows, rounded, [&](index i) {
    weights.use(copy_of(i, rows));
    product();
  });
}
inline bool ggml_has(weight_type type) {
  auto const t = static_cast<ggml_type>(type);
  return t < GGML_TYPE_COUNT && static_cast<index>(ggml_type_size(t)) == info(type).bytes;
}
#endif

/// Adds the peers that take weights (m, k) of this type. `data` is called when one of them runs.
inline void add_block_peers([[maybe_unused]] workload const& w, [[maybe_unused]] weight_type type, [[maybe_unused]] index m,
                            [[maybe_unused]] index k, [[maybe_unused]] index rows, [[maybe_unused]] block_data data) {
  [[maybe_unused]] auto const add = [&](std::string const& name, auto time) {
    w.add(name, [=](run& r) {
      block_problem& p = data();
      set_peer_threads(r.threads());
      time(r, p, rows);
    });
  };
#if TERN_BENCH_HAVE_EIGEN
  if (type == weight_type::f32) add("eigen", time_eigen);
#endif
#if TERN_BENCH_HAVE_OPENBLAS
  if (type == weight_type::f32) add("openblas", time_openblas);
#endif
#if TERN_BENCH_HAVE_ONEDNN
  if (type == weight_type::f32 || type == weight_type::bf16 || type == weight_type::q8_0)
    add("onednn", [=](run& r, block_problem& p, index n) {
      time_onednn(r, p, n, type == weight_type::f32 ? factors::exact : type == weight_type::bf16 ? factors::bf16 : factors::int8_whole);
    });
#endif
#if TERN_BENCH_HAVE_MKL
  if (type == weight_type::f32) add("mkl", time_mkl_f32);
  if (type == weight_type::bf16) add("mkl", time_mkl_bf16);
  if (type == weight_type::q8_0) add("mkl", time_mkl_int8);
#endif
#if TERN_BENCH_HAVE_GGML
  if (!ggml_has(type)) return;
  factors const rounded = type == weight_type::f32    ? factors::exact
                          : type == weight_type::f16  ? factors::f16
                          : type == weight_type::bf16 ? factors::bf16
                                                      : factors::int8_blocks;
  add("ggml", [=](run& r, block_problem& p, index n) { time_ggml(r, p, n, rounded); });
  for (ggml_layout const& layout : ggml_layouts())
    if (ggml_repacked(layout, type, m, k))
      add("ggml_" + layout.name, [=](run& r, block_problem& p, index n) { time_ggml_repacked(r, p, n, rounded, layout); });
#endif
}

}  // namespace tern::bench
