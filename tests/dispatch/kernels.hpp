// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/dispatch/kernels.hpp
/// A program's own table: functions of tern's templates, compiled once for each architecture.

#include <tern/core/executor.hpp>
#include <tern/core/tensor_view.hpp>
#include <tern/core/workspace.hpp>

/// The executor and the scratch memory, which belong to the caller; `tern::cpu_policy` does not cross a table.
struct context {
  tern::executor_ref threads;
  tern::workspace* scratch = nullptr;
};

struct kernels {
  int lanes;                 // of f32 in a register
  char const* compiled_for;  // the namespace of the architecture
  float (*dot)(tern::tensor_view<float const, 1> a, tern::tensor_view<float const, 1> b);
  /// out = exp(x) row by row, through scratch memory, on all threads.
  void (*exp_rows)(context const& on, tern::tensor_view<float const, 2> x, tern::tensor_view<float, 2> out);
  /// How many threads tern::cpu uses.
  tern::index (*default_concurrency)();
  /// f(i) for i < n, where f may throw through the kernel.
  void (*call_back)(void (*f)(int), int n);
};
