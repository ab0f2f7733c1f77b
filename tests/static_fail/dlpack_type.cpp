// SPDX-License-Identifier: Apache-2.0
// fails: tern: DLPack has no element type for this T
#include <tern/core/dlpack.hpp>

struct tensor {
  void* data;
  struct {
    int device_type, device_id;
  } device;
  int ndim;
  struct {
    unsigned char code, bits;
    unsigned short lanes;
  } dtype;
  long *shape, *strides;
  unsigned long byte_offset;
};
struct pixel {
  char r, g, b;
};

void use(tensor const& t) {
#ifdef TERN_MUST_FAIL
  (void)tern::from_dlpack<pixel, 2>(t);
#else
  (void)tern::from_dlpack<float, 2>(t);
#endif
}
