// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv.hpp
/// Convolutions.

#include <tern/conv/causal_conv.hpp>
#include <tern/conv/depthwise_conv.hpp>
