// SPDX-License-Identifier: Apache-2.0
// Four kinds of attention on one input: the same call with other options. For each, its time beside plain attention's, and how
// far its result is from that.

#include <tern/attention.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

int main() {
  int const heads = 8, tokens = 2048, dim = 64;
  std::vector<float> q(heads * tokens * dim), k(q), v(q), plain(q), out(q);
  std::mt19937 bits(1);
  std::normal_distribution<float> normal;
  for (auto* x : {&q, &k, &v})
    for (float& e : *x) e = normal(bits);
  auto view = [&](std::vector<float>& x) { return tern::view(x, heads, tokens, dim); };

  auto show = [&](char const* what, std::vector<float>& to, auto const&... options) {
    double best = 1e9;
    for (int i = 0; i < 5; ++i) {
      auto const start = std::chrono::steady_clock::now();
      tern::attention(tern::cpu, view(q), view(k), view(v), view(to), options...);
      best = std::min(best, std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
    }
    double difference = 0;
    for (std::size_t i = 0; i < to.size(); ++i) difference += std::abs(to[i] - plain[i]);
    std::printf("%-44s %7.2f ms   mean change %.4f\n", what, best, difference / static_cast<double>(to.size()));
  };

  show("softmax", plain);
  // Each token sees itself and what came before.
  show("causal", out, tern::causal{});
  // The 256 tokens up to its own: the rest is not computed.
  show("causal, a window of 256", out, tern::window{256});
  // Modifiers of scores apply as they are written: ALiBi's penalty by distance, steeper from head to head, and then a cap.
  auto const penalty = [](tern::floats s, tern::score_at const& at) {
    float const slope = std::exp2(-static_cast<float>(at.head + 1));
    return s - slope * at.distance();
  };
  show("causal, ALiBi, scores capped at 30", out, tern::causal{}, penalty, tern::softcap{30.f});
  // No softmax: each weight is a sigmoid.
  show("sigmoid", out, tern::sigmoid{-std::log(static_cast<float>(tokens))});
}
