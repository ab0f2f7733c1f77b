// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/dispatch/families.hpp
/// One function of each family of kernels, as a program would dispatch it.

#include <tern/core/tensor_view.hpp>

struct families {};
