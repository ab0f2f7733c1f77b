// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/llm/kv_chunks.hpp
/// Texts of which the model read chunks by themselves, and what it reads again to know what their tokens would know of those before.

#include "model.hpp"

#include <span>
#include <string_view>

namespace llm {

/// The model reads the tokens into a full store, which it goes on with; this is a copy.
full_store read_text(model& network, tern::cpu_policy const& policy, std::span<model::token const> tokens,
                     full_store::observes what = full_store::observes::nothing);

/// A store of the text, by its name:
///
///     cache_blend    each chunk of 512 tokens is read behind the first four tokens alone; then, chunk by chunk, the 15 % of tokens whose
///                    keys and values differ most from what they are in their place are computed through all layers
///     cache_craft    the text is read with its chunks in another order; then those tokens of each chunk that looked at chunks which are
///                    not before it any more, as many as Cache-Craft's CFO says with alpha = 1
///
/// The first chunk stands where it stood.
std::unique_ptr<kv_store> read_in_chunks(std::string_view name, model& network, tern::cpu_policy const& policy,
                                         std::span<model::token const> tokens);

}  // namespace llm
