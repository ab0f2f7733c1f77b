// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention.hpp
/// Attention and its options: attention/dense.hpp says what it computes.

#include <tern/attention/dense.hpp>
