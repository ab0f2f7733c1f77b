// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention.hpp
/// Attention with its options, and the merge of partial results: attention/dense.hpp and attention/merge.hpp say what they compute.

#include <tern/attention/dense.hpp>
#include <tern/attention/merge.hpp>
