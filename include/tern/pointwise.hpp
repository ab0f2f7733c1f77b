// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file pointwise.hpp
/// What happens between a model's matrix products: normalization, position, activation, residual, lookup.

#include <tern/pointwise/add.hpp>
#include <tern/pointwise/convert.hpp>
#include <tern/pointwise/embedding.hpp>
#include <tern/pointwise/hadamard.hpp>
#include <tern/pointwise/kan_features.hpp>
#include <tern/pointwise/layer_norm.hpp>
#include <tern/pointwise/rms_norm.hpp>
#include <tern/pointwise/rope.hpp>
#include <tern/pointwise/rope_table.hpp>
#include <tern/pointwise/softmax.hpp>
#include <tern/pointwise/swiglu.hpp>
