// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention.hpp
/// Attention with its options, and the merge of partial results: attention/attention.hpp and attention/merge.hpp say what they compute.

#include <tern/attention/attention.hpp>
#include <tern/attention/merge.hpp>
