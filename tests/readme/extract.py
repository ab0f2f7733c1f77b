#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""extract.py README FOLDER: writes the README's C++ blocks, as they stand, to FOLDER/0.inc, 1.inc, ... A block that begins with a file's
name in a comment becomes that file, one with a main function <number>.cpp."""

import pathlib
import re
import sys

text = pathlib.Path(sys.argv[1]).read_text()
folder = pathlib.Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
blocks = re.findall(r"^```cpp\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
for number, block in enumerate(blocks):
    file = re.match(r"// ([\w.]+)\n", block)
    name = file[1] if file else f"{number}.cpp" if "int main(" in block else f"{number}.inc"
    (folder / name).write_text(block)
expected = int(pathlib.Path(__file__).with_name("snippets.cpp").read_text().split("// blocks: ")[1].split()[0])
if len(blocks) != expected:
    sys.exit(f"README.md has {len(blocks)} C++ blocks, tests/readme/snippets.cpp knows {expected}")
