// SPDX-License-Identifier: Apache-2.0
#pragma once
// Keys or values (batch, heads, keys, dim) in each kind of source, filled with random numbers. What no key may touch is NaN:
// rows behind a sequence's length, unused pages, gaps.
#include "call.hpp"

namespace tern::test {

enum class source { f32, f16, bf16, q8_0, q4_0, paged, ring, joined, tiles, count };

struct extents4 {
  index batch, heads, keys, dim;
  index at(index b, index h, index j, index d) const { return ((b * heads + h) * keys + j) * dim + d; }
};

/// The exact values as stored, dense, for the oracle. `lengths` says how many keys each sequence has.
struct stored_values {
  extents4 n;
  std::vector<std::int32_t> lengths;
  std::vector<double> values;

  stored_values(extents4 const& of, std::vector<std::int32_t> const& of_sequence)
      : n(of), lengths(of_sequence), values(static_cast<std::size_t>(of.batch * of.heads * of.keys * of.dim)) {}
  bool exists(index b, index j) const { return j < lengths[static_cast<std::size_t>(b)]; }
  /// Puts a random number where the key exists, by `slot(b, h, j, d)`.
  template <class Slot>
  void fill(rng& r, Slot&& slot) {
    for (index b = 0; b < n.batch; ++b)
      for (index h = 0; h < n.heads; ++h)
        for (index j = 0; j < n.keys; ++j)
          for (index d = 0; d < n.dim; ++d) {
            auto& e = slot(b, h, j, d);
            using element = std::remove_reference_t<decltype(e)>;
            if (exists(b, j)) e = static_cast<element>(static_cast<float>(4 * r.uniform() - 2));
            values[static_cast<std::size_t>(n.at(b, h, j, d))] = static_cast<double>(e);
          }
  }
};

template <class T>
struct strided : stored_values {
  guarded<T> memory;
  tensor_view<T, 4> view;
  strided(rng& r, extents4 const& of, std::vector<std::int32_t> const& of_sequence)
      : stored_values(of, of_sequence), memory(of.batch * of.heads * of.keys * (of.dim + 3), 1) {
    index const row = of.dim + 3;
    view = tensor_view<T, 4>(memory.data(), shape<4>{{of.batch, of.heads, of.keys, of.dim}},
                             shape<4>{{of.keys * of.heads * row, row, of.heads * row, 1}});
    fill(r, [&](index b, index h, index j, index d) -> T& { return view(b, h, j, d); });
  }
  auto operator()() const { return view; }
};

template <class Format>
struct blocked : stored_values {
  using block = typename Format::block;
  std::vector<block> blocks;
  blocked(rng& r, extents4 const& of, std::vector<std::int32_t> const& of_sequence) : stored_values(of, of_sequence) {
    std::vector<float> row(static_cast<std::size_t>(of.dim));
    for (index i = 0; i < of.batch * of.heads * of.keys; ++i)
      for (index d = 0; d < of.dim; d += Format::elements) {
        float x[Format::elements];
        for (float& e : x) e = static_cast<float>(4 * r.uniform() - 2);
        block encoded = Format::encode(x);
        if (!exists(i / (of.heads * of.keys), i % of.keys)) encoded.d = poison<f16>();
        Format::decode(encoded, x);
        for (index e = 0; e < Format::elements; ++e) values[static_cast<std::size_t>(i * of.dim + d + e)] = static_cast<double>(x[e]);
        blocks.push_back(encoded);
      }
  }
  auto operator()() const { return view(blocks.data(), n.batch, n.heads, n.keys, n.dim / Format::elements); }
};

/// Pages of 7 rows, shuffled among more pages than are used.
struct in_pages : stored_values {
  static constexpr index rows = 7;
  index per_sequence, pages;
  guarded<float> memory;
  std::vector<std::int32_t> table;
  in_pages(rng& r, extents4 const& of, std::vector<std::int32_t> const& of_sequence)
      : stored_values(of, of_sequence),
        per_sequence(of.keys / rows),
        pages(of.batch * per_sequence + 3),
        memory(pages * of.heads * rows * of.dim, 1) {
    std::vector<std::int32_t> order;
    for (index p = 0; p < pages; ++p) order.push_back(static_cast<std::int32_t>(p));
    for (index p = pages - 1; p > 0; --p) std::swap(order[static_cast<std::size_t>(p)], order[static_cast<std::size_t>(r.integer(0, p))]);
    for (index b = 0; b < of.batch; ++b)
      for (index p = 0; p < per_sequence; ++p)  // a page without a key is none
        table.push_back(exists(b, p * rows) ? order[static_cast<std::size_t>(b * per_sequence + p)] : -1);
    float unused = 0;
    fill(r, [&](index b, index h, index j, index d) -> float& {
      index const page = table[static_cast<std::size_t>(b * per_sequence + j / rows)];
      unused = poison<float>();
      return page < 0 ? unused : memory.data()[((page * n.heads + h) * rows + j % rows) * n.dim + d];
    });
  }
  auto operator()() const {
    return paged(tensor_view<float const, 4>(memory.data(), shape<4>{{pages, n.heads, rows, n.dim}}),
                 tensor_view<std::int32_t const, 2>(table.data(), shape<2>{{n.batch, per_sequence}}), lengths);
  }
};

/// A buffer of five more rows than keys, which wraps in the middle.
struct in_ring : stored_values {
  index rows, first;
  guarded<f16> memory;
  in_ring(rng& r, extents4 const& of, std::vector<std::int32_t> const& of_sequence)
      : stored_values(of, of_sequence), rows(of.keys + 5), first(of.keys / 2), memory(of.batch * of.heads * rows * of.dim, 1) {
    fill(r, [&](index b, index h, index j, index d) -> f16& {
      return memory.data()[((b * n.heads + h) * rows + (first + j) % rows) * n.dim + d];
    });
  }
  auto operator()() const {
    return tern::ring(tensor_view<f16 const, 4>(memory.data(), shape<4>{{n.batch, n.heads, rows, n.dim}}), first, n.keys);
  }
};

/// A prefix that all sequences share, nothing, and what follows for each.
struct in_segments : stored_values {
  index prefix;
  guarded<float> shared, own;
  in_segments(rng& r, extents4 const& of, std::vector<std::int32_t> const& of_sequence)
      : stored_values(of, of_sequence),
        prefix(of.keys / 3),
        shared(of.heads * prefix * of.dim, 1),
        own(of.batch * of.heads * (of.keys - prefix) * of.dim, 1) {
    for (index i = 0; i < of.heads * prefix * of.dim; ++i) shared[i] = static_cast<float>(4 * r.uniform() - 2);
    float copy = 0;
    fill(r, [&](index b, index h, index j, index d) -> float& {
      if (j >= prefix) return own[((b * n.heads + h) * (n.keys - prefix) + j - prefix) * n.dim + d];
      return copy;
    });
    for (index b = 0; b < n.batch; ++b)
      for (index h = 0; h < n.heads; ++h)
        for (index i = 0; i < prefix * n.dim; ++i)
          values[static_cast<std::size_t>(n.at(b, h, 0, i))] = static_cast<double>(shared[h * prefix * n.dim + i]);
  }
  auto operator()() const {
    tensor_view<float const, 4> const a(shared.data(), shape<4>{{1, n.heads, prefix, n.dim}});
    tensor_view<float const, 4> const none(own.data(), shape<4>{{n.batch, n.heads, 0, n.dim}});
    tensor_view<float const, 4> const b(own.data(), shape<4>{{n.batch, n.heads, n.keys - prefix, n.dim}});
    return joined(a, none, b);
  }
};

/// Tiles, each a page of one head, shuffled among more than are used.
template <class Format>
struct in_tiles : stored_values {
  index per_head;
  std::vector<std::byte> memory;
  std::vector<std::byte*> address;
  std::vector<std::int32_t> page;
  std::vector<page_list> lists;
  in_tiles(rng& r, extents4 const& of, std::vector<std::int32_t> const& of_sequence)
      : stored_values(of, of_sequence), per_head((of.keys + page_rows - 1) / page_rows) {
    index const used = of.batch * of.heads * per_head, bytes = Format::tile_bytes(of.dim);
    memory.assign(static_cast<std::size_t>((used + 3) * bytes), std::byte{0xff});  // NaN for scales
    for (index p = 0; p < used + 3; ++p) address.push_back(memory.data() + p * bytes);
    for (std::size_t p = address.size() - 1; p > 0; --p)
      std::swap(address[p], address[static_cast<std::size_t>(r.integer(0, static_cast<index>(p)))]);
    for (index p = 0; p < used; ++p) page.push_back(static_cast<std::int32_t>(p));
    std::vector<float> row(static_cast<std::size_t>(of.dim));
    for (index b = 0; b < of.batch; ++b)
      for (index h = 0; h < of.heads; ++h) {
        std::int32_t const* const own = page.data() + (b * of.heads + h) * per_head;
        lists.push_back({own, lengths[static_cast<std::size_t>(b)]});
        for (index j = 0; exists(b, j); ++j) {
          std::byte* const to = address[static_cast<std::size_t>(own[j / page_rows])];
          for (float& x : row) x = static_cast<float>(4 * r.uniform() - 2);
          for (index e = 0; e < of.dim / Format::elements; ++e) {
            float* const x = row.data() + e * Format::elements;
            Format::encode(x, of.dim, e, j % page_rows, to);
            Format::decode(to, of.dim, e, j % page_rows, x);
          }
          std::copy(row.begin(), row.end(), values.begin() + of.at(b, h, j, 0));
        }
      }
  }
  in_tiles(in_tiles const&) = delete;
  auto operator()() const { return paged_heads<Format>{address.data(), 0, {lists.data(), shape<2>{{n.batch, n.heads}}}, n.dim}; }
};

/// `of_keys` or of values, which have tiles of their own.
template <source S, bool of_keys = true>
auto stored_as(rng& r, extents4 const& n, std::vector<std::int32_t> const& lengths) {
  if constexpr (S == source::f32) return strided<float>(r, n, lengths);
  if constexpr (S == source::f16) return strided<f16>(r, n, lengths);
  if constexpr (S == source::bf16) return strided<bf16>(r, n, lengths);
  if constexpr (S == source::q8_0) return blocked<formats::q8_0>(r, n, lengths);
  if constexpr (S == source::q4_0) return blocked<formats::q4_0>(r, n, lengths);
  if constexpr (S == source::paged) return in_pages(r, n, lengths);
  if constexpr (S == source::ring) return in_ring(r, n, lengths);
  if constexpr (S == source::joined) return in_segments(r, n, lengths);
  if constexpr (S == source::tiles) return in_tiles<std::conditional_t<of_keys, formats::keys8, formats::values8>>(r, n, lengths);
}

}  // namespace tern::test
