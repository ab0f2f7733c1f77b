// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/gather.hpp
/// Products of chosen rows: tokens of an expert, neurons of a sparse layer.
///
///     gather{ids}              row r of the product is of x's row ids[r]; y has ids.extent(0) rows
///     scatter{ids, factors}    row r goes to y's row ids[r], times factors[r] (optional); rows that nobody names stay as they are
///                              with `accumulate` it is added: tokens that met several experts. Epilogues see the product alone
///     chosen_rows(w, ids)      weights whose row i is w's row ids[i]: y has ids.extent(0) columns
///
/// ids: int32 in contiguous memory. With gather, x is copied once, or rounded where it lies; with scatter, y passes through scratch memory.
/// Several rows that scatter to one are taken in their order, and a bias or residual (of the product's rows) is then scaled and added once
/// for each. The ids must live as long as what was made of them. Errors: ids outside, lengths that do not fit.

#include <tern/core/error.hpp>
#include <tern/core/tensor_view.hpp>
#include <tern/formats/decode.hpp>

namespace tern {

namespace detail {
inline namespace TERN_ABI {
using id_list = tensor_view<std::int32_t const, 1>;
template <class I>
TERN_INLINE id_list ids_of(I const& ids) {
  static_assert(std::is_same_v<std::remove_const_t<typename view_of<I const&>::element_type>, std::int32_t>, "tern: ids are std::int32_t");
  return tern::view(ids);
}
TERN_INLINE void check_ids(char const* what, id_list const& ids, index end) {
  for (index i = 0; i < ids.extent(0); ++i)
    expect(ids[i] >= 0 && ids[i] < end, "matmul", what, ids[i], "at least 0 and less than the rows");
}
}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// Rows of x.
struct gather {
  tensor_view<std::int32_t const, 1> ids;
  template <tensor_like I>
  TERN_INLINE explicit gather(I const& i) : ids(detail::ids_of(i)) {}
};

/// Rows of y.
struct scatter {
  tensor_view<std::int32_t const, 1> ids;
  tensor_view<float const, 1> factors{};
  template <tensor_like I>
  TERN_INLINE explicit scatter(I const& i) : ids(detail::ids_of(i)) {}
  template <tensor_like I, tensor_like F>
  TERN_INLINE scatter(I const& i, F const& f) : ids(detail::ids_of(i)), factors(tern::view(f)) {
    detail::expect_equal("scatter", "factors.extent(0)", factors.extent(0), "ids.extent(0)", ids.extent(0));
  }
};

/// Rows of weights, as weights of their own: integers with scales stay so. Made by chosen_rows.
template <class W, bool Coded = coded_weights<W>>
struct chosen_weights {
  W w;
  tensor_view<std::int32_t const, 1> ids;
  index rows = ids.extent(0), columns = w.columns;
  void decode(index row, index k0, index k1, float* out) const { detail::decode_row(w, ids[row], k0, k1, out); }
};
template <class W>
struct chosen_weights<W, true> {
  static constexpr index granule = W::granule;
  static constexpr int offset = W::offset;
  static constexpr bool has_min = W::has_min;
  static constexpr bool row_scale = row_scaled_weights<W>;
  W w;
  tensor_view<std::int32_t const, 1> ids;
  index rows = ids.extent(0), columns = w.columns;
  void unpack(index row, index g, std::uint8_t* u) const { w.unpack(ids[row], g, u); }
  void scales(index row, index g, float* scale, float* min) const { w.scales(ids[row], g, scale, min); }
};

/// The rows ids of w, in their order. Fails if an id is none of w's rows.
template <custom_weights W, tensor_like I>
TERN_INLINE chosen_weights<W> chosen_rows(W const& w, I const& ids) {
  detail::id_list const list = detail::ids_of(ids);
  detail::check_ids("chosen_rows.ids", list, w.rows);
  return {w, list};
}

/// Rows of a block_matrix, as weights of their own.
struct chosen_blocks {
  block_matrix m;
  tensor_view<std::int32_t const, 1> ids;
  index rows = ids.extent(0), columns = m.columns;
};
template <tensor_like I>
TERN_INLINE chosen_blocks chosen_rows(block_matrix const& w, I const& ids) {
  detail::id_list const list = detail::ids_of(ids);
  detail::check_ids("chosen_rows.ids", list, w.rows);
  return {w, list};
}

}  // namespace TERN_ABI
}  // namespace tern
