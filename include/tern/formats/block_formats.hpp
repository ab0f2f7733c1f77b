// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/block_formats.hpp
/// From a weight_type, known when the program runs, to the format, known when it is compiled: the one list of all block formats.

#include <tern/formats/block_matrix.hpp>
#include <tern/formats/iq4.hpp>
#include <tern/formats/k_quants.hpp>
#include <tern/formats/mxfp4.hpp>
#include <tern/formats/q4.hpp>
#include <tern/formats/q5.hpp>
#include <tern/formats/q8.hpp>
#include <tern/formats/ternary.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

template <weight_type Type, class Format>
struct block_format_entry {
  static_assert(info(Type).elements == Format::elements && info(Type).bytes == sizeof(typename Format::block) &&
                info(Type).alignment == alignof(typename Format::block));
  static_assert(!Format::has_min || Format::offset == 0);  // integer products count on it
  static constexpr weight_type format_type = Type;
  using format = Format;
  template <class F>
  TERN_INLINE static bool call(weight_type type, F& f) {
    if (type == Type) f(Format{});
    return type == Type;
  }
};
template <class... Entries>
struct block_format_list {
  template <class F>
  TERN_INLINE static bool call(weight_type type, F& f) {
    return (Entries::call(type, f) || ...);
  }
  template <class Format>
  static constexpr weight_type type_of() {
    static_assert((std::is_same_v<Format, typename Entries::format> || ...), "tern: this format is none of GGUF's blocks");
    weight_type found{};
    ((found = std::is_same_v<Format, typename Entries::format> ? Entries::format_type : found), ...);
    return found;
  }
};
using block_formats =
    block_format_list<block_format_entry<weight_type::q4_0, formats::q4_0>, block_format_entry<weight_type::q4_1, formats::q4_1>,
                      block_format_entry<weight_type::q5_0, formats::q5_0>, block_format_entry<weight_type::q5_1, formats::q5_1>,
                      block_format_entry<weight_type::q8_0, formats::q8_0>, block_format_entry<weight_type::q2_k, formats::q2_k>,
                      block_format_entry<weight_type::q3_k, formats::q3_k>, block_format_entry<weight_type::q4_k, formats::q4_k>,
                      block_format_entry<weight_type::q5_k, formats::q5_k>, block_format_entry<weight_type::q6_k, formats::q6_k>,
                      block_format_entry<weight_type::iq4_nl, formats::iq4_nl>, block_format_entry<weight_type::iq4_xs, formats::iq4_xs>,
                      block_format_entry<weight_type::tq1_0, formats::tq1_0>, block_format_entry<weight_type::tq2_0, formats::tq2_0>,
                      block_format_entry<weight_type::mxfp4, formats::mxfp4>>;

/// The type of a format's matrices.
template <class Format>
inline constexpr weight_type type_of_format = block_formats::type_of<Format>();

/// Calls f(format) for a type whose elements are integers with scales; false for the plain types.
template <class F>
TERN_INLINE bool with_block_format(weight_type type, F&& f) {
  return block_formats::call(type, f);
}

}  // namespace TERN_ABI
}  // namespace tern::detail
