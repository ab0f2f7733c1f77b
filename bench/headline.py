#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The README's table of speeds: headline.py [--write] FOLDER runs FOLDER's benchmark binaries on a few workloads that stand for the
others, with one thread, and prints the table; --write puts it into the README.

FOLDER is where CMake puts the binaries: build/bench/bench, as the README builds them. Takes about ten minutes, on a machine that does
nothing else. Each time is the median of three repetitions. `times` is the median of the fastest peer, of those that were found when the
benchmarks were configured, over tern's: above 1, tern is faster.
"""

import argparse
import json
import pathlib
import sys
import tempfile
from types import SimpleNamespace

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from report import Report, UNITS, duration, groups_of, number, percent, read, run

README = pathlib.Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- speeds: made by bench/headline.py -->", "<!-- speeds: end -->"

WORKLOADS = {  # name -> what it is called
    "attention/prefill_f32_h32x8_n2048_d128_full": "Attention, prompt of 2048, f32",
    "attention/prefill_f32_h32x8_n2048_d128_causal": "the same, causal",
    "attention/prefill_bf16_h32x8_n2048_d128_causal": "the same, causal, bf16",
    "attention/prefill_q8_0_h32x8_n2048_d128_causal": "the same, causal, 8-bit cache",
    "attention/decode_f16_h32x8_n65536_d128": "Attention, one token of 65536, f16",
    "attention/decode_q8_0_h32x8_n65536_d128": "the same, 8-bit cache",
    "attention/decode_q4_0_h32x8_n65536_d128": "the same, 4-bit cache",
    "quantized_matmul/f32_m4096_k4096_rows32": "Matmul 4096 x 4096, 32 rows, f32",
    "quantized_matmul/bf16_m4096_k4096_rows32": "the same, bf16",
    "quantized_matmul/q4_0_m4096_k4096_rows32": "the same, q4_0",
    "quantized_matmul/f32_m4096_k4096_rows512": "Matmul 4096 x 4096, 512 rows, f32",
    "quantized_matmul/bf16_m4096_k4096_rows512": "the same, bf16",
    "quantized_matmul/q4_0_m4096_k4096_rows512": "the same, q4_0",
    "quantized_matmul/q4_k_m4096_k4096_rows512": "the same, q4_k",
    "quantized_matmul/f16_m4096_k14336_rows1": "Matmul 4096 x 14336, one row, f16",
    "quantized_matmul/q8_0_m4096_k14336_rows1": "the same, q8_0",
    "quantized_matmul/q4_0_m4096_k14336_rows1": "the same, q4_0",
    "quantized_matmul/q4_k_m4096_k14336_rows1": "the same, q4_k",
    "long_conv/causal_f32_c64_n4096": "Causal convolution, 64 channels, as long as the 4096 inputs",
    "long_conv/causal_f32_c64_n65536": "the same, 65536",
    "long_conv/causal_f32_c64_n1048576": "the same, 1048576",
    "depthwise_conv/k7_f32_c64_hw56_nhwc": "Depthwise 7 x 7, 64 channels of 56 x 56, channels last",
    "depthwise_conv/k7_f32_c64_hw56_nchw": "the same, channels first",
    "depthwise_conv/k31_f32_c64_hw14_nhwc": "Depthwise 31 x 31, 64 channels of 14 x 14, channels last",
}


def measure(folder):
    """A report of all workloads. Each family is a binary."""
    report = Report()
    with tempfile.TemporaryDirectory() as out:
        for family in dict.fromkeys(name.split("/")[0] for name in WORKLOADS):
            names = "|".join(name for name in WORKLOADS if name.startswith(family + "/"))
            path, status = run(str(folder / f"{family}_bench"), pathlib.Path(out), SimpleNamespace(
                min_time=0.05, repetitions=3, filter=f"^({names})/", threads="1"))
            if status != 0:
                sys.exit(f"headline: {family}_bench failed")
            read(report, json.loads(path.read_text()))
    return report


def table(report):
    c = report.context
    limits = ", ".join(f"{number(report.limit(key, 1), 3)} {what}" for key, what in (
        (UNITS["f32"], "GFLOP/s in f32"), (UNITS["bf16"], "in bf16"), (UNITS["int8"], "in int8"), ("read_gb_s", "GB/s read")))
    lines = [f"One thread of {c.get('machine.cpu', 'an unknown processor')}, {c.get('date', '')[:10]}. Measured in the same run: {limits}.", "",
             "| | tern | of the limit | fastest peer | times |", "|---|--:|--:|---|--:|"]
    groups = {f"{op}/{workload}": members for (op, workload, _), members in groups_of(report.results)}
    for name, title in WORKLOADS.items():
        members = [r for r in groups.get(name, []) if not r.error]
        tern = next((r for r in members if r.implementation == "tern"), None)
        if tern is None:
            sys.exit(f"headline: {name} gave no result of tern's")
        peers = sorted((r for r in members if r.is_peer), key=lambda r: r.seconds)
        peer, times = (f"{peers[0].implementation} {duration(peers[0].seconds)}", f"{peers[0].seconds / tern.seconds:.2f}") if peers else ("", "")
        lines.append(f"| {title} | {duration(tern.seconds)} | {percent(tern.of_limit)} | {peer} | {times} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="the folder of attention_bench and the others")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    args = parser.parse_args()
    if not (args.folder / "attention_bench").exists():
        parser.error(f"there is no attention_bench in {args.folder}")
    made = table(measure(args.folder))
    if not args.write:
        print(made)
        return
    text = README.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    README.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{after}")


if __name__ == "__main__":
    main()
