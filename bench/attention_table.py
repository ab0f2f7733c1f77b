#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds one run of attention_bench against what attention aims at, and prints two tables: each workload, and what relates two of them.

    attention_bench --benchmark_out=run.json --benchmark_out_format=json --benchmark_repetitions=5
                    --benchmark_enable_random_interleaving=true --benchmark_report_aggregates_only=true
    attention_table.py run.json

report.py writes such a file, too. All figures are ratios of medians within the run. A ratio to a peer is its time over tern's.
Targets are below; where a figure has none, or its workloads were filtered out, it is shown or left out without a verdict.
"""

import argparse
import json
import math
import os
import pathlib
import re
import sys
from dataclasses import dataclass, field

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from report import UNITS, Report, duration, natural, percent, read

TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0")
PEERS = ("openblas_blocks", "eigen_blocks", "ggml")
NAME = re.compile(r"(?P<kind>prefill|decode|batch\d+)_(?P<type>[a-z0-9]+(?:_\d)?)_(?P<heads>h\d+x\d+)_n(?P<tokens>\d+)_d(?P<dim>\d+)"
                  r"(?:_(?P<sight>\w+))?")

PROMPT_PEAK_F32 = {64: 0.78, 80: 0.78, 128: 0.88, 256: 0.88}  # of the peak of FMA, by dim
PROMPT_PEAK_BF16 = {128: 0.76}                                # of the peak of bf16 dot products, where there are such
DECODE_BANDWIDTH_ONE, DECODE_BANDWIDTH_ALL = 0.85, 0.90       # with one thread, with several
PROMPT_OVER = {("f32", "ggml"): 2.2, ("f16", "ggml"): 2.2, ("bf16", "ggml"): 3.8, ("f32", "openblas_blocks"): 1.25}
DECODE_OVER = {("q4_0", "ggml"): 10.0}
DECODE_OVER_F16 = {"q8_0": 1.8, "q4_0": 3.2}                  # at 65,536 keys
CAUSAL_OF_FULL = 0.54                                         # at most, from 2,048 tokens on
WINDOW_OVER_SHARE = 1 / 0.8                                   # at most, the time's share over the visible pairs' share
SPEEDUP = 1.85                                                # of two threads over one
ABOVE_LIMIT = 1.03                                            # of a limit, nothing goes: the limit was measured too low


@dataclass
class Figure:
    """A ratio and what it has to be: at least the target, or at most. `most` is what it cannot be above."""
    label: str
    value: float
    target: float = math.nan
    at_most: bool = False
    most: float = math.inf

    @property
    def judged(self):
        return not math.isnan(self.target) and not math.isnan(self.value)

    @property
    def passed(self):
        return self.value <= self.target if self.at_most else self.target <= self.value <= self.most

    @property
    def aim(self):
        return "" if math.isnan(self.target) else f"{'≤' if self.at_most else '≥'} {self.target:.2f}"

    @property
    def verdict(self):
        if not self.judged:
            return ""
        return "**ABOVE THE LIMIT**" if self.value > self.most else "pass" if self.passed else "**FAIL**"


@dataclass
class Row:
    """One of tern's results with its figures."""
    result: object
    parts: dict
    figures: list = field(default_factory=list)


def parts_of(result):
    m = NAME.fullmatch(result.workload)
    if not m:
        return None
    parts = m.groupdict()
    return {**parts, "tokens": int(parts["tokens"]), "dim": int(parts["dim"]), "sight": parts["sight"] or "full"}


class Run:
    """The results of one run, by workload, implementation and thread count."""

    def __init__(self, report):
        self.report = report
        self.by_key = {(r.workload, r.implementation, r.threads): r for r in report.results if r.op == "attention"}

    def seconds(self, workload, implementation, threads):
        r = self.by_key.get((workload, implementation, threads))
        return r.seconds if r and not r.error else math.nan

    def ours(self):
        rows = [Row(r, parts_of(r)) for r in self.by_key.values() if r.implementation.split("_")[0] == "tern" and parts_of(r)]
        type_of = lambda p: TYPES.index(p["type"]) if p["type"] in TYPES else len(TYPES)
        return sorted(rows, key=lambda x: (x.parts["kind"], type_of(x.parts), natural(x.result.workload), x.result.implementation, x.result.threads))

    def has_bf16_dot(self, threads):
        return self.report.limit("bf16_gflops", threads) > 1.2 * self.report.limit("f32_gflops", threads)


def peak_target(run, r, p):
    if p["kind"] != "prefill" or p["sight"].startswith("window"):
        return math.nan
    if p["type"] == "bf16":
        return PROMPT_PEAK_BF16.get(p["dim"], math.nan) if run.has_bf16_dot(r.threads) else math.nan
    return PROMPT_PEAK_F32.get(p["dim"], math.nan) if p["type"] == "f32" else math.nan


def bandwidth_target(r, p):
    if p["kind"] != "decode" or p["heads"] != "h32x8" or p["type"] not in ("f32", "f16", "bf16"):
        return math.nan
    return DECODE_BANDWIDTH_ONE if r.threads == 1 else DECODE_BANDWIDTH_ALL


def judge(run, row):
    """What one result is held against by itself: the machine and the peers."""
    r, p = row.result, row.parts
    row.figures = [Figure("of peak", r.of_peak, peak_target(run, r, p), most=ABOVE_LIMIT),
                   Figure("of bandwidth", r.of_bandwidth, bandwidth_target(r, p), most=ABOVE_LIMIT)]
    over = {"prefill": PROMPT_OVER, "decode": DECODE_OVER}.get(p["kind"], {})
    for peer in PEERS:
        ratio = run.seconds(r.workload, peer, r.threads) / r.seconds
        row.figures.append(Figure(peer, ratio, over.get((p["type"], peer), math.nan)))


def peaks(run, r):
    """The fraction of the workload's unit, and of f32 if that is another."""
    text = f"{percent(r.of_peak)} {r.unit}"
    if r.unit not in ("", "f32"):
        text += f", {percent(r.gflops / run.report.limit(UNITS['f32'], r.threads))} f32"
    return text


def workload_table(run, rows):
    lines = ["| workload | threads | time | of peak | of bandwidth | " + " | ".join(f"/ {p}" for p in PEERS) + " | targets |",
             "|---|--:|--:|--:|--:|" + "--:|" * len(PEERS) + "---|"]
    for row in rows:
        r = row.result
        name = r.workload + ("" if r.implementation == "tern" else f" ({r.implementation})")
        if r.error:
            lines.append(f"| {name} | {r.threads} | error: {r.error.replace('|', '/')} |" + " |" * (3 + len(PEERS)))
            continue
        judge(run, row)
        ratios = " | ".join("" if math.isnan(f.value) else f"{f.value:.2f}" for f in row.figures[2:])
        verdicts = "; ".join(f"{f.label} {f.aim}: {f.verdict}" for f in row.figures if f.judged)
        lines.append(f"| {name} | {r.threads} | {duration(r.seconds)} | {peaks(run, r)} | {percent(r.of_bandwidth)} | {ratios} | {verdicts} |")
    return lines


def against_other_sight(run, r, p):
    if p["kind"] != "prefill":
        return
    other = lambda sight: r.workload.removesuffix(p["sight"]) + sight
    if p["sight"] == "causal":
        target = CAUSAL_OF_FULL if p["tokens"] >= 2048 else math.nan
        yield Figure("time / full", r.seconds / run.seconds(other("full"), r.implementation, r.threads), target, at_most=True)
    if p["sight"].startswith("window"):
        causal = run.by_key.get((other("causal"), r.implementation, r.threads))
        if causal and not causal.error:
            pairs = r.gflops * r.seconds / (causal.gflops * causal.seconds)
            yield Figure(f"time / causal, over its share {pairs:.3f} of pairs", r.seconds / causal.seconds / pairs, WINDOW_OVER_SHARE, at_most=True)


def against_other_type(run, r, p):
    faster = lambda other: run.seconds(r.workload.replace(f"_{p['type']}_", f"_{other}_"), r.implementation, r.threads) / r.seconds
    if p["kind"] == "prefill" and p["type"] == "bf16":
        yield Figure("speed / f32", faster("f32"), 1.0)
    if p["kind"] == "prefill" and p["type"] == "q8_0":
        yield Figure("speed / bf16", faster("bf16"), 1.0)
    if p["kind"] == "decode" and p["type"] in DECODE_OVER_F16:
        yield Figure("speed / f16", faster("f16"), DECODE_OVER_F16[p["type"]] if p["tokens"] == 65536 else math.nan)


def against_one_thread(run, r, p):
    if r.threads == 1:
        return
    # Decoding many heads is held against bandwidth, which does not double with the threads.
    target = SPEEDUP if r.threads == 2 and not (p["kind"] == "decode" and p["heads"] == "h32x8") else math.nan
    bandwidth = run.report.limit("read_gb_s", r.threads) / run.report.limit("read_gb_s", 1)
    label = "speed / 1 thread" + (f" (bandwidth: {bandwidth:.2f})" if p["kind"] == "decode" else "")
    yield Figure(label, run.seconds(r.workload, r.implementation, 1) / r.seconds, target)


def relation_table(run, rows):
    lines = ["| workload | threads | figure | value | target | |", "|---|--:|---|--:|--:|---|"]
    for row in rows:
        r = row.result
        if r.error:
            continue
        for relation in (against_other_sight, against_other_type, against_one_thread):
            found = [f for f in relation(run, r, row.parts) if not math.isnan(f.value)]
            row.figures += found
            lines += [f"| {r.workload} | {r.threads} | {f.label} | {f.value:.2f} | {f.aim} | {f.verdict} |" for f in found]
    return lines


def machine(report):
    """The limits by thread count, and whether the threads had the cores to themselves when these were measured."""
    units = (("f32_gflops", "f32 GFLOP/s"), ("bf16_gflops", "bf16 GFLOP/s"), ("int8_gops", "int8 GOP/s"), ("read_gb_s", "GB/s"))
    for t in sorted({t for _, t in report.limits}):
        yield f"{t} thread{'s' * (t > 1)}: " + ", ".join(f"{report.limit(n, t):.1f} {u}" for n, u in units)
        share = report.limit("f32_gflops", t) / report.limit("f32_gflops", 1) / t
        if share < 0.9:
            yield f"**Disturbed**: {t} threads reach {share:.2f} of {t} times one thread's peak. Run again on an idle machine."


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=pathlib.Path)
    report = Report()
    read(report, json.loads(parser.parse_args().json.read_text()))
    run = Run(report)
    rows = run.ours()
    print("\n".join([*machine(report), "", *workload_table(run, rows), "", *relation_table(run, rows), ""]))
    judged = [f for row in rows for f in row.figures if f.judged]
    errors = sum(bool(row.result.error) for row in rows)
    print(f"{sum(f.passed for f in judged)} of {len(judged)} targets are met" + (f", {errors} results are wrong" if errors else ""))


if __name__ == "__main__":
    main()
