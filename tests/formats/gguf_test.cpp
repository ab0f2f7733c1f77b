// SPDX-License-Identifier: Apache-2.0
#include <tern/formats/gguf.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "catch.hpp"
#include "gguf_writer.hpp"

namespace {

using text = std::string_view;

/// The message of the error that these bytes give, or nothing. The bytes lie at the very end of their own allocation, so that
/// the address sanitizer sees the first one too many that is read.
std::string complaint(gguf_writer const& w, std::size_t size) {
  std::vector<unsigned char> const exact(w.bytes.begin(), w.bytes.begin() + static_cast<std::ptrdiff_t>(size));
  try {
    tern::gguf_file const file(exact.data(), exact.size());
    return {};
  } catch (tern::error const& e) {
    return e.what();
  }
}
std::string complaint(gguf_writer const& w) { return complaint(w, w.bytes.size()); }

bool says(std::string const& message, text part) { return message.find(part) != std::string::npos; }

/// A file with one tensor of f32, to be made wrong.
gguf_writer with_tensor(std::vector<std::uint64_t> const& extents, std::uint32_t type = 0, std::uint64_t offset = 0) {
  gguf_writer w;
  w.header(1, 0).tensor("t", extents, type, offset).data(64);
  return w;
}

template <class F>
std::string error_of(F&& f) {
  try {
    f();
    return {};
  } catch (tern::error const& e) {
    return e.what();
  }
}

}  // namespace

TEST_CASE("gguf: metadata of every type") {
  for (std::uint32_t const version : {2U, 3U}) {
    auto const w = right_gguf(version);
    tern::gguf_file const file(w.bytes.data(), w.bytes.size());
    CHECK(file.version() == version);
    CHECK(file.alignment() == 64);
    CHECK(file.metadata().size() == 15);
    CHECK(file.get<int>("a.u8") == 200);
    CHECK(file.get<int>("a.i8") == -8);
    CHECK(file.get<std::uint16_t>("a.u16") == 60000);
    CHECK(file.get<std::int64_t>("a.i16") == -16);
    CHECK(file.get<tern::index>("a.u32") == 4000000000);
    CHECK(file.get<int>("a.i32") == -32);
    CHECK(file.get<float>("a.f32") == 1.5F);
    CHECK(file.get<bool>("a.bool"));
    CHECK(file.get<text>("a.string") == "text");
    CHECK(file.get<std::uint64_t>("a.u64") == ~std::uint64_t{0});
    CHECK(file.get<int>("a.i64") == -64);
    CHECK(file.get<double>("a.f64") == 2.5);
    CHECK(file.get<int>("a.absent", 7) == 7);
    CHECK(file.find("a.absent") == nullptr);
  }
}

TEST_CASE("gguf: arrays are walked in order") {
  auto const w = right_gguf();
  tern::gguf_file const file(w.bytes.data(), w.bytes.size());
  std::vector<text> strings;
  for (auto const value : file.get<tern::gguf_array>("a.strings")) strings.push_back(value.as<text>());
  CHECK(strings == std::vector<text>{"one", "", "three"});

  auto const nested = file.get<tern::gguf_array>("a.nested");
  REQUIRE(nested.size() == 2);
  auto inner = nested.begin();
  std::vector<int> numbers;
  for (auto const value : (*inner).as<tern::gguf_array>()) numbers.push_back(value.as<int>());
  CHECK(numbers == std::vector<int>{7, 8});
  ++inner;
  CHECK((*(*inner).as<tern::gguf_array>().begin()).as<text>() == "inner");
  CHECK(++inner == nested.end());
}

TEST_CASE("gguf: tensors lie where the file says") {
  auto const w = right_gguf();
  tern::gguf_file const file(w.bytes.data(), w.bytes.size());
  REQUIRE(file.tensors().size() == 2);
  auto const* const section = reinterpret_cast<std::byte const*>(w.bytes.data() + w.bytes.size() - 96);
  auto const& blocks = file.tensor("blocks");
  CHECK(blocks.type == tern::gguf_type::q4_1);
  CHECK(blocks.rows() == 2);
  CHECK(blocks.columns() == 32);
  CHECK(blocks.bytes == 40);
  CHECK(blocks.data == section);
  auto const& weight = file.tensor("weight");
  CHECK(weight.data == section + 64);
  CHECK(weight.bytes == 32);
  CHECK(weight.rank == 2);
  CHECK(weight.extents[2] == 1);

  tern::block_matrix const m = blocks;
  CHECK(m.type == tern::weight_type::q4_1);
  CHECK(m.rows == 2);
  CHECK(m.columns == 32);
  CHECK(m.data == blocks.data);
  CHECK(says(error_of([&] { file.tensor("none"); }), "tensor \"none\" is absent"));
  CHECK(says(error_of([&] { blocks.elements<float>(tern::gguf_type::f32); }), "expected f32"));
}

TEST_CASE("gguf: a tensor of every type that there are kernels for is a matrix, and of others is not") {
  int matrices = 0, others = 0;
  for (std::uint32_t type = 0; type < 64; ++type) {
    auto const block = tern::info(static_cast<tern::gguf_type>(type));
    if (block.elements == 0) continue;
    INFO(block.name);
    gguf_writer w;
    auto const columns = static_cast<std::uint64_t>(2 * block.elements);
    w.header(1, 0).tensor("t", {columns, 3}, type, 0).data(static_cast<std::size_t>(3 * 2 * block.bytes));
    tern::gguf_file const file(w.bytes.data(), w.bytes.size());
    auto const& t = file.tensor("t");
    CHECK(t.bytes == static_cast<std::uint64_t>(6 * block.bytes));
    if (tern::info(static_cast<tern::weight_type>(type)).elements == 0) {
      ++others;
      CHECK(says(error_of([&] { static_cast<void>(tern::block_matrix(t)); }), "expected one of tern::weight_type"));
      continue;
    }
    ++matrices;
    tern::block_matrix const m = t;
    CHECK(static_cast<std::uint32_t>(m.type) == type);
    CHECK((m.rows == 3 && m.columns == static_cast<tern::index>(columns) && m.row_bytes == 2 * block.bytes));
    CHECK(m.row(2) == reinterpret_cast<std::uint8_t const*>(t.data) + 4 * block.bytes);
  }
  CHECK(matrices == 18);
  CHECK(others == 14);
}

TEST_CASE("gguf: a wrong type that is asked for is an error, not a reinterpretation") {
  auto const w = right_gguf();
  tern::gguf_file const file(w.bytes.data(), w.bytes.size());
  CHECK(says(error_of([&] { file.get<text>("a.u32"); }), "type of \"a.u32\" is u32, expected string"));
  CHECK(says(error_of([&] { file.get<int>("a.f32"); }), "is f32, expected an integer"));
  CHECK(says(error_of([&] { file.get<float>("a.string"); }), "is string, expected f32 or f64"));
  CHECK(says(error_of([&] { file.get<tern::gguf_array>("a.u8"); }), "is u8, expected array"));
  CHECK(says(error_of([&] { file.get<bool>("a.u8"); }), "is u8, expected bool"));
  CHECK(says(error_of([&] { file.get<std::int8_t>("a.u8"); }), "value of \"a.u8\" is 200"));
  CHECK(says(error_of([&] { file.get<unsigned>("a.i32"); }), "fits the type"));
  CHECK(says(error_of([&] { file.get<int>("a.absent"); }), "metadata \"a.absent\" is absent"));
}

TEST_CASE("gguf: every truncation is an error") {
  auto const w = right_gguf();
  for (std::size_t size = 0; size < w.bytes.size(); ++size) {
    INFO("size " << size);
    CHECK(complaint(w, size).starts_with("gguf: "));
  }
  CHECK(complaint(w).empty());
}

TEST_CASE("gguf: wrong headers") {
  CHECK(says(complaint(gguf_writer().u32(0x12345678).u32(3).u64(0).u64(0)), "magic at byte 4 is"));
  CHECK(says(complaint(gguf_writer().header(0, 0, 1)), "version at byte 8 is 1, expected 2 or 3"));
  CHECK(says(complaint(gguf_writer().header(0, 0, 0x03000000)), "little-endian"));
  CHECK(complaint(gguf_writer().header(0, 0)).empty());
  for (std::uint64_t const absurd : {std::uint64_t{1}, std::uint64_t{1} << 32, std::uint64_t{1} << 60, ~std::uint64_t{0}}) {
    CHECK(says(complaint(gguf_writer().header(absurd, 0)), "number of tensors"));
    CHECK(says(complaint(gguf_writer().header(0, absurd)), "number of metadata values"));
  }
}

TEST_CASE("gguf: wrong metadata") {
  auto const one = [](auto&& fill) {
    gguf_writer w;
    w.header(0, 1);
    fill(w);
    return complaint(w.data(64));
  };
  std::uint64_t const most = ~std::uint64_t{0};
  CHECK(says(one([&](auto& w) { w.u64(most).u64(0); }), "the key"));
  CHECK(says(one([](auto& w) { w.key("k", 13).u32(0); }), "type at byte"));
  CHECK(says(one([&](auto& w) { w.key("k", 8).u64(most); }), "a string"));
  CHECK(says(one([](auto& w) { w.key("k", 7).number(std::uint8_t{2}); }), "expected 0 or 1"));
  CHECK(says(one([](auto& w) { w.key("k", 9).u32(7).u64(2).number(std::uint16_t{0x0201}); }), "expected 0 or 1"));
  for (std::uint32_t type = 0; type <= 12; ++type) {
    INFO("array of type " << type);
    CHECK(says(one([&](auto& w) { w.key("k", 9).u32(type).u64(most); }), "an array's length"));
    CHECK(says(one([&](auto& w) { w.key("k", 9).u32(type).u64(std::uint64_t{1} << 61); }), "an array's length"));
  }
  CHECK(says(one([](auto& w) { w.key("k", 9).u32(99).u64(0); }), "an array's type"));
  CHECK(says(one([](auto& w) { w.key("general.alignment", 4).u32(48); }), "general.alignment"));
  CHECK(says(one([](auto& w) { w.key("general.alignment", 4).u32(0); }), "general.alignment"));
  CHECK(says(one([](auto& w) { w.key("general.alignment", 8).text("32"); }), "expected an integer"));
  CHECK(says(complaint(gguf_writer().header(0, 2).key("k", 4).u32(1).key("k", 4).u32(2)), "\"k\" is there twice"));
}

TEST_CASE("gguf: arrays nest four deep and no deeper") {
  for (int depth : {1, 4, 5, 100, 100000}) {
    INFO("depth " << depth);
    gguf_writer w;
    w.header(0, 1).key("k", 9);
    for (int i = 1; i < depth; ++i) w.u32(9).u64(1);
    w.u32(4).u64(1).u32(5);
    CHECK(complaint(w).empty() == (depth <= 4));
  }
}

TEST_CASE("gguf: wrong tensors") {
  std::uint64_t const big = std::uint64_t{1} << 32;
  CHECK(complaint(with_tensor({4, 4})).empty());
  CHECK(says(complaint(with_tensor({})), "rank"));
  CHECK(says(complaint(with_tensor({1, 1, 1, 1, 1})), "rank"));
  CHECK(says(complaint(with_tensor({0})), "extent"));
  CHECK(says(complaint(with_tensor({4, 0})), "extent"));
  CHECK(says(complaint(with_tensor({big, big})), "fewer than 2^63"));
  CHECK(says(complaint(with_tensor({big, big, big, big})), "fewer than 2^63"));
  CHECK(says(complaint(with_tensor({big, big / 4})), "fits into the file"));
  CHECK(says(complaint(with_tensor({17})), "\"t\".bytes is 68, expected at most the bytes of the data section 64"));
  for (std::uint32_t const unknown : {4U, 5U, 31U, 36U, 38U, 99U, ~0U}) CHECK(says(complaint(with_tensor({32}, unknown)), "type"));
  CHECK(says(complaint(with_tensor({33}, 3)), "a multiple of its type's block"));
  CHECK(says(complaint(with_tensor({4}, 0, 8)), "a multiple of the alignment"));
  CHECK(says(complaint(with_tensor({4}, 0, 64)), "\"t\".offset is 64, expected at most 48"));
  CHECK(says(complaint(with_tensor({4}, 0, ~std::uint64_t{31})), "\"t\".offset"));
}

TEST_CASE("gguf: tensors neither overlap nor share a name") {
  auto const two = [](text a, text b, std::uint64_t at) {
    gguf_writer w;
    return complaint(w.header(2, 0).tensor(a, {16}, 0, at).tensor(b, {8}, 0, 0).data(128));
  };
  CHECK(two("a", "b", 32).empty());
  CHECK(says(two("a", "b", 0), "expected at least the end of the tensor before it"));
  CHECK(says(two("a", "a", 32), "\"a\" is there twice"));
}

TEST_CASE("gguf: names with odd bytes do not break a message") {
  gguf_writer w;
  std::string const name = std::string(300, '\n') + '\0';
  auto const message = complaint(w.header(1, 0).tensor(name, {17}, 0, 0).data(64));
  CHECK(says(message, "????"));
  CHECK(!says(message, "\n"));
}

TEST_CASE("gguf: many names are found") {
  gguf_writer w;
  w.header(0, 1000);
  for (int i = 0; i < 1000; ++i) w.key("key " + std::to_string(i * 7919 % 1000), 5).number(i);
  tern::gguf_file const file(w.bytes.data(), w.bytes.size());
  for (int i = 0; i < 1000; ++i) CHECK(file.get<int>("key " + std::to_string(i * 7919 % 1000)) == i);
}
