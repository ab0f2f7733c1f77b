// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/operations.hpp
/// From weights of any type to what the kernels call: a table of functions for each type (formats/weights.hpp says what is asked of it), so
/// that the engine is compiled once, and a call with new weights adds only their own unpacking.

#include <tern/matmul/float_stream.hpp>
#include <tern/matmul/gather.hpp>
#include <tern/matmul/integer_kernel.hpp>

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
/// Calls f(weights) with what a matrix's type, known when the program runs, stands for.
template <class F>
TERN_INLINE void with_block_weights(block_matrix const& m, F&& f) {
  switch (m.type) {
    case weight_type::f32:
      return f(plain_weights<float>{m});
    case weight_type::f16:
      return f(plain_weights<f16>{m});
    case weight_type::bf16:
      return f(plain_weights<bf16>{m});
    default:
      with_block_format(m.type, [&]<class Format>(Format) TERN_LAMBDA { f(block_rows<Format>{m}); });
  }
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
  template <class Products>
  static void pack(void const* w, index n0, index n1, index k0, index k1, float_panel<Products>& panel) noexcept {
    with_block_weights(of(w), [&](auto const& weights) TERN_LAMBDA { pack_panel(weights, n0, n1, k0, k1, panel); });
  }
  static void int8(matmul_job const& job, index n0, index n1, index r0, index r1, q8_rows const& x, bool add, bool stream,
                   std::byte* memory) noexcept {
    block_matrix const& m = of(job.w.object);
    with_block_format(m.type, [&]<class Format>(Format)
                                  TERN_LAMBDA { run_stripe_int8(block_rows<Format>{m}, job, n0, n1, r0, r1, x, add, stream, memory); });
  }
  template <class X>
  static void stream(matmul_job const& job, index n0, index n1, X const* x, index x_stride, index rows, bool add,
                     float_panel<f32_products>&) noexcept {
    auto const run = [&](auto const& source) TERN_LAMBDA { stream_stripe_float(source, job, n0, n1, x, x_stride, rows, add); };
    if constexpr (std::is_same_v<X, bf16>)
      run(plain_rows<bf16>{of(job.w.object)});
    else
      with_plain_rows(of(job.w.object), run);
  }
  static constexpr weight_operations table{&decode, &pack<f32_products>, &pack<bf16_products>, &int8,
                                           nullptr, &stream<float>,      &stream<bf16>};
};

template <class W>
struct custom_operations {
  static W const& of(void const* w) { return *static_cast<W const*>(w); }
  static void decode(void const* w, index row, index k0, index k1, float* out) noexcept { decode_row(of(w), row, k0, k1, out); }
  template <class Products>
  static void pack(void const* w, index n0, index n1, index k0, index k1, float_panel<Products>& panel) noexcept {
    pack_panel(of(w), n0, n1, k0, k1, panel);
  }
  static void int8(matmul_job const& job, index n0, index n1, index r0, index r1, q8_rows const& x, bool add, bool stream,
                   std::byte* memory) noexcept {
    if constexpr (coded_weights<W>) run_stripe_int8(of(job.w.object), job, n0, n1, r0, r1, x, add, stream, memory);
  }
  static void int8_tokens(matmul_job const& job, index n0, index n1, index r0, index r1, q8_rows const& x, bool add,
                          std::byte* memory) noexcept {
    if constexpr (row_scaled_weights<W>) run_stripe_rows(of(job.w.object), job, n0, n1, r0, r1, x, add, memory);
  }
  static void stream(matmul_job const& job, index n0, index n1, float const* x, index x_stride, index rows, bool add,
                     float_panel<f32_products>& panel) noexcept {
    stream_stripe_float(decoded_rows<W>{of(job.w.object), panel.weights}, job, n0, n1, x, x_stride, rows, add);
  }
  static constexpr weight_operations table{&decode, &pack<f32_products>, &pack<bf16_products>, &int8, &int8_tokens, &stream, nullptr};
};

/// Chosen rows of a matrix whose type is known when the program runs.
struct chosen_block_operations {
  static chosen_blocks const& of(void const* w) { return *static_cast<chosen_blocks const*>(w); }
  template <class F>
  TERN_INLINE static void with_weights(void const* w, F&& f) {
    chosen_blocks const& c = of(w);
    with_block_weights(c.m, [&](auto const& weights) TERN_LAMBDA {
      f(chosen_weights<std::remove_cvref_t<decltype(weights)>>{weights, c.ids, c.rows, c.columns});
    });
  }
  static void decode(void const* w, index row, index k0, index k1, float* out) noexcept {
    block_operations::decode(&of(w).m, of(w).ids[row], k0, k1, out);
  }
  template <class Products>
  static void pack(void const* w, index n0, index n1, index k0, index k1, float_panel<Products>& panel) noexcept {
    with_weights(w, [&](auto const& weights) TERN_LAMBDA { pack_panel(weights, n0, n1, k0, k1, panel); });
  }
  static void int8(matmul_job const& job, index n0, index n1, index r0, index r1, q8_rows const& x, bool add, bool stream,
                   std::byte* memory) noexcept {
    with_weights(job.w.object, [&]<class W>(W const& weights) TERN_LAMBDA {
      if constexpr (coded_weights<W>) run_stripe_int8(weights, job, n0, n1, r0, r1, x, add, stream, memory);
    });
  }
  static void stream(matmul_job const& job, index n0, index n1, float const* x, index x_stride, index rows, bool add,
                     float_panel<f32_products>& panel) noexcept {
    with_weights(job.w.object, [&]<class W>(W const& weights) TERN_LAMBDA {
      if constexpr (!coded_weights<W>) stream_stripe_float(decoded_rows<W>{weights, panel.weights}, job, n0, n1, x, x_stride, rows, add);
    });
  }
  static constexpr weight_operations table{&decode, &pack<f32_products>, &pack<bf16_products>, &int8, nullptr, &stream, nullptr};
};

/// The weights of a job: what `w` refers to must live as long as the job, so that no view is converted on the way.
template <std::same_as<block_matrix> W>
TERN_INLINE any_weights weights_of(W const& w) {
  bool const numbers = info(w.type).elements == 1;
  return {&w,      &block_operations::table,    w.rows, w.columns,        info(w.type).elements, !numbers,
          numbers, w.type == weight_type::bf16, false,  w.data != nullptr};
}
TERN_INLINE any_weights weights_of(chosen_blocks const& w) {
  bool const numbers = info(w.m.type).elements == 1;
  return {&w,
          &chosen_block_operations::table,
          w.rows,
          w.columns,
          info(w.m.type).elements,
          !numbers,
          numbers,
          false,
          false,
          w.m.data != nullptr};
}
template <custom_weights W>
TERN_INLINE any_weights weights_of(W const& w) {
  if constexpr (coded_weights<W>) {
    static_assert(W::granule == 16 || W::granule == 32, "tern: weights' granule is 16 or 32");
    static_assert(!W::has_min || W::offset == 0, "tern: weights with a minimum have no offset");
    static_assert(!row_scaled_weights<W> || (W::granule == 32 && !W::has_min),
                  "tern: weights with a scale a row have granule 32 and no minimum");
    expect(w.columns % 32 == 0, "matmul", "w.columns", w.columns, "a multiple of 32");
  }
  return {&w, &custom_operations<W>::table, w.rows, w.columns, 32, coded_weights<W>, !coded_weights<W>, false, row_scaled_weights<W>};
}

/// Types that weights_of takes as they are; others are views that become a block_matrix first.
template <class W>
inline constexpr bool is_weights = custom_weights<W> || std::is_same_v<W, block_matrix> || std::is_same_v<W, chosen_blocks>;
template <class W>
using held_weights = std::conditional_t<is_weights<W>, W, block_matrix>;
template <class W>
TERN_INLINE held_weights<W> hold_weights(W const& w) {
  static_assert(
      is_weights<W> || std::is_convertible_v<W const&, block_matrix> || tensor_like<W const&>,
      "tern: weights are a block_matrix, a view of f32, f16 or bf16 of rank 2, or a type with rows, columns and a const decode(), or "
      "with granule, offset, has_min and const unpack() and scales(): formats/weights.hpp");
  if constexpr (is_weights<W> || std::is_convertible_v<W const&, block_matrix>)
    return w;
  else
    return block_matrix(tern::view(w));
}

}  // namespace TERN_ABI
}  // namespace tern::detail
