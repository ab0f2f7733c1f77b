// SPDX-License-Identifier: Apache-2.0
// The life of a KV cache: a text is read, a draft of its continuation is tried and taken back, tokens that nobody looks at go, and
// what is left is written to a file, from which it goes on later. Keys in 8 bits and values in 4 stand beside f16.

#include <tern/cache.hpp>
#include <tern/cache/methods/snapkv.hpp>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

namespace {

constexpr tern::index layers = 2, heads = 8, kv_heads = 2, dim = 64;
constexpr tern::kv_shape shape{.layers = layers, .kv_heads = kv_heads, .dim = dim};

/// Numbers (heads, tokens, dim) in place of what a model computes.
struct tensor {
  tensor(tern::index heads, tern::index tokens) : numbers(static_cast<std::size_t>(heads * tokens * dim)), heads(heads), tokens(tokens) {
    static std::mt19937 bits(1);
    std::normal_distribution<float> normal;
    for (float& x : numbers) x = normal(bits);
  }
  auto view() { return tern::view(numbers, heads, tokens, dim); }
  std::vector<float> numbers;
  tern::index heads, tokens;
};

template <class Cache>
std::vector<float> attend(Cache& cache, std::int32_t text, tensor& q) {
  tensor out(heads, q.tokens);
  tern::attention(tern::cpu, q.view(), cache.keys(text, 0), cache.values(text, 0), out.view(), tern::causal{});
  return out.numbers;
}

double distance(std::vector<float> const& a, std::vector<float> const& b) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  return std::sqrt(difference / size);
}

}  // namespace

int main() {
  tern::kv_cache<tern::f16> exact(shape);
  tern::kv_cache<tern::formats::keys8, tern::formats::values4> cache(shape);
  auto const whole = exact.open(), chat = cache.open();
  for (tern::index layer = 0; layer < layers; ++layer) {
    tensor k(kv_heads, 2000), v(kv_heads, 2000);
    exact.append(tern::cpu, whole, layer, k.view(), v.view());
    cache.append(tern::cpu, chat, layer, k.view(), v.view());
  }
  tensor q(heads, 32);  // the last queries of the text
  auto const expected = attend(exact, whole, q), got = attend(cache, chat, q);
  std::printf("a text of 2000 tokens: %td bytes in f16, %td with keys in 8 and values in 4 bits\n", exact.bytes(), cache.bytes());
  std::printf("attention over it differs by %.3f\n", distance(got, expected));

  auto const draft = cache.fork(chat);
  for (tern::index layer = 0; layer < layers; ++layer) {
    tensor k(kv_heads, 6), v(kv_heads, 6);
    cache.append(tern::cpu, draft, layer, k.view(), v.view());
  }
  std::printf("a draft of 6 more tokens shares what it can: %td bytes for both\n", cache.bytes());
  cache.truncate(draft, cache.next_position(draft) - 6);
  std::printf("taken back, it is the text again: a difference of %.1f\n", distance(attend(cache, draft, q), got));
  cache.close(draft);

  for (tern::index layer = 0; layer < layers; ++layer) tern::snapkv(tern::cpu, cache, chat, layer, q.view(), 512);
  std::printf("of each head, 512 tokens stay: %td bytes; the next token is at position %td\n", cache.bytes(),
              static_cast<tern::index>(cache.next_position(chat)));

  constexpr std::uint64_t model = 42;  // whose keys these are
  {
    std::ofstream file("kv_cache.snapshot", std::ios::binary);
    tern::save_snapshot(cache, chat, model, [&](void const* data, std::size_t bytes) {
      file.write(static_cast<char const*>(data), static_cast<std::streamsize>(bytes));
    });
  }
  std::ifstream file("kv_cache.snapshot", std::ios::binary);
  std::vector<char> const bytes{std::istreambuf_iterator<char>(file), {}};
  auto const again = tern::load_snapshot(cache, model, bytes.data(), bytes.size());
  std::printf("kv_cache.snapshot: %zu bytes; loaded, it differs by %.1f\n", bytes.size(),
              distance(attend(cache, again, q), attend(cache, chat, q)));
}
