// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file bench/kv_cache_problem.hpp
/// What the benchmarks of caches share: layers of a kv_cache, all different, enough to leave the processor's caches; a step of decoding
/// over them, and its check against f64. Steps take the layers in turn. 32 heads, 8 key heads, dim 128. Names:
///
///     kv_cache/<what>_h32x8_n<tokens>_d128
///
/// Operations and bytes are those that each workload has, not those of f16.

#include "attention_problem.hpp"

#include <tern/cache/kv_cache.hpp>

namespace tern::bench {

inline constexpr index heads = 32, kv_heads = 8, dim = 128, group = heads / kv_heads;

inline std::string shape_of(index tokens) { return "_h32x8_n" + std::to_string(tokens) + "_d128"; }

/// Bytes of so many tokens of a layer.
template <class K, class V = K>
double bytes_of(index tokens, index width, index width_v) {
  return static_cast<double>(kv_heads * tokens) / page_rows *
         static_cast<double>(page_format<K>::bytes(width) + page_format<V>::bytes(width_v));
}
template <class K, class V = K>
double bytes_of(index tokens) {
  return bytes_of<K, V>(tokens, dim, dim);
}
/// Operations of a step over so many keys of each head.
inline double step_flops(double keys) { return 4 * heads * keys * dim; }
/// An index of the standard library's containers.
inline std::size_t at(index i) { return static_cast<std::size_t>(i); }
inline index layers_beyond_cache(double bytes) { return copies_beyond_cache(static_cast<std::size_t>(bytes)); }

/// Random tokens behind those of each layer of a cache. Values have no mean of zero: or the results of long contexts would vanish, and no
/// check could tell right from nothing.
template <class Cache>
void append_random(Cache& cache, std::int32_t s, kv_shape const& n, index tokens) {
  constexpr index chunk = 1024, period = 4096;
  auto const keys = fast_normal(n.kv_heads * chunk * n.dim + period, 1, 3);
  auto values = fast_normal(n.kv_heads * chunk * n.dim_v + period, 1, 4);
  for (float& e : values) e += 1;
  for (index layer = 0; layer < n.layers; ++layer)
    for (index t = 0; t < tokens; t += chunk) {
      index const first = (layer * 31 + t / chunk * 17) % period, some = std::min(chunk, tokens - t);
      cache.append(cpu, s, layer, view(keys.data() + first, n.kv_heads, some, n.dim),
                   view(values.data() + first, n.kv_heads, some, n.dim_v));
    }
}

/// The query of a token, its results, and their check.
struct step {
  index tokens;
  buffer<float> q = buffer<float>(fast_normal(heads * dim)), out = buffer<float>(heads * dim), lse = buffer<float>(heads);

  explicit step(index n) : tokens(n) {}
  auto queries() const { return view(q.data(), heads, index{1}, dim); }
  auto results() { return view(out.data(), heads, index{1}, dim); }
  auto sums() { return view(lse.data(), heads, index{1}); }
  /// A sample of the results against the attention of `of_q` over all keys that `store` has (k_row and v_row as attention_reference
  /// wants them).
  template <class Store>
  test::comparison check(Store& store, float const* of_q, double rounding, index count = 3) const {
    std::vector<float> got;
    attention_reference reference;
    for (index h : sample(heads, count)) {
      reference.add(store, of_q + h * dim, dim, h / group * tokens, tokens, {0, tokens});
      for (index d = 0; d < dim; d += 7) got.push_back(out[h * dim + d]);
    }
    return test::compare(std::span<float const>(got), reference.want, reference.magnitude, rounding);
  }
};

/// Layers of a cache of so many tokens.
template <class K, class V>
struct filled : step {
  kv_cache<K, V> cache;
  index layers;
  std::int32_t s;

  explicit filled(index n, index count = 0)
      : step(n),
        cache({.layers = count > 0 ? count : layers_beyond_cache(bytes_of<K, V>(n)), .kv_heads = kv_heads, .dim = dim}),
        layers(cache.shape().layers),
        s(cache.open()) {
    append_random(cache, s, cache.shape(), n);
  }
  /// Of layer 0.
  void k_row(index r, float* to) { cache.read_key(s, 0, r / tokens, r % tokens, to); }
  void v_row(index r, float* to) { cache.read_value(s, 0, r / tokens, r % tokens, to); }
};

inline room one_cache;  // at a time

/// What a step costs.
struct cost {
  double flops, bytes;
  unit peak = unit::f32;
};

/// One step: data is made by Data(tokens), whose layers call(policy, data, layer) takes in turn, and checked by check(policy, data).
template <class Data, class Call, class Check>
void add_step(std::string const& name, index tokens, cost const& of, Call call, Check check) {
  workload const w{.op = "kv_cache", .name = name + shape_of(tokens), .flops = of.flops, .bytes = of.bytes, .peak = of.peak};
  w.add("tern", [=](run& r) {
    Data& x = one_cache.get(w.name, [=] { return Data(tokens); });
    if (r.check([&] { return check(r.policy(), x); })) r.time([&](index i) { call(r.policy(), x, i % x.layers); });
  });
}
/// The same, checked after a call for layer 0 against all rows that Data says.
template <class Data, class Call>
void add_step(std::string const& name, index tokens, cost const& of, double rounding, Call call) {
  add_step<Data>(name, tokens, of, call, [=](cpu_policy const& on, Data& x) {
    call(on, x, 0);
    return x.check(x, x.q.data(), rounding);
  });
}

/// Attention over the whole cache.
template <class K, class V>
void add_decode(std::string const& format, unit peak, double rounding, index tokens) {
  add_step<filled<K, V>>("decode_" + format, tokens, {step_flops(static_cast<double>(tokens)), bytes_of<K, V>(tokens), peak}, rounding,
                         [](cpu_policy const& on, filled<K, V>& x, index layer) {
                           attention(on, x.queries(), x.cache.keys(x.s, layer), x.cache.values(x.s, layer), x.results());
                         });
}

}  // namespace tern::bench
