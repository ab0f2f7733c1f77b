// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/encoder/methods.hpp
/// Ways to go on with fewer tokens from the middle layer on.

#include "reduction.hpp"

#include <memory>
#include <vector>

namespace encoder {

/// A way, and how to make it: `share` of a text's tokens go on from the feed-forward of the middle one of `layers`.
struct method {
  char const* name;
  char const* what;
  std::unique_ptr<reduction> (*make)(double share, tern::index layers);
};

std::vector<method> const& methods();

}  // namespace encoder
