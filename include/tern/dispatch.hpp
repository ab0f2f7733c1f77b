// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file dispatch.hpp
/// One binary that runs everywhere: functions of the program's own, made of any tern templates, are compiled once for each
/// architecture, and the best one that this CPU runs is chosen at run time.
///
///     // kernels.hpp                                        // kernels.cpp
///     #include <tern/dispatch.hpp>                          #include "kernels.hpp"
///     struct kernels {                                      #include <tern/attention.hpp>
///       void (*attend)(tern::tensor_view<float const, 3>,   namespace {
///                      tern::tensor_view<float, 3>);        void attend(...) { tern::attention(tern::cpu, ...); }
///     };                                                    }
///                                                           TERN_DISPATCH(kernels, {.attend = attend})
///     # CMakeLists.txt
///     tern_add_dispatched(app SOURCES kernels.cpp)          // main.cpp
///                                                           tern::dispatch<kernels>().attend(x, y);
///
/// What crosses the table: pointers, numbers, `tensor_view`, `workspace&`, `executor_ref` and the program's own plain types.
/// Not `cpu_policy`: it belongs to one architecture. Errors thrown behind the table are `tern::error`, as everywhere.
///
/// The environment variable TERN_ARCH names an architecture to use in place of the best one. One that is not compiled in, or that
/// this CPU does not run, is a `tern::error` that says what there is; no instruction that the CPU lacks is reached.
///
/// Without the CMake helper, kernels.cpp is an ordinary file of the program and its table has one architecture, `native`.

#include <tern/core/cpu_features.hpp>
#include <tern/core/policy.hpp>

#if !defined(TERN_DISPATCH_OBJECT)
#include <cstdlib>
#include <utility>
#endif

namespace tern {

/// What `tern_add_dispatched` compiles for, each with all that the ones before it have (x86: psABI levels 1 to 4 and more).
/// The last one that the CPU runs is taken.
enum class architecture : int {
  native,      // the flags of the file itself, without the helper
  baseline,    // the project's own flags
  sse42,       // x86-64-v2
  avx2,        // x86-64-v3: AVX2, FMA, F16C, BMI
  avxvnni,     // and int8 dot products at 256 bits
  avx512,      // x86-64-v4: F, BW, CD, DQ, VL
  avx512vnni,  // and int8 dot products
  avx512bf16,  // and those of bf16; AMX where the system grants it
  dotprod,     // AArch64 with int8 dot products
};

namespace detail {

/// One architecture's table. It is data: an object file says what it needs before any of its code runs.
struct dispatch_entry {
  char const* name;
  cpu_features needs;
  void const* table;
};
/// Defined by TERN_DISPATCH in the object of each architecture.
template <class Table, architecture A>
struct dispatch_slot {
  static dispatch_entry const entry;
};

/// Defined by TERN_DISPATCH in the baseline object: the chosen entry, or the one that `name` names.
template <class Table>
dispatch_entry const& dispatch_from(char const* name);

}  // namespace detail

/// The table of the architecture in use, chosen at the first call. Thread-safe.
template <class Table>
[[nodiscard]] TERN_INLINE Table const& dispatch() {
  return *static_cast<Table const*>(detail::dispatch_from<Table>(nullptr).table);
}
/// The table of the architecture that is named, whatever TERN_ARCH says: for tests and benchmarks.
template <class Table>
[[nodiscard]] TERN_INLINE Table const& dispatch(char const* name) {
  return *static_cast<Table const*>(detail::dispatch_from<Table>(name).table);
}
/// The name of the architecture in use: "avx2".
template <class Table>
[[nodiscard]] TERN_INLINE char const* dispatched_architecture() {
  return detail::dispatch_from<Table>(nullptr).name;
}

#if !defined(TERN_DISPATCH_OBJECT)
namespace detail {
inline namespace TERN_ABI {

/// What architectures' objects call in place of throwing, and for threads.
[[noreturn]] TERN_COLD inline void throw_for_object(char const* text) {
#if TERN_EXCEPTIONS
  throw error(text);
#else
  (void)text;
  TERN_TRAP();
#endif
}
inline executor_ref executor_for_object() { return default_executor(); }

/// The tables that the program holds, in rising order of preference.
struct dispatch_list {
  dispatch_entry const* entries[16];
  int count = 0;
};
template <class Table, architecture A, std::uint64_t compiled>
void add_entry(dispatch_list& list) {
  if constexpr (((compiled >> static_cast<int>(A)) & 1u) != 0) list.entries[list.count++] = &dispatch_slot<Table, A>::entry;
}
template <class Table, std::uint64_t compiled>
dispatch_list compiled_entries() {
  dispatch_list list;
  [&]<int... a>(std::integer_sequence<int, a...>) {
    (add_entry<Table, static_cast<architecture>(a), compiled>(list), ...);
  }(std::make_integer_sequence<int, static_cast<int>(architecture::dotprod) + 1>());
  return list;
}

inline bool same_text(char const* a, char const* b) {
  while (*a != '\0' && *a == *b) ++a, ++b;
  return *a == *b;
}

[[noreturn]] TERN_COLD inline void fail_dispatch(char const* what, char const* name, dispatch_list const& list, cpu_features cpu) {
  char asked[40] = {};
  for (int i = 0; name != nullptr && name[i] != '\0' && i < 39; ++i) asked[i] = name[i];
  message text;
  text << "dispatch: " << what << asked << ", expected one of:";
  for (int i = 0; i < list.count; ++i)
    if ((list.entries[i]->needs & ~cpu) == 0) text << " " << list.entries[i]->name;
  text << " (compiled:";
  cpu_features lacking = 0;
  for (int i = 0; i < list.count; ++i) {
    text << " " << list.entries[i]->name;
    if (name == nullptr || same_text(list.entries[i]->name, name)) lacking = list.entries[i]->needs & ~cpu;
    if (name == nullptr) break;
  }
  if (lacking != 0) text << "; this CPU lacks";
  for (int f = 0; f < cpu_feature_count; ++f)
    if (((lacking >> f) & 1u) != 0) text << " " << feature_name(f);
  text << ")";
  text.fail();
}

/// The entry called `name`, or with none the last one that the CPU runs.
inline dispatch_entry const& choose_entry(dispatch_list const& list, char const* what, char const* name) {
  __atomic_store_n(&program_error_handler, &throw_for_object, __ATOMIC_RELEASE);
  __atomic_store_n(&program_executor, &executor_for_object, __ATOMIC_RELEASE);
  cpu_features const cpu = detect_features();
  if (name != nullptr && *name == '\0') name = nullptr;
  for (int i = list.count - 1; i >= 0; --i)
    if ((list.entries[i]->needs & ~cpu) == 0 && (name == nullptr || same_text(list.entries[i]->name, name))) return *list.entries[i];
  fail_dispatch(name != nullptr ? what : "no architecture in this program runs on this CPU", name, list, cpu);
}

}  // namespace TERN_ABI
}  // namespace detail
#endif  // TERN_DISPATCH_OBJECT

}  // namespace tern

/// TERN_DISPATCH(Table, {.member = function, ...}): gives the table its functions, at global scope in a source that
/// `tern_add_dispatched` compiles. The functions belong in an anonymous namespace, so that no two architectures share them.
#define TERN_DISPATCH(Table, ...) TERN_DISPATCH_NUMBERED_(Table, __COUNTER__, __VA_ARGS__)
#define TERN_DISPATCH_NUMBERED_(Table, n, ...) TERN_DISPATCH_TABLE_(Table, n, __VA_ARGS__)

// The value is written at global scope, where the program's names mean what they say.
#define TERN_DISPATCH_VALUE_(Table, n, Architecture, Name, ...)                                                     \
  namespace {                                                                                                       \
  using tern_table_##n = Table;                                                                                     \
  constexpr tern_table_##n tern_table_value_##n = __VA_ARGS__;                                                      \
  }                                                                                                                 \
  template <>                                                                                                       \
  constinit tern::detail::dispatch_entry const tern::detail::dispatch_slot<tern_table_##n, Architecture>::entry = { \
      Name, tern::detail::compiled_features(), &tern_table_value_##n};
#define TERN_DISPATCH_TEXT_(name) #name
#define TERN_DISPATCH_TEXT(name) TERN_DISPATCH_TEXT_(name)

#if defined(TERN_DISPATCH_OBJECT)
#define TERN_DISPATCH_TABLE_(Table, n, ...)                                                                                       \
  TERN_DISPATCH_VALUE_(Table, n, tern::architecture::TERN_DISPATCH_OBJECT, TERN_DISPATCH_TEXT(TERN_DISPATCH_OBJECT), __VA_ARGS__) \
  static_assert(true)
#else
// The baseline object, whose TERN_DISPATCH_COMPILED has a bit for each architecture there is an object of; it alone chooses.
#if defined(TERN_DISPATCH_COMPILED)
#define TERN_DISPATCH_SELF baseline
#else
#define TERN_DISPATCH_SELF native
#define TERN_DISPATCH_COMPILED 1
#endif
#define TERN_DISPATCH_DECLARE_(n, name) \
  template <>                           \
  tern::detail::dispatch_entry const tern::detail::dispatch_slot<tern_table_##n, tern::architecture::name>::entry;
#define TERN_DISPATCH_TABLE_(Table, n, ...)                                                                                          \
  TERN_DISPATCH_VALUE_(Table, n, tern::architecture::TERN_DISPATCH_SELF, TERN_DISPATCH_TEXT(TERN_DISPATCH_SELF), __VA_ARGS__)        \
  TERN_DISPATCH_DECLARE_(n, sse42)                                                                                                   \
  TERN_DISPATCH_DECLARE_(n, avx2)                                                                                                    \
  TERN_DISPATCH_DECLARE_(n, avxvnni)                                                                                                 \
  TERN_DISPATCH_DECLARE_(n, avx512)                                                                                                  \
  TERN_DISPATCH_DECLARE_(n, avx512vnni)                                                                                              \
  TERN_DISPATCH_DECLARE_(n, avx512bf16)                                                                                              \
  TERN_DISPATCH_DECLARE_(n, dotprod)                                                                                                 \
  template <>                                                                                                                        \
  tern::detail::dispatch_entry const& tern::detail::dispatch_from<tern_table_##n>(char const* name) {                                \
    static tern::detail::dispatch_list const list = tern::detail::compiled_entries<tern_table_##n, TERN_DISPATCH_COMPILED>();        \
    if (name != nullptr) return tern::detail::choose_entry(list, "the architecture asked for is ", name);                            \
    static tern::detail::dispatch_entry const& chosen = tern::detail::choose_entry(list, "TERN_ARCH is ", std::getenv("TERN_ARCH")); \
    return chosen;                                                                                                                   \
  }                                                                                                                                  \
  static_assert(true)
#endif
