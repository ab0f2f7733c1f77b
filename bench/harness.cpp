// SPDX-License-Identifier: Apache-2.0
#include "harness.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <thread>

namespace tern::bench {
namespace {

std::vector<int> counts;
int failures = 0;
std::string latest;  // the benchmark that ran before this one

std::vector<int> parse_counts(char const* text) {
  std::vector<int> list;
  for (char const* p = text; *p != '\0';) {
    char* end = nullptr;
    long const n = std::strtol(p, &end, 10);
    if (end == p || n < 1 || n > 4096) {
      std::fprintf(stderr, "--tern_threads is \"%s\", expected counts with commas between, such as 1,2\n", text);
      std::exit(2);
    }
    list.push_back(static_cast<int>(n));
    p = *end == ',' ? end + 1 : end;
  }
  return list;
}

/// Takes --tern_threads out of the command line.
void parse_command_line(int& argc, char** argv) {
  int const cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  counts = {1, cores};
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    constexpr char const* flag = "--tern_threads=";
    if (std::strncmp(argv[i], flag, std::strlen(flag)) == 0)
      counts = parse_counts(argv[i] + std::strlen(flag));
    else
      argv[kept++] = argv[i];
  }
  argc = kept;
  std::sort(counts.begin(), counts.end());
  counts.erase(std::unique(counts.begin(), counts.end()), counts.end());
}

std::string number(double x) {
  char text[32];
  std::snprintf(text, sizeof text, x < 10 ? "%.3g" : "%.1f", x);
  return text;
}

/// The machine's limits, in the console's header and in the JSON's context: machine.f32_gflops.threads_2 and so on.
void describe_machine() {
  benchmark::AddCustomContext("machine.cpu", processor_name());
  benchmark::AddCustomContext("machine.abi", [] {
#define TERN_BENCH_TEXT_(x) #x
#define TERN_BENCH_TEXT(x) TERN_BENCH_TEXT_(x)
    return TERN_BENCH_TEXT(TERN_ABI);
  }());
  benchmark::AddCustomContext("machine.last_level_cache_bytes", std::to_string(last_level_cache()));
  for (int t : counts) {
    machine_limits const& m = limits(t);
    std::string const suffix = ".threads_" + std::to_string(t);
    benchmark::AddCustomContext("machine.f32_gflops" + suffix, number(m.peak[0]));
    benchmark::AddCustomContext("machine.bf16_gflops" + suffix, number(m.peak[1]));
    benchmark::AddCustomContext("machine.int8_gops" + suffix, number(m.peak[2]));
    benchmark::AddCustomContext("machine.read_gb_s" + suffix, number(m.bandwidth));
  }
}

bool only_lists(int argc, char** argv) {
  return std::any_of(argv + 1, argv + argc, [](char const* a) { return std::strncmp(a, "--benchmark_list_tests", 22) == 0; });
}

}  // namespace

std::vector<int> const& thread_counts() { return counts; }

index copies_beyond_cache(std::size_t bytes) {
  if (bytes == 0) return 1;
  std::size_t const enough = (3 * last_level_cache() + bytes - 1) / bytes, most = (std::size_t{1} << 30) / bytes;
  return static_cast<index>(std::max<std::size_t>(1, std::min(enough, most)));
}

thread_pool& run::pool() const {
  static std::map<int, std::unique_ptr<thread_pool>> pools;
  auto& p = pools[threads()];
  if (!p) p = std::make_unique<thread_pool>(threads());
  return *p;
}

void run::fail(std::string const& why) {
  ++failures;
  state_.SkipWithError(why.c_str());
}

void run::wait(double us) {
  if (us <= 0) return;
  for (double const end = now() + us * 1e-6; now() < end;) {
  }
}

bool run::settle() {
  if (latest == record_.name) return false;
  latest = record_.name;
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  return true;
}

void run::report(double seconds) {
  machine_limits const& m = limits(threads());
  if (record_.flops > 0) {
    double const gflops = record_.flops / seconds * 1e-9;
    state_.counters["GFLOPS"] = gflops;
    state_.counters["of_peak"] = gflops / m.peak[static_cast<int>(record_.peak)];
    state_.SetLabel(name_of(record_.peak));
  }
  if (record_.bytes > 0) {
    double const rate = record_.bytes / seconds * 1e-9;
    state_.counters["GB_s"] = rate;
    state_.counters["of_bandwidth"] = rate / m.bandwidth;
  }
}

void run::report_samples(std::vector<double>& samples) {
  if (samples.empty()) return;
  auto const middle = samples.begin() + static_cast<index>(samples.size() / 2);
  std::nth_element(samples.begin(), middle, samples.end());
  state_.counters["median_ns"] = *middle * 1e9;
  report(*middle);
}

void workload::add(std::string const& implementation, unit against, std::function<void(run&)> body) const {
  for (int t : threads.empty() ? counts : threads) {
    auto record = std::make_shared<detail::record>();
    record->name = op + "/" + name + "/" + implementation + "/threads:" + std::to_string(t);
    record->flops = flops;
    record->bytes = bytes;
    record->peak = against;
    record->threads = t;
    record->idle_us = idle_us;
    auto* const b = benchmark::RegisterBenchmark(record->name.c_str(), [record, body](benchmark::State& state) {
      run r(state, *record);
      try {
        body(r);
      } catch (std::exception const& e) {
        r.fail(e.what());
      }
    });
    b->Unit(benchmark::kMicrosecond);
    if (idle_us >= 0) b->UseManualTime();
    if (idle_us > 0) b->Iterations(2000);  // the idle time is not measured, so it must not be what limits the number
  }
}

}  // namespace tern::bench

int main(int argc, char** argv) {
  using namespace tern::bench;
  parse_command_line(argc, argv);
  bool const list = only_lists(argc, argv);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  if (!list) {
    measure_machine(counts);
    describe_machine();
  }
  register_benchmarks();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  if (failures != 0) std::fprintf(stderr, "%d benchmarks failed\n", failures);
  return failures != 0;
}
