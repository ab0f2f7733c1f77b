// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file sampling.hpp
/// From logits to the next token.

#include <tern/core/random.hpp>
#include <tern/decode/sampling.hpp>
