// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/llm/requantize.hpp
/// A model's layers in other formats, by rounding and by GPTQ, and a table of what each costs.
///
///     reference          the file's weights, compute::f32
///     what changes       the linear layers; embedding, output and norms stay as the file has them
///     formats            whose blocks of 256 do not fit a matrix give way there as GGUF files have it: q2_k, q3_k and iq4_xs to iq4_nl,
///                        q4_k to q5_0, q5_k to q5_1, q6_k to q8_0; others than blocks: weight_formats.hpp
///     GPTQ               for blocks; calibrated once for all formats, on what the reference's layers see of the text's first half
///     what is scored     windows spread over the second half

#include "evaluation.hpp"

#include <string_view>

namespace llm {

/// Prints the table. `formats`: names with commas between, or "all". `network`: of the same file, with the compute type to judge; its
/// weights are the file's again in the end.
void requantize(tern::gguf_file const& file, tokenizer const& words, model& network, tern::cpu_policy const& policy,
                std::string_view formats, std::string const& text);

}  // namespace llm
