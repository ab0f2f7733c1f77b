// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/odr/unit.hpp
/// The same function compiled for three architectures.

#include <tern/core/tensor_view.hpp>

using unit = void(tern::tensor_view<float const, 3> q, tern::tensor_view<float const, 3> k, tern::tensor_view<float const, 3> v,
                  tern::tensor_view<float, 3> out);
unit unit_baseline, unit_v3, unit_v4;
