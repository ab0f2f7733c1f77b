// SPDX-License-Identifier: Apache-2.0
#include <tern/tokens/average_tokens.hpp>
#include <tern/tokens/move_tokens.hpp>

#include "samples.hpp"

#include <new>

namespace tern::test {
namespace {

ids some_of(rng& r, index tokens, index one_in) {
  ids list;
  for (index i = 0; i < tokens; ++i)
    if (r.integer(1, one_in) == 1) list.push_back(static_cast<std::int32_t>(i));
  return list;
}
std::vector<ids> lists_of(rng& r, index samples, index tokens) {
  std::vector<ids> lists(static_cast<std::size_t>(samples));
  for (auto& l : lists) l = some_of(r, tokens, 1 + (&l - lists.data()) % 3);
  return lists;
}

template <class T>
void check_gather_and_scatter(rng& r, cpu_policy const& policy, index tokens, index channels) {
  index const samples = 4;
  token_lists const kept(lists_of(r, samples, tokens), tokens);
  token_tensor<T> const x(r, samples, tokens, channels);
  token_tensor<T> y(samples, tokens, channels), z(samples, tokens, channels);
  std::vector<std::int64_t> positions(static_cast<std::size_t>(samples * tokens)), moved_positions(positions.size(), -1);
  std::iota(positions.begin(), positions.end(), 1000);
  auto const p = tern::view(positions.data(), samples, tokens), q = tern::view(moved_positions.data(), samples, tokens);
  gather_tokens(policy, kept.view, moved{x.view, y.view}, moved{p, q});
  scatter_tokens(policy, kept.view, moved{y.view, z.view});
  CHECK(y.intact());
  CHECK(z.intact());
  for (index b = 0; b < samples; ++b) {
    ids const list = kept.row(b);
    for (index i = 0; i < tokens; ++i) {
      bool const there = i < static_cast<index>(list.size());
      index const from = there ? list[static_cast<std::size_t>(i)] : -1;
      CHECK((there ? same_bits(y.token(b, i), x.token(b, from)) : is_poison(y.token(b, i))));
      CHECK(q(b, i) == (there ? p(b, from) : -1));
      bool const kept_token = std::find(list.begin(), list.end(), i) != list.end();
      CHECK((kept_token ? same_bits(z.token(b, i), x.token(b, i)) : is_poison(z.token(b, i))));
    }
  }
}

/// A map in which a token in three goes with one before it, one in nine nowhere.
std::vector<ids> maps_of(rng& r, index samples, index tokens) {
  std::vector<ids> maps;
  for (index b = 0; b < samples; ++b) {
    ids to;
    std::int32_t count = 0;
    for (index i = 0; i < tokens; ++i) {
      index const kind = count == 0 ? 8 : r.integer(0, 8);
      to.push_back(kind == 0 ? -1 : kind < 4 ? static_cast<std::int32_t>(r.integer(0, count - 1)) : count++);
    }
    maps.push_back(to);
  }
  return maps;
}

template <class T>
void check_average(rng& r, cpu_policy const& policy, index tokens, index channels, bool with_sizes) {
  index const samples = 3;
  own_map const map(maps_of(r, samples, tokens));
  token_tensor<T> const x(r, samples, tokens, channels);
  token_tensor<T> y(samples, tokens, channels);
  std::vector<float> sizes(static_cast<std::size_t>(samples * tokens)), merged(sizes.size(), -1.f);
  for (float& s : sizes) s = static_cast<float>(r.integer(1, 5)) / 2;
  auto const sizes_view =
      with_sizes ? tensor_view<float const, 2>(tern::view(sizes.data(), samples, tokens)) : tensor_view<float const, 2>();
  auto const merged_view = tern::view(merged.data(), samples, tokens);
  average_tokens(policy, map.view, sizes_view, merged_view, moved{x.view, y.view});
  CHECK(y.intact());
  for (index b = 0; b < samples; ++b) {
    ids const to = map.row(b);
    for (index j = 0; j < map.view.count(b); ++j) {
      ids from;
      for (index i = 0; i < tokens; ++i)
        if (to[static_cast<std::size_t>(i)] == j) from.push_back(static_cast<std::int32_t>(i));
      if (from.size() == 1) CHECK(same_bits(y.token(b, j), x.token(b, from[0])));
      double total = 0;
      std::vector<double> sum(static_cast<std::size_t>(channels)), magnitude(sum.size());
      for (std::int32_t i : from) {
        double const s = with_sizes ? static_cast<double>(sizes_view(b, i)) : 1;
        total += s;
        for (index c = 0; c < channels; ++c) {
          sum[static_cast<std::size_t>(c)] += s * x(b, i, c);
          magnitude[static_cast<std::size_t>(c)] += std::abs(s * x(b, i, c));
        }
      }
      for (std::size_t c = 0; c < sum.size(); ++c) {
        sum[c] /= total;
        magnitude[c] /= total;
      }
      CHECK(compare(y.view[b][j], std::span<double const>(sum), std::span<double const>(magnitude),
                    0x1p-24 * (static_cast<double>(from.size()) + 2)));
      CHECK(static_cast<double>(merged_view(b, j)) == total);  // halves
    }
    for (index j = map.view.count(b); j < tokens; ++j) CHECK((is_poison(y.token(b, j)) && merged_view(b, j) == -1.f));
  }
}

template <class T>
void check_way_back(rng& r, cpu_policy const& policy, index tokens, index channels) {
  index const samples = 3;
  own_map const map(maps_of(r, samples, tokens));
  token_tensor<T> const y(r, samples, tokens, channels);
  token_tensor<T> x(samples, tokens, channels), z(r, samples, tokens, channels);
  std::vector<std::vector<T>> before;
  for (index b = 0; b < samples; ++b)
    for (index i = 0; i < tokens; ++i) before.push_back(z.token(b, i));
  unmerge_tokens(policy, map.view, moved{y.view, x.view});
  add_tokens(policy, map.view, moved{y.view, z.view});
  CHECK(x.intact());
  CHECK(z.intact());
  for (index b = 0; b < samples; ++b)
    for (index i = 0; i < tokens; ++i) {
      index const j = map.view.to(b, i);
      auto const& old = before[static_cast<std::size_t>(b * tokens + i)];
      if (j < 0) {
        CHECK(is_poison(x.token(b, i)));
        CHECK(same_bits(z.token(b, i), old));
        continue;
      }
      CHECK(same_bits(x.token(b, i), y.token(b, j)));
      for (index c = 0; c < channels; ++c) {
        float const sum = static_cast<float>(old[static_cast<std::size_t>(c)]) + static_cast<float>(y.view(b, j, c));
        CHECK(static_cast<float>(z.view(b, i, c)) == static_cast<float>(static_cast<T>(sum)));
      }
    }
}

template <class F>
void each_case(F&& f) {
  for (index channels : {1, 5, 16, 33, 200})
    for (index tokens : {1, 9, 70})
      for (auto const& policy : {cpu.on(serial), cpu.on(several_threads())}) f(policy, tokens, channels);
}

}  // namespace

TEST_CASE("gather_tokens, scatter_tokens: kept tokens, in their order, and back to their places", "[tokens]") {
  rng r(21);
  each_case([&](cpu_policy const& policy, index tokens, index channels) {
    check_gather_and_scatter<float>(r, policy, tokens, channels);
    check_gather_and_scatter<bf16>(r, policy, tokens, channels);
  });
  check_gather_and_scatter<f16>(r, cpu.on(several_threads()), 300, 768);
}

TEST_CASE("gather_tokens: keys and values of several heads, and as many tensors as there are", "[tokens]") {
  rng r(22);
  index const samples = 2, heads = 3, tokens = 20, dim = 6;
  token_lists const kept({{0, 3, 19}, {}}, 5);
  auto const k = r.normal<float>(samples * heads * tokens * dim);
  auto const v = r.normal<f16>(samples * heads * tokens * dim);
  std::vector<float> k2(static_cast<std::size_t>(samples * heads * 5 * dim), 7.f);
  std::vector<f16> v2(k2.size(), f16(7.f));
  auto const from = tern::view(k.data(), samples, heads, tokens, dim);
  auto const to = tern::view(k2.data(), samples, heads, 5, dim);
  auto const from_v = tern::view(v.data(), samples, heads, tokens, dim);
  auto const to_v = tern::view(v2.data(), samples, heads, 5, dim);
  gather_tokens(cpu, kept.view, moved{from, to}, moved{from_v, to_v});
  for (index h = 0; h < heads; ++h)
    for (index i = 0; i < 5; ++i)
      for (index d = 0; d < dim; ++d) {
        CHECK(to(0, h, i, d) == (i < 3 ? from(0, h, kept.row(0)[static_cast<std::size_t>(i)], d) : 7.f));
        CHECK(to_v(0, h, i, d).bits == (i < 3 ? from_v(0, h, kept.row(0)[static_cast<std::size_t>(i)], d) : f16(7.f)).bits);
        CHECK(to(1, h, i, d) == 7.f);
      }
}

TEST_CASE("average_tokens: means weighted by sizes; who is alone keeps its bits", "[tokens]") {
  rng r(23);
  each_case([&](cpu_policy const& policy, index tokens, index channels) {
    check_average<float>(r, policy, tokens, channels, true);
    check_average<f16>(r, policy, tokens, channels, false);
    check_average<bf16>(r, policy, tokens, channels, true);
  });
}

TEST_CASE("average_tokens: a map of every token to itself changes no bit", "[tokens]") {
  rng r(24);
  index const tokens = 40, channels = 37;
  token_lists all({ids(static_cast<std::size_t>(tokens))}, tokens);
  std::iota(all.memory.begin(), all.memory.end(), 0);
  own_map map(1, tokens);
  map_kept(all.view, map.view);
  token_tensor<bf16> const x(r, 1, tokens, channels);
  token_tensor<bf16> y(1, tokens, channels);
  std::vector<float> const sizes(static_cast<std::size_t>(tokens), 0.3f);
  std::vector<float> merged(sizes.size());
  average_tokens(cpu, map.view, tern::view(sizes.data(), 1, tokens), tern::view(merged.data(), 1, tokens), moved{x.view, y.view});
  for (index i = 0; i < tokens; ++i) CHECK(same_bits(x.token(0, i), y.token(0, i)));
  CHECK(merged == sizes);
}

TEST_CASE("average_tokens: one representative for what is dropped, weighted by scores", "[tokens]") {
  index const tokens = 5;
  token_lists const kept({{1, 3}}, 2);
  own_map map(1, tokens);
  map_kept(kept.view, map.view, others::together);
  CHECK(map.row(0) == ids{2, 0, 2, 1, 2});
  std::vector<float> const x{1, 2, 4, 8, 16}, scores{0.5f, 9.f, 0.25f, 9.f, 0.25f};
  std::vector<float> y(3);
  average_tokens(cpu, map.view, tern::view(scores.data(), 1, tokens), {},
                 moved{tern::view(x.data(), 1, tokens), tern::view(y.data(), 1, 3)});
  CHECK(y == std::vector<float>{2, 8, 5.5f});
}

TEST_CASE("unmerge_tokens, add_tokens: every token gets what it became", "[tokens]") {
  rng r(25);
  each_case([&](cpu_policy const& policy, index tokens, index channels) {
    check_way_back<float>(r, policy, tokens, channels);
    check_way_back<f16>(r, policy, tokens, channels);
  });
}

TEST_CASE("token maps: kept, merged, chained, ragged", "[tokens]") {
  ids const lengths{5, 3};
  token_lists const kept({{0, 2}, {1}}, 5);
  own_map map(2, 5), next(2, 5), whole(2, 5);
  map_kept(kept.view, map.view, others::nowhere, tern::view(lengths));
  CHECK((map.row(0) == ids{0, -1, 1, -1, -1} && map.row(1) == ids{-1, 0, -1, -1, -1} && map.numbers == ids{2, 1}));
  map_kept(kept.view, map.view, others::together, tern::view(lengths));
  CHECK((map.row(0) == ids{0, 2, 1, 2, 2} && map.row(1) == ids{1, 0, 1, -1, -1} && map.numbers == ids{3, 2}));
  own_pairs pairs(2, 2);
  pairs.from = {2, 0, 0, -7};
  pairs.to = {3, 1, 2, -7};
  pairs.numbers = {2, 1};
  map_merged(pairs.view, map.view, tern::view(lengths));
  CHECK((map.row(0) == ids{0, 0, 1, 1, 2} && map.row(1) == ids{1, 0, 1, -1, -1} && map.numbers == ids{3, 2}));
  token_lists const again({{2}, {0, 1}}, 5);
  map_kept(again.view, next.view);
  chain_maps(map.view, next.view, whole.view);
  CHECK((whole.row(0) == ids{-1, -1, -1, -1, 0} && whole.row(1) == ids{1, 0, 1, -1, -1} && whole.numbers == ids{1, 2}));
}

TEST_CASE("moves and maps: wrong calls are refused by name", "[tokens]") {
  std::vector<float> x(12), y(12);
  auto const from = tern::view(x.data(), 1, 4, 3), to = tern::view(y.data(), 1, 4, 3), narrow = tern::view(y.data(), 1, 4, 2);
  token_lists const behind({{1, 4}}, 4), descending({{2, 1}}, 4), fine({{1, 3}}, 4), two({{1}, {1}}, 4);
  CHECK(message_of([&] { gather_tokens(cpu, behind.view, moved{from, to}); }) ==
        "gather_tokens: an index of kept is 4, expected at least 0 and less than 4");
  CHECK(message_of([&] { scatter_tokens(cpu, descending.view, moved{from, to}); }) ==
        "scatter_tokens: an index of kept is 1, expected more than the one before it, 2");
  CHECK(message_of([&] { gather_tokens(cpu, fine.view, moved{from, narrow}); }) ==
        "gather_tokens: the channels of a tensor that is written is 2, expected those of the one that is read = 3");
  CHECK(message_of([&] { gather_tokens(cpu, fine.view, moved{from, tern::view(y.data(), 1, 1, 3)}); }) ==
        "gather_tokens: the tokens of the shorter tensor is 1, expected at least a count of kept = 2");
  CHECK(message_of([&] { gather_tokens(cpu, two.view, moved{from, to}); }) ==
        "gather_tokens: the rows of a list of indices is 2, expected the rows that are needed = 1");
  CHECK(message_of([&] { gather_tokens(cpu, fine.view, moved{from, from}); }) ==
        "gather_tokens: a tensor that is written overlaps the one that is read, expected memory of its own");
  own_map map(1, 4);
  CHECK(message_of([&] { map_kept(behind.view, map.view); }) == "map_kept: an index of kept is 4, expected at least 0 and less than 4");
  map.memory = {0, 1, 5, -1};
  map.numbers = {2};
  CHECK(message_of([&] { unmerge_tokens(cpu, map.view, moved{from, to}); }) ==
        "unmerge_tokens: an entry of the map is 5, expected -1 or less than its count");
  map.memory = {0, 1, 1, -1};
  CHECK(message_of([&] { average_tokens(cpu, map.view, tern::view(x.data(), 1, 3), {}, moved{from, to}); }) ==
        "average_tokens: sizes is 3, expected at least the tokens of the map = 4");
  auto const sizes = tern::view(x.data(), 1, 4);
  CHECK(message_of([&] { average_tokens(cpu, map.view, sizes, sizes); }) ==
        "average_tokens: merged_sizes overlaps sizes, expected memory of its own");
  CHECK(message_of([&] { add_tokens(cpu, map.view, moved{tern::view(x.data(), 1, 1, 3), to}); }) ==
        "add_tokens: the tokens of a tensor that is read is 1, expected at least those that the map leaves = 2");
  own_pairs pairs(1, 2);
  pairs.numbers = {2};
  pairs.from = {0, 0};
  pairs.to = {1, 3};
  CHECK(message_of([&] { map_merged(pairs.view, map.view); }) == "map_merged: a token to be merged is 0, expected one of the sample, once");
  pairs.from = {0, 1};
  CHECK(message_of([&] { map_merged(pairs.view, map.view); }) ==
        "map_merged: a token to merge into is 1, expected one of the sample that is not merged");
  CHECK(message_of([&] { map_merged(pairs.view, {tern::view(pairs.to.data(), 1, 2), map.view.counts}); }) ==
        "map_merged: the map overlaps the pairs, expected memory of its own");
  CHECK(message_of([&] { map_kept(fine.view, {fine.view.ids, map.view.counts}); }) ==
        "map_kept: the map overlaps kept, expected memory of its own");
  own_map first({{0, 1, 1, 0}}), second({{0, 0}});
  CHECK(message_of([&] { chain_maps(first.view, second.view, {first.view.to, second.view.counts}); }) ==
        "chain_maps: both overlaps second, expected memory of its own");
  map.memory = {0, 1, 5, 1};
  map.numbers = {6};
  CHECK(message_of([&] { average_tokens(cpu, map.view, {}, {}, moved{from, to}); }) ==
        "average_tokens: a count of the map is 6, expected at most its tokens");
  pairs.numbers = {3};
  CHECK(message_of([&] { map_merged(pairs.view, map.view); }) == "map_merged: a count of pairs is 3, expected 0 to what there is room for");
}

}  // namespace tern::test
