// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/packed_bits.hpp
/// Codes of 1 to 8 bits side by side: code i of a row is bits [b i, b i + b) of the row's bytes, the low bits of a byte first. 32
/// codes fill 4 b bytes, 8 codes b bytes; rows are whole numbers of 32 codes.

#include <tern/core/error.hpp>
#include <tern/core/tensor_view.hpp>

#include <cstdint>

namespace tern::formats {
inline namespace TERN_ABI {

/// The bytes of a row of packed codes; columns: a multiple of 32.
template <int bits>
TERN_INLINE constexpr index packed_bytes(index columns) {
  return columns / 8 * bits;
}

namespace detail {

/// The bits of `each` in every `width` of 64 bits.
TERN_INLINE constexpr std::uint64_t repeated_bits(int each, int width) {
  std::uint64_t mask = 0;
  for (int i = 0; i < 64; i += width) mask |= ((std::uint64_t{1} << each) - 1) << i;
  return mask;
}
/// Eight codes side by side as eight bytes: the halves of all that is together move apart, three times.
template <int bits>
TERN_INLINE constexpr std::uint64_t spread_bits(std::uint64_t w) {
  constexpr std::uint64_t four = repeated_bits(4 * bits, 64), two = repeated_bits(2 * bits, 32), one = repeated_bits(bits, 16);
  w = (w & four) | (w & four << 4 * bits) << (32 - 4 * bits);
  w = (w & two) | (w & two << 2 * bits) << (16 - 2 * bits);
  return (w & one) | (w & one << bits) << (8 - bits);
}
/// 32 codes from 4 * bits bytes.
template <int bits>
TERN_INLINE void unpack_bits(std::uint8_t const* p, std::uint8_t* u) {
  static_assert(bits >= 1 && bits <= 8);
  if constexpr (bits == 8) {
    __builtin_memcpy(u, p, 32);
  } else {
    std::uint64_t w[4] = {};
    for (int j = 0; j < 4; ++j) __builtin_memcpy(w + j, p + j * bits, bits);
    for (int j = 0; j < 4; ++j) w[j] = spread_bits<bits>(w[j]);
    __builtin_memcpy(u, w, 32);
  }
}
/// 32 codes into 4 * bits bytes.
template <int bits>
TERN_INLINE void pack_bits(std::uint8_t const* u, std::uint8_t* p) {
  for (int j = 0; j < 32; j += 8, p += bits) {
    std::uint64_t w = 0;
    for (int i = 0; i < 8; ++i) w |= std::uint64_t{u[j + i]} << bits * i;
    __builtin_memcpy(p, &w, bits);
  }
}

/// Rows of packed codes that somebody else owns.
template <int bits>
struct packed_rows {
  std::uint8_t const* data;
  index row_bytes;

  /// Fails unless rows are contiguous and whole numbers of 32 codes.
  TERN_INLINE packed_rows(char const* op, tensor_view<std::uint8_t const, 2> const& codes)
      : data(codes.data()), row_bytes(codes.stride(0)) {
    tern::detail::expect(codes.extent(1) % (4 * bits) == 0, op, "codes.extent(1)", codes.extent(1),
                         "a multiple of the bytes of 32 codes, 4 times their bits");
    tern::detail::expect(codes.extent(1) <= 1 || codes.stride(1) == 1, op, "codes.stride(1)", codes.stride(1), "1");
    tern::detail::expect(codes.size() == 0 || codes.data() != nullptr, op, "codes.data()", 0, "not null");
  }
  TERN_INLINE static index columns(tensor_view<std::uint8_t const, 2> const& codes) { return codes.extent(1) / bits * 8; }
  /// The codes of columns 32 g to 32 g + 31.
  TERN_INLINE void unpack(index row, index g, std::uint8_t* u) const { unpack_bits<bits>(data + row * row_bytes + g * (4 * bits), u); }
};

/// Checks what an encoder writes codes of w to.
template <int bits>
TERN_INLINE void expect_packed(char const* op, tensor_view<float const, 2> const& w, tensor_view<std::uint8_t, 2> const& codes) {
  tern::detail::expect(w.extent(1) % 32 == 0, op, "w.extent(1)", w.extent(1), "a multiple of 32");
  tern::detail::expect_equal(op, "codes.extent(0)", codes.extent(0), "w.extent(0)", w.extent(0));
  tern::detail::expect_equal(op, "codes.extent(1)", codes.extent(1), "the bytes of w.extent(1) codes", packed_bytes<bits>(w.extent(1)));
  tern::detail::expect(codes.extent(1) <= 1 || codes.stride(1) == 1, op, "codes.stride(1)", codes.stride(1), "1");
}
/// Writes row i of codes: code(k) for each column k.
template <int bits, class F>
TERN_INLINE void pack_row(tensor_view<std::uint8_t, 2> const& codes, index i, index columns, F&& code) {
  std::uint8_t u[32];
  for (index k = 0; k < columns; k += 32) {
    for (index j = 0; j < 32; ++j) u[j] = code(k + j);
    pack_bits<bits>(u, codes.data() + i * codes.stride(0) + packed_bytes<bits>(k));
  }
}

}  // namespace detail
}  // namespace TERN_ABI
}  // namespace tern::formats
