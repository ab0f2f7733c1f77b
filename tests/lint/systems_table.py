#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The README's tables of published systems, made from the headers: systems_table.py [--write]. Each folder `systems` has a table and
each header there a row: its name, the first sentence of its file block, the tests and the benchmarks that include it. Without
--write it ends with 1 when a table in the README is another one, or when a system has no test."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parents[2].resolve()
BEGIN, END = "<!-- systems of {}: made by tests/lint/systems_table.py -->", "<!-- systems: end -->"


def including(folder, header):
    line = re.compile(rf"#include <tern/{re.escape(header)}>")
    return [p for p in sorted((ROOT / folder).rglob("*.[ch]pp")) if line.search(p.read_text())]


def linked(paths):
    return " ".join(f"[{p.name}]({p.relative_to(ROOT).as_posix()})" for p in paths)


def first_sentence(path):
    block = []
    for line in path.read_text().splitlines()[3:]:
        if not line.startswith("///") or line == "///":
            break
        block.append(line.removeprefix("///").strip())
    return re.split(r"(?<=[a-z0-9)])\.(?= [A-Z]|$)", " ".join(block))[0].rstrip(".:")


def table(folder):
    rows, untested = ["| system | what it is | test | benchmark |", "| --- | --- | --- | --- |"], []
    for path in sorted(folder.glob("*.hpp")):
        header = path.relative_to(ROOT / "include" / "tern").as_posix()
        tests = including("tests", header)
        if not tests:
            untested.append(header)
        rows.append(f"| [{path.stem}](include/tern/{header}) | {first_sentence(path)} | {linked(tests)} | {linked(including('bench', header))} |")
    return "\n".join(rows), untested


def main():
    readme = ROOT / "README.md"
    text = readme.read_text()
    wanted, untested = text, []
    for folder in sorted((ROOT / "include" / "tern").rglob("systems")):
        begin = BEGIN.format(folder.parent.name)
        before, rest = wanted.split(begin)
        made, without = table(folder)
        wanted = f"{before}{begin}\n{made}\n{END}{rest.split(END, 1)[1]}"
        untested += without
    if "--write" in sys.argv[1:]:
        readme.write_text(wanted)
    elif wanted != text:
        print("README.md: a table of systems is not what the headers say; run tests/lint/systems_table.py --write")
        return 1
    for header in untested:
        print(f"{header}: no test includes it")
    return 1 if untested else 0


if __name__ == "__main__":
    sys.exit(main())
