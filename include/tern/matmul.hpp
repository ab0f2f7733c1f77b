// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul.hpp
/// Matrix products with weights in any format.

#include <tern/formats.hpp>
#include <tern/matmul/bit_planes.hpp>
#include <tern/matmul/integer_matmul.hpp>
#include <tern/matmul/matmul.hpp>
