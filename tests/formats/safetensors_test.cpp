// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "compare.hpp"
#include "message.hpp"
#include "safetensors_writer.hpp"

#include <tern/formats/safetensors.hpp>

namespace tern::test {
namespace {

using bytes = std::vector<unsigned char>;

/// The message of the error that these bytes give, or "no error". They lie at the end of their own allocation, at any alignment.
std::string complaint(bytes const& file, std::size_t size) {
  bytes const exact(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(size));
  return message_of([&] { safetensors_file const read(exact.data(), exact.size()); });
}
std::string complaint(bytes const& file) { return complaint(file, file.size()); }
/// The same of a header, with 8 bytes of data.
std::string header_complaint(std::string const& header) { return complaint(safetensors_bytes(header, bytes(8))); }
/// A header with one tensor t, of 8 bytes.
std::string tensor_complaint(std::string const& fields) { return header_complaint("{\"t\":{" + fields + "}}"); }
bool says(std::string const& message, std::string_view part) {
  if (message.find(part) == std::string::npos) UNSCOPED_INFO("got: " << message);
  return message.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("safetensors: tensors and metadata are found") {
  auto const memory = right_safetensors();
  safetensors_file const file(memory.data(), memory.size());
  CHECK(file.tensors().size() == 5);
  CHECK(file.metadata().size() == 2);
  CHECK(file.metadata("format", "") == "pt");
  CHECK(file.metadata("absent", "other") == "other");
  CHECK(file.metadata("quote\"d", "") == "\xf0\x9f\x98\x80\n\xc3\xa9\xe2\x82\xac");
  auto const w = file.tensor("b.weight").view<float, 2>();
  CHECK((w.extent(0) == 2 && w.extent(1) == 3));
  for (index i = 0; i < 6; ++i) CHECK(w(i / 3, i % 3) == static_cast<float>(i + 1));
  auto const h = file.tensor("a/h").view<bf16, 1>();
  CHECK((float{h[0]} == 1.f && float{h[1]} == -2.f));
  CHECK(file.tensor("empty").bytes == 0);
  CHECK(file.tensor("empty").view<std::int64_t, 2>().extent(1) == 7);
  CHECK((file.tensor("scalar").rank == 0 && static_cast<int>(file.tensor("scalar").data[0]) == 7));
  CHECK((file.tensor("four").type == safetensors_type::f4 && file.tensor("four").bytes == 3));
  CHECK(file.find_tensor("absent") == nullptr);
}

TEST_CASE("safetensors: what is asked for wrongly") {
  auto const memory = right_safetensors();
  safetensors_file const file(memory.data(), memory.size());
  CHECK_THROWS_WITH(file.tensor("no"), "safetensors: tensor \"no\" is absent, expected in this file");
  CHECK_THROWS_WITH((file.tensor("b.weight").view<f16, 2>()), "safetensors: tensor \"b.weight\": dtype is F32, expected F16");
  CHECK(says(message_of([&] { file.tensor("b.weight").view<float, 1>(); }), "rank is 2, expected that of the view, 1"));
  bytes shifted(memory.size() + 1);
  std::copy(memory.begin(), memory.end(), shifted.begin() + 1);
  safetensors_file const odd(shifted.data() + 1, memory.size());
  CHECK(says(message_of([&] { odd.tensor("b.weight").view<float, 2>(); }), "misalignment is 1, expected 0"));
}

TEST_CASE("safetensors: every truncation is an error, and so is a byte too many") {
  auto memory = right_safetensors();
  for (std::size_t size = 0; size < memory.size(); ++size) {
    INFO("size " << size);
    CHECK(complaint(memory, size).starts_with("safetensors: "));
  }
  CHECK(complaint(memory) == "no error");
  memory.push_back(0);
  CHECK(says(complaint(memory), "the data's size is 33, expected the end of the last tensor = 32"));
}

TEST_CASE("safetensors: any byte changed gives a file that can be read, or an error") {
  auto const right = right_safetensors();
  rng r(71);
  index accepted = 0;
  for (int repeat = 0; repeat < 30000; ++repeat) {
    auto memory = right;
    for (index flips = r.integer(1, 3); flips > 0; --flips)
      memory[static_cast<std::size_t>(r.integer(0, static_cast<index>(memory.size()) - 1))] ^=
          static_cast<unsigned char>(1u << r.integer(0, 7));
    unsigned sum = 0;
    auto const message = message_of([&] {
      safetensors_file const file(memory.data(), memory.size());
      for (auto const& t : file.tensors()) {
        REQUIRE(file.find_tensor(t.name) == &t);
        REQUIRE(t.data >= reinterpret_cast<std::byte const*>(memory.data()));
        REQUIRE(t.data + t.bytes <= reinterpret_cast<std::byte const*>(memory.data() + memory.size()));
        for (std::size_t i = 0; i < t.bytes; ++i) sum += static_cast<unsigned>(t.data[i]);
      }
      ++accepted;
    });
    if (message != "no error") REQUIRE(message.starts_with("safetensors: "));
  }
  CHECK(accepted > 0);
}

TEST_CASE("safetensors: wrong headers") {
  CHECK(says(complaint(bytes(7)), "the file's size is 7, expected at least 8"));
  bytes huge(16);
  huge[7] = 1;
  CHECK(says(complaint(huge), "the header's size is 72057594037927936, expected at most 100000000"));
  huge[7] = 0;
  huge[0] = 9;
  CHECK(says(complaint(huge), "the header's size is 9, expected at most the bytes that are left of the file, 8"));
  CHECK(says(complaint(bytes(8)), "byte 8 is the header's end, expected '{' as the header's first byte"));
  CHECK(complaint(safetensors_bytes("{}", {})) == "no error");
  CHECK(says(header_complaint("{}"), "the data's size is 8, expected the end of the last tensor = 0"));
  for (auto const* text :
       {"[]", " {}", "{", "{}}", "{} x", "{,}", "{\"a\"}", "{\"a\":}", "{\"a\":1}", "{\"__metadata__\":[]}", "{'a':{}}",
        "{\"__metadata__\":{\"k\":1}}", "{\"__metadata__\":{\"k\":\"v\",}}", "{\"__metadata__\":{},\"__metadata__\":{}}"}) {
    INFO(text);
    CHECK(says(complaint(safetensors_bytes(text, {})), "expected"));
  }
  CHECK(says(complaint(safetensors_bytes(R"({"__metadata__":{"k":"1","\u006b":"2"}})", {})), "metadata \"k\" is there twice"));
}

TEST_CASE("safetensors: wrong strings") {
  auto const with = [](std::string const& text) { return complaint(safetensors_bytes("{\"__metadata__\":{\"k\":\"" + text + "\"}}", {})); };
  for (auto const* text : {"", "abc", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xef\xbf\xbf", "\xf0\x90\x80\x80",
                           "\xf4\x8f\xbf\xbf", "\x7f", "\\u0000", "\\\"\\\\\\/\\b\\f\\n\\r\\t", "\\uD834\\uDD1E"}) {
    INFO(text);
    CHECK(with(text) == "no error");
  }
  for (auto const* text : {"\x80", "\xc1\xbf", "\xc2", "\xc2\x41", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xe2\x82", "\xf0\x8f\xbf\xbf",
                           "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\x1f", "\n"}) {
    INFO(text);
    CHECK(says(with(text), "expected"));
    CHECK(says(with(std::string("\\n") + text), "expected"));
  }
  for (auto const* text : {"\\x", "\\u12", "\\u12g4", "\\ud834", "\\ud834x", "\\ud834\\n", "\\ud834\\u0041", "\\udd1e"}) {
    INFO(text);
    CHECK(says(with(text), "expected"));
  }
}

TEST_CASE("safetensors: wrong tensors") {
  CHECK(tensor_complaint(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])") == "no error");
  CHECK(says(tensor_complaint(R"("dtype":"F33","shape":[2],"data_offsets":[0,8])"), "a type that tern knows"));
  CHECK(says(tensor_complaint(R"("dtype":"F32","shape":[2])"), "dtype, shape and data_offsets"));
  CHECK(says(tensor_complaint(R"("dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8])"), "once"));
  CHECK(says(tensor_complaint(R"("dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1)"), "of no other key"));
  for (auto const* number : {"-2", "2.0", "2e0", "02", "\"2\"", "99999999999999999999", "9223372036854775808", "", "2 3"}) {
    INFO(number);
    CHECK(says(tensor_complaint("\"dtype\":\"F32\",\"shape\":[" + std::string(number) + "],\"data_offsets\":[0,8]"), "expected"));
  }
  CHECK(says(tensor_complaint(R"("dtype":"U8","shape":[1,1,1,1,1,1,1,1,8],"data_offsets":[0,8])"), "at most 8 extents"));
  CHECK(says(tensor_complaint(R"("dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,8])"), "fewer than 2^63 bits"));
  CHECK(says(tensor_complaint(R"("dtype":"F64","shape":[9223372036854775807],"data_offsets":[0,8])"), "fewer than 2^63 bits"));
  CHECK(says(tensor_complaint(R"("dtype":"F4","shape":[3],"data_offsets":[0,2])"), "the number of bits is 12, expected a multiple of 8"));
  CHECK(says(tensor_complaint(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])"),
             "the length of data_offsets is 8, expected what dtype and shape need, 12"));
  CHECK(says(tensor_complaint(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"),
             "the end of data_offsets is 0, expected at least their begin, 8"));
  CHECK(says(tensor_complaint(R"("dtype":"F32","shape":[4],"data_offsets":[0,16])"),
             "the end of data_offsets is 16, expected at most the bytes of data, 8"));
  CHECK(says(tensor_complaint(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])"), "the data's size is 8"));
  CHECK(says(tensor_complaint(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])"),
             "the begin of data_offsets is 4, expected the end of the tensor before it, 0"));
  CHECK(says(tensor_complaint(R"("dtype":"F32","shape":[2],"data_offsets":[0,8,9])"), "']'"));
}

TEST_CASE("safetensors: tensors neither overlap nor share a name") {
  auto const two = [](std::string const& a, std::string const& b, int at) {
    return header_complaint("{\"" + a + "\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[" + std::to_string(at) + "," +
                            std::to_string(at + 4) + "]},\"" + b + "\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}");
  };
  CHECK(two("a", "b", 4) == "no error");
  CHECK(says(two("a", "b", 3), "tensor \"a\": the begin of data_offsets is 3, expected the end of the tensor before it, 4"));
  CHECK(says(two("a", "b", 0), "expected the end of the tensor before it, 4"));
  CHECK(says(two("a", "\\u0061", 4), "tensor \"a\" is there twice, expected once"));
}

TEST_CASE("safetensors: many names are found") {
  safetensors_writer w;
  for (int i = 0; i < 500; ++i) w.tensor("t" + std::to_string(i * 7919 % 500), "I32", "1", std::vector<std::int32_t>{i});
  auto const memory = w.bytes();
  safetensors_file const file(memory.data(), memory.size());
  for (int i = 0; i < 500; ++i) CHECK(file.tensor("t" + std::to_string(i * 7919 % 500)).view<std::int32_t, 1>()[0] == i);
}

}  // namespace tern::test
