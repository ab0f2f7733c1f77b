// SPDX-License-Identifier: Apache-2.0
// dispatch_test expected ARCHITECTURE     the table in use is that one, and all its functions are right
// dispatch_test native                    the same for the best one that the compiler's own detection finds
// dispatch_test refused TEXT...           choosing fails with a tern::error that has each text in it
// dispatch_test each                      every architecture of the program, one after the other
//
// Exits with 77 where this CPU does not run what TERN_ARCH asks for. Without a test framework, so that it runs under every emulator.
#include "any_code.hpp"
#include "check.hpp"
#include "kernels.hpp"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <tern/dispatch.hpp>
#include <vector>

void check_families(char const* architecture);

namespace {

std::vector<float> values(tern::index n, float scale) {
  std::vector<float> x(static_cast<std::size_t>(n));
  unsigned state = 1u;
  for (float& v : x) v = scale * (static_cast<float>((state = state * 1664525u + 1013904223u) >> 8) / 8388608.f - 1.f);
  return x;
}

/// Runs backwards on the caller's thread, and claims three.
struct backwards {
  tern::index concurrency() const { return 3; }
  template <class F>
  void run(tern::index n, F&& f) const {
    for (tern::index i = n; i-- > 0;) f(i);
  }
};

void check_dot(kernels const& k) {
  for (tern::index n = 0; n <= 4 * k.lanes + 3; ++n) {
    auto const a = values(n, 1.f), b = values(n + 1, 2.f);
    double expected = 0, magnitude = 0;
    for (tern::index i = 0; i < n; ++i) {
      double const product = double(a[static_cast<std::size_t>(i)]) * double(b[static_cast<std::size_t>(i) + 1]);
      expected += product;
      magnitude += std::fabs(product);
    }
    double const got = double(k.dot(tern::view(a), tern::view(b.data() + 1, n)));
    CHECK(std::fabs(got - expected) <= 0x1p-24 * (double(n) + 2) * magnitude);  // n roundings and the product's
  }
}

void check_exp(kernels const& k) {
  tern::index const rows = 7, n = 2 * k.lanes + 1;
  auto const x = values(rows * n, 20.f);
  std::vector<float> first;
  backwards own;
  tern::workspace scratch;
  tern::executor_ref const serial(tern::serial), other(own);
  for (context const& on : {context{}, context{serial, nullptr}, context{other, &scratch}}) {
    std::vector<float> y(x.size(), -1.f);
    k.exp_rows(on, tern::view(x.data(), rows, n), tern::view(y.data(), rows, n));
    for (std::size_t i = 0; i < x.size(); ++i) {
      double const e = std::exp(double(x[i]));
      CHECK(std::fabs(double(y[i]) - e) <= 0x1p-22 * e);  // 2 units in the last place, see simd/math.hpp
    }
    if (first.empty()) first = y;
    CHECK(std::memcmp(first.data(), y.data(), y.size() * sizeof(float)) == 0);  // whatever the threads
  }
  CHECK(scratch.capacity() > 0);  // the caller's memory was used
}

struct own_error {
  std::string text;
};

/// Errors behind the table are the program's: tern::error, or what its handler does; what a callback throws passes through.
void check_errors(kernels const& k) {
  float const x[3] = {};
  std::string const expected = "dot: b.extent(0) is 2, expected a.extent(0) = 3";
  auto wrong = [&] { return k.dot(tern::view(x), tern::view(x, 2)); };
  CHECK(message_of<tern::error>(wrong) == expected);
  tern::set_error_handler([](char const* text) { throw own_error{text}; });
  try {
    wrong();
    CHECK(false);
  } catch (own_error const& e) {
    CHECK(e.text == expected);
  }
  tern::set_error_handler(nullptr);
  CHECK(message_of<std::invalid_argument>(wrong) == expected);
  CHECK(message_of<std::runtime_error>([&] {
          k.call_back(
              [](int i) {
                if (i == 2) throw std::runtime_error("from the callback");
              },
              5);
        }) == "from the callback");
}

/// The functions of one architecture, against float64 and against the architecture's name.
void check_table(char const* name, kernels const& k) {
  std::printf("%s: %d lanes, %s\n", name, k.lanes, k.compiled_for);
  struct expectation {
    char const* name;
    int lanes;
    char const* has;
    char const* has_not;
  };
  for (expectation const& e : {expectation{"baseline", 4, "abi_", "_object"},
                               {"sse42", 4, "_sse42_", "avx"},
                               {"avx2", 8, "_avx2_fma_f16c", "avx512"},
                               {"avxvnni", 8, "_avxvnni_", "avx512"},
                               {"avx512", 16, "_avx512f_bwdqvl_", "vnni"},
                               {"avx512vnni", 16, "_bwdqvl_vnni_", "bf16"},
                               {"avx512bf16", 16, "_vnni_bf16_", "fp16"},
                               {"dotprod", 4, "_dotprod_", "sve"}})
    if (std::strcmp(e.name, name) == 0) {
      CHECK(k.lanes == e.lanes);
      CHECK(std::strstr(k.compiled_for, e.has) != nullptr);
      CHECK(std::strstr(k.compiled_for, e.has_not) == nullptr);
    }
  check_dot(k);
  check_exp(k);
  check_errors(k);
  CHECK(k.default_concurrency() == tern::cpu.concurrency());
  check_families(name);

#if defined(DISPATCH_TEST_ISOLATED)
  auto x = values(1000, 1.f), y = x;
  int const before = calls;
  scale(y.data(), 1000, 2.f);
  CHECK(std::fabs(tern::dispatch<any_code>(name).sum(x.data(), 1000) - sum_of_sorted(y.data(), 1000)) <= 1e-2f);
  CHECK(calls == before + 1);
#endif
}

/// What the compiler's library says: an independent detection.
char const* best_by_compiler() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  bool const v2 = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
  bool const v3 = v2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  bool const v4 = v3 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (v4 && __builtin_cpu_supports("avx512vnni")) return __builtin_cpu_supports("avx512bf16") ? "avx512bf16" : "avx512vnni";
  if (v4) return "avx512";
  return v3 ? "avx2 or avxvnni" : v2 ? "sse42" : "baseline";
#else
  return "baseline or dotprod";
#endif
}

int run(int count, char** arguments) {
  std::string const mode = count > 1 ? arguments[1] : "";
  if (mode == "refused") {
    std::string const text = message_of<tern::error>([] { return tern::dispatch<kernels>().lanes; });
    std::puts(text.c_str());
    for (int i = 2; i < count; ++i) CHECK(text.find(arguments[i]) != std::string::npos);
    CHECK(message_of<tern::error>([] { return tern::dispatch<kernels>().lanes; }) == text);  // and again
  } else if (mode == "each") {
    int tried = 0;
    for (char const* name : {"baseline", "sse42", "avx2", "avxvnni", "avx512", "avx512vnni", "avx512bf16", "dotprod"}) {
      kernels const* table = nullptr;
      std::string const refused = message_of<tern::error>([&] { return (table = &tern::dispatch<kernels>(name))->lanes; });
      if (table == nullptr)
        std::puts(refused.c_str());
      else
        check_table(name, *table), ++tried;
    }
    CHECK(tried >= 1);
  } else {
    std::string const expected = mode == "native" ? best_by_compiler() : count > 2 ? arguments[2] : "";
    char const* name = nullptr;
    std::string const refused = message_of<tern::error>([&] { return *(name = tern::dispatched_architecture<kernels>()); });
    if (name == nullptr) {
      std::puts(refused.c_str());
      bool const lacks = refused.find("this CPU lacks") != std::string::npos && std::string(best_by_compiler()).find(expected) != 0;
      return lacks ? 77 : 1;
    }
    CHECK(expected.find(name) != std::string::npos);
    check_table(name, tern::dispatch<kernels>());
  }
  return failures == 0 ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
  int const result = run(count, arguments);
  std::puts(result == 0 ? "ok" : result == 77 ? "skipped" : "FAILED");
  return result;
}
