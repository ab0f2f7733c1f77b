// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache.hpp
/// Caches of keys and values. Methods that shrink them are included one by one (tern/cache/methods/...).

#include <tern/cache/kv_cache.hpp>
#include <tern/cache/kv_tiers.hpp>
#include <tern/cache/rerotate.hpp>
#include <tern/cache/snapshot.hpp>
