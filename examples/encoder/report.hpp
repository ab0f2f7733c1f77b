// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/encoder/report.hpp

#include "model.hpp"

#include <string>
#include <vector>

namespace encoder {

/// What each method does to embeddings and to speed: prints a table, and draws it to encoder_report.svg. `texts` are of one length.
void report_methods(std::vector<text> const& texts, model& network, tern::cpu_policy const& policy);

}  // namespace encoder
