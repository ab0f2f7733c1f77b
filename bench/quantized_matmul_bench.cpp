// SPDX-License-Identifier: Apache-2.0
// y = x w^T: weights (m, k) in the formats of model files, few and many rows of x. Weights of up to 32 rows are cold, with no
// `_cold` in the names: a model's next layer is never in the caches. Those of 512 rows are used again.
#include "matmul_peers.hpp"
#include "matmul_problem.hpp"

#include <tern/matmul.hpp>

namespace tern::bench {
namespace {

struct shape {
  index m, k;
};
struct format {
  std::string name;
  double bits;  ///< of a weight
  compute mode;
  factors rounded;  ///< by `mode`

  unit peak() const {
    return mode == compute::int8 || mode == compute::int8_tokens ? unit::int8 : mode == compute::bf16 ? unit::bf16 : unit::f32;
  }
};

/// Where the problem is whose workloads run: all of them do not fit into memory.
room& problems() {
  static room one;
  return one;
}
/// The problem of a format and a shape, made when it is first used.
template <class Make>
auto problem_of(format const& f, shape s, Make weights) {
  return [name = f.name + "_m" + std::to_string(s.m) + "_k" + std::to_string(s.k), s, weights]() -> auto& {
    return problems().get(name, [&] { return matmul_problem(s.m, s.k, weights(s.m, s.k)); });
  };
}

/// tern on `data`, what problem_of returns; peers are added to the result.
template <class Data>
workload add_matmul(format const& f, shape s, index rows, Data data) {
  double const weights = static_cast<double>(s.m * s.k);
  workload const w{.op = "quantized_matmul",
                   .name = f.name + "_m" + std::to_string(s.m) + "_k" + std::to_string(s.k) + "_rows" + std::to_string(rows),
                   .flops = 2 * weights * static_cast<double>(rows),
                   .bytes = weights * f.bits / 8 + 4.0 * static_cast<double>(rows * (s.m + s.k)),
                   .peak = f.peak()};
  auto const add = [&](char const* who, compute mode, factors rounded) {
    w.add(who, [=](run& r) {
      auto& p = data();
      tensor_view<float const, 2> const x(p.x.data(), {rows, p.k});
      tensor_view<float, 2> const y(p.y.data(), {rows, p.m});
      check_and_time(r, p, rows, rounded, [&](index i) { matmul(r.policy(), x, p.w[copy_of(i, rows)], y, mode); });
    });
  };
  add("tern", f.mode, f.rounded);
  // Where there are no matrix registers, the same again.
  if (f.mode == compute::int8 && rows >= 64) add("tern_fastest", compute::fastest, simd::tiles::ready() ? factors::bf16 : f.rounded);
  return w;
}

/// The same with repacked weights.
template <class Data>
void add_interleaved(workload const& w, format const& f, index rows, Data data) {
  w.add("tern_interleaved", [data, f, rows](run& r) {
    auto& p = data();
    auto& copies = p.packed.get("interleaved", [&] {
      std::vector<buffer<std::uint8_t>> made;
      for (index c = 0; c < p.w.copies(); ++c) {
        made.emplace_back(p.m * p.w[c].row_bytes);
        interleave(cpu, p.w[c], made.back().data());
      }
      return made;
    });
    tensor_view<float const, 2> const x(p.x.data(), {rows, p.k});
    tensor_view<float, 2> const y(p.y.data(), {rows, p.m});
    check_and_time(r, p, rows, f.rounded, [&](index i) {
      auto const& bytes = copies[static_cast<std::size_t>(copy_of(i, rows)) % copies.size()];
      matmul(r.policy(), x, interleaved_matrix{bytes.data(), p.w.type(), p.m, p.k, simd::lanes}, y, f.mode);
    });
  });
}

void add_block_format(weight_type type, shape s) {
  weight_info const i = info(type);
  if (s.k % i.elements != 0) return;
  bool const integers = i.elements > 1, is_bf16 = type == weight_type::bf16;
  format const f{.name = i.name,
                 .bits = 8.0 * static_cast<double>(i.bytes) / static_cast<double>(i.elements),
                 .mode = integers  ? compute::int8
                         : is_bf16 ? compute::bf16
                                   : compute::f32,
                 .rounded = integers  ? factors::int8_blocks
                            : is_bf16 ? factors::bf16
                                      : factors::exact};
  auto const data = problem_of(f, s, [type](index m, index k) { return block_weights(type, m, k); });
  for (index rows : {1, 4, 32, 512}) {
    workload const w = add_matmul(f, s, rows, data);
    if (integers || is_bf16) add_interleaved(w, f, rows, data);
    add_block_peers(w, type, s.m, s.k, rows, data);
  }
}

/// Weights of other kinds: what their bytes are, in copies enough to leave the caches, shown as views.
template <class Owner>
class owned_weights {
 public:
  owned_weights(index m, index k) {
    index const copies = copies_beyond_cache(static_cast<std::size_t>(m * k / Owner::weights_a_byte));
    for (index c = 0; c < copies; ++c) copies_.emplace_back(m, k);
  }
  auto operator[](index call) const { return copies_[static_cast<std::size_t>(call) % copies_.size()].view(); }
  void decode(index i, float* out) const { tern::decode((*this)[0], i, out); }

 private:
  std::vector<Owner> copies_;
};
struct int8_rows_parts {
  static constexpr index weights_a_byte = 1;
  index m, k;
  buffer<std::int8_t> q;  // pages as large as the plain read's
  std::vector<float> scales;
  int8_rows_parts(index outputs, index columns) : m(outputs), k(columns), q(m * k), scales(static_cast<std::size_t>(m)) {
    auto const w = fast_normal(m * k, 1 / std::sqrt(static_cast<double>(k)));
    int8_rows::encode(cpu, tern::view(w.data(), m, k), tern::view(q.data(), m, k), tern::view(scales.data(), m));
  }
  int8_rows view() const { return {tern::view(q.data(), m, k), tern::view(scales.data(), m)}; }
};
struct group_int4_parts {
  static constexpr index group = 128, weights_a_byte = 2;
  index m, k;
  buffer<std::uint8_t> codes;
  std::vector<f16> scales;
  group_int4_parts(index outputs, index columns)
      : m(outputs), k(columns), codes(m * k / 2), scales(static_cast<std::size_t>(m * k / group)) {
    test::rng r(3);
    for (auto& c : codes) c = static_cast<std::uint8_t>(r.bits());
    for (auto& s : scales) s = f16(static_cast<float>(0.1 * r.normal() / std::sqrt(static_cast<double>(k))));
  }
  group_int4 view() const { return {tern::view(codes.data(), m, k / 2), tern::view(scales.data(), m, k / group)}; }
};
template <class Owner>
void add_owned(format const& f, shape s) {
  auto const data = problem_of(f, s, [](index m, index k) { return owned_weights<Owner>(m, k); });
  for (index rows : {1, 4, 32, 512}) add_matmul(f, s, rows, data);
}

}  // namespace

void register_benchmarks() {
  using enum weight_type;
  for (weight_type type : {f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_nl, iq4_xs, tq1_0, tq2_0, mxfp4})
    for (shape s : {shape{4096, 4096}, {4096, 14336}, {1536, 576}}) add_block_format(type, s);
  for (shape s : {shape{4096, 4096}, {4096, 14336}}) {
    add_owned<int8_rows_parts>({"int8_rows", 8, compute::int8_tokens, factors::int8_whole}, s);
    add_owned<group_int4_parts>({"group_int4_128", 4.125, compute::int8, factors::int8_blocks}, s);
  }
}

}  // namespace tern::bench
