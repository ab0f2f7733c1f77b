// SPDX-License-Identifier: Apache-2.0
#include "long_cases.hpp"

#include <tern/conv/long_stream.hpp>
#include <tern/core/thread_pool.hpp>

#include <tuple>
#include <utility>

namespace tern::test {

TEST_CASE("a long convolution in blocks equals that of the whole") {
  for (auto const& [block, taps, blocks] :
       {std::tuple<index, index, index>{64, 1000, 20}, {1, 5, 12}, {100, 37, 4}, {300, 300, 3}, {128, 513, 6}}) {
    rng r(31);
    index const n = block * blocks;
    signal<> const u(r, 2, 2, n), k(r, 1, 2, taps);
    signal<> y(2, 2, n);
    long_conv_stream moved(cpu, k.view[0], block, 2);
    long_conv_stream stream = std::move(moved);
    INFO("block " << block << ", taps " << taps);
    for (int round = 0; round < 2; ++round, stream.reset()) {
      for (index i = 0; i < n; i += block) stream.step(cpu, u.view.slice(2, i, i + block), y.view.slice(2, i, i + block));
      for (index b = 0; b < 2; ++b)
        for (index c = 0; c < 2; ++c) {
          auto const x = u.row(b, c), f = k.row(0, c);
          auto const want = oracle::long_conv(x, f, oracle::filter_place::causal);
          REQUIRE(close_row(y.view, b, c, want, oracle::norm(x) * oracle::norm(f), stream.error()));
        }
    }
    CHECK(y.intact());
  }
}

TEST_CASE("a long convolution in blocks takes half floats, and its own input as its output") {
  rng r(32);
  signal<bf16> const k(r, 1, 1, 100);
  signal<f16> u(r, 1, 1, 256);
  auto const x = u.row(0, 0), f = k.row(0, 0);
  long_conv_stream stream(cpu, k.view[0], 64);
  for (index i = 0; i < 256; i += 64) stream.step(cpu, u.view.slice(2, i, i + 64), u.view.slice(2, i, i + 64));
  CHECK(close_row(u.view, 0, 0, oracle::long_conv(x, f, oracle::filter_place::causal), oracle::norm(x) * oracle::norm(f), stream.error()));
}

TEST_CASE("a long convolution in blocks has the same bits on any threads, and takes no more memory than it says") {
  rng r(33);
  thread_pool three(3);
  auto const policy = cpu.on(three);
  signal<> const u(r, 2, 2, 300), k(r, 1, 2, 250);
  signal<> y(2, 2, 300), lent(2, 2, 300);
  long_conv_stream alone(cpu.on(serial), k.view[0], 100, 2), threaded(policy, k.view[0], 100, 2);
  auto const part = [](signal<> const& s, index i) { return s.view.slice(2, i, i + 100); };
  std::size_t const bytes = workspace_size(threaded, policy, part(u, 0), part(lent, 0));
  std::vector<std::byte> memory(bytes);
  workspace exact(memory.data(), bytes), small(memory.data(), bytes - 2 * workspace::alignment);
  for (index i = 0; i < 300; i += 100) {
    alone.step(cpu.on(serial), part(u, i), part(y, i));
    threaded.step(policy.with(exact), part(u, i), part(lent, i));
  }
  for (index row = 0; row < 4; ++row) CHECK(y.row(row / 2, row % 2) == lent.row(row / 2, row % 2));
  CHECK(message_of([&] { threaded.step(policy.with(small), part(u, 0), part(lent, 0)); }).substr(0, 10) == "workspace:");
}

TEST_CASE("a wrong long convolution in blocks says what is wrong") {
  std::vector<float> memory(1024);
  auto const v = [&](index b, index c, index n) { return tern::view(memory.data(), b, c, n); };
  CHECK(message_of([&] { long_conv_stream(cpu, v(2, 2, 8), 4); }) == "long_conv_stream: k's batch is 2, expected 1: one filter a channel");
  CHECK(message_of([&] { long_conv_stream(cpu, v(1, 2, 0), 4); }) == "long_conv_stream: k's number of taps is 0, expected at least 1");
  CHECK(message_of([&] { long_conv_stream(cpu, v(1, 2, 8), 0); }) == "long_conv_stream: block is 0, expected at least 1");
  long_conv_stream stream(cpu, v(1, 2, 8), 4);
  CHECK(message_of([&] { stream.step(cpu, v(1, 2, 5), v(1, 2, 5)); }) == "long_conv_stream::step: u's length is 5, expected block = 4");
  CHECK(message_of([&] { stream.step(cpu, v(1, 2, 4), v(1, 2, 3)); }) == "long_conv_stream::step: y has length 3, expected u's 4");
  CHECK(message_of([&] { stream.step(cpu, v(1, 2, 4), v(1, 2, 4)); }) == "no error");
  CHECK(message_of([&] { stream.step(cpu, v(1, 2, 4), tern::view(memory.data() + 1, 1, 2, 4)); }) ==
        "long_conv_stream::step: y overlaps u, expected memory of its own");
}

}  // namespace tern::test
