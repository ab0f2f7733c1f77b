// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file bench/attention_tiles.hpp
/// K and V of a workload in tern's own layout for decoding (formats/kv_tiles.hpp): as many bits as the block format beside it.

#include "attention_problem.hpp"

namespace tern::bench {

/// The formats of tiles with as many bits as rows of T.
template <class T>
struct tiles_like {};
template <>
struct tiles_like<formats::q8_0> {
  using keys = formats::keys8;
  using values = formats::values8;
};
template <>
struct tiles_like<formats::q4_0> {
  using keys = formats::keys4;
  using values = formats::values4;
};

/// K and V, each (kv_heads, keys, dim), in tiles; copies as in kv_store. Of one batch.
template <class Keys, class Values>
class tile_store {
 public:
  template <class Store>
  tile_store(attention_shape const& s, Store& from)
      : shape_(s), k_stride_(kv_tiles<Keys>::bytes(s.keys, s.dim)), v_stride_(kv_tiles<Values>::bytes(s.keys, s.dim)) {
    buffer<std::uint8_t> bytes(s.kv_heads * (k_stride_ + v_stride_));
    std::vector<float> row(static_cast<std::size_t>(s.dim));
    for (index h = 0; h < s.kv_heads; ++h)
      for (index j = 0; j < s.keys; ++j) {
        from.k_row(h * s.keys + j, row.data());
        write(keys_at(bytes.data()), h, j, row);
        from.v_row(h * s.keys + j, row.data());
        write(values_at(bytes.data()), h, j, row);
      }
    copies_ = rotating<std::uint8_t>(std::span<std::uint8_t const>(bytes), 0);
  }

  kv_tiles<Keys> k(index call) { return keys_at(copies_[call]); }
  kv_tiles<Values> v(index call) { return values_at(copies_[call]); }
  void k_row(index r, float* to) { k(0).decode(r / shape_.keys, r % shape_.keys, to); }
  void v_row(index r, float* to) { v(0).decode(r / shape_.keys, r % shape_.keys, to); }

 private:
  template <class Format>
  void write(kv_tiles<Format> const& to, index h, index j, std::vector<float> const& row) const {
    for (index b = 0; b < shape_.dim / 32; ++b) Format::encode(row.data() + 32 * b, shape_.dim, b, j % Format::tokens, to.tile(h, j));
  }
  kv_tiles<Keys> keys_at(std::uint8_t* at) const {
    return {reinterpret_cast<std::byte*>(at), shape_.kv_heads, shape_.keys, shape_.dim, k_stride_};
  }
  kv_tiles<Values> values_at(std::uint8_t* at) const {
    return {reinterpret_cast<std::byte*>(at) + shape_.kv_heads * k_stride_, shape_.kv_heads, shape_.keys, shape_.dim, v_stride_};
  }

  attention_shape shape_;
  index k_stride_, v_stride_;
  rotating<std::uint8_t> copies_;
};

}  // namespace tern::bench
