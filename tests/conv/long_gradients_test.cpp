// SPDX-License-Identifier: Apache-2.0
#include "long_cases.hpp"

#include <tern/conv/long_gradients.hpp>
#include <tern/core/thread_pool.hpp>

#include <tuple>
#include <utility>

namespace tern::test {

TEST_CASE("the gradient of a long convolution's input is the correlation with its filter") {
  for (long_mode mode : {long_mode::causal, long_mode::circular, long_mode::same})
    for (auto const& [n, taps] :
         {std::pair<index, index>{1, 1}, {5, 9}, {64, 64}, {200, 5}, {300, 300}, {300, 450}, {1000, 100}, {2048, 2000}}) {
      rng r(21);
      signal<> const dy(r, 2, 2, n), k(r, 1, 2, taps), v(r, 2, 2, n), w(r, 2, 2, n);
      std::vector<float> const d = r.normal(2);
      signal<> du(2, 2, n), ready(2, 2, n), gated(2, 2, n);
      long_conv_grad_input(cpu, dy.view, k.view[0], du.view, mode);
      long_conv_grad_input(cpu, dy.view, long_filter(cpu, k.view[0], n, mode), ready.view, mode);
      long_conv_grad_input(cpu, dy.view, k.view[0], gated.view, mode, gate_in{w.view}, gate_out{v.view}, skip{d});
      INFO("n " << n << ", taps " << taps << ", mode " << static_cast<int>(mode));
      for (index b = 0; b < 2; ++b)
        for (index c = 0; c < 2; ++c) {
          auto const g = dy.row(b, c), f = k.row(0, c), x = times(g, v.row(b, c));
          double const tolerance = long_conv.error(n + taps);
          REQUIRE(close_row(du.view, b, c, oracle::long_conv_grad_input(g, f, place_of(mode)), magnitude_of(g, f, mode), tolerance));
          CHECK(ready.row(b, c) == du.row(b, c));
          auto want = times(oracle::long_conv_grad_input(x, f, place_of(mode)), w.row(b, c));
          for (std::size_t i = 0; i < want.size(); ++i) want[i] += static_cast<double>(d[static_cast<std::size_t>(c)]) * g[i];
          REQUIRE(close_row(gated.view, b, c, want, 5 * magnitude_of(x, f, mode) + 5, tolerance));
        }
      CHECK(du.intact());
    }
}

TEST_CASE("the gradient of a long convolution's filter is the correlation of its input with the result's") {
  for (long_mode mode : {long_mode::causal, long_mode::circular, long_mode::same})
    for (auto const& [n, taps] : {std::pair<index, index>{1, 1},
                                  {5, 9},
                                  {64, 64},
                                  {300, 300},
                                  {300, 450},
                                  {1500, 20},
                                  {1000, 100},
                                  {3, 1200},
                                  {40, 200},
                                  {600, 2200}}) {
      rng r(22);
      signal<> const dy(r, 3, 2, n), u(r, 3, 2, n), v(r, 3, 2, n), w(r, 3, 2, n);
      signal<> dk(1, 2, taps), each(3, 2, taps);
      long_conv_grad_filter(cpu, dy.view, u.view, dk.view, mode, gate_in{w.view}, gate_out{v.view}, skip{std::vector<float>(2)});
      long_conv_grad_filter(cpu, dy.view, u.view, each.view, mode);
      INFO("n " << n << ", taps " << taps << ", mode " << static_cast<int>(mode));
      for (index c = 0; c < 2; ++c) {
        oracle::row sum(static_cast<std::size_t>(taps), 0.0);
        double magnitude = 0;
        for (index b = 0; b < 3; ++b) {
          auto const g = times(dy.row(b, c), v.row(b, c)), x = times(u.row(b, c), w.row(b, c));
          auto const one = oracle::long_conv_grad_filter(g, x, taps, place_of(mode));
          for (std::size_t j = 0; j < sum.size(); ++j) sum[j] += one[j];
          magnitude += oracle::norm(g) * oracle::norm(x);
          auto const plain = oracle::long_conv_grad_filter(dy.row(b, c), u.row(b, c), taps, place_of(mode));
          REQUIRE(close_row(each.view, b, c, plain, oracle::norm(dy.row(b, c)) * oracle::norm(u.row(b, c)), long_conv.error(n + taps)));
        }
        REQUIRE(close_row(dk.view, 0, c, sum, magnitude, long_conv.error(n + taps)));
      }
      CHECK(dk.intact());
      CHECK(each.intact());
    }
}

TEST_CASE("the gradient of a filter does not lose by many inputs") {
  index const batch = 3000, n = 16, taps = 4;
  std::vector<float> const ones(static_cast<std::size_t>(batch * n), 0.7f);
  std::vector<float> dk(taps);
  long_conv_grad_filter(cpu, tern::view(ones.data(), batch, 1, n), tern::view(ones.data(), batch, 1, n), tern::view(dk.data(), 1, 1, taps));
  double const square = static_cast<double>(0.7f) * static_cast<double>(0.7f), norms = static_cast<double>(batch * n) * square;
  for (index j = 0; j < taps; ++j) {
    double const want = static_cast<double>(batch * (n - j)) * square;
    CHECK(std::abs(static_cast<double>(dk[static_cast<std::size_t>(j)]) - want) <= long_conv.error(n + taps) * norms);
  }
}

TEST_CASE("gradients of a long convolution have the same bits on any threads, and take no more memory than they say") {
  rng r(24);
  thread_pool three(3);
  auto const policy = cpu.on(three);
  for (auto const& [batch, channels, n, taps] :
       {std::tuple<index, index, index, index>{2, 3, 500, 300}, {1, 1, 9000, 40}, {3, 1, 100, 7}}) {
    signal<> const dy(r, batch, channels, n), u(r, batch, channels, n), k(r, 1, channels, taps);
    signal<> du(batch, channels, n), lent_du(batch, channels, n), dk(1, channels, taps), lent_dk(1, channels, taps);
    gate_in const gate(u.view);
    long_filter const ready(cpu, k.view[0], n);
    auto const with = [&](std::size_t bytes, auto const& call) {
      std::vector<std::byte> memory(bytes);
      workspace exact(memory.data(), bytes), small(memory.data(), bytes - 2 * workspace::alignment);
      call(policy.with(exact));
      CHECK(message_of([&] { call(policy.with(small)); }).substr(0, 10) == "workspace:");
    };
    INFO("batch " << batch << ", n " << n);
    long_conv_grad_filter(cpu.on(serial), dy.view, u.view, dk.view, gate);
    with(workspace_size(long_conv_grad_filter, policy, dy.view, u.view, dk.view, gate),
         [&](cpu_policy const& p) { long_conv_grad_filter(p, dy.view, u.view, lent_dk.view, gate); });
    for (index c = 0; c < channels; ++c) CHECK(dk.row(0, c) == lent_dk.row(0, c));
    long_conv_grad_input(cpu.on(serial), dy.view, k.view[0], du.view, gate);
    auto const same = [&, samples = batch, rows = channels] {
      for (index b = 0; b < samples; ++b)
        for (index c = 0; c < rows; ++c) CHECK(du.row(b, c) == lent_du.row(b, c));
    };
    with(workspace_size(long_conv_grad_input, policy, dy.view, k.view[0], du.view, gate),
         [&](cpu_policy const& p) { long_conv_grad_input(p, dy.view, k.view[0], lent_du.view, gate); });
    same();
    with(workspace_size(long_conv_grad_input, policy, dy.view, ready, du.view, gate),
         [&](cpu_policy const& p) { long_conv_grad_input(p, dy.view, ready, lent_du.view, gate); });
    same();
  }
}

TEST_CASE("wrong gradients of a long convolution say what is wrong") {
  std::vector<float> memory(1024);
  auto const v = [&](index b, index c, index n) { return tern::view(memory.data(), b, c, n); };
  CHECK(message_of([&] { long_conv_grad_input(cpu, v(1, 2, 8), v(1, 2, 4), v(1, 2, 9)); }) ==
        "long_conv_grad_input: du has length 9, expected dy's 8");
  CHECK(message_of([&] { long_conv_grad_filter(cpu, v(1, 2, 8), v(1, 3, 8), v(1, 2, 4)); }) ==
        "long_conv_grad_filter: u has channels 3, expected dy's 2");
  CHECK(message_of([&] { long_conv_grad_filter(cpu, v(1, 2, 8), v(1, 2, 8), v(1, 3, 4)); }) ==
        "long_conv_grad_filter: dk has channels 3, expected dy's 2");
  CHECK(message_of([&] { long_conv_grad_filter(cpu, v(1, 2, 8), v(1, 2, 8), v(1, 2, 0)); }) ==
        "long_conv_grad_filter: dk's number of taps is 0, expected at least 1");
  CHECK(message_of([&] { long_conv_grad_input(cpu, v(1, 2, 8), v(1, 3, 4), tern::view(memory.data() + 512, 1, 2, 8)); }) ==
        "long_conv_grad_input: k has channels 3, expected dy's 2");
  CHECK(message_of([&] { long_conv_grad_input(cpu, v(1, 2, 8), v(1, 2, 4), v(1, 2, 8)); }) ==
        "long_conv_grad_input: du is dy, expected memory of its own");
}

}  // namespace tern::test
