// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/encoder/similarity.hpp
/// Embeddings of texts, and which are near each other.

#include <tern/core/policy.hpp>
#include <tern/core/tensor_view.hpp>

#include <vector>

namespace encoder {

/// Memory for (texts, width).
class embeddings {
 public:
  embeddings(std::size_t texts, tern::index width) : width_(width), elements_(texts * static_cast<std::size_t>(width)) {}
  tern::index texts() const { return static_cast<tern::index>(elements_.size()) / width_; }
  tern::tensor_view<float, 2> view() { return tern::view(elements_, texts(), width_); }
  tern::tensor_view<float const, 2> view() const { return tern::view(elements_, texts(), width_); }
  tern::tensor_view<float const, 1> operator[](std::size_t i) const { return view()[static_cast<tern::index>(i)]; }

 private:
  tern::index width_;
  std::vector<float> elements_;
};

/// a . b / (|a| |b|), in f64.
double cosine(tern::tensor_view<float const, 1> a, tern::tensor_view<float const, 1> b);

/// The `count` rows of `among` (texts, width) with the largest products with each row of `of`, the largest first; where both are the
/// same object, a row is not near itself.
std::vector<std::vector<tern::index>> nearest(tern::cpu_policy const& policy, embeddings const& of, embeddings const& among,
                                              tern::index count);

}  // namespace encoder
