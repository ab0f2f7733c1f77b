// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/llm/weight_formats.hpp
/// The weight formats that are no blocks of GGUF files, behind one call: what --requantize measures beside those.

#include <tern/matmul.hpp>

#include <memory>
#include <span>

namespace llm {

/// A matrix in some format, with all that it refers to.
class format_matrix {
 public:
  virtual ~format_matrix() = default;
  virtual tern::weights_ref ref() const = 0;
  virtual double bytes() const = 0;
};

struct weight_format {
  char const* name;
  char const* method;  // what made the codes
  /// w (n, k), k a multiple of 64.
  std::unique_ptr<format_matrix> (*encode)(tern::cpu_policy const& policy, tern::tensor_view<float const, 2> w);
};

/// int8, int4 and floats with scales, code books, powers of two, planes of bits: widest first.
std::span<weight_format const> weight_formats();

}  // namespace llm
