// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file core/given_once.hpp
/// Options of a call that may be given once: the second would silently take the place of the first.

#include <tern/core/config.hpp>

#include <type_traits>

namespace tern::detail {
inline namespace TERN_ABI {

template <class Option, class... Options>
inline constexpr int times_given = (0 + ... + int{std::is_same_v<Option, Options>});

/// `settings<A, B>::given_once<Options...>`: whether neither A nor B is among the options of a call twice. Options that add up, like
/// functions, are no settings.
template <class... Settings>
struct settings {
  template <class... Options>
  static constexpr bool given_once = ((times_given<Settings, Options...> <= 1) && ...);
};

}  // namespace TERN_ABI
}  // namespace tern::detail
