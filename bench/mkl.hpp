// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file bench/mkl.hpp
/// MKL's matrix products and Fourier transforms, loaded into a scope of their own: cblas_sgemm is also OpenBLAS's name.

#if TERN_BENCH_HAVE_MKL

#include <dlfcn.h>

#include <cstdint>
#include <stdexcept>

namespace tern::bench {

/// The functions as mkl_cblas.h, mkl_dfti.h and mkl_service.h declare them, with 32-bit sizes.
class mkl {
 public:
  static constexpr int row_major = 101, as_is = 111, transposed = 112, one_offset = 173;
  static constexpr int dfti_complex = 32, dfti_real = 33, dfti_single = 35, dfti_complex_complex = 39, dfti_not_inplace = 44;
  static constexpr int dfti_number_of_transforms = 7, dfti_conjugate_even_storage = 10, dfti_placement = 11;
  static constexpr int dfti_input_strides = 12, dfti_output_strides = 13, dfti_input_distance = 14, dfti_output_distance = 15;

  void (*sgemv)(int layout, int trans, int m, int n, float alpha, float const* a, int lda, float const* x, int incx, float beta, float* y,
                int incy);
  void (*sgemm)(int layout, int trans_a, int trans_b, int m, int n, int k, float alpha, float const* a, int lda, float const* b, int ldb,
                float beta, float* c, int ldc);
  void (*gemm_bf16bf16f32)(int layout, int trans_a, int trans_b, int m, int n, int k, float alpha, std::uint16_t const* a, int lda,
                           std::uint16_t const* b, int ldb, float beta, float* c, int ldc);
  /// In row-major order a is unsigned and b signed.
  void (*gemm_s8u8s32)(int layout, int trans_a, int trans_b, int offset, int m, int n, int k, float alpha, void const* a, int lda,
                       std::int8_t add_a, void const* b, int ldb, std::int8_t add_b, float beta, std::int32_t* c, int ldc,
                       std::int32_t const* add_c);
  long (*dfti_create)(void** plan, int precision, int domain, long dimensions, ...);
  long (*dfti_set)(void* plan, int parameter, ...);
  long (*dfti_commit)(void* plan);
  long (*dfti_forward)(void* plan, void* from, ...);
  long (*dfti_backward)(void* plan, void* from, ...);
  long (*dfti_free)(void** plan);

  /// With this many threads from now on.
  static mkl const& with_threads(int threads) {
    static mkl const library;
    library.set_num_threads_(threads);
    return library;
  }

 private:
  mkl() {
    // What MKL loads in turn looks for its symbols in its own scope before OpenBLAS's.
    void* const library = dlopen(TERN_BENCH_MKL_LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    if (library == nullptr) throw std::runtime_error(dlerror());
    int (*set_threading_layer)(int) = nullptr;
    load(library, "MKL_Set_Threading_Layer", set_threading_layer);
    load(library, "MKL_Set_Num_Threads", set_num_threads_);
    load(library, "cblas_sgemv", sgemv);
    load(library, "cblas_sgemm", sgemm);
    load(library, "cblas_gemm_bf16bf16f32", gemm_bf16bf16f32);
    load(library, "cblas_gemm_s8u8s32", gemm_s8u8s32);
    load(library, "DftiCreateDescriptor", dfti_create);
    load(library, "DftiSetValue", dfti_set);
    load(library, "DftiCommitDescriptor", dfti_commit);
    load(library, "DftiComputeForward", dfti_forward);
    load(library, "DftiComputeBackward", dfti_backward);
    load(library, "DftiFreeDescriptor", dfti_free);
    constexpr int gnu_openmp = 3;
    set_threading_layer(gnu_openmp);
  }
  template <class F>
  static void load(void* library, char const* name, F& f) {
    f = reinterpret_cast<F>(dlsym(library, name));
    if (f == nullptr) throw std::runtime_error(dlerror());
  }

  void (*set_num_threads_)(int);
};

}  // namespace tern::bench

#endif
