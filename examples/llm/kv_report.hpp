// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/llm/kv_report.hpp
/// What the ways to keep keys and values cost on a real model.
///
/// Texts: the first 4096 tokens of each are read once, into a full store; each method then gets that text, shortens it, and predicts the
/// 256 tokens that follow: KL divergence to the full store and top-1 agreement with it, and perplexity. Methods that read less at each step
/// get the tokens one by one. Facts: twenty lines "The secret number of Alice is 4821." stand in a text at evenly spaced depths, five
/// such texts of 2048 and of 6144 tokens; asked for each, is the number what the model writes? The question comes after the text was
/// shortened.

#include "model.hpp"
#include "tokenizer.hpp"

#include <string>

namespace llm {

/// Writes a table (Markdown) to standard output and kv_report.svg. `files`: texts with a comma between; `stores`: names, or none for all.
/// Returns whether what must hold does, of the stores that were compared: f16 differs in nothing from what it is held against, 8 bits cost
/// at most 0.1 % of perplexity (of three texts: of one alone, 256 tokens, chance is larger), SnapKV and H2O lose less than random tokens at
/// the same share, and rotation helps 2 bits.
bool report_kv_stores(tokenizer const& words, model& network, tern::cpu_policy const& policy, std::string const& files,
                      std::string const& stores);

}  // namespace llm
