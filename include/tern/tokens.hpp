// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens.hpp
/// Tokens that are scored, chosen, gathered or merged, and put back. Published systems are included one by one
/// (tern/tokens/systems/...).

#include <tern/tokens/attention_received.hpp>
#include <tern/tokens/average_tokens.hpp>
#include <tern/tokens/bipartite_matching.hpp>
#include <tern/tokens/keep_schedule.hpp>
#include <tern/tokens/move_tokens.hpp>
#include <tern/tokens/proportional.hpp>
#include <tern/tokens/select_tokens.hpp>
#include <tern/tokens/token_map.hpp>
