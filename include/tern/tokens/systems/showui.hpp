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
/// Shapes    patches (samples, h w, channels) f32, f16 or bf16: the pixels of each patch, or their mean; labels (samples, h w) int32: the
///           components of each image; kept index_lists. Kept patches keep their positions (gather_tokens moves these along).
/// skip = 0  keeps all.
/// Composition  grid_components; a pass over the labels.
/// Memory    from the policy: 12 bytes a patch, for each thread.
/// Cost      that of grid_components, and three passes over the labels.
/// Source    Lin et al. 2024, arXiv:2411.17465; image_processing_showui.py and utils.py (get_select_mask) of its authors. In training they
///           choose at random, in inference evenly, as here; halves round to even.

#include <tern/tokens/grid_components.hpp>
#include <tern/tokens/select_tokens.hpp>

namespace tern {
inline namespace TERN_ABI {

/// showui(policy, patches, grid, delta, skip, labels, kept): see the top of this file.
inline constexpr struct showui_fn {
  template <tensor_like P>
  void operator()(cpu_policy const& policy, P&& patches, shape<2> const& grid, float delta, double skip,
                  tensor_view<std::int32_t, 2> const& labels, index_lists const& kept) const {
    static_assert(view_of<P>::rank == 3, "tern: showui takes patches (samples, patches, channels)");
    auto const x = tern::view(patches);
    index const samples = x.extent(0), n = x.extent(1);
    check(x, grid, skip, labels, kept);
    std::size_t const each = bytes(n);
    workspace::lease const memory(policy.scratch(), workspace_size(policy, patches, grid, delta, skip, labels, kept));
    detail::parallel_for(policy, samples, [&](index b, index slot) TERN_LAMBDA {
      auto* const own = reinterpret_cast<std::int32_t*>(memory.data() + static_cast<std::size_t>(slot) * each);
      index const regions = grid_components(x[b], grid, delta, labels[b]);
      kept.counts[b] = keep(labels[b], regions, skip, own, kept.row(b));
    });
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like P>
  std::size_t workspace_size(cpu_policy const& policy, P&&, shape<2> const&, float, double, tensor_view<std::int32_t, 2> const& labels,
                             index_lists const&) const {
    return static_cast<std::size_t>(detail::slots_for(policy, labels.extent(0))) * bytes(labels.extent(1));
  }

 private:
  TERN_INLINE static std::size_t bytes(index patches) {
    return workspace::rounded(static_cast<std::size_t>(3 * patches) * sizeof(std::int32_t));
  }
  /// The patches of one image that stay; returns how many there are.
  static std::int32_t keep(tensor_view<std::int32_t const, 1> const& labels, index regions, double skip, std::int32_t* size,
                           std::int32_t* kept) noexcept {
    index const n = labels.extent(0);
    std::int32_t *const seen = size + regions, *const stay = seen + regions;  // of each region, how many were seen, and stay of these
    for (index r = 0; r < 3 * regions; ++r) size[r] = 0;
    for (index i = 0; i < n; ++i) ++size[labels[i]];
    std::int32_t count = 0;
    for (index i = 0; i < n; ++i) {
      std::int32_t const r = labels[i], place = seen[r]++;
      // The k-th of those that stay is number k (size - 1) / (left - 1), rounded down.
      index const left = kept_of(size[r], skip), next = left > 1 ? index{stay[r]} * (size[r] - 1) / (left - 1) : 0;
      if (stay[r] >= left || place != next) continue;
      ++stay[r];
      kept[count++] = static_cast<std::int32_t>(i);
    }
    return count;
  }
  TERN_INLINE static index kept_of(index size, double skip) {
    index const left = size - static_cast<index>(__builtin_rint(skip * static_cast<double>(size)));
    return left > 1 ? left : 1;
  }
  template <class V>
  static void check(V const& x, shape<2> const& grid, double skip, tensor_view<std::int32_t, 2> const& labels, index_lists const& kept) {
    constexpr char const* op = "showui";
    detail::expect_share(op, "skip in percent", skip);
    detail::check_room(op, x.extent(0), kept);
    detail::expect_rows(op, "patches", x);
    detail::expect_equal(op, "patches.extent(1)", x.extent(1), "the tokens of the grid", grid.extents[0] * grid.extents[1]);
    for (int d = 0; d < 2; ++d) detail::expect_extent(op, "labels", labels, d, "patches", x, d);
    detail::expect(kept.most() >= x.extent(1), op, "the room of kept", kept.most(), "a place for each patch");
  }
} showui{};

}  // namespace TERN_ABI
}  // namespace tern
