// SPDX-License-Identifier: Apache-2.0
// A step of the methods of cache/methods that have an attention of their own, over the layers of a cache in turn. decode_f16_... is the
// attention over all of it beside them; Quest is in kv_cache_bench.cpp, and what chooses tokens to forget in kv_methods_bench.cpp.
//
//     <method>_h32x8_n<tokens>_d128      one token; cache_blend: one layer of a text of which some is read anew
#include "kv_cache_problem.hpp"

#include <tern/cache/kv_tiers.hpp>
#include <tern/cache/methods/a2ats.hpp>
#include <tern/cache/methods/cache_blend.hpp>
#include <tern/cache/methods/matryoshka_kv.hpp>
#include <tern/cache/methods/shadow_kv.hpp>
#include <tern/cache/methods/think.hpp>
#include <tern/cache/methods/zip_vl.hpp>

namespace tern::bench {
namespace {

/// Rows of one cache behind those of another, of layer 0.
template <class A, class B>
struct one_behind_other {
  A const& first;
  std::int32_t s;
  B const& second;
  std::int32_t t;
  index tokens;

  void k_row(index r, float* to) const {
    row(r, [&](auto const& cache, std::int32_t of, index h, index j) { cache.read_key(of, 0, h, j, to); });
  }
  void v_row(index r, float* to) const {
    row(r, [&](auto const& cache, std::int32_t of, index h, index j) { cache.read_value(of, 0, h, j, to); });
  }
  template <class Read>
  void row(index r, Read const& read) const {
    index const h = r / tokens, j = r % tokens, n = first.length(s, 0, h);
    j < n ? read(first, s, h, j) : read(second, t, h, j - n);
  }
};

/// ThinK: `width` of 128 channels, but for the last 128 tokens.
template <index width>
struct thin_keys : step {
  static constexpr index recent = 128;
  index layers;
  kv_cache<f16> pruned, whole;
  std::int32_t t = pruned.open(), s = whole.open();
  std::vector<std::int32_t> channels;

  static double bytes(index n) { return bytes_of<f16>(n - recent, width, dim) + bytes_of<f16>(recent); }
  explicit thin_keys(index n)
      : step(n),
        layers(layers_beyond_cache(bytes(n))),
        pruned({.layers = layers, .kv_heads = kv_heads, .dim = width, .dim_v = dim}),
        whole({.layers = layers, .kv_heads = kv_heads, .dim = dim}) {
    append_random(pruned, t, pruned.shape(), n - recent);
    append_random(whole, s, whole.shape(), recent);
    for (index i = 0; i < kv_heads * width; ++i) channels.push_back(static_cast<std::int32_t>(i % width * dim / width));
  }
  think_kept kept() const { return {view(channels.data(), kv_heads, width)}; }
  void k_row(index r, float* to) const {
    one_behind_other{pruned, t, whole, s, tokens}.k_row(r, to);
    if (r % tokens >= tokens - recent) return;
    std::vector<float> const stored(to, to + width);
    std::fill(to, to + dim, 0.f);
    for (index c = 0; c < width; ++c) to[channels[at(c)]] = stored[at(c)];
  }
  void v_row(index r, float* to) const { one_behind_other{pruned, t, whole, s, tokens}.v_row(r, to); }
};
template <index width>
void add_think(std::string const& name, index tokens) {
  using data = thin_keys<width>;
  double const n = static_cast<double>(tokens);
  add_step<data>(name, tokens, {2. * heads * n * (width + dim), data::bytes(tokens)}, attention_rounding(unit::f32),
                 [](cpu_policy const& on, data& x, index layer) {
                   think_attention(on, x.queries(), x.kept(), x.pruned, x.t, x.whole, x.s, layer, x.results(), x.sums());
                 });
}

/// MatryoshkaKV: half of the dimensions of keys and of values, the same directions for both.
struct half_dims : step {
  static constexpr index rank = dim / 2;
  index layers;
  kv_cache<f16> cache;
  std::int32_t s = cache.open();
  std::vector<float> directions = fast_normal(kv_heads * rank * dim, 1 / std::sqrt(double{dim}), 5), mean = fast_normal(kv_heads * dim);

  static double bytes(index n) { return bytes_of<f16>(n, rank, rank); }
  explicit half_dims(index n)
      : step(n), layers(layers_beyond_cache(bytes(n))), cache({.layers = layers, .kv_heads = kv_heads, .dim = rank}) {
    append_random(cache, s, cache.shape(), n);
  }
  matryoshka_projection projection() const { return {view(directions.data(), kv_heads, rank, dim), view(mean.data(), kv_heads, dim)}; }
  void k_row(index r, float* to) const {
    cache.read_key(s, 0, r / tokens, r % tokens, to);
    widen(r / tokens, to);
  }
  void v_row(index r, float* to) const {
    cache.read_value(s, 0, r / tokens, r % tokens, to);
    widen(r / tokens, to);
  }

 private:
  void widen(index h, float* x) const {
    std::vector<float> const stored(x, x + rank);
    std::copy_n(&mean[at(h * dim)], dim, x);
    for (index c = 0; c < rank; ++c)
      for (index d = 0; d < dim; ++d) x[d] += stored[at(c)] * directions[at((h * rank + c) * dim + d)];
  }
};
void add_matryoshka(index tokens) {
  double const projections = 4. * heads * half_dims::rank * dim;
  add_step<half_dims>("matryoshka_attention", tokens, {step_flops(static_cast<double>(tokens)) / 2 + projections, half_dims::bytes(tokens)},
                      4 * attention_rounding(unit::f32), [](cpu_policy const& on, half_dims& x, index layer) {
                        auto const of = x.projection();
                        matryoshka_attention(on, x.queries(), x.cache, x.s, layer, of, of, x.results(), x.sums());
                      });
}

/// ShadowKV: keys in 160 numbers; exact are 4 chunks of 8 and 48 outliers, 256 chunks are looked for. The exact tokens, a small part of
/// what a step reads, are the same in all layers.
struct shadows : step {
  static constexpr index rank = 160, chunk = 8, local = 4, outliers = 48, budget = 256, exact = (local + outliers) * chunk;
  index chunks = shadow_chunks(tokens, chunk, local), layers;
  std::vector<float> basis = fast_normal(rank * kv_heads * dim, 1 / std::sqrt(double{kv_heads * dim}), 5), table;
  rotating<float> codes, landmarks;
  rotating<f16> v;
  std::vector<std::int32_t> ids = std::vector<std::int32_t>(kv_heads * outliers), counts = std::vector<std::int32_t>(kv_heads), others;
  kv_cache<f16> cache{{.layers = 1, .kv_heads = kv_heads, .dim = dim}};
  std::int32_t s = cache.open();

  explicit shadows(index n) : step(n), table(at(n * dim)) {
    rope_table(cpu, 0, view(table.data(), n, dim));
    index const size = kv_heads * tokens * dim;
    auto const keys = fast_normal(size, 1, 3);
    buffer<f16> values(size);
    for (index i = 0; i < size; ++i) values[i] = f16(keys[at((i + 4099) % size)] + 1);
    layers = copies_beyond_cache(at(4 * (tokens * rank + kv_heads * chunks * dim) + 2 * size));
    codes = rotating<float>(std::vector<float>(at(tokens * rank)), 1);
    landmarks = rotating<float>(std::vector<float>(at(kv_heads * chunks * dim)), 1);
    v = rotating<f16>(values, layers);
    shadow_kv_prompt(cpu, view(keys.data(), kv_heads, tokens, dim), value_rows(0), context(0), local, outliers, cache, s, 0);
    codes = rotating<float>(codes.span(0), layers);
    landmarks = rotating<float>(landmarks.span(0), layers);
    for (index h = 0; h < kv_heads; ++h)
      for (index c = 0; c < chunks; ++c)
        if (auto const row = std::span(ids).subspan(at(h * outliers), outliers); std::find(row.begin(), row.end(), c) == row.end())
          others.push_back(static_cast<std::int32_t>(c));
  }
  shadow_context context(index layer) {
    return {view(codes[layer], tokens, rank),
            view(std::as_const(basis).data(), rank, kv_heads * dim),
            view(landmarks[layer], kv_heads, chunks, dim),
            {view(ids.data(), kv_heads, outliers), view(counts.data(), kv_heads)},
            view(std::as_const(table).data(), tokens, dim),
            rope_pairing::interleaved,
            chunk};
  }
  tensor_view<f16 const, 3> value_rows(index layer) { return view(v[layer], kv_heads, tokens, dim); }
  void attend(cpu_policy const& on, index layer, index of_chunks, compute products) {
    shadow_kv_attention(on, queries(), context(layer), value_rows(layer), of_chunks, cache, s, 0, results(), sums(), products);
  }
  // What is attended to with a budget of all chunks: the exact tokens, then the others.
  void k_row(index r, float* to) {
    index const h = r / tokens, j = r % tokens;
    if (j < exact) return cache.read_key(s, 0, h, j, to);
    std::fill(to, to + dim, 0.f);
    for (index c = 0; c < rank; ++c)
      for (index d = 0; d < dim; ++d) to[d] += codes[0][other(h, j) * rank + c] * basis[at((c * kv_heads + h) * dim + d)];
    rope(cpu, view(to, index{1}, dim), other(h, j));
  }
  void v_row(index r, float* to) {
    index const h = r / tokens, j = r % tokens;
    if (j < exact) return cache.read_value(s, 0, h, j, to);
    for (index d = 0; d < dim; ++d) to[d] = static_cast<float>(v[0][(h * tokens + other(h, j)) * dim + d]);
  }

 private:
  index other(index h, index j) const { return others[at(h * (chunks - outliers) + (j - exact) / chunk)] * chunk + (j - exact) % chunk; }
};
void add_shadow(index tokens, std::string const& name, compute products, unit of_products) {
  constexpr double looked_for = shadows::budget * shadows::chunk;
  double const landmarks = static_cast<double>(shadow_chunks(tokens, shadows::chunk, shadows::local)) * dim;
  cost const of{
      2 * heads * landmarks + 2 * kv_heads * looked_for * shadows::rank * dim + step_flops(looked_for + shadows::exact),
      kv_heads * (4 * landmarks + looked_for * (4 * shadows::rank + 2 * dim) + 4. * shadows::rank * dim) + bytes_of<f16>(shadows::exact),
      of_products};
  add_step<shadows>(
      name, tokens, of, [=](cpu_policy const& on, shadows& x, index layer) { x.attend(on, layer, shadows::budget, products); },
      [=](cpu_policy const& on, shadows& x) {
        x.attend(on, 0, x.chunks, products);
        return x.check(x, x.q.data(), 4 * attention_rounding(of_products), 2);
      });
}

/// A2ATS: 4096 codes a key head, each layer its own. Which tokens have which code does not change what a step costs.
struct coded : filled<f16, f16> {
  static constexpr index codes = 4096;
  rotating<float> book;
  std::vector<std::int32_t> code;
  std::vector<float> table = std::vector<float>(at(tokens * dim));

  explicit coded(index n) : filled(n), book(fast_normal(kv_heads * codes * dim, 1, 5), layers) {
    for (index i = 0; i < kv_heads * tokens; ++i) code.push_back(static_cast<std::int32_t>(i * 1237 % codes));
    rope_table(cpu, 0, view(table.data(), tokens, dim));
  }
  void attend(cpu_policy const& on, index layer, a2ats_reach const& reach) {
    auto const centers = view(book[layer], kv_heads, codes, dim);
    a2ats_attention(on, queries(), {view(book[layer], kv_heads, dim, dim), centers, centers},
                    view(std::as_const(code).data(), kv_heads, tokens), view(std::as_const(table).data(), tokens, dim), reach, cache, s,
                    layer, results(), sums());
  }
  // Keys near by, seen by a query that stands at `far`, where the others stand at 0.
  void k_row(index r, float* to) {
    filled::k_row(r, to);
    index const distance = tokens - 1 - r % tokens;
    if (distance < a2ats_reach{}.window) rope(cpu, view(to, index{1}, dim), a2ats_reach{}.far - distance);
  }
};
void add_a2ats(index tokens) {
  a2ats_reach const reach;
  auto const chosen = static_cast<double>(group * reach.top + reach.sinks + reach.window), n = static_cast<double>(tokens);
  add_step<coded>(
      "a2ats_attention", tokens,
      {2. * heads * coded::codes * dim + step_flops(chosen),
       4 * kv_heads * (double{coded::codes} * dim + n) + bytes_of<f16>(static_cast<index>(chosen))},
      [=](cpu_policy const& on, coded& x, index layer) { x.attend(on, layer, reach); },
      [=](cpu_policy const& on, coded& x) {
        x.attend(on, 0, {.top = x.tokens});
        buffer<float> turned(heads * dim);
        rope(on, x.queries(), view(turned.data(), heads, index{1}, dim), reach.far);
        return x.check(x, turned.data(), 4 * attention_rounding(unit::f32));
      });
}

/// ZipVL: half of the tokens in 4 bits, half in 2.
struct zipped : step {
  index layers;
  kv_cache<formats::keys4, formats::values4> high;
  kv_cache<formats::keys2, formats::values2> low;
  std::int32_t t = high.open(), u = low.open();

  static double bytes(index n) {
    return (bytes_of<formats::keys4, formats::values4>(n) + bytes_of<formats::keys2, formats::values2>(n)) / 2;
  }
  explicit zipped(index n)
      : step(n),
        layers(layers_beyond_cache(bytes(n))),
        high({.layers = layers, .kv_heads = kv_heads, .dim = dim}),
        low({.layers = layers, .kv_heads = kv_heads, .dim = dim}) {
    append_random(high, t, high.shape(), n / 2);
    append_random(low, u, low.shape(), n / 2);
  }
  void k_row(index r, float* to) const { one_behind_other{low, u, high, t, tokens}.k_row(r, to); }
  void v_row(index r, float* to) const { one_behind_other{low, u, high, t, tokens}.v_row(r, to); }
};
/// Keys and values in 2 bits, but for the last 128 to 191 tokens.
struct tiers : step {
  using tiered = kv_tiers<kv_cache<formats::keys2, formats::values2>, kv_cache<f16>>;
  static constexpr index latest = 128;
  index layers;
  tiered cache;
  std::int32_t s = cache.open();

  static double bytes(index n) { return bytes_of<formats::keys2, formats::values2>(n - latest) + bytes_of<f16>(latest); }
  explicit tiers(index n)
      : step(n), layers(layers_beyond_cache(bytes(n))), cache({.layers = layers, .kv_heads = kv_heads, .dim = dim}, latest) {
    append_random(cache, s, cache.old.shape(), n - page_rows);
    append_random(cache, s, cache.old.shape(), page_rows);  // before which tokens move
  }
  void k_row(index r, float* to) const { one_behind_other{cache.old, s, cache.recent, s, tokens}.k_row(r, to); }
  void v_row(index r, float* to) const { one_behind_other{cache.old, s, cache.recent, s, tokens}.v_row(r, to); }
};
void add_two_caches(index tokens) {
  double const flops = step_flops(static_cast<double>(tokens)), rounding = 2 * attention_rounding(unit::int8);  // as decode_q2
  add_step<zipped>("zip_vl_decode", tokens, {flops, zipped::bytes(tokens), unit::int8}, rounding,
                   [](cpu_policy const& on, zipped& x, index layer) {
                     zip_vl_decode(on, x.queries(), x.high, x.t, x.low, x.u, layer, x.results(), x.sums());
                   });
  add_step<tiers>("kv_tiers", tokens, {flops, tiers::bytes(tokens), unit::int8}, rounding,
                  [](cpu_policy const& on, tiers& x, index layer) { x.cache.attend(on, x.s, layer, x.queries(), x.results()); });
}

/// CacheBlend in a layer in which 768 of the tokens come, of which 614 go on; 32 are new.
struct blended : filled<f16, f16> {
  static constexpr index fresh = 32, count = 614, some = 768;
  buffer<float> of_q = buffer<float>(fast_normal(heads * some * dim, 1, 5)), k = buffer<float>(fast_normal(kv_heads * some * dim, 1, 6)),
                v = buffer<float>(fast_normal(kv_heads * some * dim, 1, 7)), rows = buffer<float>(heads * count * dim),
                row_sums = buffer<float>(heads * count);
  std::vector<std::int32_t> places, chosen = std::vector<std::int32_t>(count);

  explicit blended(index n) : filled(n) {
    for (index i = 0; i < some; ++i) places.push_back(static_cast<std::int32_t>((i + 1) * tokens / some - 1));
  }
  void blend(cpu_policy const& on, index layer) {
    cache_blend(on, cache, s, layer, view(places), view(of_q.data(), heads, some, dim), view(k.data(), kv_heads, some, dim),
                view(v.data(), kv_heads, some, dim), count, fresh, view(chosen), view(rows.data(), heads, count, dim),
                view(row_sums.data(), heads, count));
  }
  test::comparison check() {
    attention_reference reference;
    std::vector<float> got;
    for (index h : sample(heads, 3))
      for (index i : sample(count, 4)) {
        index const token = chosen[at(i)];
        reference.add(*this, &of_q[(h * some + token) * dim], dim, h / group * tokens, tokens, {0, places[at(token)] + 1});
        for (index d = 0; d < dim; d += 7) got.push_back(rows[(h * count + i) * dim + d]);
      }
    return test::compare(std::span<float const>(got), reference.want, reference.magnitude, attention_rounding(unit::f32));
  }
};
void add_blend(index tokens) {
  add_step<blended>(
      "cache_blend", tokens,
      {step_flops(blended::count * static_cast<double>(tokens)) / 2, bytes_of<f16>(tokens) + 2 * bytes_of<f16>(blended::some)},
      [](cpu_policy const& on, blended& x, index layer) { x.blend(on, layer); },
      [](cpu_policy const& on, blended& x) { return x.blend(on, 0), x.check(); });
}

}  // namespace

void register_benchmarks() {
  constexpr index tokens = 16384;
  for (index n : {tokens, 4 * tokens}) {
    add_decode<f16, f16>("f16", unit::f32, attention_rounding(unit::f32), n);
    add_think<76>("think_attention", n);     // 40 % are pruned
    add_think<102>("think20_attention", n);  // 20 %
  }
  add_matryoshka(tokens);
  add_shadow(tokens, "shadow_kv_attention", compute::f32, unit::f32);
  add_shadow(tokens, "shadow_kv_attention_bf16", compute::bf16, unit::bf16);
  add_a2ats(tokens);
  add_two_caches(tokens);
  add_blend(tokens / 4);
}

}  // namespace tern::bench
