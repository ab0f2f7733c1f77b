// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/tanh_score.hpp
/// tanh s_ij in place of s_ij; with a bound on scores other than 1, see softcap in attention/score.hpp.

#include <tern/attention/score.hpp>

namespace tern {
inline namespace TERN_ABI {

/// tanh(s)
struct tanh_score {
  TERN_INLINE floats operator()(floats s, score_at const&) const { return simd::tanh(s); }
};

}  // namespace TERN_ABI
}  // namespace tern
