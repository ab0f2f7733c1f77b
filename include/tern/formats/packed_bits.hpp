// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/packed_bits.hpp
/// Codes of 1 to 8 bits side by side: code i of a row is bits [b i, b i + b) of the row's bytes, the low bits of a byte first. 32
/// codes fill 4 b bytes, 8 codes b bytes; rows are whole numbers of 32 codes.

#include <tern/core/error.hpp>
#include <tern/core/tensor_view.hpp>
#include <tern/formats/scale_grid.hpp>
#include <tern/formats/weights.hpp>
#include <tern/simd/codes.hpp>
#include <tern/simd/rows.hpp>

#include <cstdint>

namespace tern::formats {
inline namespace TERN_ABI {

/// The bytes of a row of packed codes; columns: a multiple of 32.
template <int bits>
TERN_INLINE constexpr index packed_bytes(index columns) {
  return columns / 8 * bits;
}

namespace detail {

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
  TERN_INLINE row_memory memory(index row, index columns) const { return {data + row * row_bytes, packed_bytes<bits>(columns), row_bytes}; }
  /// Where the codes of columns 32 g to 32 g + 31 are bytes: their own place, or u.
  TERN_INLINE std::uint8_t const* at(index row, index g, std::uint8_t* u) const {
    std::uint8_t const* const from = data + row * row_bytes + g * (4 * bits);
    if constexpr (bits == 8) return from;
    simd::unpack_codes<bits>(from, u);
    return u;
  }
  /// The codes of columns 32 g to 32 g + 31.
  TERN_INLINE void unpack(index row, index g, std::uint8_t* u) const {
    simd::unpack_codes<bits>(data + row * row_bytes + g * (4 * bits), u);
  }
};

/// The codes of `lanes` rows, 32 columns at a time and a row a lane. What is read of the rows beyond that is kept.
template <int bits>
class packed_walk {
  using words = simd::pack<std::int32_t>;
  static constexpr index L = simd::lanes, bytes = 4 * bits, window = (bytes + 15) / 16 * 16;

 public:
  packed_walk() = default;
  /// first: the first of the rows.
  TERN_INLINE explicit packed_walk(row_memory const& first) : data_(first.data), stride_(first.stride), end_(first.bytes) {}

  /// Byte i of a lane of u[h][j]: the code of column 32 g + 16 h + 4 j + i.
  TERN_INLINE void load(index g, simd::pack<std::uint8_t> (&u)[2][4]) {
    index const at = bytes * g;
    words w[bits];
    if constexpr (bytes == window) {
      words all[window / 4];
      fetch(at, all);
      TERN_UNROLL
      for (index j = 0; j < bits; ++j) w[j] = all[j];
    } else {
      if (at < from_ || at + bytes > from_ + window) keep(at);
      TERN_UNROLL
      for (index j = 0; j < bits; ++j) w[j] = simd::load(kept_ + ((at - from_) / 4 + j) * L);
    }
    u[0][0] = quad<0>(w);
    u[0][1] = quad<1>(w);
    u[0][2] = quad<2>(w);
    u[0][3] = quad<3>(w);
    u[1][0] = quad<4>(w);
    u[1][1] = quad<5>(w);
    u[1][2] = quad<6>(w);
    u[1][3] = quad<7>(w);
  }

 private:
  /// `window` bytes from `at` on, four to a word.
  TERN_INLINE void fetch(index at, words (&w)[window / 4]) const {
    TERN_UNROLL
    for (index i = 0; i < window; i += 16) {
      simd::pack<std::uint8_t> t[4];
      simd::load_rows16(data_ + at + i, stride_, t);
      simd::transpose_quads(t);
      TERN_UNROLL
      for (index j = 0; j < 4; ++j) w[i / 4 + j] = simd::bit_cast<std::int32_t>(t[j]);
    }
  }
  /// The window that starts at `at`, or that ends with the rows.
  TERN_INLINE void keep(index at) {
    from_ = at + window <= end_ ? at : end_ > window ? end_ - window : 0;
    if (end_ >= window) {
      words w[window / 4];
      fetch(from_, w);
      TERN_UNROLL
      for (index j = 0; j < window / 4; ++j) simd::store(kept_ + j * L, w[j]);
    } else {
      for (index i = 0; i < L; ++i)
        for (index j = 0; 4 * j < end_; ++j) __builtin_memcpy(kept_ + j * L + i, data_ + i * stride_ + 4 * j, 4);
    }
  }
  /// The codes of columns 4 q to 4 q + 3, which may begin in one word and end in the next.
  template <int q>
  TERN_INLINE static simd::pack<std::uint8_t> quad(words const (&w)[bits]) {
    constexpr int at = bits * q / 8, shift = 4 * bits * q % 32;
    if constexpr (shift + 4 * bits <= 32)
      return simd::spread_codes<bits, shift>(w[at]);
    else
      return simd::spread_codes<bits, 0>((simd::shift_right<shift>(w[at]) & words(std::int32_t{(1 << (32 - shift)) - 1})) |
                                         simd::shift_left<32 - shift>(w[at + 1]));
  }

  std::uint8_t const* data_ = nullptr;
  index stride_ = 0, end_ = 0, from_ = -window;
  std::int32_t kept_[bytes == window ? 1 : window / 4 * L];
};

/// What codes of up to 6 bits stand for, 16 bytes or 64 at `levels`, which outlive it.
template <int bits>
class level_table {
 public:
  TERN_INLINE explicit level_table(std::uint8_t const* levels) : of_(load(levels)) {}
  TERN_INLINE void choose(simd::pack<std::uint8_t> (&u)[2][4]) const {
    TERN_UNROLL
    for (index i = 0; i < 8; ++i) u[i / 4][i % 4] = simd::bit_cast<std::uint8_t>(simd::lookup(of_, u[i / 4][i % 4]));
  }

 private:
  TERN_INLINE static auto load(std::uint8_t const* levels) {
    if constexpr (bits <= 4)
      return simd::load_table(reinterpret_cast<std::int8_t const*>(levels));
    else
      return simd::load_table64(levels);
  }
  std::conditional_t<(bits <= 4), simd::byte_table, simd::byte_table64> of_;
};

/// Codes that stand for levels, with scales of a grid: `lanes` rows from `row` on in registers, for matmul.
template <int bits, scale_storage Scale, index granule>
class level_walk {
 public:
  /// first: the first row's codes; levels: as level_table takes them, of which one is `least` times the scale.
  TERN_INLINE level_walk(row_memory const& first, scale_grid<Scale> const& scales, index row, std::uint8_t const* levels, float least)
      : codes_(first), scales_(scales, row), levels_(levels), least_(least) {}
  template <class Group>
  TERN_INLINE void load(index g, Group& out) {
    codes_.load(g, out.u);
    levels_.choose(out.u);
    TERN_UNROLL
    for (index i = 0; i < 32 / granule; ++i) out.scale[i] = scales_.at(32 * g + granule * i) * least_;
  }

 private:
  packed_walk<bits> codes_;
  scale_walk<Scale> scales_;
  level_table<bits> levels_;
  float least_;
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
