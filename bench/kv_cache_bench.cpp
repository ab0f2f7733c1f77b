// SPDX-License-Identifier: Apache-2.0
// A step of decoding over a kv_cache of each format, and what changes one. Names:
//
//     decode_<what>_h32x8_n<tokens>_d128      f16; q8_0, q4_0, q2: keys and values in tiles of so many bits; codes: in formats/e8p.hpp's
//                                             2.5 bits; low_rank160: all keys of a token as 160 numbers of f16, values of
//                                             f16, or both in 8 bits; quest8_...: an eighth of the pages, with their selection
//     score_snapkv_..., prefill_f16_...       the last 64 queries of a prompt against all keys, in f32 and (score_snapkv_bf16) as the
//                                             prompt's attention, beside it, multiplies
//     keep_half_<format>_..., append<tokens>_<format>_...     keep: of all layers in turn, beside memcpy of as many bytes
#include "kv_cache_problem.hpp"

#include <tern/cache/methods/quest.hpp>
#include <tern/cache/observed_weights.hpp>
#include <tern/matmul.hpp>

#include <cstring>
#include <memory>

namespace tern::bench {
namespace {

/// An eighth of the pages.
template <class K, class V>
void add_quest(std::string const& format, unit peak, index tokens) {
  index const pages = tokens / page_rows / 8;
  workload const w{.op = "kv_cache",
                   .name = "decode_quest8_" + format + shape_of(tokens),
                   .flops = 4.0 * heads * static_cast<double>(tokens / 8 + tokens / page_rows) * dim,
                   .bytes = bytes_of<K, V>(tokens) / 8 + 4.0 * kv_heads * dim * static_cast<double>(tokens / page_rows),
                   .peak = peak};
  w.add("tern", [=](run& r) {
    auto& c = one_cache.get("decode_" + format + shape_of(tokens), [=] { return filled<K, V>(tokens); });  // add_decode's
    std::vector<quest_state> state;
    for (index l = 0; l < c.layers; ++l) state.emplace_back(c.cache.shape()).update(r.policy(), c.cache, c.s, l);
    r.time([&](index i) {
      index const l = i % c.layers;
      quest_attention(r.policy(), state[at(l)], c.cache, c.s, l, c.queries(), c.results(), pages);
    });
  });
}

/// Keys of all heads as `rank` numbers a token, and what makes the queries (heads, 1, rank) for them. Rows of f16, or tiles of 8 bits.
template <bool tiles>
struct low_rank_keys : step {
  static constexpr index rank = 160;
  using element = std::conditional_t<tiles, std::byte, f16>;
  using keys8 = kv_tiles<formats::keys8>;
  using values8 = kv_tiles<formats::values8>;

  index layers = layers_beyond_cache(bytes(tokens));
  rotating<element> k = layers_of<keys8>(1, rank), v = layers_of<values8>(kv_heads, dim);
  buffer<float> narrow = buffer<float>(heads * rank), projection = buffer<float>(fast_normal(kv_heads * rank * dim, 1, 5));

  explicit low_rank_keys(index n) : step(n) {}
  static double bytes(index tokens) { return (tiles ? 1.0625 : 2.0) * static_cast<double>(tokens * (rank + kv_heads * dim)); }
  void attend(cpu_policy const& on, index layer) {
    for (index h = 0; h < kv_heads; ++h)  // q' = B q with B (160, 128)
      matmul(on, view(std::as_const(q).data() + h * group * dim, group, dim),
             view(std::as_const(projection).data() + h * rank * dim, rank, dim), view(narrow.data() + h * group * rank, group, rank));
    attention(on, view(narrow.data(), heads, index{1}, rank), side<keys8>(k[layer], 1, rank), side<values8>(v[layer], kv_heads, dim),
              results());
  }

 private:
  template <class Tiles>
  auto side(element* data, index of_heads, index width) const {
    if constexpr (tiles)
      return Tiles{data, of_heads, tokens, width, Tiles::bytes(tokens, width)};
    else
      return view(static_cast<f16 const*>(data), of_heads, tokens, width);
  }
  template <class Tiles>
  rotating<element> layers_of(index of_heads, index width) const {
    auto const values = fast_normal((index{1} << 20) + 7, 1, 3);
    auto const row = [&](index i) { return values.data() + i * width % (std::ssize(values) - of_heads * width); };
    buffer<element> to(of_heads * (tiles ? Tiles::bytes(tokens, width) : tokens * width));
    if constexpr (tiles) {
      for (index t = 0; t < tokens; ++t) side<Tiles>(to.data(), of_heads, width).append(t, view(row(t), of_heads, index{1}, width));
    } else {
      for (index i = 0; i < of_heads * tokens * width; ++i) to[i] = f16(row(i / width)[i % width]);
    }
    return rotating<element>(to, layers);
  }
};
template <bool tiles>
void add_low_rank(std::string const& format, unit peak, index tokens) {
  using data = low_rank_keys<tiles>;
  workload const w{.op = "kv_cache",
                   .name = "decode_low_rank160" + format + shape_of(tokens),
                   .flops = 2.0 * heads * static_cast<double>(tokens) * (dim + data::rank),
                   .bytes = data::bytes(tokens),
                   .peak = peak};
  w.add("tern", [=](run& r) {
    auto& c = one_cache.get(w.name, [=] { return data(tokens); });
    r.time([&](index i) { c.attend(r.policy(), i % c.layers); });
  });
}

/// Half of the tokens of a layer stay, in place; those that went are appended anew while the next layer is waiting.
template <class K, class V>
void add_keep(std::string const& format) {
  constexpr index tokens = 16384, half = tokens / 2;
  // Half is written; rows of those that go are not read, but a token lies all over its tile.
  constexpr bool by_row = page_format<K>::granule == 1;
  workload const w{
      .op = "kv_cache", .name = "keep_half_" + format + shape_of(tokens), .bytes = bytes_of<K, V>(tokens) * (by_row ? 1 : 1.5)};
  w.add("tern", [=](run& r) {
    auto& c = one_cache.get("keep " + format, [=] { return filled<K, V>(tokens); });
    std::vector<std::int32_t> ids(at(kv_heads * half)), counts(kv_heads, half);
    for (index i = 0; i < kv_heads * half; ++i)  // every second one, but in pairs, which are dropped and kept in turn
      ids[at(i)] = static_cast<std::int32_t>(i % half / 2 * 4 + i % 2 + 1);
    index_lists const lists{view(ids.data(), kv_heads, half), view(counts.data(), kv_heads)};
    auto const x = fast_normal(kv_heads * half * dim);
    auto const fill = [&](index layer) {
      index const missing = tokens - c.cache.length(c.s, layer);
      auto const rows = view(x.data(), kv_heads, half, dim).slice(1, 0, missing);
      if (missing > 0) c.cache.append(r.policy(), c.s, layer, rows, rows);
    };
    index last = 0;
    r.time([&](index) { fill(last); }, [&](index i) { c.cache.keep(r.policy(), c.s, last = i % c.layers, lists); });
    fill(last);
  });
  w.add("memcpy", [=](run& r) {  // as many bytes, read and written, between two memories
    index const bytes = static_cast<index>(w.bytes) / 2, parts = 256, part = bytes / parts;
    auto& memory = one_cache.get("memcpy" + w.name, [=] { return rotating<char>(buffer<char>(2 * bytes)); });
    r.time([&](index i) {
      tern::detail::parallel_for(r.policy(), parts,
                                 [&](index p, index) { std::memcpy(memory[i] + bytes + p * part, memory[i] + p * part, at(part)); });
    });
  });
}

template <class K, class V>
void add_append(std::string const& format, index count) {
  workload const w{.op = "kv_cache",
                   .name = "append" + std::to_string(count) + "_" + format + shape_of(16384),
                   .bytes = bytes_of<K, V>(64) / 64 * static_cast<double>(count) + 8.0 * static_cast<double>(kv_heads * count * dim)};
  w.add("tern", [=](run& r) {
    auto& c = one_cache.get("append " + format, [&] { return filled<K, V>(16384, 1); });
    auto const x = fast_normal(kv_heads * count * dim);
    auto const rows = view(x.data(), kv_heads, count, dim);
    std::int32_t const s = c.cache.fork(c.s);
    r.time([&](index) {
      c.cache.append(r.policy(), s, 0, rows, rows);
      if (c.cache.length(s, 0) > 32768) c.cache.truncate(s, 16384);
    });
    c.cache.close(s);
  });
}

/// What choosing tokens after a prompt adds to its attention.
void add_scoring() {
  constexpr index tokens = 8192, window = 64;
  struct prompt {
    buffer<float> q = buffer<float>(fast_normal(heads * tokens * dim)), out = buffer<float>(heads * tokens * dim),
                  weights = buffer<float>(kv_heads * tokens);
    filled<f16, f16> kv{tokens, 1};
  };
  auto const data = [] { return std::make_unique<prompt>(); };
  workload const attend{
      .op = "kv_cache", .name = "prefill_f16" + shape_of(tokens), .flops = 2.0 * heads * tokens * double{tokens} * dim, .peak = unit::bf16};
  attend.add("tern", [=](run& r) {
    prompt& p = *one_cache.get("prompt", data);
    r.time([&](index) {
      attention(r.policy(), view(p.q.data(), heads, tokens, dim), p.kv.cache.keys(p.kv.s, 0), p.kv.cache.values(p.kv.s, 0),
                view(p.out.data(), heads, tokens, dim), causal{}, products<bf16>{});
    });
  });
  auto const score = [=]<class T>(std::string const& name, products<T> const& multiply, unit peak) {
    workload const w{
        .op = "kv_cache", .name = name + shape_of(tokens), .flops = 4.0 * heads * tokens * static_cast<double>(window) * dim, .peak = peak};
    w.add("tern", [=](run& r) {
      prompt& p = *one_cache.get("prompt", data);
      auto const q = view(static_cast<float const*>(p.q.data()), heads, tokens, dim).slice(1, tokens - window, tokens);
      r.time(
          [&](index) { observed_weights(r.policy(), q, p.kv.cache.keys(p.kv.s, 0), view(p.weights.data(), kv_heads, tokens), multiply); });
    });
  };
  score("score_snapkv_f16", products<float>{}, unit::f32);
  score("score_snapkv_bf16_f16", products<bf16>{}, unit::bf16);
}

}  // namespace

void register_benchmarks() {
  using namespace formats;
  double const rows = attention_rounding(unit::f32), tiles = attention_rounding(unit::int8);
  for (index tokens : {16384, 65536}) {
    add_decode<f16, f16>("f16", unit::f32, rows, tokens);
    add_quest<f16, f16>("f16", unit::f32, tokens);
    add_decode<keys8, values8>("q8_0", unit::int8, tiles, tokens);
    add_decode<keys4, values4>("q4_0", unit::int8, tiles, tokens);
    add_quest<keys4, values4>("q4_0", unit::int8, tokens);
    add_decode<e8p, e8p>("codes", unit::f32, rows, tokens);
    add_decode<keys2, values2>("q2", unit::int8, 2 * tiles, tokens);  // q has one step for all channels
    add_low_rank<false>("", unit::f32, tokens);
    add_low_rank<true>("_q8_0", unit::int8, tokens);
  }
  add_keep<f16, f16>("f16");
  add_keep<keys8, values8>("q8_0");
  add_keep<keys4, values4>("q4_0");
  add_keep<keys2, values2>("q2");
  for (index count : {1, 512}) {
    add_append<f16, f16>("f16", count);
    add_append<e8p, e8p>("codes", count);
    add_append<keys8, values8>("q8_0", count);
    add_append<keys4, values4>("q4_0", count);
  }
  add_scoring();
}

}  // namespace tern::bench
