// SPDX-License-Identifier: Apache-2.0
// fails: tern: kv_cache takes a format of keys and one of values
#include <tern/cache/kv_cache.hpp>

#ifdef TERN_MUST_FAIL
using cache = tern::kv_cache<tern::formats::keys8>;
#else
using cache = tern::kv_cache<tern::formats::keys8, tern::formats::values8>;
#endif
tern::index bytes(cache const& c) { return c.bytes(); }
