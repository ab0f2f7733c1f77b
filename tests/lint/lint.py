#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The rules of the house that a compiler does not know. Usage: lint.py [root]. Each rule is one function below; it yields
(file, line, message). The script ends with 1 when any rule was broken, and with the list."""

import pathlib
import re
import sys

ROOT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[2]).resolve()
INCLUDE = ROOT / "include" / "tern"
FOLDERS = ["core", "simd", "formats", "pointwise", "fft", "matmul", "conv", "quantize", "attention", "tokens", "cache", "decode"]  # each includes only from those before it
KERNEL_STD = {"cstddef", "cstdint", "type_traits", "concepts", "bit", "limits"}  # no weak symbol of theirs holds code
CORE_STD = KERNEL_STD | {"atomic", "memory", "new", "stdexcept", "system_error", "thread"}
FILE_READERS = {  # not kernels: they read files
    "formats/" + name for name in ("file_index.hpp", "gguf.hpp", "gguf_tensor.hpp", "gguf_value.hpp", "json.hpp", "safetensors.hpp")
}
FILE_READER_STD = KERNEL_STD | {"cstring", "memory", "span", "string_view", "utility"}
OFF_LINE_STD = KERNEL_STD | {"algorithm", "cmath", "functional", "mutex", "numeric", "vector"}  # quantize/: runs off line
ADAPTERS = {"core/eigen_executor.hpp", "core/openmp_executor.hpp", "core/tbb_executor.hpp", "quantize/additive_codebook_fit.hpp", "cache/principal_components.hpp"}
INTRINSICS = re.compile(r"\bxsimd\b|[a-z]mmintrin|arm_neon|\b_mm\d*_|\b__m(128|256|512)|\bv(ld|st)1q?_|\b(u?int|float)\d+x\d+_t\b|cpuid\.h")
MAX_LINES = 400


def files(*patterns):
    skipped = {"build", ".git", ".cache"}
    for pattern in patterns:
        for path in sorted(ROOT.rglob(pattern)):
            parts = path.relative_to(ROOT).parts
            if path.is_file() and not any(p in skipped or p.startswith("build-") for p in parts[:-1]):
                yield path


def headers():
    for path in sorted(INCLUDE.rglob("*.hpp")):
        yield path, path.relative_to(INCLUDE).as_posix(), path.read_text().splitlines()


def folder_of(name):
    return name.split("/")[0] if "/" in name else None


def code(line):
    return re.sub(r"//.*", "", line)


def intrinsics_only_in_simd():
    for path, name, lines in headers():
        if folder_of(name) == "simd":
            continue
        for n, line in enumerate(lines, 1):
            if INTRINSICS.search(code(line)) and not (folder_of(name) == "core" and "<cpuid.h>" in line):
                yield path, n, "xsimd and intrinsics belong in include/tern/simd/"


def light_includes():
    for path, name, lines in headers():
        if name in ADAPTERS:
            continue
        folder = folder_of(name)
        allowed = CORE_STD if folder == "core" else FILE_READER_STD if name in FILE_READERS else OFF_LINE_STD if folder == "quantize" else KERNEL_STD
        for n, line in enumerate(lines, 1):
            found = re.match(r"\s*#\s*include\s*([<\"])([^>\"]+)", line)
            if not found or found[2].startswith("tern/"):
                continue
            intrinsic = folder == "simd" and ("intrin" in found[2] or found[2].startswith(("xsimd/", "arm_")))
            system = folder == "core" and found[2] in {"cpuid.h", "sys/auxv.h", "asm/hwcap.h", "sys/mman.h"}
            if found[1] == '"':
                yield path, n, "include as <tern/...>"
            elif found[2] not in allowed and not intrinsic and not system and name != "dispatch.hpp":
                yield path, n, f"<{found[2]}> is not among the headers allowed here: {', '.join(sorted(allowed))}"


def folder_order():
    for path, name, lines in headers():
        folder = folder_of(name)
        if folder is None:
            continue
        if folder not in FOLDERS:
            yield path, 1, f"the folder {folder} has no place in the order: {', '.join(FOLDERS)}"
            continue
        for n, line in enumerate(lines, 1):
            found = re.match(r"\s*#\s*include\s*<tern/(?:([a-z_]+)/)?", line)
            if found and (found[1] is None or FOLDERS.index(found[1]) > FOLDERS.index(folder)):
                yield path, n, f"{folder}/ includes only from {', '.join(FOLDERS[: FOLDERS.index(folder) + 1])}"


def short_files():
    for path in files("*.hpp", "*.cpp", "*.py", "*.cmake", "CMakeLists.txt"):
        count = len(path.read_text().splitlines())
        if count > MAX_LINES and path.parent.name != "vectors":
            yield path, count, f"{count} lines, at most {MAX_LINES}"


def architecture_in_names():
    """Outside of core, code sits in `inline namespace TERN_ABI`, or is TERN_INLINE throughout."""
    for path, name, lines in headers():
        if folder_of(name) in (None, "core") or any("inline namespace TERN_ABI" in line for line in lines):
            continue
        for n, line in enumerate(lines, 1):
            body = re.search(r"\)\s*(const)?\s*(noexcept)?\s*(->[^{]*)?\{", code(line))
            control = re.match(r"\s*(}?\s*(if|for|while|switch|else|do)\b|namespace|.*\[[&=\w, ]*\]\s*\()", line)
            nearby = " ".join(lines[max(0, n - 8) : n])
            if body and not control and not re.search(r"TERN_INLINE|consteval|requires", nearby):
                yield path, n, "put it in `inline namespace TERN_ABI`, or make it TERN_INLINE"


def public_names(lines):
    """(name, line number, whether a `///` line stands above) for each declaration outside of namespaces called detail."""
    declared = re.compile(
        r"^(?:\[\[nodiscard\]\]\s*)?(?:(?:TERN_INLINE|TERN_COLD|constexpr|inline|static)\s+)*"
        r"(?:(struct|class|concept|using|enum class|enum)\s+(?:alignas\([^)]*\)\s*)?(\w+)|[\w:<>,&* ]+?[\s&*](\w+)\s*(?:\(|=|\{))"
    )
    hidden = 0
    for n, line in enumerate(lines):
        opened = re.match(r"(inline )?namespace ([\w:]+)\s*\{", line)
        if opened:
            hidden += "detail" in opened[2]
            continue
        if re.match(r"\}.*//\s*namespace .*detail", line):
            hidden -= 1
            continue
        if hidden or not line or line[0] in " }#/" or line.startswith(("template", "static_assert", "//", "requires", "extern", "namespace", "public:")):
            continue
        found = declared.match(line)
        if not found or re.search(r"^(struct|class) \w+;", line) or re.search(r"^\w+\(.*->", line):
            continue
        first = n
        while first > 0 and re.match(r"(template|\s+requires|  \s*|\[\[)", lines[first - 1]) and not lines[first - 1].startswith("  }"):
            first -= 1
        if lines[first].startswith("template <>") or re.search(r"<.*>\s*(\{|:)", line) and found[1]:
            continue
        yield found[2] or found[3], n + 1, first > 0 and lines[first - 1].lstrip().startswith("///")


def docstrings():
    """Each public name has a `///` line at one of its declarations in the folder, or is listed in the block at the file's top."""
    documented = {(path.parent, what) for path, _, lines in headers() for what, _, is_documented in public_names(lines) if is_documented}
    for path, _, lines in headers():
        top = "\n".join(line for line in lines[3 : next((n for n, line in enumerate(lines) if n > 2 and not line.startswith("///")), 3)])
        documented |= {(path.parent, word) for word in re.findall(r"\w+", top)}
        for what, n, _ in public_names(lines):
            if (path.parent, what) not in documented and not what.endswith("_fn"):
                documented.add((path.parent, what))
                yield path, n, f"`{what}` has no `///` line"


def tests_share_stems():
    """A header has a test of its name, or another test uses what it offers. One of aliases alone needs none."""
    tests = {path: path.read_text() for path in sorted((ROOT / "tests").rglob("*.cpp"))}
    stems = {path.name.removesuffix("_test.cpp") for path in tests}
    words = {word for path, text in tests.items() if "oracle" not in path.parts for word in re.findall(r"\w+", text)}
    for path, name, lines in headers():
        public = {what.removesuffix("_fn") for what, n, _ in public_names(lines) if not lines[n - 1].startswith("using ")}
        if path.stem not in stems and public and not public & words:
            yield path, 1, f"no {path.stem}_test.cpp, and no other test names any of {', '.join(sorted(public))}"


def licence_line():
    for path in files("*.hpp", "*.cpp", "*.cmake", "*.cmake.in", "CMakeLists.txt", "*.py", "*.sh", "run"):
        head = path.read_text().splitlines()[:2]
        if not any("SPDX-License-Identifier: Apache-2.0" in line for line in head):
            yield path, 1, "the first line is `SPDX-License-Identifier: Apache-2.0`"


def file_blocks():
    for path, name, lines in headers():
        if len(lines) < 3 or lines[1] != "#pragma once":
            yield path, 2, "the second line is `#pragma once`"
        elif not re.match(rf"/// @file (include/)?(tern/)?{re.escape(name)}$", lines[2]):
            yield path, 3, f"the third line is `/// @file {name}`"
        for n, line in enumerate(lines, 1):
            if re.match(r"using namespace", line):
                yield path, n, "no using-directives in headers"


def nothing_left_over():
    words = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
    machine = re.compile(r"(^|[\s\"'=(:])/(work|root|home|tmp)/")
    for path in files("*.hpp", "*.cpp", "*.cmake", "*.in", "CMakeLists.txt", "*.py", "*.md", "*.json", "run"):
        for n, line in enumerate(path.read_text().splitlines(), 1):
            if words.search(line):
                yield path, n, "finish it, or write an issue"
            if machine.search(line):
                yield path, n, "a path of one machine"


RULES = [
    intrinsics_only_in_simd,
    light_includes,
    folder_order,
    short_files,
    architecture_in_names,
    docstrings,
    tests_share_stems,
    licence_line,
    file_blocks,
    nothing_left_over,
]


def main():
    broken = 0
    for rule in RULES:
        for path, line, message in rule():
            print(f"{path.relative_to(ROOT)}:{line}: {message} [{rule.__name__}]")
            broken += 1
    print(f"{len(RULES)} rules, {broken} breaches")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
