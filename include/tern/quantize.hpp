// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file quantize.hpp
/// Algorithms that make quantized weights, off line. Not part of tern.hpp: they allocate, and use the standard library.
/// quantize/additive_codebook_fit.hpp, which takes Eigen, is included by itself.

#include <tern/quantize/allocate_bits.hpp>
#include <tern/quantize/awq.hpp>
#include <tern/quantize/calibration.hpp>
#include <tern/quantize/feedback.hpp>
#include <tern/quantize/gptq.hpp>
#include <tern/quantize/halo.hpp>
#include <tern/quantize/layer_error.hpp>
#include <tern/quantize/learned_rounding.hpp>
#include <tern/quantize/round_to_nearest.hpp>
