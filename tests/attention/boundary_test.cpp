// SPDX-License-Identifier: Apache-2.0
// What is refused before a call starts, of options that are parts of others, and values without elements.
#include "by_definition.hpp"

#include <tern/attention.hpp>
#include <tern/attention/dilated.hpp>
#include <tern/attention/systems/anchor_attention.hpp>
#include <tern/attention/systems/ring_attention.hpp>

#include <string>
#include <vector>

namespace tern::test {
namespace {

TEST_CASE("attention: both masks of a pair are held against the call") {
  std::vector<float> memory(6 * 8, 1.f), out(memory);
  auto const x = view(memory.data(), 1, 6, 8), o = view(out.data(), 1, 6, 8);
  std::vector<std::int32_t> const ids{0, 0, 1, 1, 2, 2}, few{0, 0, 1}, falling{0, 0, 2, 2, 1, 1};
  CHECK(message_of([&] { attention(cpu, x, x, x, o, anchor_attention(ids)); }) == "no error");
  CHECK(message_of([&] { attention(cpu, x, x, x, o, anchor_attention(few)); }).find("is 3, expected") != std::string::npos);
  CHECK(message_of([&] { attention(cpu, x, x, x, o, anchor_attention(falling)); }) != "no error");
}

TEST_CASE("attention: a layout may not list keys behind the end of a sequence in pages") {
  index const rows = 4, pages = 3, dim = 8;
  std::vector<float> pool(static_cast<std::size_t>(pages * rows * dim), 1.f), q(12 * 8, 1.f), out(q);
  std::vector<std::int32_t> const all{12}, some{9}, table{0, 1, 2};
  auto const in_pages = [&](std::vector<std::int32_t> const& lengths) {
    return paged(view(pool.data(), pages, index{1}, rows, dim), tensor_view<std::int32_t const, 2>(table.data(), {1, 3}), lengths);
  };
  auto const run = [&](std::vector<std::int32_t> const& lengths) {
    return message_of([&] {
      attention(cpu, view(q.data(), 1, 1, 12, 8), in_pages(lengths), in_pages(lengths), view(out.data(), 1, 1, 12, 8), dilated{2});
    });
  };
  CHECK(run(all) == "no error");
  CHECK(run(some).find("below the length of its sequence") != std::string::npos);
}

TEST_CASE("ring attention: values of no elements leave the log-sum-exp of all blocks") {
  std::vector<float> memory(10 * 4), sums(10), whole(10), nothing(1);
  rng r(5);
  for (float& e : memory) e = static_cast<float>(r.normal());
  auto const x = view(memory.data(), 1, 10, 4);
  auto const none = view(nothing.data(), 1, 10, 0);
  ring_attention_start(none, view(sums.data(), 1, 10));
  for (index from : {0, 5})
    ring_attention_step(cpu, x, x.slice(1, from, from + 5), none.slice(1, from, from + 5), none, view(sums.data(), 1, 10));
  attention(cpu, x, x, none, none, log_sum_exp{view(whole.data(), 1, 10)});
  for (std::size_t i = 0; i < 10; ++i) CHECK(std::abs(sums[i] - whole[i]) < 1e-5f);
}

}  // namespace
}  // namespace tern::test
