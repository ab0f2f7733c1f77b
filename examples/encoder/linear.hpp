// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/encoder/linear.hpp
/// The weights of a product as it takes them best: rows of f32 where they lie in the file or, for bf16 products, panels of bf16, made once.

#include "weights.hpp"

#include <tern/core/policy.hpp>
#include <tern/matmul.hpp>
#include <tern/pointwise/convert.hpp>

#include <vector>

namespace encoder {

class linear {
 public:
  linear(weights::linear const& from, tern::cpu_policy const& policy, tern::compute compute) : bias(from.bias), rows_(from.weight) {
    if (compute != tern::compute::bf16 || rows_.columns % 32 != 0) return;
    memory_.resize(static_cast<std::size_t>(from.weight.size()));
    auto const halves = tern::view(memory_.data(), rows_.rows, rows_.columns);
    tern::convert(policy, from.weight, halves);
    panels_ = tern::interleave(policy, tern::block_matrix(halves), memory_.data());
  }
  tern::weights_ref weight() const { return memory_.empty() ? tern::weights_ref(rows_) : tern::weights_ref(panels_); }

  weights::vector bias;  // (n)

 private:
  tern::block_matrix rows_;  // (n, k)
  std::vector<tern::bf16> memory_;
  tern::interleaved_matrix panels_;
};

}  // namespace encoder
