// SPDX-License-Identifier: Apache-2.0
// What wrong calls say, and that the cache is as before.
#include "model.hpp"

namespace tern::test {
namespace {

template <class K, class V>
std::string said_of_shape(kv_shape const& shape) {
  return message_of([&] { (void)kv_cache<K, V>(shape); });
}

TEST_CASE("kv_cache: wrong extents") {
  using formats::keys8, formats::values4, formats::q8_0;
  CHECK(said_of_shape<f16, f16>({.layers = 1, .kv_heads = 1, .dim = 33}) == "no error");
  CHECK(said_of_shape<f16, f16>({.layers = 0, .kv_heads = 1, .dim = 33}) == "kv_cache: layers is 0, expected at least 1");
  CHECK(said_of_shape<f16, f16>({.layers = 1, .kv_heads = -1, .dim = 33}) == "kv_cache: kv_heads is -1, expected at least 1");
  auto const multiple = [](char const* of, char const* side) {
    return std::string("expected a multiple of ") + of + ", which the format of " + side + " has in a block";
  };
  std::string const of_keys = multiple("32", "keys"), of_values = multiple("32", "values");
  CHECK(said_of_shape<f16, f16>({.layers = 1, .kv_heads = 1, .dim = 0}) == "kv_cache: dim is 0, " + multiple("1", "keys"));
  CHECK(said_of_shape<f16, f16>({.layers = 1, .kv_heads = 1, .dim = 8, .dim_v = 0}) == "kv_cache: dim_v is 0, " + multiple("1", "values"));
  CHECK(said_of_shape<q8_0, float>({.layers = 1, .kv_heads = 1, .dim = 48, .dim_v = 3}) == "kv_cache: dim is 48, " + of_keys);
  CHECK(said_of_shape<float, q8_0>({.layers = 1, .kv_heads = 1, .dim = 48}) == "kv_cache: dim_v is 48, " + of_values);
  CHECK(said_of_shape<keys8, values4>({.layers = 1, .kv_heads = 1, .dim = 96}) == "no error");
  CHECK(said_of_shape<keys8, values4>({.layers = 1, .kv_heads = 1, .dim = 80}) == "kv_cache: dim is 80, " + of_keys);
  CHECK(said_of_shape<keys8, values4>({.layers = 1, .kv_heads = 1, .dim = 64, .dim_v = 80}) == "kv_cache: dim_v is 80, " + of_values);
}

/// Two sequences that share a page, and a number of one that is closed.
struct shared_pages : modelled<f16, f16> {
  rng r{5};
  sequence a, b, gone;
  std::vector<float> memory = std::vector<float>(4096);
  explicit shared_pages(index max_pages = 100)
      : modelled({.layers = 2, .kv_heads = 2, .dim = 33, .dim_v = 20, .max_pages = max_pages}), a(open()), b(0), gone(0) {
    append(r, a, 0, 100);
    append(r, a, 1, 30);
    b = fork(a);
    gone = open();
    close(gone);
  }
  /// What a call says that must change nothing.
  template <class F>
  std::string said(F&& f) {
    std::string const message = message_of([&] { f(cache); });
    verify();
    return message;
  }
  std::string said_of_rows(tensor_view<float const, 3> const& k, tensor_view<float const, 3> const& v) {
    return said([&](auto& c) { c.append(cpu, a, 0, k, v); });
  }
  /// What appending tokens at these positions, (tokens) or (kv_heads, tokens), says.
  template <class P>
  std::string said_of_positions(index count, P const& positions) {
    return said([&](auto& c) { c.append(cpu, a, 0, view(memory.data(), 2, count, 33), view(memory.data(), 2, count, 20), positions); });
  }
};

TEST_CASE("kv_cache: a sequence that is not open, a layer that is not there") {
  shared_pages m;
  auto const k = view(m.memory.data(), 2, 3, 33), v = view(m.memory.data(), 2, 3, 20);
  for (auto s : {m.gone, kv_cache<f16>::sequence{77}, kv_cache<f16>::sequence{-1}}) {
    std::string const text = ": the sequence is " + std::to_string(s) + ", expected one that is open";
    CHECK(m.said([&](auto& c) { c.append(cpu, s, 0, k, v); }) == "kv_cache::append" + text);
    CHECK(m.said([&](auto& c) { (void)c.keys(s, 0); }) == "kv_cache::keys" + text);
    CHECK(m.said([&](auto& c) { (void)c.values(s, 0); }) == "kv_cache::values" + text);
    CHECK(m.said([&](auto& c) { (void)c.fork(s); }) == "kv_cache::fork" + text);
    CHECK(m.said([&](auto& c) { c.close(s); }) == "kv_cache::close" + text);
    CHECK(m.said([&](auto& c) { c.truncate(s, 3); }) == "kv_cache::truncate" + text);
    CHECK(m.said([&](auto& c) { c.slide(cpu, s, 0, 1, 1); }) == "kv_cache::slide" + text);
    CHECK(m.said([&](auto& c) { (void)c.bytes(s); }) == "kv_cache::bytes" + text);
    owned_lists lists({{0}, {1}});
    CHECK(m.said([&](auto& c) { c.keep(cpu, s, 0, lists()); }) == "kv_cache::keep" + text);
    std::vector<std::int32_t> const batch = {m.a, s};
    CHECK(m.said([&](auto& c) { (void)c.keys(batch, 0); }) == "kv_cache::keys" + text);
    CHECK(m.said([&](auto& c) { (void)c.values(batch, 0); }) == "kv_cache::values" + text);
  }
  for (index layer : {index{2}, index{-1}}) {
    std::string const text = ": the layer is " + std::to_string(layer) + ", expected less than layers = 2";
    CHECK(m.said([&](auto& c) { c.append(cpu, m.a, layer, k, v); }) == "kv_cache::append" + text);
    CHECK(m.said([&](auto& c) { (void)c.keys(m.a, layer); }) == "kv_cache::keys" + text);
    CHECK(m.said([&](auto& c) { (void)c.values(m.a, layer); }) == "kv_cache::values" + text);
    CHECK(m.said([&](auto& c) { c.slide(cpu, m.a, layer, 1, 1); }) == "kv_cache::slide" + text);
    owned_lists lists({{0}, {1}});
    CHECK(m.said([&](auto& c) { c.keep(cpu, m.a, layer, lists()); }) == "kv_cache::keep" + text);
    std::vector<std::int32_t> const batch = {m.a};
    CHECK(m.said([&](auto& c) { (void)c.keys(batch, layer); }) == "kv_cache::keys" + text);
    CHECK(m.said([&](auto& c) { (void)c.values(batch, layer); }) == "kv_cache::values" + text);
  }
  std::vector<std::int32_t> const pairs = {m.a, 9, m.b, 9};
  tensor_view<std::int32_t const, 1> const every_second(pairs.data(), {{2}}, {{2}});
  CHECK(m.said([&](auto& c) { (void)c.keys(every_second, 0); }) == "kv_cache: the stride of sequences is 2, expected 1 (contiguous)");
}

TEST_CASE("kv_cache: rows of wrong shapes") {
  shared_pages m;
  float const* const x = m.memory.data();
  auto const k = view(x, 2, 3, 33), v = view(x, 2, 3, 20);
  std::string const op = "kv_cache::append: ";
  CHECK(m.said_of_rows(view(x, 1, 3, 33), v) == op + "k.extent(0) is 1, expected kv_heads = 2");
  CHECK(m.said_of_rows(k, view(x, 3, 3, 20)) == op + "v.extent(0) is 3, expected kv_heads = 2");
  CHECK(m.said_of_rows(k, view(x, 2, 4, 20)) == op + "v.extent(1) is 4, expected k.extent(1) = 3");
  CHECK(m.said_of_rows(view(x, 2, 3, 32), v) == op + "k.extent(2) is 32, expected dim = 33");
  CHECK(m.said_of_rows(k, view(x, 2, 3, 33)) == op + "v.extent(2) is 33, expected dim_v = 20");
  CHECK(m.said_of_rows(view(x, 2, 33, 3).transposed(1, 2), v) == op + "k.stride(2) is 3, expected 1 (contiguous rows)");
  CHECK(m.said_of_rows(k, view(x, 2, 20, 3).transposed(1, 2)) == op + "v.stride(2) is 3, expected 1 (contiguous rows)");
  CHECK(m.said_of_rows(view(x, 2, 0, 33), view(x, 2, 0, 20)) == "no error");
}

TEST_CASE("kv_cache: positions that do not ascend, or are too large") {
  shared_pages m;  // 100 tokens a head
  using list = std::vector<std::int32_t>;
  std::string const op = "kv_cache::append: ", behind = ", expected behind the one before, below 2^31 - 1024";
  CHECK(m.said_of_positions(2, list{99, 100}) == op + "a position is 99" + behind);
  CHECK(m.said_of_positions(3, list{100, 104, 104}) == op + "a position is 104" + behind);
  CHECK(m.said_of_positions(2, list{103, 101}) == op + "a position is 101" + behind);
  CHECK(m.said_of_positions(2, list{-1, 101}) == op + "a position is -1" + behind);
  CHECK(m.said_of_positions(2, list{100, 2147482624}) == op + "a position is 2147482624" + behind);
  CHECK(m.said_of_positions(2, list{100, 101, 102}) == op + "positions.extent(1) is 3, expected k.extent(1) = 2");
  list const by_head = {100, 101, 100, 100};
  CHECK(m.said_of_positions(2, view(by_head.data(), 2, 2)) == op + "a position is 100" + behind);
  CHECK(m.said_of_positions(2, view(by_head.data(), 1, 2)) == op + "positions.extent(0) is 1, expected kv_heads = 2");
  m.append(m.r, m.a, 0, 2, {200, 2147482622});
  m.append(m.r, m.a, 0, 0);
  m.verify();
  auto const k = view(m.memory.data(), 2, 1, 33), v = view(m.memory.data(), 2, 1, 20);
  CHECK(m.said([&](auto& c) { c.append(cpu, m.a, 0, k, v); }) ==
        op + "the position behind the last token is 2147482624, expected below 2^31 - 1024");
}

TEST_CASE("kv_cache: lists that do not ascend, or are too many or too long") {
  shared_pages m;  // 30 tokens a head in layer 1
  auto const said = [&](std::vector<std::vector<std::int32_t>> const& of_heads) {
    owned_lists lists(of_heads);
    return m.said([&](auto& c) { c.keep(cpu, m.a, 1, lists()); });
  };
  std::string const op = "kv_cache::keep: ", places = ", expected at least 0 and less than 30",
                    after = ", expected more than the one before it, ";
  CHECK(said({{0, 1}}) == op + "the rows of a list of indices is 1, expected the rows that are needed = 2");
  CHECK(said({{0, 1}, {0}, {0}}) == op + "the rows of a list of indices is 3, expected the rows that are needed = 2");
  CHECK(said({{0, 1}, {0, 30}}) == op + "an index of lists is 30" + places);
  CHECK(said({{-1, 1}, {0}}) == op + "an index of lists is -1" + places);
  CHECK(said({{5, 7, 7}, {0}}) == op + "an index of lists is 7" + after + "7");
  CHECK(said({{5, 7}, {6, 2}}) == op + "an index of lists is 2" + after + "6");
  owned_lists lists({{1, 2}, {3}});
  lists.counts[1] = 5;
  CHECK(m.said([&](auto& c) { c.keep(cpu, m.a, 1, lists()); }) == op + "the count of a list is 5, expected 0 to what its row holds");
  lists.counts[1] = -1;
  CHECK(m.said([&](auto& c) { c.keep(cpu, m.a, 1, lists()); }) == op + "the count of a list is -1, expected 0 to what its row holds");
  lists.counts[1] = 1;
  auto const sideways = [&] { return index_lists{lists().ids.transposed(0, 1), lists().counts}; };
  CHECK(m.said([&](auto& c) { c.keep(cpu, m.a, 1, sideways()); }) == op + "the last stride of ids is 4, expected 1 (contiguous rows)");
  CHECK(m.said([&](auto& c) { c.truncate(m.a, -3); }) == "kv_cache::truncate: position is -3, expected at least 0");
  CHECK(m.said([&](auto& c) { c.slide(cpu, m.a, 0, -2, 3); }) == "kv_cache::slide: sinks or window is -2, expected not negative");
  CHECK(m.said([&](auto& c) { c.slide(cpu, m.a, 0, 2, -3); }) == "kv_cache::slide: sinks or window is -3, expected not negative");
}

TEST_CASE("kv_cache: more pages than there may be") {
  for (index left = 0; left < 3; ++left) {
    shared_pages m(6 + left);  // in use: 4 of layer 0, 2 of layer 1
    auto const refusals = [&] {
      int all = 0;
      for (auto const& [name, count] : m.refused) all += count;
      return all;
    };
    CHECK(m.cache.pages_left() == left);
    m.keep(m.b, 0, {{1, 2, 3}, {0, 1}});  // one copy: the other head only gets shorter
    m.verify();
    CHECK(refusals() == (left < 1 ? 1 : 0));
    m.keep(m.b, 1, {{1}, {2, 4}});  // two
    m.verify();
    CHECK(refusals() == (left < 1 ? 2 : left < 3 ? 1 : 0));
  }
  for (index left = 0; left < 3; ++left) {
    shared_pages m(6 + left);
    m.append(m.r, m.a, 1, 34);  // copies of both heads' pages
    m.verify();
    CHECK(m.refused["append"] == (left < 2));
    m.append(m.r, m.a, 0, 0);  // nothing
    m.append(m.r, m.a, 0, 1000);
    m.verify();
    CHECK(m.refused["append"] == (left < 2) + 1);
  }
  for (index left = 0; left < 3; ++left) {
    shared_pages m(6 + left);
    m.slide(m.b, 0, 64, 0);  // nothing to move
    m.verify();
    CHECK(m.refused["slide"] == 0);
    m.slide(m.a, 0, 10, 20);
    m.verify();
    CHECK(m.refused["slide"] == (left < 2));
    m.slide(m.a, 0, 0, 0);
    m.verify();
    CHECK(m.cache.length(m.a, 0) == 36);
  }
}

}  // namespace
}  // namespace tern::test
