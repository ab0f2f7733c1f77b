// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/gguf.hpp
/// Reads GGUF files (versions 2 and 3, little-endian), the format of llama.cpp's models, where they lie in memory:
///
///     tern::gguf_file file(bytes, size);                     // mapped or read by the caller, who keeps it alive
///     auto layers = file.get<tern::index>("llama.block_count");
///     tern::gguf_tensor w = file.tensor("blk.0.attn_q.weight");
///
/// The constructor checks the whole file before a byte of it is trusted: counts against the file's size, lengths, nesting,
/// types, alignment, extents against overflow, duplicate names, and that every tensor's bytes lie inside the data section
/// and overlap no other's. What is wrong is a `tern::error` with the place, the value and the expectation. Afterwards
/// nothing can be out of bounds. A tensor whose type is unknown here is an error at once, since its size cannot be checked.
///
/// Memory: one sorted index of names; strings, arrays and tensors stay where they are. Cost: O(size of header * log).
/// Source: the GGUF specification, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

#include <tern/formats/gguf_tensor.hpp>

#include <memory>
#include <span>

namespace tern {

namespace detail {
inline namespace TERN_ABI {

/// Walks over the bytes of a file, none of them trusted. `part` and `item` say where it is, for messages.
class gguf_reader {
 public:
  gguf_reader(std::byte const* bytes, std::size_t size) : bytes_(bytes), size_(size) {}

  char const* part = "header";
  std::uint64_t item = none;
  static constexpr std::uint64_t none = ~std::uint64_t{0};

  std::size_t at() const { return at_; }
  std::size_t left() const { return size_ - at_; }
  std::size_t size() const { return size_; }
  std::byte const* here() const { return bytes_ + at_; }

  /// Fails with "gguf: metadata 7: `what` at byte 1234 is `was`, expected `expectation`".
  [[noreturn]] TERN_COLD void fail(char const* what, std::uint64_t was, char const* expectation) const {
    message m;
    place(m) << what << " at byte " << at_ << " is ";
    (m << was << ", expected " << expectation).fail();
  }
  void skip(std::uint64_t bytes, char const* what) {
    if (bytes > left()) fail_end(what, bytes);
    at_ += bytes;
  }
  template <class T>
  T number(char const* what) {
    std::byte const* const p = here();
    skip(sizeof(T), what);
    return gguf_load<T>(p);
  }
  std::string_view string(char const* what) {
    auto const size = number<std::uint64_t>(what);
    char const* const text = reinterpret_cast<char const*>(here());
    skip(size, what);
    return {text, size};
  }
  /// A count of things that take at least `least` bytes each.
  std::uint64_t count(char const* what, std::size_t least) {
    auto const n = number<std::uint64_t>(what);
    if (n > left() / least) fail_end(what, n);
    return n;
  }
  gguf_value_type value_type(char const* what) {
    auto const type = number<std::uint32_t>(what);
    if (type > static_cast<std::uint32_t>(gguf_value_type::f64)) fail(what, type, "at most 12");
    return static_cast<gguf_value_type>(type);
  }
  /// Passes over a value and all that it contains.
  void value(gguf_value_type type, int depth = 0) {
    if (type == gguf_value_type::string) {
      string("a string");
    } else if (type == gguf_value_type::array) {
      if (depth == max_depth) fail("depth of nested arrays", static_cast<std::uint64_t>(depth) + 1, "at most 4");
      auto const inner = value_type("an array's type");
      std::size_t const size = gguf_value_size(inner);
      auto const n = count("an array's length", size != 0 ? size : inner == gguf_value_type::string ? 8 : 12);
      if (size != 0 && inner != gguf_value_type::boolean) return skip(n * size, "an array");
      for (std::uint64_t i = 0; i < n; ++i) value(inner, depth + 1);
    } else {
      if (type == gguf_value_type::boolean && left() > 0 && gguf_load<std::uint8_t>(here()) > 1)
        fail("a bool", gguf_load<std::uint8_t>(here()), "0 or 1");
      skip(gguf_value_size(type), "a value");
    }
  }

 private:
  static constexpr int max_depth = 4;

  message& place(message& m) const {
    m << "gguf: " << part;
    if (item != none) m << " " << item;
    return m << ": ";
  }

  [[noreturn]] TERN_COLD void fail_end(char const* what, std::uint64_t was) const {
    message m;
    place(m) << "the size of " << what << " at byte " << at_ << " is ";
    m << was << ", expected what fits into the " << left() << " bytes that are left of the file";
    m.fail();
  }

  std::byte const* bytes_;
  std::size_t size_;
  std::size_t at_ = 0;
};

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// A GGUF file in memory: see the top of formats/gguf.hpp.
class gguf_file {
 public:
  /// Reads the `size` bytes at `bytes`, which stay where they are as long as the file or anything got from it is used.
  gguf_file(void const* bytes, std::size_t size) {
    detail::gguf_reader in(static_cast<std::byte const*>(bytes), size);
    if (auto const magic = in.number<std::uint32_t>("magic"); magic != 0x46554747) in.fail("magic", magic, "\"GGUF\" = 1179993927");
    version_ = in.number<std::uint32_t>("version");
    if (version_ != 2 && version_ != 3) in.fail("version", version_, "2 or 3, in little-endian order");
    tensor_count_ = static_cast<index>(in.count("number of tensors", 32));
    value_count_ = static_cast<index>(in.count("number of metadata values", 13));
    read_metadata(in);
    read_tensors(in);
    check_places(static_cast<std::byte const*>(bytes), in.at(), size);
    detail::sort_by_name(values_.get(), value_count_, [](gguf_value const& v) { return v.key(); }, "gguf", "metadata");
    detail::sort_by_name(tensors_.get(), tensor_count_, [](gguf_tensor const& t) { return t.name; }, "gguf", "tensor");
  }

  std::uint32_t version() const { return version_; }
  std::size_t alignment() const { return alignment_; }
  /// All metadata and all tensors, sorted by name.
  std::span<gguf_value const> metadata() const { return {values_.get(), static_cast<std::size_t>(value_count_)}; }
  std::span<gguf_tensor const> tensors() const { return {tensors_.get(), static_cast<std::size_t>(tensor_count_)}; }

  /// A metadata value, or nullptr.
  gguf_value const* find(std::string_view key) const {
    return detail::find_name(values_.get(), value_count_, key, [](gguf_value const& v) { return v.key(); });
  }
  /// A metadata value as an arithmetic type, `std::string_view` or `gguf_array`. It is an error if it is absent.
  template <class T>
  T get(std::string_view key) const {
    gguf_value const* const value = find(key);
    if (value == nullptr) detail::gguf_fail("metadata", key, "is absent, expected in this file");
    return value->template as<T>();
  }
  /// The same, or `otherwise` if it is absent.
  template <class T>
  T get(std::string_view key, T otherwise) const {
    gguf_value const* const value = find(key);
    return value != nullptr ? value->template as<T>() : otherwise;
  }
  /// A tensor, or nullptr.
  gguf_tensor const* find_tensor(std::string_view name) const {
    return detail::find_name(tensors_.get(), tensor_count_, name, [](gguf_tensor const& t) { return t.name; });
  }
  /// A tensor. It is an error if it is absent.
  gguf_tensor const& tensor(std::string_view name) const {
    gguf_tensor const* const found = find_tensor(name);
    if (found == nullptr) detail::gguf_fail("tensor", name, "is absent, expected in this file");
    return *found;
  }

 private:
  void read_metadata(detail::gguf_reader& in) {
    in.part = "metadata";
    values_ = std::make_unique<gguf_value[]>(static_cast<std::size_t>(value_count_));
    for (index i = 0; i < value_count_; ++i) {
      in.item = static_cast<std::uint64_t>(i);
      auto const key = in.string("the key");
      auto const type = in.value_type("type");
      values_[static_cast<std::size_t>(i)] = gguf_value(key, type, in.here());
      in.value(type);
      if (key != "general.alignment") continue;
      alignment_ = values_[static_cast<std::size_t>(i)].as<std::uint32_t>();
      if (!std::has_single_bit(alignment_) || alignment_ < 8) in.fail("general.alignment", alignment_, "a power of two of at least 8");
    }
  }

  /// Reads the list of tensors; `bytes` is what each takes; `data` is still null.
  void read_tensors(detail::gguf_reader& in) {
    in.part = "tensor";
    tensors_ = std::make_unique<gguf_tensor[]>(static_cast<std::size_t>(tensor_count_));
    for (index i = 0; i < tensor_count_; ++i) {
      in.item = static_cast<std::uint64_t>(i);
      gguf_tensor& t = tensors_[static_cast<std::size_t>(i)];
      t.name = in.string("the name");
      auto const rank = in.number<std::uint32_t>("rank");
      if (rank < 1 || rank > 4) in.fail("rank", rank, "1 to 4");
      t.rank = static_cast<int>(rank);
      std::uint64_t elements = 1;
      for (std::uint32_t d = 0; d < rank; ++d) {
        auto const extent = in.number<std::uint64_t>("extent");
        constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<index>::max());
        if (extent == 0 || extent > most / elements) in.fail("extent", extent, "at least 1, and fewer than 2^63 elements in all");
        elements *= extent;
        t.extents[d] = static_cast<index>(extent);
      }
      auto const type = in.number<std::uint32_t>("type");
      t.type = static_cast<gguf_type>(type);
      weight_info const block = info(t.type);
      if (block.elements == 0) in.fail("type", type, "a type that tern knows");
      if (t.extents[0] % block.elements != 0)
        in.fail("first extent", static_cast<std::uint64_t>(t.extents[0]), "a multiple of its type's block");
      std::uint64_t const blocks = elements / static_cast<std::uint64_t>(block.elements);
      if (blocks > in.size() / static_cast<std::uint64_t>(block.bytes)) in.fail("number of blocks", blocks, "what fits into the file");
      t.bytes = blocks * static_cast<std::uint64_t>(block.bytes);
      t.offset = in.number<std::uint64_t>("offset");
      if (t.offset % alignment_ != 0) in.fail("offset", t.offset, "a multiple of the alignment");
    }
  }

  /// Every tensor lies inside the data section, which starts at the first multiple of the alignment, and on no other.
  void check_places(std::byte const* bytes, std::size_t header, std::size_t size) {
    std::size_t const gap = (alignment_ - header % alignment_) % alignment_;
    std::size_t const room = gap < size - header ? size - header - gap : 0;
    auto const tensors = std::span(tensors_.get(), static_cast<std::size_t>(tensor_count_));
    for (gguf_tensor& t : tensors) {
      if (t.bytes > room) detail::gguf_fail("tensor", t.name, ".bytes", t.bytes, "at most the bytes of the data section", room);
      if (t.offset > room - t.bytes) detail::gguf_fail("tensor", t.name, ".offset", t.offset, "at most", room - t.bytes);
      t.data = bytes + header + gap + t.offset;
    }
    detail::heap_sort(tensors.data(), tensor_count_, [](gguf_tensor const& a, gguf_tensor const& b) { return a.offset < b.offset; });
    for (std::size_t i = 1; i < tensors.size(); ++i) {
      std::uint64_t const end = tensors[i - 1].offset + tensors[i - 1].bytes;
      if (tensors[i].offset < end)
        detail::gguf_fail("tensor", tensors[i].name, ".offset", tensors[i].offset, "at least the end of the tensor before it,", end);
    }
  }

  std::uint32_t version_ = 0;
  std::size_t alignment_ = 32;
  index value_count_ = 0;
  index tensor_count_ = 0;
  std::unique_ptr<gguf_value[]> values_;
  std::unique_ptr<gguf_tensor[]> tensors_;
};

}  // namespace TERN_ABI
}  // namespace tern
