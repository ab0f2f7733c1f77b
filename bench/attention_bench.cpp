// SPDX-License-Identifier: Apache-2.0
// softmax(q k^T / sqrt(d)) v: prompts (as many queries as keys), decoding (one query a head over a long cache, whose K and V come
// from memory), and what is hard to spread over threads: one head, many short sequences. Names:
// prefill_<type of k and v>_h<heads>x<kv heads>_n<tokens>_d<dim>_<full, causal or window<length>>, decode_... without the last,
// batch<sequences>_.... Operations count visible pairs only.
#include "attention_peers.hpp"
#include "attention_problem.hpp"
#include "attention_tiles.hpp"

#include <functional>
#include <string>
#include <vector>

namespace tern::bench {
namespace {

/// An element type of K and V: its name, what the products of prompts multiply, and the unit of arithmetic that they are held against.
template <class T>
struct element {};
template <>
struct element<float> {
  static constexpr char const* name = "f32";
  using multiplied = products<float>;
  static constexpr unit peak = unit::f32;
};
template <>
struct element<f16> {
  static constexpr char const* name = "f16";
  using multiplied = products<float>;
  static constexpr unit peak = unit::f32;
};
template <>
struct element<bf16> {
  static constexpr char const* name = "bf16";
  using multiplied = products<bf16>;
  static constexpr unit peak = unit::bf16;
};
template <>
struct element<formats::q8_0> {
  static constexpr char const* name = "q8_0";
  using multiplied = products<std::int8_t>;
  static constexpr unit peak = unit::int8;
};
template <>
struct element<formats::q4_0> {
  static constexpr char const* name = "q4_0";
  using multiplied = products<std::int8_t>;
  static constexpr unit peak = unit::int8;
};

/// K or V as tern::attention takes it. A type with an overload is measured; one without has only peers.
template <float_storage T>
tensor_view<T const, 4> operand(std::uint8_t const* at, attention_shape const& s, T const*) {
  return {reinterpret_cast<T const*>(at), {s.batch, s.kv_heads, s.keys, s.dim}};
}
template <class Format>
tensor_view<typename Format::block const, 4> operand(std::uint8_t const* at, attention_shape const& s, Format const*) {
  return {reinterpret_cast<typename Format::block const*>(at), {s.batch, s.kv_heads, s.keys, s.dim / Format::elements}};
}
template <class T>
concept measured = requires(std::uint8_t const* at, attention_shape const& s, T const* type) { operand(at, s, type); };

/// Registers tern's attention. Options may change how results come about, and not what they are; a variant with some is named
/// tern_<variant>.
template <class T, class... Options>
void add_tern(workload const& w, std::string const& variant, std::function<attention_inputs<T>&()> const& data, sight const& sees,
              Options const&... options) {
  w.add(variant, [=](run& r) {
    attention_inputs<T>& p = data();
    attention_shape const& s = p.s;
    tensor_view<float const, 4> const q(p.q.data(), {s.batch, s.heads, s.queries, s.dim});
    tensor_view<float, 4> const out(p.out.data(), {s.batch, s.heads, s.queries, s.dim});
    check_and_time(r, p, p.kv, sees, attention_rounding(element<T>::peak), [&](index i) {
      T const* const type = nullptr;
      auto const k = operand(p.kv.k(i), s, type), v = operand(p.kv.v(i), s, type);
      if (sees.window != 0)
        attention(r.policy(), q, k, v, out, causal{} & window{sees.window}, options...);
      else if (sees.causal)
        attention(r.policy(), q, k, v, out, causal{}, options...);
      else
        attention(r.policy(), q, k, v, out, options...);
    });
  });
}

/// Decoding from tiles. The rows of blocks beside them, which are slower to read, are then tern_rows.
template <class T>
void add_tiles(workload const& w, std::function<attention_inputs<T>&()> const& data, sight const& sees) {
  using store = tile_store<typename tiles_like<T>::keys, typename tiles_like<T>::values>;
  std::function<store&()> const tiles = lazy([data] { return store(data().s, data().kv); });
  w.add("tern", [=](run& r) {
    attention_inputs<T>& p = data();
    attention_shape const& s = p.s;
    tensor_view<float const, 4> const q(p.q.data(), {s.batch, s.heads, s.queries, s.dim});
    tensor_view<float, 4> const out(p.out.data(), {s.batch, s.heads, s.queries, s.dim});
    store& kv = tiles();
    check_and_time(r, p, kv, sees, attention_rounding(unit::int8), [&](index i) { attention(r.policy(), q, kv.k(i), kv.v(i), out); });
  });
}

template <class T>
workload describe(std::string const& name, attention_shape const& s, sight const& sees) {
  auto const heads = static_cast<double>(s.batch * s.heads);
  auto const kv_bytes = static_cast<double>(2 * s.kv_rows() * stored<T>::bytes(s.dim));
  return {.op = "attention",
          .name = name,
          .flops = 4.0 * sees.pairs(s) * heads * static_cast<double>(s.dim),
          .bytes = kv_bytes + 8.0 * static_cast<double>(s.rows() * s.dim),
          .peak = element<T>::peak};
}

/// Registers every implementation of one shape, once for each of `sights`. `kind` is the first word of the names.
template <class T>
void add_attention(std::string const& kind, attention_shape const& s, std::vector<sight> const& sights) {
  if (s.dim % stored<T>::elements != 0) return;
  std::function<attention_inputs<T>&()> const data = lazy([s] { return attention_inputs<T>(s); });
  ggml_peer<T> const ggml(s, data);
  for (sight const& sees : sights) {
    std::string name = kind + "_" + element<T>::name + "_h" + std::to_string(s.heads) + "x" + std::to_string(s.kv_heads) + "_n" +
                       std::to_string(s.keys) + "_d" + std::to_string(s.dim);
    if (s.queries > 1) name.append("_").append(sees.name());
    workload const w = describe<T>(name, s, sees);
    bool const in_tiles = s.cold() && s.batch == 1 && requires { typename tiles_like<T>::keys; };
    if constexpr (requires { typename tiles_like<T>::keys; })
      if (in_tiles) add_tiles<T>(w, data, sees);
    if constexpr (measured<T>) add_tern<T>(w, in_tiles ? "tern_rows" : "tern", data, sees, typename element<T>::multiplied{});
    if constexpr (std::is_same_v<T, float>)
      if (s.queries > 1) add_block_peers(w, data, sees);
    ggml.add(w, sees);
  }
}

template <class T>
void add_type() {
  sight const full{}, causal{true}, window256{true, 256}, window1024{true, 1024};
  add_attention<T>("prefill", {16, 16, 1024, 1024, 64}, {full, causal});
  add_attention<T>("prefill", {32, 8, 2048, 2048, 128}, {full, causal});
  add_attention<T>("prefill", {32, 8, 4096, 4096, 128}, {full, causal, window256, window1024});
  add_attention<T>("prefill", {16, 4, 4096, 4096, 256}, {full, causal});
  add_attention<T>("prefill", {8, 8, 2048, 2048, 80}, {full, causal});
  for (index keys : {4096, 16384, 65536}) add_attention<T>("decode", {32, 8, 1, keys, 128}, {full});
  add_attention<T>("decode", {16, 1, 1, 65536, 128}, {full});
  add_attention<T>("decode", {1, 1, 1, 262144, 128}, {full});
  add_attention<T>("batch256", {8, 8, 64, 64, 64, 256}, {causal});
}

}  // namespace

void register_benchmarks() {
  add_type<float>();
  add_type<f16>();
  add_type<bf16>();
  add_type<formats::q8_0>();
  add_type<formats::q4_0>();
}

}  // namespace tern::bench
