// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/encoder/check.hpp
/// Compares with what another implementation made of some texts: vectors/reference.json, written by reference.py.

#include "model.hpp"
#include "model_folder.hpp"

#include <string>

namespace encoder {

/// Whether all tokens are the same, and the cosine to each embedding is at least 0.9999, packed and padded; says what is not.
/// Methods that leave fewer tokens are run on the same texts, short and long.
bool check(model_folder const& folder, model& network, std::string const& file);

}  // namespace encoder
