// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/llm/kv_method.hpp
/// A store that loses tokens, by any method.

#include "kv_store.hpp"

#include <tern/cache/every.hpp>

#include <functional>

namespace llm {

class method_store;
/// Shortens a layer to the store's budget.
using method = std::function<void(method_store&, tern::index layer)>;

/// A full store of which tokens go whenever it has read 64 more than its budget.
class method_store : public full_store {
 public:
  method_store(full_store const& text, observes what, tern::index budget, method m)
      : full_store(text, what), budget(budget), method_(std::move(m)) {
    shorten();
  }
  void read_to_end(tern::index tokens) override {
    if (due_(tokens)) shorten();
  }

  /// What was read and is forgotten does not count.
  void truncate(tern::index position) override {
    full_store::truncate(position);
    due_ = tern::every(64);
  }

  tern::index const budget;
  /// The latest queries before rotation, (heads, tokens, dim).
  std::vector<float> unrotated(tern::index layer) {
    auto const q = seen(layer).last.queries();
    std::vector<float> to(static_cast<std::size_t>(q.size()));
    rotate_back(policy(), q, tern::view(to.data(), q.extent(0), q.extent(1), q.extent(2)),
                cache().next_position(sequence(), layer) - q.extent(1), model().rope);
    return to;
  }

 private:
  void shorten() {
    for (tern::index l = 0; l < model().layers; ++l)
      if (cache().longest(sequence(), l) > budget) method_(*this, l);
  }
  method method_;
  tern::every due_{64};
};

/// The methods of kv_merges.cpp, or none.
method merge_method(std::string_view name);

}  // namespace llm
