// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tern.hpp
/// All families of tern but those that run off line (quantize.hpp). A program that uses one family compiles faster with that family's
/// header. Options of attention that attention.hpp does not have, and published systems, are included one by one (tern/attention/...).

#include <tern/attention.hpp>
#include <tern/cache.hpp>
#include <tern/conv.hpp>
#include <tern/fft.hpp>
#include <tern/formats.hpp>
#include <tern/matmul.hpp>
#include <tern/pointwise.hpp>
#include <tern/sampling.hpp>
#include <tern/tokens.hpp>
