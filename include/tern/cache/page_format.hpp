// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/page_format.hpp
/// How a page holds its 64 tokens of one head. Each format below has, for keys or values of `dim` elements,
///
///     source                         what attention's paged_heads<source> reads
///     name                           four letters, for files
///     granule                        dim is a multiple of it
///     bytes(dim)                     of a page
///     write(x, dim, t, page)         rounds a row of f32, f16 or bf16 to token t; no other token changes
///     read(page, dim, t, x)          token t as floats, exactly as stored
///     gather(from, count, dim, to, beside)
///                                    tokens of other pages become tokens 0, 1, ... of a page, to the bit; the last fills the page.
///                                    Calls beside.turn() gather_turns(dim) times; beside.past: the page may be left out of the caches
///     fetch_every                    in which of these turns it is best to ask for what the next page takes: one in so many
///     fetch(page, dim, t, more, to)  what reading token t takes is added to a page_fetch; `more`: one of the page was just before
///
/// but for keys2, where a page is written at once: instead of write there is
///
///     write_page(x, dim, page)       rounds 64 rows of f32, f16 or bf16 to a page, x(i) the i-th
///
/// and gather rounds anew.
///
///     page_format<T>                 f32, f16, bf16: rows one after the other
///     page_format<formats::q8_0>     q8_0, q4_0, e8p: rows of blocks
///     page_format<formats::keys8>    keys8, keys4, values8, values4: a tile of formats/kv_tiles.hpp, each for its side
///     page_format<formats::keys2>    keys2, values2: a tile of formats/kv_two_bits.hpp

#include <tern/attention/rows.hpp>
#include <tern/attention/source.hpp>
#include <tern/formats/kv_tiles.hpp>
#include <tern/formats/kv_two_bits.hpp>
#include <tern/simd/core.hpp>
#include <tern/simd/stream.hpp>

namespace tern {
inline namespace TERN_ABI {

/// How a page holds tokens: see the top of this file.
template <class Format>
struct page_format;

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {

/// What one page takes, asked for a little at a time while another is made: of a burst of requests the core would wait for the end.
class page_fetch {
 public:
  bool past = false;  // of the page that is made
  /// At most 64, of the same size.
  TERN_INLINE void add(std::byte const* at, index bytes) {
    at_[count_++] = at;
    bytes_ = bytes;
  }
  /// All is asked for within so many turns, of which one in `every` asks for what all have to.
  TERN_INLINE void spread(index turns, index every) {
    lines_ = every * divide_up(count_ * divide_up(bytes_, 64), turns);
    every_ = every;
  }
  TERN_INLINE void turn() {
    if (turn_++ % every_ != 0) return;
    for (index i = 0; i < lines_ && next_ < count_; ++i) {  // line by line: runs of them come too fast
      fetch_bytes(at_[next_] + done_, 1);
      done_ += 64;
      if (done_ < bytes_) continue;
      done_ = 0;
      ++next_;
    }
  }

 private:
  std::byte const* at_[page_rows];
  index count_ = 0, bytes_ = 0, lines_ = 0, next_ = 0, done_ = 0, turn_ = 0, every_ = 1;
};

/// Rows of elements, or of blocks, of type T.
template <class T>
struct page_of_rows {
  using source = T;
  static constexpr index granule = elements_of<T>();
  TERN_INLINE static constexpr index bytes(index dim) { return page_rows * row_bytes(dim); }
  TERN_INLINE static void read(std::byte const* page, index dim, index t, float* x) {
    widen_row(reinterpret_cast<T const*>(page + t * row_bytes(dim)), dim, 1.f, x);
  }
  template <class Beside>
  TERN_INLINE static void gather(formats::detail::tile_token const* from, index count, index dim, std::byte* to, Beside& beside) {
    index const bytes = row_bytes(dim);
    bool const past = beside.past && bytes % 64 == 0;
    for (index i = 0; i < page_rows; ++i) {
      beside.turn();
      auto const& of = from[i < count ? i : count - 1];
      if (past)
        simd::copy_lines_past(to + i * bytes, of.tile + of.t * bytes, bytes);
      else
        __builtin_memcpy(to + i * bytes, of.tile + of.t * bytes, static_cast<std::size_t>(bytes));
    }
  }
  TERN_INLINE static constexpr index gather_turns(index) { return page_rows; }
  /// Lines go out as fast as they come in: memory had rather read some KB, then write some, at least that of AMD's.
  static constexpr index fetch_every = simd::on_sapphire_rapids ? 1 : 16;
  TERN_INLINE static void fetch(std::byte const* page, index dim, index t, bool, page_fetch& to) {
    to.add(page + t * row_bytes(dim), row_bytes(dim));
  }
  TERN_INLINE static T* row(std::byte* page, index dim, index t) { return reinterpret_cast<T*>(page + t * row_bytes(dim)); }

 private:
  TERN_INLINE static constexpr index row_bytes(index dim) { return dim / granule * static_cast<index>(sizeof(T)); }
};

template <class T>
struct page_of_floats : page_of_rows<T> {
  template <class X>
  TERN_INLINE static void write(X const* x, index dim, index t, std::byte* page) {
    constexpr index W = simd::lanes;
    T* const to = page_of_rows<T>::row(page, dim, t);
    index d = 0;
    for (; d + W <= dim; d += W) simd::store(to + d, simd::load(x + d));
    for (; d < dim; ++d) to[d] = static_cast<T>(static_cast<float>(x[d]));
  }
};

template <class Format>
struct page_of_blocks : page_of_rows<typename Format::block> {
  template <class X>
  TERN_INLINE static void write(X const* x, index dim, index t, std::byte* page) {
    auto* const to = page_of_rows<typename Format::block>::row(page, dim, t);
    for (index b = 0; b < dim / Format::elements; ++b) {
      float part[Format::elements];
      widen_row(x + b * Format::elements, Format::elements, 1.f, part);
      to[b] = Format::encode(part);
    }
  }
};

template <class Format>
struct tile_page {
  using source = Format;
  static constexpr index granule = Format::elements;
  static_assert(Format::tokens == page_rows);
  TERN_INLINE static constexpr index bytes(index dim) { return Format::tile_bytes(dim); }
  TERN_INLINE static void read(std::byte const* page, index dim, index t, float* x) {
    for (index b = 0; b < dim / granule; ++b) Format::decode(page, dim, b, t, x + b * granule);
  }
  template <class Beside>
  TERN_INLINE static void gather(formats::detail::tile_token const* from, index count, index dim, std::byte* to, Beside& beside) {
    Format::gather(from, count, dim, to, beside);
  }
  TERN_INLINE static constexpr index gather_turns(index dim) { return Format::gather_turns(dim); }
  static constexpr index fetch_every = 1;
  /// A token's bytes lie all over a tile.
  TERN_INLINE static void fetch(std::byte const* page, index dim, index, bool more, page_fetch& to) {
    if (!more) to.add(page, bytes(dim));
  }
};
/// One that is written at once.
template <class Format>
struct page_of_channels : tile_page<Format> {
  template <class Row>
  TERN_INLINE static void write_page(Row const& x, index dim, std::byte* page) {
    constexpr index some = Format::elements;
    for (index b = 0; b < dim / some; ++b) {
      float part[page_rows * some];
      for (index t = 0; t < page_rows; ++t) widen_row(x(t) + b * some, some, 1.f, part + t * some);
      Format::encode_tokens(part, some, dim, b, page);
    }
  }
};
template <class Format>
struct page_of_tiles : tile_page<Format> {
  static constexpr index granule = Format::elements;
  template <class X>
  TERN_INLINE static void write(X const* x, index dim, index t, std::byte* page) {
    for (index b = 0; b < dim / granule; ++b) {
      float part[granule];
      widen_row(x + b * granule, granule, 1.f, part);
      Format::encode(part, dim, b, t, page);
    }
  }
};

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

#define TERN_PAGE_FORMAT(type, layout, letters)     \
  template <>                                       \
  struct page_format<type> : detail::layout<type> { \
    static constexpr char const name[5] = letters;  \
  }
/// Rows of f32.
TERN_PAGE_FORMAT(float, page_of_floats, "f32 ");
/// Rows of f16.
TERN_PAGE_FORMAT(f16, page_of_floats, "f16 ");
/// Rows of bf16.
TERN_PAGE_FORMAT(bf16, page_of_floats, "bf16");
/// Rows of 8-bit blocks.
TERN_PAGE_FORMAT(formats::q8_0, page_of_blocks, "q8_0");
/// Rows of 4-bit blocks.
TERN_PAGE_FORMAT(formats::q4_0, page_of_blocks, "q4_0");
/// Rows of blocks of vector-quantized codes.
TERN_PAGE_FORMAT(formats::e8p, page_of_blocks, "e8p ");
/// Tiles of keys in 8 bits.
TERN_PAGE_FORMAT(formats::keys8, page_of_tiles, "key8");
/// Tiles of keys in 4 bits.
TERN_PAGE_FORMAT(formats::keys4, page_of_tiles, "key4");
/// Tiles of values in 8 bits.
TERN_PAGE_FORMAT(formats::values8, page_of_tiles, "val8");
/// Tiles of values in 4 bits.
TERN_PAGE_FORMAT(formats::values4, page_of_tiles, "val4");
/// Tiles of keys in 2 bits.
TERN_PAGE_FORMAT(formats::keys2, page_of_channels, "key2");
/// Tiles of values in 2 bits.
TERN_PAGE_FORMAT(formats::values2, page_of_tiles, "val2");
#undef TERN_PAGE_FORMAT

/// Whether pages may hold a format.
template <class Format>
concept stored_in_pages = requires { page_format<Format>::name; };

/// Whether a format is of one side: 1 of keys, 0 of values, -1 of both.
template <class Format>
inline constexpr int side_of_format = -1;
template <class Format>
  requires requires { Format::keys; }
inline constexpr int side_of_format<Format> = Format::keys;

/// Whether pages are written at once.
template <class Format>
concept written_by_page = requires(float const* (*x)(index), index dim, std::byte* page) { page_format<Format>::write_page(x, dim, page); };

}  // namespace TERN_ABI
}  // namespace tern
