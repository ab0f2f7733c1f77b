// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/swin3d.hpp
/// Window attention over sparse voxels with contextual relative signal encoding: tables of vectors, one for each axis of a signal (x, y, z,
/// and colors or normals) and each difference along it, meet the query, the key and the value.
///
///     out_i = sum_j a_ij (v_j + sum_a tv[a, d_a]),   d_a = s_a(i) - s_a(j) + size_a / 2,   over the voxels j of i's window
///     a_ij = softmax_j(scale q_i . (k_j + sum_a tq[a, d_a]) + k_j . sum_a tk[a, d_a]),   scale = 1 / sqrt(dim)
///
///     swin3d(policy, q, k, v, out, point_groups{order, starts}, signals, sizes, tables, memory)
///
/// The first two terms are products q.tq and k.tk of whole tables (matmul), looked up pair by pair. So is the third: one column of v for
/// each table entry, 1 where the voxel has that signal, turns attention into the histogram of weights by signal, and the value
/// term is that histogram times tv. Nothing of the size of the score matrix is stored.
///
/// Shapes  q, k (heads, voxels, dim), v, out (heads, voxels, dim_v), f32, as many heads each. signals (voxels, axes), int32. sizes:
///         the entries of each axis, S in all. tables tq, tk (heads, S, dim), tv (heads, S, dim_v), axis after axis, any strides but
///         contiguous rows. memory: see swin3d_memory.
/// Signals are integers: steps of the tables. The authors' code takes real numbers and rounds their difference; a table entry is then a
///         property of the pair alone, and its value term would need a hook for values that the engine does not have. Rounding
///         signals first moves a difference by at most one step.
/// Range   differences within a window lie in [-size_a / 2, size_a - size_a / 2 - 1]; others wrap around (the authors clamp them).
/// Cost    besides attention with dim_v + S columns: 2 voxels S (2 dim + dim_v) flop for each head.
/// Source  Yang et al. 2023, arXiv:2304.06906; github.com/microsoft/Swin3D, swin3d_layers.py, src/attn/attn_utils.cuh (only q is scaled).

#include <tern/attention/attention.hpp>
#include <tern/attention/point_groups.hpp>
#include <tern/matmul/matmul.hpp>

namespace tern {
inline namespace TERN_ABI {

/// The three tables of swin3d: (heads, S, dim or dim_v).
struct swin3d_tables {
  tensor_view<float const, 3> query, key, value;
};
/// What swin3d writes on its way.
struct swin3d_memory {
  tensor_view<float, 3> query_terms, key_terms;  ///< (heads, voxels, S)
  tensor_view<float, 3> values, sums;            ///< (heads, voxels, dim_v + S)
  tensor_view<std::int32_t, 2> slots;            ///< (voxels, axes), contiguous
};

/// A score modifier: s + scale query_terms(head, i, d) + key_terms(head, j, d), summed over the axes.
struct contextual_terms {
  tensor_view<float const, 3> query_terms, key_terms;
  tensor_view<std::int32_t const, 2> slots;
  tensor_view<std::int32_t const, 1> sizes;
  float factor;

  /// The entry of the a-th axis for two slots.
  TERN_INLINE static index entry(index size, std::int32_t of, std::int32_t at) {
    index const d = static_cast<index>(of) - static_cast<index>(at) + size / 2;
    return d < 0 ? d + size : d >= size ? d - size : d;
  }
  TERN_INLINE floats operator()(floats s, score_at const& at) const {
    float const* const q = query_terms.data() + at.head * query_terms.stride(0) + at.query * query_terms.stride(1);
    float const* const k = key_terms.data() + at.head * key_terms.stride(0);
    std::int32_t const* const of = slots.data() + at.query * slots.stride(0);
    float lane[simd::lanes];
    for (index i = 0; i < simd::lanes; ++i) {
      index const j = static_cast<index>(at.key_index[i]);
      std::int32_t const* const stands = slots.data() + j * slots.stride(0);
      float from_query = 0, from_key = 0;
      for (index a = 0, first = 0; a < sizes.extent(0); ++a) {
        index const d = first + entry(sizes[a], of[a], stands[a]);
        from_query += q[d];
        from_key += k[j * key_terms.stride(1) + d];
        first += sizes[a];
      }
      lane[i] = factor * from_query + from_key;
    }
    return s + simd::load(lane);
  }
};

/// swin3d(policy, q, k, v, out, windows, signals, sizes, tables, memory, options...): see the top of this file.
inline constexpr struct swin3d_fn {
  template <detail::attention_option... Options>
  void operator()(cpu_policy const& policy, tensor_view<float const, 3> const& q, tensor_view<float const, 3> const& k,
                  tensor_view<float const, 3> const& v, tensor_view<float, 3> const& out, point_groups const& windows,
                  tensor_view<std::int32_t const, 2> const& signals, tensor_view<std::int32_t const, 1> const& sizes,
                  swin3d_tables const& tables, swin3d_memory const& memory, Options const&... options) const {
    static_assert(!(detail::is_scale<Options> || ...), "tern: the relative terms have the scale 1 / sqrt(dim)");
    check(q, k, v, out, signals, sizes, tables, memory);
    index const heads = q.extent(0), voxels = q.extent(1), dim_v = v.extent(2);
    for (index i = 0; i < voxels; ++i)
      for (index a = 0; a < sizes.extent(0); ++a) {
        std::int32_t const slot = signals(i, a) % sizes[a];
        memory.slots(i, a) = slot < 0 ? slot + sizes[a] : slot;
      }
    for (index h = 0; h < heads; ++h) {
      matmul(policy, q[h], tables.query[h], memory.query_terms[h]);
      matmul(policy, k[h], tables.key[h], memory.key_terms[h]);
      for (index i = 0; i < voxels; ++i) mark(v, memory, sizes, h, i);
    }
    contextual_terms const terms{memory.query_terms, memory.key_terms, memory.slots, sizes,
                                 1 / __builtin_sqrtf(static_cast<float>(q.extent(2) > 0 ? q.extent(2) : 1))};
    attention(policy, q, k, memory.values, memory.sums, windows, terms, options...);
    detail::parallel_for(policy, heads * voxels, [&](index item, index) TERN_LAMBDA {
      add_value_terms(memory, sizes, tables.value, item / voxels, item % voxels, dim_v, out);
    });
  }

 private:
  static void check(tensor_view<float const, 3> const& q, tensor_view<float const, 3> const& k, tensor_view<float const, 3> const& v,
                    tensor_view<float, 3> const& out, tensor_view<std::int32_t const, 2> const& signals,
                    tensor_view<std::int32_t const, 1> const& sizes, swin3d_tables const& tables, swin3d_memory const& memory) {
    constexpr char const* op = "swin3d";
    index const heads = q.extent(0), voxels = q.extent(1), axes = sizes.extent(0);
    index all = 0;
    for (index a = 0; a < axes; ++a) {
      detail::expect(sizes[a] >= 1, op, "a size", sizes[a], "at least 1");
      all += sizes[a];
    }
    detail::expect_equal(op, "k.extent(0)", k.extent(0), "q.extent(0)", heads);
    detail::expect_equal(op, "v.extent(0)", v.extent(0), "q.extent(0)", heads);
    detail::expect_equal(op, "v.extent(1)", v.extent(1), "q.extent(1)", voxels);
    detail::expect_equal(op, "out.extent(0)", out.extent(0), "q.extent(0)", heads);
    detail::expect_equal(op, "out.extent(1)", out.extent(1), "q.extent(1)", voxels);
    detail::expect_equal(op, "out.extent(2)", out.extent(2), "v.extent(2)", v.extent(2));
    detail::expect_equal(op, "signals.extent(0)", signals.extent(0), "q.extent(1)", voxels);
    detail::expect_equal(op, "signals.extent(1)", signals.extent(1), "the axes", axes);
    detail::expect_equal(op, "the extents of the slots", memory.slots.size(), "those of signals", signals.size());
    detail::expect(memory.slots.is_contiguous(), op, "the stride of the slots", memory.slots.stride(0), "contiguous");
    for (tensor_view<float const, 3> const& t : {tables.query, tables.key, tables.value}) {
      detail::expect_equal(op, "the heads of a table", t.extent(0), "q.extent(0)", heads);
      detail::expect_equal(op, "the entries of a table", t.extent(1), "the sizes together", all);
    }
    detail::expect_equal(op, "the columns of the table of values", tables.value.extent(2), "v.extent(2)", v.extent(2));
    for (tensor_view<float, 3> const& m : {memory.query_terms, memory.key_terms, memory.values, memory.sums}) {
      detail::expect_equal(op, "an extent of memory", m.extent(0), "q.extent(0)", heads);
      detail::expect_equal(op, "an extent of memory", m.extent(1), "q.extent(1)", voxels);
      detail::expect(m.stride(2) == 1 || m.extent(2) <= 1, op, "the last stride of memory", m.stride(2), "1");
    }
    detail::expect_equal(op, "the columns of the terms", memory.query_terms.extent(2), "the sizes together", all);
    detail::expect_equal(op, "the columns of the terms", memory.key_terms.extent(2), "the sizes together", all);
    detail::expect_equal(op, "the columns of values", memory.values.extent(2), "dim_v and the sizes together", v.extent(2) + all);
    detail::expect_equal(op, "the columns of sums", memory.sums.extent(2), "dim_v and the sizes together", v.extent(2) + all);
  }
  /// v_j, and a 1 for each axis in the column of its signal.
  TERN_INLINE static void mark(tensor_view<float const, 3> const& v, swin3d_memory const& memory,
                               tensor_view<std::int32_t const, 1> const& sizes, index h, index j) {
    index const dim_v = v.extent(2), all = memory.values.extent(2);
    float* const row = memory.values.data() + h * memory.values.stride(0) + j * memory.values.stride(1);  // (dim_v + S)
    for (index d = 0; d < dim_v; ++d) row[d] = v(h, j, d);
    for (index d = dim_v; d < all; ++d) row[d] = 0;
    for (index a = 0, first = dim_v; a < sizes.extent(0); ++a) {
      row[first + memory.slots(j, a)] = 1;
      first += sizes[a];
    }
  }
  /// out_i = the sum of values, and of table rows weighed by the histogram of signals.
  TERN_INLINE static void add_value_terms(swin3d_memory const& memory, tensor_view<std::int32_t const, 1> const& sizes,
                                          tensor_view<float const, 3> const& table, index h, index i, index dim_v,
                                          tensor_view<float, 3> const& out) {
    float const* const sum = memory.sums.data() + h * memory.sums.stride(0) + i * memory.sums.stride(1);  // (dim_v + S)
    for (index d = 0; d < dim_v; ++d) out(h, i, d) = sum[d];
    for (index a = 0, first = 0; a < sizes.extent(0); ++a) {
      for (std::int32_t slot = 0; slot < sizes[a]; ++slot) {
        float const weight = sum[dim_v + first + slot];
        if (weight == 0) continue;
        index const row = first + contextual_terms::entry(sizes[a], memory.slots(i, a), slot);
        for (index d = 0; d < dim_v; ++d) out(h, i, d) += weight * table(h, row, d);
      }
      first += sizes[a];
    }
  }
} swin3d{};

}  // namespace TERN_ABI
}  // namespace tern
