// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/video_infinity.hpp
/// Dual-scope temporal attention: every frame sees its neighbors in time and a few frames of the whole video.
///
///     out_i = sum_j softmax_j(q_i . k_j / sqrt(dim)) v_j,   over j in {i - reach, ..., i + reach} and in {0, s, 2s, ...}
///
/// with s = max(frames / count, 1) and at most `count` such global frames. A global frame within reach counts twice, as in the
/// authors' code, which puts both lists side by side.
///
///     video_infinity(policy, q, k, v, out, reach, count)          the authors take 24 and 16
///
/// Shapes  (heads, frames, dim), or with the places of an image as batch in front.
/// Borders frames before the first and behind the last do not exist; the authors' first and last device see zeros there.
/// Notes   one machine's attention; what the paper exchanges between devices are these same keys.
/// Cost    heads frames dim (2 reach + block + count) multiply-adds, twice; queries go in blocks of 32 frames.
/// Source  Tan et al. 2024, arXiv:2406.16260; github.com/Yuanshi9815/Video-Infinity, src/video_infinity/plugins.py.

#include <tern/attention/attention.hpp>
#include <tern/attention/box.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// Frames [first, first + queries) that see frames [from, from + near) where they are within reach, and every step-th frame besides.
struct dual_scope_group {
  static constexpr bool local = true;
  index queries, keys, first, from, near, reach, step;
  TERN_INLINE index query(index i) const { return first + i; }
  TERN_INLINE index key(index j) const { return j < near ? from + j : (j - near) * step; }
  TERN_INLINE bool visible(index i, index j) const {
    index const before = first + i - from - j;
    return j >= near || (before <= reach && -before <= reach);
  }
  TERN_INLINE coverage covers(index i0, index i1, index j0, index j1) const {
    if (j0 >= near) return coverage::all;
    index const last = smaller(j1, near) - 1, shift = first - from;  // frame of query i and of key j: i + shift, j, both less `from`
    bool const all = i1 - 1 + shift - j0 <= reach && last - i0 - shift <= reach;
    bool const none = j1 <= near && (i0 + shift - last > reach || j0 - (i1 - 1) - shift > reach);
    return all ? coverage::all : none ? coverage::none : coverage::some;
  }
};

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// A layout: neighbors in time and global frames, as the top of this file says.
struct dual_scope {
  static constexpr bool per_head = false;
  index frames, reach, count;
  index block = 32;

  TERN_INLINE index groups(index, index) const { return (frames + block - 1) / block; }
  TERN_INLINE detail::dual_scope_group group(index, index, index g) const {
    index const first = g * block, behind = detail::smaller(first + block, frames);
    index const from = detail::larger(first - reach, 0), near = detail::smaller(behind + reach, frames) - from;
    index const step = count > 0 ? detail::larger(frames / count, 1) : 1;
    index const global = detail::smaller((frames + step - 1) / step, count);
    return {behind - first, near + global, first, from, near, reach, step};
  }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_equal("attention", "the frames of dual_scope", frames, "the tokens of q", n.tokens);
    detail::expect_equal("attention", "the frames of dual_scope", frames, "the keys of k", n.keys);
    detail::expect(reach >= 0, "attention", "the reach of dual_scope", reach, "at least 0");
    detail::expect(count >= 0, "attention", "the count of dual_scope", count, "at least 0");
    detail::expect(block >= 1, "attention", "the block of dual_scope", block, "at least 1");
  }
};

/// video_infinity(policy, q, k, v, out, reach, count, options...): see the top of this file.
inline constexpr struct video_infinity_fn {
  template <tensor_like Q, detail::key_source K, detail::key_source V, tensor_like O, detail::attention_option... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, index reach, index count, Options const&... options) const {
    attention(policy, q, k, v, out, dual_scope{tern::view(q).extent(view_of<Q>::rank - 2), reach, count}, options...);
  }
} video_infinity{};

}  // namespace TERN_ABI
}  // namespace tern
