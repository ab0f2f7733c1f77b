// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv.hpp
/// Convolutions.

#include <tern/conv/causal_conv.hpp>
#include <tern/conv/depthwise_conv.hpp>
#include <tern/conv/long_companion.hpp>
#include <tern/conv/long_conv.hpp>
#include <tern/conv/long_decay.hpp>
#include <tern/conv/long_gradients.hpp>
#include <tern/conv/long_implicit.hpp>
#include <tern/conv/long_multiscale.hpp>
#include <tern/conv/long_s4.hpp>
#include <tern/conv/long_s4d.hpp>
#include <tern/conv/long_squash.hpp>
#include <tern/conv/long_stream.hpp>
#include <tern/conv/monarch.hpp>
