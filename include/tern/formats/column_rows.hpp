// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/column_rows.hpp
/// The columns of a matrix as the rows of a product's weights.

#include <tern/core/tensor_view.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

struct column_rows {
  tensor_view<float const, 2> of;  // (columns, rows)
  index rows = of.extent(1), columns = of.extent(0);
  void decode(index row, index k0, index k1, float* out) const {
    for (index k = k0; k < k1; ++k) out[k - k0] = of(k, row);
  }
};

}  // namespace TERN_ABI
}  // namespace tern::detail
