// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file bench/long_traffic.hpp
/// Bytes that a long convolution moves between the cache of a core and what is behind it, counted, not measured: from the layout and the
/// towers that it has chosen, and the size of the second-level cache.
///
/// Counted are u, y, gates and spectra once, and the memory in which a transform lies each time that a pass goes through more of it than
/// the cache holds, a read and a write apart. A node of a tower whose numbers and spectrum fit the cache is split, multiplied and joined
/// there. Lines that are fetched to be overwritten are not counted, nor is what evicts others by chance.
///
/// The three-pass minimum is that of one transform of the whole padded length beyond cache: split from u to memory, from memory through the
/// product back to memory, joined from memory to y. Where blocks never leave the cache less is moved, and the ratio is below 1.

#include "machine.hpp"

#include <tern/conv/long_filter.hpp>

namespace tern::bench {

struct long_traffic {
  double planned = 0, three_passes = 0;  // bytes of one row

  /// gates: rows that are read beside u.
  long_traffic(tern::detail::long_filters const& f, int gates) {
    tern::detail::long_layout const& l = f.layout;
    double const rows = 4.0 * static_cast<double>((2 + gates) * l.n);
    index const padded = l.periodic() ? l.n : l.n + l.taps - 1;
    double const whole = 8.0 * static_cast<double>(tern::detail::shortest_tower((padded + 1) / 2).points());
    three_passes = rows + 5 * whole;  // the transform is written, read and written, and read; its spectrum is read
    planned = rows;
    if (l.folds > 0)
      add_circle(f.circle);
    else if (!l.direct)
      add_blocks(f);
  }

 private:
  static double cache() { return static_cast<double>(second_level_cache()); }
  static double share(tern::detail::tower_plan const& t) {
    index kept = 0;
    t.each_kept([&](index, index count) { kept += count; });
    return static_cast<double>(kept) / t.radix[0];
  }
  void add_circle(tern::detail::circle_plan const& c) {
    double const folded = 4.0 * static_cast<double>(c.floats()), work = 4.0 * static_cast<double>(c.work_floats());
    planned += folded;                                       // the spectrum
    if (2 * folded + work > cache()) planned += 4 * folded;  // written, read by the towers, written by them, read
    for (int p = 0; p <= c.folds; ++p) planned += moved(c.part[p]);
  }
  void add_blocks(tern::detail::long_filters const& f) {
    tern::detail::long_layout const& l = f.layout;
    double const spectrum = share(f.plan) * 4.0 * static_cast<double>(f.plan.floats());
    bool const near = 2 * spectrum <= cache();
    planned += near ? spectrum : static_cast<double>(l.blocks) * spectrum;
    if (!near) planned += 4.0 * static_cast<double>((l.blocks - 1) * (l.taps - 1));  // samples that two blocks read
    planned += static_cast<double>(l.blocks) * moved(f.plan);
  }
  /// Bytes of a transform's own memory.
  static double moved(tern::detail::tower_plan const& t) {
    double const bytes = share(t) * 4.0 * static_cast<double>(t.floats());
    if (2 * bytes <= cache()) return 0;
    double times = 4;
    for (int p = 1; p < t.passes; ++p)  // a node that is too large is split, and joined, by passes of their own
      if (2 * 8.0 * static_cast<double>(t.width(p) * simd::lanes) > cache()) times += 4;
    return times * bytes;
  }
};

}  // namespace tern::bench
