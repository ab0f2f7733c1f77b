#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs benchmark binaries and writes report.md, one table of all results, and roofline.svg, where each stands against the machine.

    report.py [--out DIR] [--filter REGEX] [--min-time SECONDS] [--repetitions N] [--threads 1,2] [--json FILE...] BINARY...

Each cell is the median of the repetitions, which are interleaved at random (but see IN_TURN). The limit of a benchmark is the longer of what its
operations take at the peak of its unit (f32, bf16 or int8) and what its memory traffic takes at read bandwidth, both measured at
the start of the same run with the same number of threads. The JSON of each binary is kept beside the report; --json makes a report
of such files again without running anything.
"""

import argparse
import json
import math
import os
import pathlib
import re
import statistics
import subprocess
import sys
from dataclasses import dataclass, field

UNITS = {"f32": "f32_gflops", "bf16": "bf16_gflops", "int8": "int8_gops"}
# Families that keep one problem's data at a time: interleaved, they would make it anew for each repetition.
IN_TURN = {"quantized_matmul_bench", "kv_cache_bench", "kv_methods_bench", "kv_steps_bench"}


@dataclass
class Result:
    """One implementation of one workload with one thread count."""
    op: str
    workload: str
    implementation: str
    threads: int
    seconds: float = math.nan
    gflops: float = math.nan
    gb_s: float = math.nan
    of_peak: float = math.nan
    of_bandwidth: float = math.nan
    unit: str = ""
    error: str = ""

    @property
    def is_peer(self):
        """Neither tern, nor a variant of it (tern_half), nor the floor that no executor can be under."""
        return self.implementation.split("_")[0] != "tern" and self.implementation != "serial"

    @property
    def of_limit(self):
        known = [x for x in (self.of_peak, self.of_bandwidth) if not math.isnan(x)]
        return max(known, default=math.nan)

    @property
    def intensity(self):
        return self.gflops / self.gb_s


@dataclass
class Report:
    context: dict = field(default_factory=dict)
    results: list = field(default_factory=list)
    limits: dict = field(default_factory=dict)  # (name, threads) -> values, one a binary

    def limit(self, name, threads):
        values = self.limits.get((name, threads))
        return statistics.median(values) if values else math.nan


def parse_name(name):
    """op/workload/implementation/threads:n and what Google Benchmark appends."""
    m = re.fullmatch(r"([^/]+)/(.+)/([^/]+)/threads:(\d+)(?:/(?:iterations|repeats):\d+|/manual_time|/real_time)*", name)
    return (m[1], m[2], m[3], int(m[4])) if m else None


def read(report, document):
    context = document["context"]
    report.context.update(context)
    for key, value in context.items():
        m = re.fullmatch(r"machine\.(\w+)\.threads_(\d+)", key)
        if m:
            report.limits.setdefault((m[1], int(m[2])), []).append(float(value))
    rows = document["benchmarks"]
    aggregated = {r["run_name"] for r in rows if r.get("aggregate_name") == "median"}
    seen = set()
    for row in rows:
        run = row.get("run_name", row["name"])
        key = parse_name(run)
        if key is None:
            continue
        if row.get("error_occurred"):
            if run not in seen:
                report.results.append(Result(*key, error=row.get("error_message", "error")))
            seen.add(run)
            continue
        if run in aggregated and row.get("aggregate_name") != "median" or run in seen:
            continue
        seen.add(run)
        scale = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}[row.get("time_unit", "ns")]
        seconds = row["median_ns"] * 1e-9 if "median_ns" in row else row["real_time"] * scale
        get = lambda name: float(row.get(name, math.nan))
        report.results.append(Result(*key, seconds, get("GFLOPS"), get("GB_s"), get("of_peak"), get("of_bandwidth"), row.get("label", "")))


def run(binary, out, args):
    name = pathlib.Path(binary).name
    path = out / (name + ".json")
    command = [binary, f"--benchmark_min_time={args.min_time:g}", f"--benchmark_repetitions={args.repetitions}",
               f"--benchmark_enable_random_interleaving={str(name not in IN_TURN).lower()}", "--benchmark_report_aggregates_only=true",
               f"--benchmark_out={path}", "--benchmark_out_format=json", "--benchmark_color=false"]
    if args.filter:
        command.append(f"--benchmark_filter={args.filter}")
    if args.threads:
        command.append(f"--tern_threads={args.threads}")
    print(f"bench-report: {name}", flush=True)
    path.unlink(missing_ok=True)
    status = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
    return path, status


def number(x, digits=3):
    if math.isnan(x):
        return ""
    if x >= 1000:
        return f"{x:.0f}"
    return f"{x:.{digits}g}"


def duration(seconds):
    for unit, scale in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if seconds * scale >= 1:
            return f"{number(seconds * scale)} {unit}"
    return f"{number(seconds * 1e9)} ns"


def percent(x):
    return "" if math.isnan(x) else f"{100 * x:.0f} %"


def natural(text):
    return [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", text)]


def groups_of(results):
    groups = {}
    for r in results:
        groups.setdefault((r.op, r.workload, r.threads), []).append(r)
    order = sorted(groups, key=lambda k: (k[0], natural(k[1]), k[2]))
    return [(k, sorted(groups[k], key=lambda r: (r.implementation != "tern", r.seconds if not r.error else math.inf))) for k in order]


def markdown(report):
    c = report.context
    threads = sorted({t for _, t in report.limits})
    lines = ["# Benchmarks", "", f"{c.get('machine.cpu', 'unknown processor')}, {c.get('date', '')[:10]}, compiled for "
             f"`{c.get('machine.abi', '?')}`.", "", "| threads | f32 GFLOP/s | bf16 GFLOP/s | int8 GOP/s | read GB/s |", "|--:|--:|--:|--:|--:|"]
    for t in threads:
        lines.append(f"| {t} | " + " | ".join(number(report.limit(n, t), 4) for n in (*UNITS.values(), "read_gb_s")) + " |")
    lines += ["", "`of limit` is the fraction of the machine's limit for the workload: the peak of its unit or the read bandwidth, whichever "
              "takes longer (above 100 %: data from the caches). `vs best peer` is the best peer's time over tern's.", "",
              "![Roofline](roofline.svg)", "",
              "| op | workload | implementation | threads | time | GFLOP/s | GB/s | unit | of limit | vs best peer |",
              "|---|---|---|--:|--:|--:|--:|---|--:|--:|"]
    for (op, workload, threads), members in groups_of(report.results):
        peers = [r.seconds for r in members if r.is_peer and not r.error]
        for r in members:
            head = f"| {op} | {workload} | {'**tern**' if r.implementation == 'tern' else r.implementation} | {threads} | "
            if r.error:
                lines.append(head + f"error: {r.error.replace('|', '/')} | | | | | |")
                continue
            ratio = f"{min(peers) / r.seconds:.2f}" if r.implementation == "tern" and peers else ""
            lines.append(head + f"{duration(r.seconds)} | {number(r.gflops)} | {number(r.gb_s)} | {r.unit} | {percent(r.of_limit)} | {ratio} |")
    return "\n".join(lines) + "\n"


def summary(report):
    """The geometric mean of tern's ratio to the best peer, by op."""
    ratios = {}
    for (op, _, _), members in groups_of(report.results):
        tern = [r.seconds for r in members if r.implementation == "tern" and not r.error]
        peers = [r.seconds for r in members if r.is_peer and not r.error]
        if tern and peers:
            ratios.setdefault(op, []).append(min(peers) / tern[0])
    return "".join(f"  {op}: {math.exp(statistics.fmean(map(math.log, x))):.2f} times the best peer ({len(x)} workloads)\n"
                   for op, x in ratios.items())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binaries", nargs="*")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("bench-report"))
    parser.add_argument("--filter", default="")
    parser.add_argument("--min-time", type=float, default=0.05)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", default="")
    parser.add_argument("--json", nargs="*", type=pathlib.Path, default=[])
    args = parser.parse_args()
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    from roofline import roofline

    args.out.mkdir(parents=True, exist_ok=True)
    report, failed = Report(), []
    paths = list(args.json)
    for binary in args.binaries:
        path, status = run(binary, args.out, args)
        paths.append(path)
        if status != 0:
            failed.append(pathlib.Path(binary).name)
    for path in paths:
        text = path.read_text() if path.exists() else ""
        if text.strip():
            read(report, json.loads(text))
    (args.out / "report.md").write_text(markdown(report))
    (args.out / "roofline.svg").write_text(roofline(report))
    print(f"bench-report: {len(report.results)} results in {args.out / 'report.md'} and {args.out / 'roofline.svg'}")
    print(summary(report), end="")
    if failed:
        sys.exit("bench-report: failed: " + ", ".join(failed))


if __name__ == "__main__":
    main()
