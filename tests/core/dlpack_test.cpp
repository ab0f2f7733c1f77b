// SPDX-License-Identifier: Apache-2.0
#include <tern/core/dlpack.hpp>

#include <string>

#include "catch.hpp"

namespace tern::test {
namespace {

// dlpack.h as of version 1.0, written from its documentation.
struct DLDevice {
  int device_type;
  std::int32_t device_id;
};
struct DLDataType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};
struct DLTensor {
  void* data;
  DLDevice device;
  std::int32_t ndim;
  DLDataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;
  std::uint64_t byte_offset;
};
struct DLManagedTensor {
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensor*);
};
struct DLPackVersion {
  std::uint32_t major;
  std::uint32_t minor;
};
struct DLManagedTensorVersioned {
  DLPackVersion version;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned*);
  std::uint64_t flags;
  DLTensor dl_tensor;
};

struct fixture {
  float data[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  std::int64_t shape[2] = {2, 3};
  std::int64_t strides[2] = {1, 2};
  DLTensor tensor{data, {1, 0}, 2, {2, 32, 1}, shape, nullptr, 0};
};

template <class T, int Rank, class X>
std::string failure(X const& x) {
  try {
    (void)from_dlpack<T, Rank>(x);
  } catch (error const& e) {
    return e.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("a DLPack tensor is a view of the same memory") {
  fixture f;
  auto const row_major = from_dlpack<float const, 2>(f.tensor);
  CHECK(&row_major(1, 2) == &f.data[5]);
  f.tensor.strides = f.strides;
  CHECK(&from_dlpack<float, 2>(f.tensor)(1, 2) == &f.data[5]);
  CHECK(&from_dlpack<float, 2>(f.tensor)(1, 0) == &f.data[1]);
  f.tensor.byte_offset = 8;
  CHECK(from_dlpack<float, 2>(f.tensor).data() == &f.data[2]);
  f.shape[0] = 0;
  f.tensor.data = nullptr;
  f.tensor.byte_offset = 0;
  CHECK(from_dlpack<float, 2>(f.tensor).size() == 0);
}

TEST_CASE("managed tensors, versioned and not, are taken") {
  fixture f;
  DLManagedTensor const managed{f.tensor, nullptr, nullptr};
  CHECK(from_dlpack<float, 2>(managed).data() == f.data);
  DLManagedTensorVersioned versioned{{1, 3}, nullptr, nullptr, 0, f.tensor};
  CHECK(from_dlpack<float, 2>(versioned).data() == f.data);
  versioned.flags = 1;
  CHECK(from_dlpack<float const, 2>(versioned).data() == f.data);
  CHECK(failure<float, 2>(versioned) == "from_dlpack: flags & 1 (read-only) is 1, expected 0, or a view of const elements");
  versioned.version.major = 2;
  CHECK(failure<float const, 2>(versioned) == "from_dlpack: version.major is 2, expected 1");
}

TEST_CASE("element types are checked") {
  fixture f;
  f.tensor.dtype = {2, 16, 1};
  CHECK(failure<f16, 2>(f.tensor) == "accepted");
  CHECK(failure<bf16, 2>(f.tensor) == "from_dlpack: dtype.code is 2, expected 4 (bfloat)");
  CHECK(failure<float, 2>(f.tensor) == "from_dlpack: dtype.bits is 16, expected 8 * sizeof(T) = 32");
  f.tensor.dtype = {4, 16, 1};
  CHECK(failure<bf16 const, 2>(f.tensor) == "accepted");
  f.tensor.dtype = {0, 32, 1};
  CHECK(failure<std::int32_t, 2>(f.tensor) == "accepted");
  CHECK(failure<std::uint32_t, 2>(f.tensor) == "from_dlpack: dtype.code is 0, expected 1 (unsigned int)");
  f.tensor.dtype = {2, 32, 4};
  CHECK(failure<float, 2>(f.tensor) == "from_dlpack: dtype.lanes is 4, expected 1");
}

TEST_CASE("rank, device, memory and extents are checked") {
  fixture f;
  CHECK(failure<float, 3>(f.tensor) == "from_dlpack: ndim is 2, expected Rank = 3");
  f.tensor.device.device_type = 2;
  CHECK(failure<float, 2>(f.tensor) == "from_dlpack: device.device_type is 2, expected 1, 3 or 11 (memory of the host)");
  f.tensor.device.device_type = 1;
  f.tensor.byte_offset = 2;
  CHECK(failure<float, 2>(f.tensor) == "from_dlpack: (data + byte_offset) % alignof(T) is 2, expected 0");
  f.tensor.byte_offset = 0;
  f.shape[1] = -1;
  CHECK(failure<float, 2>(f.tensor) == "from_dlpack: shape[d] is -1, expected at least 0");
  f.shape[1] = 3;
  f.tensor.data = nullptr;
  CHECK(failure<float, 2>(f.tensor) == "from_dlpack: data is 0, expected not null");
}

}  // namespace tern::test
