#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares examples/llm with llama.cpp on the same model file: tokens, perplexity and speed.

    pip install llama-cpp-python
    examples/llm/compare_llama_cpp.py --llm build/examples/llm --model model.gguf --text book.txt

Tokens: both continue the same prompts greedily. Where they part, the two candidates' logits must be within 0.05 of each other
in llama.cpp's own numbers (a tie that rounding decides). Perplexity: windows of 512 tokens, of which the second half is scored,
as llama.cpp's own perplexity tool does it. Speed: the two programs take turns, and the median of the rounds counts.
"""
import argparse
import ctypes
import json
import math
import os
import statistics
import subprocess
import tempfile
import time

import llama_cpp as lc
import numpy as np

SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
PROMPTS = [
    "The history of the lighthouse begins",
    "def quicksort(numbers):\n    ",
    "Once upon a time, in a village of 1,234 people between two mountains, there lived",
    SYSTEM + "<|im_start|>user\nWhat is gravity?<|im_end|>\n<|im_start|>assistant\n",
    SYSTEM + "<|im_start|>user\nWrite a short poem about the sea — and explain it.<|im_end|>\n<|im_start|>assistant\n",
]
WINDOW = 512
GAP = 0.05


class Llama:
    """llama.cpp through its C interface: contexts with the settings asked for, and logits as they come."""

    def __init__(self, path, threads, flash, window=2048):
        lc.llama_log_set(Llama.quiet, None)
        lc.llama_backend_init()
        self.model = lc.llama_model_load_from_file(path.encode(), lc.llama_model_default_params())
        params = lc.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = window, window, 512
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = 1 if flash else 0
        self.context = lc.llama_init_from_model(self.model, params)
        self.vocab = lc.llama_model_get_vocab(self.model)
        self.size = lc.llama_vocab_n_tokens(self.vocab)
        self.batch = lc.llama_batch_init(window, 0, 1)

    quiet = lc.llama_log_callback(lambda level, text, data: None)

    def tokens(self, text, special):
        data = text.encode()
        out = (lc.llama_token * (len(data) + 8))()
        return list(out[: lc.llama_tokenize(self.vocab, data, len(data), out, len(out), False, special)])

    def clear(self):
        lc.llama_memory_clear(lc.llama_get_memory(self.context), True)

    def decode(self, tokens, start, wanted):
        """Runs tokens at positions start...; `wanted` is "last", or the first index whose logits are needed."""
        b = self.batch
        b.n_tokens = len(tokens)
        for i, t in enumerate(tokens):
            b.token[i], b.pos[i], b.n_seq_id[i], b.seq_id[i][0] = t, start + i, 1, 0
            b.logits[i] = i == len(tokens) - 1 if wanted == "last" else i >= wanted
        began = time.perf_counter()
        if lc.llama_decode(self.context, b) != 0:
            raise RuntimeError("llama_decode failed")
        lc.llama_synchronize(self.context)
        return time.perf_counter() - began

    def logits(self, rows=1):
        p = ctypes.cast(lc.llama_get_logits(self.context), ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(p, shape=(rows, self.size))

    def greedy(self, prompt, n):
        """n times (token, its logit, runner-up, its logit)."""
        self.clear()
        tokens = self.tokens(prompt, True)
        self.decode(tokens, 0, "last")
        steps = []
        for i in range(n):
            row = self.logits()[0]
            second, first = np.argsort(row, kind="stable")[-2:]
            steps.append((int(first), float(row[first]), int(second), float(row[second]), row.copy()))
            self.decode([int(first)], len(tokens) + i, "last")
        return steps

    def perplexity(self, text):
        tokens = self.tokens(text, False)
        total, count = 0.0, 0
        for begin in range(0, len(tokens) - WINDOW + 1, WINDOW):
            window = tokens[begin : begin + WINDOW]
            self.clear()
            self.decode(window, 0, WINDOW // 2)
            rows = self.logits(WINDOW // 2)[:-1].astype(np.float64)
            top = rows.max(axis=1)
            norm = top + np.log(np.exp(rows - top[:, None]).sum(axis=1))
            total -= float((rows[np.arange(len(rows)), window[WINDOW // 2 + 1 :]] - norm).sum())
            count += len(rows)
        return math.exp(total / count), count

    def speed(self, prompt, generate):
        """Tokens per second of reading the prompt and of generating after it."""
        self.clear()
        seconds = self.decode(prompt, 0, "last")
        began = time.perf_counter()
        for i in range(generate):
            self.decode([1000 + i], len(prompt) + i, "last")
        return len(prompt) / seconds, generate / (time.perf_counter() - began)


def run(args, *more):
    command = [args.llm, args.model, "--threads", str(args.threads), *map(str, more)]
    if args.compute:
        command += ["--compute", args.compute]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return done


def compare_tokens(args, llama):
    print(f"\n| prompt | equal tokens of {args.tokens} | top two logits where they part | largest difference of a top logit |\n|---|---|---|---|")
    passed = True
    for prompt in PROMPTS:
        reference = llama.greedy(prompt, args.tokens)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "steps")
            run(args, "--prompt", prompt, "--no-chat", "--greedy", "--ignore-end", "-n", args.tokens, "--steps", path)
            steps = [line.split() for line in open(path)]
        ours = [(int(s[0]), float(s[1])) for s in steps]
        equal = next((i for i, (a, b) in enumerate(zip(reference, ours)) if a[0] != b[0]), args.tokens)
        off = max((abs(a[1] - b[1]) for a, b in list(zip(reference, ours))[:equal]), default=0.0)
        parting = ""
        if equal < args.tokens:
            gap = reference[equal][1] - float(reference[equal][4][ours[equal][0]])
            passed = passed and gap <= GAP
            parting = f"{gap:.4f} apart"
        print(f"| {prompt[-40:]!r} | {equal} | {parting} | {off:.3f} |", flush=True)
    return passed


def compare_perplexity(args, llama):
    text = open(args.text, encoding="utf-8").read()
    theirs, count = llama.perplexity(text)
    ours = json.loads(run(args, "--perplexity", args.text, "--json").stdout.splitlines()[-1])
    difference = 100 * (ours["perplexity"] / theirs - 1)
    print(f"\nPerplexity of {os.path.basename(args.text)} (windows of {WINDOW}, second half scored):")
    print(f"llama.cpp {theirs:.4f} over {count} tokens, tern {ours['perplexity']:.4f} over {ours['scored']}: {difference:+.3f} %", flush=True)
    return abs(difference) <= 0.5 and ours["scored"] == count


def compare_speed(args, contexts):
    results = {}
    for round_ in range(args.rounds):
        for name, context in contexts.items():
            prompt = [(7 * i) % 40000 + 100 for i in range(args.prompt_length)]
            results.setdefault(name, []).append(context.speed(prompt, args.generate))
            time.sleep(0.2)  # its threads go to sleep
        done = json.loads(run(args, "--measure", f"{args.prompt_length},{args.generate}", "--json").stdout.splitlines()[-1])
        results.setdefault("tern", []).append((done["prompt"], done["generation"]))
    median = {k: tuple(statistics.median(r[i] for r in v) for i in (0, 1)) for k, v in results.items()}
    best = [max(v[i] for k, v in median.items() if k != "tern") for i in (0, 1)]
    print(f"\n{args.threads} threads, median of {args.rounds} rounds, prompt of {args.prompt_length}, then {args.generate} generated:\n")
    print("| program | prompt, tokens/s | generation, tokens/s |\n|---|---|---|")
    for name, (prompt, generation) in median.items():
        print(f"| {name} | {prompt:.1f} | {generation:.1f} |")
    print(f"| tern / the better llama.cpp | {median['tern'][0] / best[0]:.2f} | {median['tern'][1] / best[1]:.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llm", required=True, help="the program examples/llm")
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", help="UTF-8 text for the perplexity")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--compute", help="passed on to examples/llm")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt-length", type=int, default=512)
    parser.add_argument("--generate", type=int, default=64)
    parser.add_argument("--only", choices=["tokens", "perplexity", "speed"])
    args = parser.parse_args()
    plain = Llama(args.model, args.threads, flash=False)
    passed = True
    if args.only in (None, "tokens"):
        passed = compare_tokens(args, plain) and passed
    if args.text and args.only in (None, "perplexity"):
        passed = compare_perplexity(args, plain) and passed
    if args.only in (None, "speed"):
        compare_speed(args, {"llama.cpp": plain, "llama.cpp, flash attention": Llama(args.model, args.threads, flash=True)})
    raise SystemExit(0 if passed else 1)


if __name__ == "__main__":
    main()
