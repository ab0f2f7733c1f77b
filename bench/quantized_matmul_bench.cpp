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

  unit peak() const { return mode == compute::int8 ? unit::int8 : mode == compute::bf16 ? unit::bf16 : unit::f32; }
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
  w.add("tern", [data, f, rows](run& r) {
    auto& p = data();
    tensor_view<float const, 2> const x(p.x.data(), {rows, p.k});
    tensor_view<float, 2> const y(p.y.data(), {rows, p.m});
    check_and_time(r, p, rows, f.rounded, [&](index i) { matmul(r.policy(), x, p.w[copy_of(i, rows)], y, f.mode); });
  });
  return w;
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
  for (index rows : {1, 4, 32, 512}) add_block_peers(add_matmul(f, s, rows, data), type, s.m, s.k, rows, data);
}

}  // namespace

void register_benchmarks() {
  using enum weight_type;
  for (weight_type type : {f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_nl, iq4_xs, tq1_0, tq2_0, mxfp4})
    for (shape s : {shape{4096, 4096}, {4096, 14336}, {1536, 576}}) add_block_format(type, s);
}

}  // namespace tern::bench
