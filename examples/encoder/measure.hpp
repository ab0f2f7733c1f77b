// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/encoder/measure.hpp

#include "model.hpp"

namespace encoder {

/// Times texts of mixed length with and without padding, the ways taking turns, and prints a table.
void measure_padding(std::vector<text> const& texts, model& network);

}  // namespace encoder
