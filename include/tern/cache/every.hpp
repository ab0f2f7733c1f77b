// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/every.hpp
/// When to shorten a cache that grows token by token: every so many tokens, so that what shortening costs is shared among them.
///
///     every due(128);
///     ...append a token to all layers...
///     if (due())                                           true after 128 tokens, 256, ...
///       for (layer...) snapkv(policy, cache, s, layer, last[layer].queries(), 1024);
///
/// Between two calls the cache holds up to 128 tokens more than its budget. A method that looks at queries takes those of
/// cache/recent_queries.hpp.
///
/// Source    the loop of kvpress's DecodingPress; "every step" is H2O's (arXiv:2306.14048) and TOVA's (arXiv:2401.06104).

#include <tern/core/error.hpp>

namespace tern {

/// See the top of this file.
class every {
 public:
  TERN_INLINE explicit every(index tokens) : tokens_(tokens) { detail::expect(tokens >= 1, "every", "tokens", tokens, "at least 1"); }
  /// Counts `count` more tokens; whether that many, or more, have come since it was last true.
  TERN_INLINE bool operator()(index count = 1) {
    detail::expect(count >= 0, "every", "count", count, "at least 0");
    waiting_ += count;
    if (waiting_ < tokens_) return false;
    waiting_ = 0;
    return true;
  }

 private:
  index tokens_, waiting_ = 0;
};

}  // namespace tern
