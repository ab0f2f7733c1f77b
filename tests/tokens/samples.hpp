// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/tokens/samples.hpp
/// What the tests of tokens/ share: tensors of several samples, lists and maps with memory of their own.

#include <tern/tokens/token_map.hpp>

#include <tern/core/policy.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "catch.hpp"
#include "compare.hpp"
#include "message.hpp"

namespace tern::test {

inline thread_pool& several_threads() {
  static thread_pool pool(3);
  return pool;
}

/// (samples, tokens, channels) with a gap behind each token; all of it is poison until written.
template <class T>
struct token_tensor {
  guarded<T> memory;
  tensor_view<T, 3> view;

  token_tensor(index samples, index tokens, index channels, index gap = 3)
      : memory(samples * tokens * (channels + gap), 1),
        view(memory.data(), shape<3>{{samples, tokens, channels}}, shape<3>{{tokens * (channels + gap), channels + gap, 1}}) {}
  token_tensor(rng& r, index samples, index tokens, index channels, double scale = 1) : token_tensor(samples, tokens, channels) {
    detail::each(view, [&](T& e) { e = static_cast<T>(static_cast<float>(scale * r.normal())); });
  }
  double operator()(index b, index i, index c) const { return static_cast<double>(view(b, i, c)); }
  bool intact() const { return memory.untouched_outside(view); }
  /// The bits of a token.
  std::vector<T> token(index b, index i) const { return {&view(b, i, 0), &view(b, i, 0) + view.extent(2)}; }
};
template <class T>
bool same_bits(std::vector<T> const& a, std::vector<T> const& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}
template <class T>
bool is_poison(std::vector<T> const& a) {
  return same_bits(a, std::vector<T>(a.size(), poison<T>()));
}

/// Lists with memory of their own.
struct token_lists {
  std::vector<std::int32_t> memory, numbers;
  index_lists view;

  token_lists(index samples, index most)
      : memory(static_cast<std::size_t>(samples * most), -7),
        numbers(static_cast<std::size_t>(samples), -7),
        view{tern::view(memory.data(), samples, most), tern::view(numbers.data(), samples)} {}
  token_lists(std::vector<std::vector<std::int32_t>> const& rows, index most) : token_lists(static_cast<index>(rows.size()), most) {
    for (std::size_t b = 0; b < rows.size(); ++b) {
      numbers[b] = static_cast<std::int32_t>(rows[b].size());
      std::copy(rows[b].begin(), rows[b].end(), view.row(static_cast<index>(b)));
    }
  }
  token_lists(token_lists const&) = delete;
  std::vector<std::int32_t> row(index b) const { return {view.row(b), view.row(b) + view.count(b)}; }
};

/// A map with memory of its own.
struct own_map {
  std::vector<std::int32_t> memory, numbers;
  token_map view;
  own_map(index samples, index tokens)
      : memory(static_cast<std::size_t>(samples * tokens), -7),
        numbers(static_cast<std::size_t>(samples), -7),
        view{tern::view(memory.data(), samples, tokens), tern::view(numbers.data(), samples)} {}
  own_map(std::vector<std::vector<std::int32_t>> const& rows)
      : own_map(static_cast<index>(rows.size()), static_cast<index>(rows[0].size())) {
    for (std::size_t b = 0; b < rows.size(); ++b) {
      std::copy(rows[b].begin(), rows[b].end(), memory.begin() + static_cast<std::ptrdiff_t>(b * rows[b].size()));
      numbers[b] = 1 + *std::max_element(rows[b].begin(), rows[b].end());
    }
  }
  own_map(own_map const&) = delete;
  std::vector<std::int32_t> row(index b) const { return {&view.to(b, 0), &view.to(b, 0) + view.tokens()}; }
};

/// Pairs with memory of their own.
struct own_pairs {
  std::vector<std::int32_t> from, to, numbers;
  std::vector<float> similarity;
  token_pairs view;
  own_pairs(index samples, index most)
      : from(static_cast<std::size_t>(samples * most), -7),
        to(from),
        numbers(static_cast<std::size_t>(samples), -7),
        similarity(static_cast<std::size_t>(samples * most), -7),
        view{tern::view(from.data(), samples, most), tern::view(to.data(), samples, most), tern::view(similarity.data(), samples, most),
             tern::view(numbers.data(), samples)} {}
  own_pairs(own_pairs const&) = delete;
};

using ids = std::vector<std::int32_t>;

}  // namespace tern::test
