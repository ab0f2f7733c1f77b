// SPDX-License-Identifier: Apache-2.0
#include <tern/core/policy.hpp>

#include "catch.hpp"

namespace tern::test {
namespace {

struct five {
  index concurrency() const { return 5; }
  void run(index n, task_ref f) {
    for (index i = 0; i < n; ++i) f(i);
  }
};
struct op {
  std::size_t workspace_size(cpu_policy const& policy, int bytes) const {
    return static_cast<std::size_t>(policy.concurrency()) * static_cast<std::size_t>(bytes);
  }
};

}  // namespace

TEST_CASE("a policy carries an executor and a workspace") {
  five executor;
  workspace memory(128);
  cpu_policy const p = cpu.on(executor).with(memory);
  CHECK(p.concurrency() == 5);
  CHECK(&p.scratch() == &memory);
  CHECK(cpu.on(serial).concurrency() == 1);
  CHECK(cpu.concurrency() >= 1);
  CHECK(&cpu.scratch() != &memory);
  STATIC_REQUIRE(execution_policy<cpu_policy>);
  STATIC_REQUIRE_FALSE(execution_policy<int>);
}

TEST_CASE("workspace_size asks the operation") {
  five executor;
  CHECK(workspace_size(op{}, cpu.on(executor), 64) == 320 + workspace::alignment - 1);  // at any address
}

}  // namespace tern::test
