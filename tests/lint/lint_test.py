#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Each lint rule, on a tree that breaks just that one: a rule that cannot fail proves nothing."""

import pathlib
import subprocess
import sys
import tempfile

LINT = pathlib.Path(__file__).with_name("lint.py")
HEAD = "// SPDX-License-Identifier: Apache-2.0\n#pragma once\n/// @file {}\n"
BODY = "namespace tern {\n/// Adds.\nTERN_INLINE int add(int a, int b) { return a + b; }\n}  // namespace tern\n"
TEST = "// SPDX-License-Identifier: Apache-2.0\n"
GOOD = {"include/tern/matmul/add.hpp": HEAD.format("matmul/add.hpp") + BODY, "tests/matmul/add_test.cpp": TEST}
HEADER = "include/tern/matmul/add.hpp"

BREAKS = {
    "intrinsics_only_in_simd": {HEADER: GOOD[HEADER] + "using t = __m256;\n"},
    "light_includes": {HEADER: GOOD[HEADER] + "#include <vector>\n"},
    "folder_order": {HEADER: GOOD[HEADER] + "#include <tern/attention/attention.hpp>\n"},
    "short_files": {HEADER: GOOD[HEADER] + "// more\n" * 400},
    "architecture_in_names": {HEADER: GOOD[HEADER].replace("TERN_INLINE", "inline")},
    "docstrings": {HEADER: GOOD[HEADER].replace("/// Adds.", "// Adds.")},
    "tests_share_stems": {"tests/matmul/add_test.cpp": None},
    "licence_line": {"tests/matmul/add_test.cpp": "int x;\n"},
    "file_blocks": {HEADER: GOOD[HEADER].replace("matmul/add.hpp", "matmul/sub.hpp")},
    "nothing_left_over": {HEADER: GOOD[HEADER] + "// TO" "DO\n"},
}


def lint(files):
    with tempfile.TemporaryDirectory() as root:
        for name, text in files.items():
            if text is not None:
                path = pathlib.Path(root, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        run = subprocess.run([sys.executable, str(LINT), root], capture_output=True, text=True)
        return run.returncode, run.stdout


def main():
    failures = 0
    code, out = lint(GOOD)
    if code != 0:
        failures += 1
        print(f"a clean tree is refused:\n{out}")
    for rule, change in BREAKS.items():
        code, out = lint({**GOOD, **change})
        if code == 0 or f"[{rule}]" not in out:
            failures += 1
            print(f"{rule} did not notice:\n{out}")
    print(f"{len(BREAKS)} rules tried, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
