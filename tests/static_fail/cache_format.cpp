// SPDX-License-Identifier: Apache-2.0
// fails: tern: kv_cache stores float, f16, bf16, and of tern::formats q8_0, q4_0
#include <tern/cache/kv_cache.hpp>
#include <tern/formats/k_quants.hpp>

#ifdef TERN_MUST_FAIL
using format = tern::formats::q4_k;
#else
using format = tern::formats::q4_0;
#endif
tern::index bytes(tern::kv_cache<format> const& c) { return c.bytes(); }
