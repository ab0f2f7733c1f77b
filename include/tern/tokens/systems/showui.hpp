// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/systems/showui.hpp
/// ShowUI: of the patches of a screenshot that are alike, regions of one color above all, only some are kept.
///
///     showui(policy, patches, {h, w}, delta, skip, labels, kept)
///
///     components: patches beside or above each other with |p_i - p_j| < delta are joined
///     of a component of n > 1 patches max(1, n - round(skip n)) stay, spread evenly from its first to its last
///
/// Shapes    patches (h w, channels) f32: the pixels of each patch, or their mean; labels (h w) int32: the components; kept index_lists of
///           one row. Kept patches keep their positions (gather_tokens moves these along).
/// skip = 0  keeps all.
/// Composition  grid_components; a pass over the labels.
/// Memory    from the policy: 12 bytes a patch.
/// Cost      that of grid_components, and three passes over the labels.
/// Source    Lin et al. 2024, arXiv:2411.17465; image_processing_showui.py and utils.py (get_select_mask) of its authors. In training they
///           choose at random, in inference evenly, as here; halves round to even.

#include <tern/tokens/grid_components.hpp>
#include <tern/tokens/select_tokens.hpp>

namespace tern {
inline namespace TERN_ABI {

/// showui(policy, patches, grid, delta, skip, labels, kept): see the top of this file.
inline constexpr struct showui_fn {
  void operator()(cpu_policy const& policy, tensor_view<float const, 2> const& patches, shape<2> const& grid, float delta, double skip,
                  tensor_view<std::int32_t, 1> const& labels, index_lists const& kept) const {
    constexpr char const* op = "showui";
    detail::expect_share(op, "skip in percent", skip);
    detail::check_room(op, 1, kept);
    index const n = labels.extent(0), regions = grid_components(patches, grid, delta, labels);
    detail::expect(kept.most() >= n, op, "the room of kept", kept.most(), "a place for each patch");
    workspace::lease const memory(policy.scratch(), workspace_size(policy, patches, grid, delta, skip, labels, kept));
    auto* const size = reinterpret_cast<std::int32_t*>(memory.data());  // of each region, how many were seen, and how many of these stay
    std::int32_t *const seen = size + regions, *const stay = seen + regions;
    for (index r = 0; r < 3 * regions; ++r) size[r] = 0;
    for (index i = 0; i < n; ++i) ++size[labels[i]];
    std::int32_t count = 0;
    for (index i = 0; i < n; ++i) {
      std::int32_t const r = labels[i], place = seen[r]++;
      // The k-th of those that stay is number k (size - 1) / (left - 1), rounded down.
      index const left = kept_of(size[r], skip), next = left > 1 ? index{stay[r]} * (size[r] - 1) / (left - 1) : 0;
      if (stay[r] >= left || place != next) continue;
      ++stay[r];
      kept.row(0)[count++] = static_cast<std::int32_t>(i);
    }
    kept.counts[0] = count;
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  std::size_t workspace_size(cpu_policy const&, tensor_view<float const, 2> const&, shape<2> const&, float, double,
                             tensor_view<std::int32_t, 1> const& labels, index_lists const&) const {
    return static_cast<std::size_t>(3 * labels.extent(0)) * sizeof(std::int32_t);
  }

 private:
  TERN_INLINE static index kept_of(index size, double skip) {
    index const left = size - static_cast<index>(__builtin_rint(skip * static_cast<double>(size)));
    return left > 1 ? left : 1;
  }
} showui{};

}  // namespace TERN_ABI
}  // namespace tern
