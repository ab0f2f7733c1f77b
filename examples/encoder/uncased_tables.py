#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes what BERT's uncased tokenizers need to know of characters, from Python's unicodedata:

    examples/encoder/uncased_tables.py classes > examples/encoder/uncased_classes.hpp
    examples/encoder/uncased_tables.py folds > examples/encoder/uncased_folds.hpp
"""
import sys
import unicodedata

HANGUL = range(0xAC00, 0xD7A4)  # decomposed by a formula


def characters():
    return (c for c in range(0x110000) if not 0xD800 <= c < 0xE000)


def category(c):
    return unicodedata.category(chr(c))


def fold(c):
    """Decomposed canonically, without marks, in lower case."""
    parts = [p for p in unicodedata.normalize("NFD", chr(c)) if unicodedata.category(p) != "Mn"]
    return [ord(low) for p in parts for low in p.lower()]


def ranges(wanted):
    found = []
    for c in characters():
        if not wanted(category(c)):
            continue
        if found and found[-1][1] == c - 1:
            found[-1][1] = c
        else:
            found.append([c, c])
    return found


def runs(pairs):
    """(first, count, step, to, to_step): first + i * step becomes to + i * to_step."""
    at = 0
    while at < len(pairs):
        best = (0, 0, 0)
        for step in (1, 2, 3):
            for to_step in (0, step):
                n = 1
                while at + n < len(pairs) and pairs[at + n] == (pairs[at][0] + n * step, pairs[at][1] + n * to_step):
                    n += 1
                best = max(best, (n, -step, -to_step))
        n, step, to_step = best
        yield pairs[at][0], n, -step, pairs[at][1], -to_step
        at += n


def write(what, declaration, rows):
    print(f"/// {what}\ninline constexpr {declaration} = {{")
    line = "   "
    for row in rows:
        cell = " {" + ", ".join(hex(x) if x > 9 else str(x) for x in row) + "},"
        if len(line) + len(cell) > 140:
            print(line)
            line = "   "
        line += cell
    print(line + "\n};")


HEADER = """// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/encoder/uncased_{name}.hpp
/// Made by uncased_tables.py from Python's unicodedata, Unicode {version}.

#include <cstdint>

namespace encoder::uncased {{

{types}
// clang-format off"""
CLASSES = """struct range {
  std::uint32_t first, last;
};
"""
FOLDS = """/// first + i step becomes to + i to_step, for i < count.
struct run {
  std::uint32_t first, count, step, to, to_step;
};
/// from becomes the others, the last of which may be 0 for none.
struct sequence {
  std::uint32_t from, first, second, third = 0;
};
"""


def write_classes():
    write("Categories Cc, Cf and Co.", "range controls[]", ranges(lambda k: k in ("Cc", "Cf", "Co")))
    write("Categories Zs, Zl and Zp.", "range spaces[]", ranges(lambda k: k[0] == "Z"))
    write("Categories P.", "range punctuation[]", ranges(lambda k: k[0] == "P"))
    write("Category Mn.", "range marks[]", ranges(lambda k: k == "Mn"))


def write_folds():
    folded = {c: fold(c) for c in characters() if c not in HANGUL and category(c) != "Mn"}
    folded = {c: to for c, to in folded.items() if to != [c]}
    single = sorted((c, to[0]) for c, to in folded.items() if len(to) == 1)
    write("What one character becomes: decomposed, without marks, in lower case.", "run folds[]", runs(single))
    several = sorted((c, *to) for c, to in folded.items() if len(to) > 1)
    write("The same, where it is more than one.", "sequence long_folds[]", several)


def main():
    name = sys.argv[1]
    types, tables = {"classes": (CLASSES, write_classes), "folds": (FOLDS, write_folds)}[name]
    print(HEADER.format(name=name, version=unicodedata.unidata_version, types=types))
    tables()
    print("// clang-format on\n\n}  // namespace encoder::uncased")


if __name__ == "__main__":
    main()
