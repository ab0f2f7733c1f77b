// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/encoder/methods.hpp
/// Ways to go on with fewer tokens: from the feed-forward of the middle layer on, or with some fewer in each layer ("by layer").

#include "reduction.hpp"

#include <memory>
#include <vector>

namespace encoder {

/// A way, and how to make it: in the end `share` of a text's tokens are left.
struct method {
  char const* name;
  char const* what;  ///< becomes of the others
  std::unique_ptr<reduction> (*make)(double share, tern::index layers);
};

std::vector<method> const& methods();

}  // namespace encoder
