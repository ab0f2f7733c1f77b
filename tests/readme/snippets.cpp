// SPDX-License-Identifier: Apache-2.0
// The README's C++ blocks in functions whose parameters are what the text around them tells of.
// blocks: 15
#include <tern/cache/methods/snapkv.hpp>
#include <tern/dispatch.hpp>
#include <tern/quantize.hpp>
#include <tern/tern.hpp>

#include <cmath>
#include <vector>

#include "kernels.hpp"

namespace {

using tern::index;
template <int Rank>
using floats = tern::tensor_view<float, Rank>;
template <int Rank>
using ids = tern::tensor_view<std::int32_t, Rank>;

[[maybe_unused]] void first_call(floats<3> q, floats<3> k, floats<3> v, floats<3> out) {
#include "0.inc"
}

[[maybe_unused]] void interleaved(tern::block_matrix const& w, floats<2> x, floats<2> y) {
#include "2.inc"
}

[[maybe_unused]] void other_formats(int n, int k, floats<2> w, floats<2> x, floats<2> y) {
#include "3.inc"
  tern::matmul(tern::cpu, x, small, y);
}

[[maybe_unused]] void options(floats<2> x, tern::block_matrix const& w, floats<2> y, std::vector<float> const& gain,
                              std::vector<float> const& b, tern::block_matrix const& up, tern::block_matrix const& gate_weights,
                              floats<2> h, floats<2> down, index k, std::vector<std::int32_t> const& ids, std::vector<float> const& weights,
                              std::vector<std::int32_t> const& neurons, tern::block_matrix const& wq, tern::group_int4 const& wk,
                              tern::int8_rows const& wv, floats<2> yq, floats<2> yk, floats<2> yv) {
#include "4.inc"
}

[[maybe_unused]] void make_weights(floats<2> w, floats<2> x, floats<2> y) {
#include "5.inc"
  static_cast<void>(error);
}

[[maybe_unused]] void attention_options(floats<3> q, floats<3> k, floats<3> v, floats<3> out, std::vector<float> const& z, floats<2> lse,
                                        floats<4> pool, floats<4> pool_v, ids<2> table, ids<1> lengths, floats<3> prefix_k,
                                        floats<3> prefix_v, int keys, float slope) {
#include "6.inc"
}

[[maybe_unused]] void convolutions(floats<4> x, floats<3> w, floats<4> y, std::vector<float> const& b, floats<3> t, floats<2> taps,
                                   floats<3> z, floats<3> s) {
#include "7.inc"
}

[[maybe_unused]] void long_convolutions(floats<3> u, floats<2> k, floats<3> y, floats<3> w, floats<3> v, std::vector<float> const& d,
                                        index n, floats<3> dy, floats<3> du, floats<2> dk, index batch, floats<3> block, floats<3> out) {
#include "8.inc"
}

[[maybe_unused]] void tokens_leave(floats<4> q, floats<4> k, floats<4> v, floats<4> out, floats<3> lse, floats<3> weights, index tokens,
                                   floats<2> scores, tern::index_lists const& kept, floats<3> x, floats<3> y, ids<2> positions,
                                   ids<2> y_positions, floats<3> metric, tern::token_pairs const& pairs, tern::token_map const& map,
                                   floats<2> sizes, floats<2> merged_sizes, floats<2> logs) {
#include "9.inc"
}

template <class Write>
[[maybe_unused]] void caches(index layer, floats<3> k, floats<3> v, floats<3> q, floats<3> out, index refused,
                             tern::index_lists const& lists, std::uint64_t model_number, Write const& write,
                             tern::kv_cache<tern::formats::keys8, tern::formats::values4>& other, void const* file, std::size_t size,
                             floats<3> last_queries) {
#include "10.inc"
#include "11.inc"
  static_cast<void>(again);
}
[[maybe_unused]] void use_caches(tern::kv_cache<tern::formats::keys8, tern::formats::values4>& other, floats<3> t) {
  caches(0, t, t, t, t, 1, {}, 7, [](void const*, std::size_t) {}, other, nullptr, 0, t);
}

[[maybe_unused]] void dispatched(floats<3> q, floats<3> kv, floats<3> out) {
#include "14.inc"
}

}  // namespace
