// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats.hpp
/// How numbers are stored in blocks.

#include <tern/formats/additive_codebook.hpp>
#include <tern/formats/awq.hpp>
#include <tern/formats/binary.hpp>
#include <tern/formats/bit_planes.hpp>
#include <tern/formats/block_array.hpp>
#include <tern/formats/block_formats.hpp>
#include <tern/formats/block_matrix.hpp>
#include <tern/formats/check_finite.hpp>
#include <tern/formats/decode.hpp>
#include <tern/formats/dgq.hpp>
#include <tern/formats/e8p.hpp>
#include <tern/formats/exmy.hpp>
#include <tern/formats/gaussian_quantile.hpp>
#include <tern/formats/gguf.hpp>
#include <tern/formats/gptq.hpp>
#include <tern/formats/group_int4.hpp>
#include <tern/formats/int8_rows.hpp>
#include <tern/formats/interleaved.hpp>
#include <tern/formats/iq4.hpp>
#include <tern/formats/k_quants.hpp>
#include <tern/formats/mid_rise.hpp>
#include <tern/formats/mxfp4.hpp>
#include <tern/formats/nf4.hpp>
#include <tern/formats/power_of_two.hpp>
#include <tern/formats/q4.hpp>
#include <tern/formats/q5.hpp>
#include <tern/formats/q8.hpp>
#include <tern/formats/safetensors.hpp>
#include <tern/formats/stochastic_int8.hpp>
#include <tern/formats/ternary.hpp>
