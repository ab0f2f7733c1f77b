// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/safetensors.hpp
/// Reads safetensors files, the format of Hugging Face's models, where they lie in memory:
///
///     tern::safetensors_file file(bytes, size);              // mapped or read by the caller, who keeps it alive
///     auto w = file.tensor("model.norm.weight").view<tern::bf16, 1>();
///
///     | u64: bytes of the header | header: JSON | data |
///     header: {"__metadata__": {"key": "text", ...}, "name": {"dtype": "F16", "shape": [n, k], "data_offsets": [begin, end]}, ...}
///
/// The constructor checks all of the header before a byte of it is trusted: its length, JSON and UTF-8, keys (each once, none
/// unknown), types, extents against overflow, and that the tensors cover the data without gaps and without overlaps, each with as
/// many bytes as its shape says. What is wrong is a `tern::error` with the place, the value and the expectation. Elements are not
/// looked at. Names and metadata may hold any text, escapes included.
///
/// Memory: one sorted index of names, and the text of those that have escapes; all else stays where it is. Cost: O(header * log).
/// Limits: headers of 100 MB as the reference has it, tensors of rank 8.
/// Source: the format as https://github.com/huggingface/safetensors states it (README and the checks of its reader: read).

#include <tern/core/float16.hpp>
#include <tern/core/tensor_view.hpp>
#include <tern/formats/json.hpp>

#include <bit>
#include <cstring>
#include <memory>
#include <span>

namespace tern {

static_assert(std::endian::native == std::endian::little, "tern: safetensors files are read in place, on little-endian machines");

/// How a tensor's elements are stored.
enum class safetensors_type : std::uint8_t {
  boolean,
  f4,
  f6_e2m3,
  f6_e3m2,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,
  f8_e8m0,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  c64,
  f64,
  i64,
  u64,
};

namespace detail {
inline namespace TERN_ABI {

struct safetensors_type_info {
  char const* name;  // in the file, in the order of the enumeration
  int bits;
};
inline constexpr safetensors_type_info safetensors_types[] = {
    {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},   {"I8", 8},    {"F8_E5M2", 8},
    {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16}, {"BF16", 16}, {"I32", 32},
    {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},    {"I64", 64}, {"U64", 64},
};
template <class T>
inline constexpr safetensors_type safetensors_type_of = safetensors_type_of<typename T::there_is_none>;
#define TERN_SAFETENSORS_TYPE(T, name) \
  template <>                          \
  inline constexpr safetensors_type safetensors_type_of<T> = safetensors_type::name;
TERN_SAFETENSORS_TYPE(bool, boolean)
TERN_SAFETENSORS_TYPE(std::uint8_t, u8)
TERN_SAFETENSORS_TYPE(std::int8_t, i8)
TERN_SAFETENSORS_TYPE(std::int16_t, i16)
TERN_SAFETENSORS_TYPE(std::uint16_t, u16)
TERN_SAFETENSORS_TYPE(f16, f16)
TERN_SAFETENSORS_TYPE(bf16, bf16)
TERN_SAFETENSORS_TYPE(std::int32_t, i32)
TERN_SAFETENSORS_TYPE(std::uint32_t, u32)
TERN_SAFETENSORS_TYPE(float, f32)
TERN_SAFETENSORS_TYPE(double, f64)
TERN_SAFETENSORS_TYPE(std::int64_t, i64)
TERN_SAFETENSORS_TYPE(std::uint64_t, u64)
#undef TERN_SAFETENSORS_TYPE

/// "safetensors: tensor "name": what is `was`, expected `expectation`", and the number that the expectation ends with, if it has one.
[[noreturn]] TERN_COLD inline void safetensors_fail(std::string_view tensor, char const* what, std::uint64_t was, char const* expectation,
                                                    std::uint64_t bound = ~std::uint64_t{0}) {
  message m;
  m << "safetensors: tensor " << quoted(tensor).text << ": " << what << " is " << was << ", expected " << expectation;
  if (bound != ~std::uint64_t{0}) m << " " << bound;
  m.fail();
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// A tensor of the file: row-major, the outermost extent first.
struct safetensors_tensor {
  static constexpr int most_rank = 8;

  std::string_view name;
  safetensors_type type = safetensors_type::u8;
  int rank = 0;
  index extents[most_rank] = {1, 1, 1, 1, 1, 1, 1, 1};
  std::byte const* data = nullptr;
  std::uint64_t bytes = 0;
  std::uint64_t offset = 0;  // of data, in the file's data section

  /// The type as files call it.
  char const* type_name() const { return detail::safetensors_types[static_cast<int>(type)].name; }

  /// The elements where they lie. Fails unless they are stored as T (float, f16, bf16, std::int32_t...), Rank is the tensor's, and the
  /// data lies at a multiple of T's alignment: true where the file was mapped, since writers align headers to 8 bytes.
  template <class T, int Rank>
  tensor_view<T const, Rank> view() const {
    static_assert(Rank >= 1 && Rank <= most_rank);
    constexpr auto wanted = detail::safetensors_type_of<T>;
    if (type != wanted)
      (detail::message() << "safetensors: tensor " << detail::quoted(name).text << ": dtype is " << type_name() << ", expected "
                         << detail::safetensors_types[static_cast<int>(wanted)].name)
          .fail();
    if (rank != Rank)
      detail::safetensors_fail(name, "rank", static_cast<std::uint64_t>(rank), "that of the view,", static_cast<std::uint64_t>(Rank));
    auto const misaligned = bytes > 0 ? reinterpret_cast<std::uintptr_t>(data) % alignof(T) : 0;
    if (misaligned != 0)
      detail::safetensors_fail(name, "the data's misalignment", misaligned, "0: map the file, or read it to an aligned address");
    shape<Rank> s{};
    for (int d = 0; d < Rank; ++d) s.extents[d] = extents[d];
    return {reinterpret_cast<T const*>(data), s};
  }
};

/// A key and a text of the file's metadata.
struct safetensors_metadata {
  std::string_view key, value;
};

/// A safetensors file in memory: see the top of formats/safetensors.hpp.
class safetensors_file {
 public:
  /// Reads the `size` bytes at `bytes`, which stay where they are as long as the file or anything got from it is used.
  safetensors_file(void const* bytes, std::size_t size) {
    auto const* const all = static_cast<std::byte const*>(bytes);
    std::string_view const header = find_header(all, size);
    bool const has_escapes = header.find('\\') != std::string_view::npos;
    if (has_escapes) text_ = std::make_unique<char[]>(header.size());
    auto const walk_all = [&](bool keep) {
      detail::json_reader in("safetensors", header, 8, text_.get());
      walk(in, keep);
    };
    walk_all(false);
    values_ = std::make_unique<safetensors_metadata[]>(static_cast<std::size_t>(value_count_));
    tensors_ = std::make_unique<safetensors_tensor[]>(static_cast<std::size_t>(tensor_count_));
    walk_all(true);
    check_places(all + 8 + header.size(), size - 8 - header.size());
    detail::sort_by_name(values_.get(), value_count_, [](safetensors_metadata const& v) { return v.key; }, "safetensors", "metadata");
    detail::sort_by_name(tensors_.get(), tensor_count_, [](safetensors_tensor const& t) { return t.name; }, "safetensors", "tensor");
  }

  /// All metadata and all tensors, sorted by name.
  std::span<safetensors_metadata const> metadata() const { return {values_.get(), static_cast<std::size_t>(value_count_)}; }
  std::span<safetensors_tensor const> tensors() const { return {tensors_.get(), static_cast<std::size_t>(tensor_count_)}; }

  /// The text of a metadata key, or `otherwise` if it is absent.
  std::string_view metadata(std::string_view key, std::string_view otherwise) const {
    auto const* const found = detail::find_name(values_.get(), value_count_, key, [](safetensors_metadata const& v) { return v.key; });
    return found != nullptr ? found->value : otherwise;
  }
  /// A tensor, or nullptr.
  safetensors_tensor const* find_tensor(std::string_view name) const {
    return detail::find_name(tensors_.get(), tensor_count_, name, [](safetensors_tensor const& t) { return t.name; });
  }
  /// A tensor. It is an error if it is absent.
  safetensors_tensor const& tensor(std::string_view name) const {
    safetensors_tensor const* const found = find_tensor(name);
    if (found == nullptr)
      (detail::message() << "safetensors: tensor " << detail::quoted(name).text << " is absent, expected in this file").fail();
    return *found;
  }

 private:
  static std::string_view find_header(std::byte const* bytes, std::size_t size) {
    constexpr std::uint64_t most = 100'000'000;
    auto const wrong = [](char const* what, std::uint64_t was, char const* expectation, std::uint64_t bound) {
      (detail::message() << "safetensors: " << what << " is " << was << ", expected " << expectation << " " << bound).fail();
    };
    if (size < 8) wrong("the file's size", size, "at least", 8);
    std::uint64_t header;
    std::memcpy(&header, bytes, 8);
    if (header > most) wrong("the header's size", header, "at most", most);
    if (header > size - 8) wrong("the header's size", header, "at most the bytes that are left of the file,", size - 8);
    return {reinterpret_cast<char const*>(bytes + 8), static_cast<std::size_t>(header)};
  }

  /// Reads the header: the first time to count, the second time to keep.
  void walk(detail::json_reader& in, bool keep) {
    value_count_ = tensor_count_ = 0;
    bool has_metadata = false;
    if (in.ended() || in.peek() != '{' || in.at() != 0) in.fail("'{' as the header's first byte");
    in.take('{', "'{'");
    for (bool first = true; in.more(first, '}', "',' or '}'"); first = false) {
      std::string_view const name = in.string();
      in.take(':', "':'");
      if (name != "__metadata__") {
        read_tensor(in, name, keep);
        continue;
      }
      if (has_metadata) in.fail("\"__metadata__\" once");
      has_metadata = true;
      read_metadata(in, keep);
    }
    in.peek();
    if (!in.ended()) in.fail("white space up to the header's end");
  }
  void read_metadata(detail::json_reader& in, bool keep) {
    in.take('{', "'{'");
    for (bool first = true; in.more(first, '}', "',' or '}'"); first = false) {
      std::string_view const key = in.string();
      in.take(':', "':'");
      std::string_view const value = in.string();
      if (keep) values_[static_cast<std::size_t>(value_count_)] = {key, value};
      ++value_count_;
    }
  }
  void read_tensor(detail::json_reader& in, std::string_view name, bool keep) {
    safetensors_tensor t;
    t.name = name;
    std::uint64_t end = 0;
    bool has_type = false, has_shape = false, has_offsets = false;
    auto const once = [&](bool& has) {
      if (has) in.fail("each of dtype, shape and data_offsets once");
      has = true;
    };
    in.take('{', "'{'");
    for (bool first = true; in.more(first, '}', "',' or '}'"); first = false) {
      std::string_view const key = in.string();
      in.take(':', "':'");
      if (key == "dtype") {
        once(has_type);
        t.type = read_type(in);
      } else if (key == "shape") {
        once(has_shape);
        read_shape(in, t);
      } else if (key == "data_offsets") {
        once(has_offsets);
        in.take('[', "'['");
        t.offset = in.number();
        in.take(',', "','");
        end = in.number();
        in.take(']', "']'");
      } else {
        in.fail("the value of dtype, shape or data_offsets, and of no other key");
      }
    }
    if (!has_type || !has_shape || !has_offsets) in.fail("dtype, shape and data_offsets before");
    check_size(t, end);
    if (keep) tensors_[static_cast<std::size_t>(tensor_count_)] = t;
    ++tensor_count_;
  }
  static safetensors_type read_type(detail::json_reader& in) {
    std::string_view const name = in.string();
    for (std::size_t i = 0; i < std::size(detail::safetensors_types); ++i)
      if (name == detail::safetensors_types[i].name) return static_cast<safetensors_type>(i);
    in.fail("a type that tern knows before");
  }
  static void read_shape(detail::json_reader& in, safetensors_tensor& t) {
    in.take('[', "'['");
    for (bool first = true; in.more(first, ']', "',' or ']'"); first = false) {
      if (t.rank == safetensors_tensor::most_rank) in.fail("at most 8 extents");
      t.extents[t.rank++] = static_cast<index>(in.number());
    }
  }
  static void check_size(safetensors_tensor& t, std::uint64_t end) {
    auto const bits = static_cast<std::uint64_t>(detail::safetensors_types[static_cast<int>(t.type)].bits);
    std::uint64_t const most = static_cast<std::uint64_t>(std::numeric_limits<index>::max()) / bits;
    std::uint64_t elements = 1;
    for (int d = 0; d < t.rank; ++d) {
      auto const extent = static_cast<std::uint64_t>(t.extents[d]);
      if (extent != 0 && elements > most / extent) detail::safetensors_fail(t.name, "an extent", extent, "fewer than 2^63 bits in all");
      elements *= extent;
    }
    if (elements * bits % 8 != 0) detail::safetensors_fail(t.name, "the number of bits", elements * bits, "a multiple of 8");
    t.bytes = elements * bits / 8;
    if (end < t.offset) detail::safetensors_fail(t.name, "the end of data_offsets", end, "at least their begin,", t.offset);
    if (end - t.offset != t.bytes)
      detail::safetensors_fail(t.name, "the length of data_offsets", end - t.offset, "what dtype and shape need,", t.bytes);
  }

  /// The tensors cover the data section in some order: each begins where another ends.
  void check_places(std::byte const* data, std::size_t size) {
    detail::heap_sort(tensors_.get(), tensor_count_, [](safetensors_tensor const& a, safetensors_tensor const& b) {
      return a.offset != b.offset ? a.offset < b.offset : a.bytes < b.bytes;
    });
    std::uint64_t end = 0;
    for (index i = 0; i < tensor_count_; ++i) {
      safetensors_tensor& t = tensors_[static_cast<std::size_t>(i)];
      if (t.offset != end) detail::safetensors_fail(t.name, "the begin of data_offsets", t.offset, "the end of the tensor before it,", end);
      if (t.bytes > size - end)
        detail::safetensors_fail(t.name, "the end of data_offsets", end + t.bytes, "at most the bytes of data,", size);
      t.data = data + t.offset;
      end += t.bytes;
    }
    if (end != size)
      (detail::message() << "safetensors: the data's size is " << size << ", expected the end of the last tensor = " << end).fail();
  }

  index value_count_ = 0;
  index tensor_count_ = 0;
  std::unique_ptr<char[]> text_;
  std::unique_ptr<safetensors_metadata[]> values_;
  std::unique_ptr<safetensors_tensor[]> tensors_;
};

}  // namespace TERN_ABI
}  // namespace tern
