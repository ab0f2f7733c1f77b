// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file fft.hpp
/// Discrete Fourier transforms in one and two dimensions.

#include <tern/fft/fft.hpp>
#include <tern/fft/real_fft.hpp>
