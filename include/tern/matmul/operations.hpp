// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/operations.hpp
/// From weights of any type to what the kernels call: a table of functions for each type (formats/weights.hpp says what is asked of it), so
/// that the engine is compiled once, and a call with new weights adds only their own unpacking.

#include <tern/formats/interleaved.hpp>
#include <tern/matmul/float_stream.hpp>
#include <tern/matmul/gather.hpp>
#include <tern/matmul/integer_kernel.hpp>

namespace tern {
inline namespace TERN_ABI {
class weights_ref;
}  // namespace TERN_ABI
}  // namespace tern

namespace tern::detail {
inline namespace TERN_ABI {

/// Numbers decode as they lie.
template <class T>
struct plain_weights {
  block_matrix const& m;
  TERN_INLINE void decode(index row, index k0, index k1, float* out) const {
    decode_plain<T>(m.row(row) + k0 * index{sizeof(T)}, k1 - k0, out);
  }
};
TERN_INLINE row_memory floats_of(plain_weights<float> const& w) { return {w.m.row(0), w.m.columns * index{sizeof(float)}, w.m.row_bytes}; }
/// Calls f(weights) with what a matrix of numbers, or any matrix, stands for: its type is known when the program runs.
template <class F>
TERN_INLINE void with_plain_weights(block_matrix const& m, F&& f) {
  if (m.type == weight_type::f32) return f(plain_weights<float>{m});
  if (m.type == weight_type::f16) return f(plain_weights<f16>{m});
  f(plain_weights<bf16>{m});
}
template <class F>
TERN_INLINE void with_block_weights(block_matrix const& m, F&& f) {
  if (info(m.type).elements == 1) return with_plain_weights(m, f);
  with_block_format(m.type, [&]<class Format>(Format) TERN_LAMBDA { f(block_rows<Format>{m}); });
}
template <class F>
TERN_INLINE void with_plain_rows(block_matrix const& m, F&& f) {
  if (m.type == weight_type::f32) return f(plain_rows<float>{m});
  if (m.type == weight_type::f16) return f(plain_rows<f16>{m});
  f(plain_rows<bf16>{m});
}

struct block_operations {
  static block_matrix const& of(void const* w) { return *static_cast<block_matrix const*>(w); }
  static void decode(void const* w, index row, index k0, index k1, float* out) noexcept {
    decode_columns(of(w).type, of(w).row(row), k0, k1, out);
  }
  static void pack_floats(void const* w, index n0, index n1, index k0, index k1, matmul_panel& panel) noexcept {
    with_plain_weights(of(w), [&](auto const& weights) TERN_LAMBDA { detail::pack_floats(weights, n0, n1, k0, k1, panel); });
  }
  static void pack_halves(void const* w, index n0, index n1, index k0, index k1, matmul_panel& panel) noexcept {
    auto const copy = [&](index n, index from, index to, bf16* out) TERN_LAMBDA {
      __builtin_memcpy(static_cast<void*>(out), of(w).row(n) + 2 * from, static_cast<std::size_t>(2 * (to - from)));
    };
    detail::pack_halves(copy, n0, n1, k0, k1, panel, {of(w).row(0), 2 * of(w).columns, of(w).row_bytes});
  }
  static void pack_codes(void const* w, index n0, index n1, index g0, index g1, code_panel& panel) noexcept {
    block_matrix const& m = of(w);
    with_block_format(m.type,
                      [&]<class Format>(Format) TERN_LAMBDA { detail::pack_codes<true>(block_rows<Format>{m}, n0, n1, g0, g1, panel); });
  }
  static void stream_codes(matmul_job const& job, index n0, index n1, q8_rows const& x, bool add) noexcept {
    block_matrix const& m = of(job.w.object);
    with_block_format(m.type, [&]<class Format>(Format) TERN_LAMBDA { stream_stripe(block_rows<Format>{m}, job, n0, n1, x, add); });
  }
  /// What lying_blocks asks for, of q8_0.
  static void scales(void const* w, index n0, index n1, index g0, index g1, float* out) noexcept {
    using format = formats::q8_0;
    constexpr index step = sizeof(format::block);
    index const stride = of(w).row_bytes;
    std::uint8_t const* const first = of(w).row(n0) + g0 * step;
    for (index g = 0; g < g1 - g0; ++g) {
      if constexpr (simd::lanes % 4 == 0)
        if (n1 - n0 == simd::lanes) {
          simd::store(out + g * simd::lanes, strided_blocks<format>{simd::row_places(first + g * step, stride)}.first_f16());
          continue;
        }
      for (index i = 0; i < n1 - n0; ++i) format::scales(block_of<format>(first + i * stride, g), 0, out + g * simd::lanes + i, nullptr);
    }
  }
  template <class X>
  static void stream(matmul_job const& job, index n0, index n1, X const* x, index x_stride, index rows, bool add, matmul_panel&) noexcept {
    auto const run = [&](auto const& source) TERN_LAMBDA { stream_stripe_float(source, job, n0, n1, x, x_stride, rows, add); };
    if constexpr (std::is_same_v<X, bf16>)
      run(plain_rows<bf16>{of(job.w.object)});
    else
      with_plain_rows(of(job.w.object), run);
  }
  static constexpr weight_operations table{&decode,       &pack_floats, &pack_halves,   &pack_codes,  nullptr,
                                           &stream_codes, nullptr,      &stream<float>, &stream<bf16>};
};

/// What the table's entries are for weights of one type.
template <class W>
struct operations_on {
  static void pack_floats(W const& w, index n0, index n1, index k0, index k1, matmul_panel& panel) noexcept {
    if constexpr (!coded_weights<W>) detail::pack_floats(w, n0, n1, k0, k1, panel);
  }
  static void pack_codes(W const& w, index n0, index n1, index g0, index g1, code_panel& panel) noexcept {
    if constexpr (coded_weights<W>) detail::pack_codes<true>(w, n0, n1, g0, g1, panel);
  }
  static void pack_integers(W const& w, index n0, index n1, index g0, index g1, code_panel& panel) noexcept {
    if constexpr (row_scaled_weights<W>) detail::pack_codes<false>(w, n0, n1, g0, g1, panel);
  }
  static void stream_codes(W const& w, matmul_job const& job, index n0, index n1, q8_rows const& x, bool add) noexcept {
    if constexpr (coded_weights<W>) stream_stripe(w, job, n0, n1, x, add);
  }
  static void stream_integers(W const& w, matmul_job const& job, index n0, index n1, q8_rows const& x, bool add) noexcept {
    if constexpr (row_scaled_weights<W>) stream_stripe_rows(w, job, n0, n1, x, add);
  }
  static void stream_floats(W const& w, matmul_job const& job, index n0, index n1, float const* x, index x_stride, index rows, bool add,
                            matmul_panel& panel) noexcept {
    if constexpr (requires { w.cursor(n0, n1); })
      if (rows <= 4 && w.columns % simd::lanes == 0) return stream_stripe_float(cursor_rows<W>{w}, job, n0, n1, x, x_stride, rows, add);
    if constexpr (!coded_weights<W>) stream_stripe_float(decoded_rows<W>{w, panel.floats}, job, n0, n1, x, x_stride, rows, add);
  }
};

template <class W>
struct custom_operations {
  using on = operations_on<W>;
  static W const& of(void const* w) { return *static_cast<W const*>(w); }
  static void decode(void const* w, index row, index k0, index k1, float* out) noexcept { decode_row(of(w), row, k0, k1, out); }
  static void pack_floats(void const* w, index n0, index n1, index k0, index k1, matmul_panel& panel) noexcept {
    on::pack_floats(of(w), n0, n1, k0, k1, panel);
  }
  static void pack_codes(void const* w, index n0, index n1, index g0, index g1, code_panel& panel) noexcept {
    on::pack_codes(of(w), n0, n1, g0, g1, panel);
  }
  static void pack_integers(void const* w, index n0, index n1, index g0, index g1, code_panel& panel) noexcept {
    on::pack_integers(of(w), n0, n1, g0, g1, panel);
  }
  static void stream_codes(matmul_job const& job, index n0, index n1, q8_rows const& x, bool add) noexcept {
    on::stream_codes(of(job.w.object), job, n0, n1, x, add);
  }
  static void stream_integers(matmul_job const& job, index n0, index n1, q8_rows const& x, bool add) noexcept {
    on::stream_integers(of(job.w.object), job, n0, n1, x, add);
  }
  static void stream_floats(matmul_job const& job, index n0, index n1, float const* x, index x_stride, index rows, bool add,
                            matmul_panel& panel) noexcept {
    on::stream_floats(of(job.w.object), job, n0, n1, x, x_stride, rows, add, panel);
  }
  static constexpr bool coded = coded_weights<W>;
  static constexpr weight_operations table{&decode,
                                           coded ? nullptr : &pack_floats,
                                           nullptr,
                                           coded ? &pack_codes : nullptr,
                                           row_scaled_weights<W> ? &pack_integers : nullptr,
                                           coded ? &stream_codes : nullptr,
                                           row_scaled_weights<W> ? &stream_integers : nullptr,
                                           coded ? nullptr : &stream_floats,
                                           nullptr};
};

/// Chosen rows of a matrix whose type is known when the program runs.
struct chosen_block_operations {
  static chosen_blocks const& of(void const* w) { return *static_cast<chosen_blocks const*>(w); }
  template <class F>
  TERN_INLINE static void with_weights(void const* w, F&& f) {
    chosen_blocks const& c = of(w);
    with_block_weights(c.m, [&](auto const& weights) TERN_LAMBDA {
      using W = chosen_weights<std::remove_cvref_t<decltype(weights)>>;
      f(operations_on<W>{}, W{weights, c.ids, c.rows, c.columns});
    });
  }
  static void decode(void const* w, index row, index k0, index k1, float* out) noexcept {
    block_operations::decode(&of(w).m, of(w).ids[row], k0, k1, out);
  }
  static void pack_floats(void const* w, index n0, index n1, index k0, index k1, matmul_panel& panel) noexcept {
    with_weights(w, [&](auto on, auto const& weights) TERN_LAMBDA { on.pack_floats(weights, n0, n1, k0, k1, panel); });
  }
  static void pack_codes(void const* w, index n0, index n1, index g0, index g1, code_panel& panel) noexcept {
    with_weights(w, [&](auto on, auto const& weights) TERN_LAMBDA { on.pack_codes(weights, n0, n1, g0, g1, panel); });
  }
  static void stream_codes(matmul_job const& job, index n0, index n1, q8_rows const& x, bool add) noexcept {
    with_weights(job.w.object, [&](auto on, auto const& weights) TERN_LAMBDA { on.stream_codes(weights, job, n0, n1, x, add); });
  }
  static void stream_floats(matmul_job const& job, index n0, index n1, float const* x, index x_stride, index rows, bool add,
                            matmul_panel& panel) noexcept {
    with_weights(job.w.object,
                 [&](auto on, auto const& weights) TERN_LAMBDA { on.stream_floats(weights, job, n0, n1, x, x_stride, rows, add, panel); });
  }
  static constexpr weight_operations table{&decode,       &pack_floats, nullptr,        &pack_codes, nullptr,
                                           &stream_codes, nullptr,      &stream_floats, nullptr};
};

/// What a matrix's blocks hold, if not numbers.
TERN_INLINE code_kind code_kind_of_blocks(weight_type type) {
  code_kind kind;
  if (info(type).elements > 1) with_block_format(type, [&]<class Format>(Format) TERN_LAMBDA { kind = code_kind_of<Format>; });
  return kind;
}

/// The weights of a job: what `w` refers to must live as long as the job, so that no view is converted on the way.
template <std::same_as<block_matrix> W>
TERN_INLINE any_weights weights_of(W const& w) {
  weight_info const format = info(w.type);
  return {&w,
          &block_operations::table,
          w.rows,
          w.columns,
          format.elements,
          code_kind_of_blocks(w.type),
          format.elements == 1,
          w.type == weight_type::bf16,
          false,
          w.data != nullptr,
          {w.row(0), w.columns / format.elements * format.bytes, w.row_bytes},
          w.type == weight_type::q8_0 ? lying_blocks{2, format.bytes, &block_operations::scales} : lying_blocks{},
          false,
          nullptr,
          w.type == weight_type::f32 &&
              (reinterpret_cast<std::uintptr_t>(w.row(0)) | static_cast<std::uintptr_t>(w.row_bytes)) % sizeof(float) == 0};
}
TERN_INLINE any_weights weights_of(chosen_blocks const& w) {
  bool const numbers = info(w.m.type).elements == 1;
  return {&w,
          &chosen_block_operations::table,
          w.rows,
          w.columns,
          info(w.m.type).elements,
          code_kind_of_blocks(w.m.type),
          numbers,
          false,
          false,
          w.m.data != nullptr};
}
template <custom_weights W>
TERN_INLINE any_weights weights_of(W const& w) {
  code_kind codes;
  if constexpr (coded_weights<W>) {
    codes = code_kind_of<W>;
    static_assert(W::granule == 16 || W::granule == 32, "tern: weights' granule is 16 or 32");
    static_assert(W::offset >= 0 && W::offset <= 128, "tern: weights' offset is 0 to 128");
    static_assert(!W::has_min || W::offset == 0, "tern: weights with a minimum have no offset");
    static_assert(!row_scaled_weights<W> || (W::granule == 32 && !W::has_min),
                  "tern: weights with a scale a row have granule 32 and no minimum");
    expect(w.columns % 32 == 0, "matmul", "w.columns", w.columns, "a multiple of 32");
  }
  bool signed_bytes = false;
  if constexpr (requires { W::signed_bytes; }) signed_bytes = W::signed_bytes && memory_of(w).data != nullptr;
  return {&w,    &custom_operations<W>::table, w.rows, w.columns,    32, codes,       !coded_weights<W>,
          false, row_scaled_weights<W>,        true,   memory_of(w), {}, signed_bytes};
}

/// Types that weights_of takes as they are; others are views that become a block_matrix first.
template <class W>
inline constexpr bool is_weights = custom_weights<W> || std::is_same_v<W, block_matrix> || std::is_same_v<W, chosen_blocks> ||
                                   std::is_same_v<W, interleaved_matrix> || std::is_same_v<W, weights_ref>;
template <class W>
using held_weights = std::conditional_t<is_weights<W>, W, block_matrix>;
template <class W>
TERN_INLINE held_weights<W> hold_weights(W const& w) {
  static_assert(
      is_weights<W> || std::is_convertible_v<W const&, block_matrix> || requires { block_matrix(tern::view(w)); },
      "tern: weights are a block_matrix, a view of f32, f16 or bf16 of rank 2, or a type with rows, columns and a const decode(), or "
      "with granule, offset, has_min and const unpack() and scales(): formats/weights.hpp");
  if constexpr (is_weights<W> || std::is_convertible_v<W const&, block_matrix>)
    return w;
  else
    return block_matrix(tern::view(w));
}

}  // namespace TERN_ABI
}  // namespace tern::detail
