#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares examples/llm with llama.cpp on the same model file: tokens, perplexity and speed.

    pip install llama-cpp-python
    examples/llm/compare_llama_cpp.py --llm build/examples/llm --model model.gguf --text book.txt

Tokens: both continue the same prompts greedily; where they part, how far apart the two candidates' logits are in llama.cpp's own
numbers. llama.cpp rounds activations to 8 bits, and any difference in the order of a sum changes which way some of them are
rounded, and so logits by about 0.2 (root mean square), its own between two of its settings included: the table has that control
beside. So the formula is compared without the rounding as well: `llm --compute f32` on the file, llama.cpp on a copy of the file
whose weights are decoded to f32. There, candidates must be within 0.05 of each other where the two part. Perplexity: windows of 512 tokens, of which the second half is scored,
as llama.cpp's own perplexity tool does it. Speed: the two programs take turns, and the median of the rounds counts.
"""
import argparse
import ctypes
import json
import math
import os
import statistics
import struct
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


def decoded_copy(path, out):
    """Writes the GGUF file with its tensors of type F16, Q4_0, Q4_1 and Q8_0 decoded to F32; for files in the default alignment."""
    data = np.memmap(path, np.uint8, "r")
    at = 8

    def take(form):
        nonlocal at
        at += struct.calcsize(form)
        return struct.unpack_from("<" + form, data, at - struct.calcsize(form))[0]

    def skip_value(kind):
        nonlocal at
        if kind == 8:
            length = take("Q")
            at += length
        elif kind == 9:
            inner, n = take("I"), take("Q")
            for _ in range(n):
                skip_value(inner)
        else:
            at += (1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8)[kind]

    tensors, values = take("Q"), take("Q")
    for _ in range(values):
        skip_value(8)
        skip_value(take("I"))
    metadata = at
    index = []
    for _ in range(tensors):
        length = take("Q")
        name = bytes(data[at : at + length])
        at += length
        extents = [take("Q") for _ in range(take("I"))]
        index.append((name, extents, take("I"), take("Q")))
    section = -(-at // 32) * 32

    def decode(kind, n, begin):
        if kind == 0:
            return data[begin : begin + 4 * n].view("<f4")
        if kind == 1:
            return data[begin : begin + 2 * n].view("<f2").astype("<f4")
        size = {2: 18, 3: 20, 8: 34}[kind]
        blocks = data[begin : begin + n // 32 * size].reshape(-1, size)
        scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
        if kind == 8:
            return scale * blocks[:, 2:].view(np.int8).astype(np.float32)
        codes = np.concatenate([blocks[:, -16:] & 15, blocks[:, -16:] >> 4], axis=1).astype(np.float32)
        if kind == 2:
            return scale * (codes - 8)
        return scale * codes + blocks[:, 2:4].copy().view("<f2").astype(np.float32)

    with open(out, "wb") as file:
        file.write(data[:metadata].tobytes())
        offset = 0
        for name, extents, _, _ in index:
            file.write(struct.pack("<Q", len(name)) + name + struct.pack(f"<I{len(extents)}Q", len(extents), *extents))
            file.write(struct.pack("<IQ", 0, offset))
            offset += -(-4 * math.prod(extents) // 32) * 32
        for _, extents, kind, begin in index:
            file.write(bytes(-file.tell() % 32))
            file.write(decode(kind, math.prod(extents), section + begin).astype("<f4").tobytes())


class Llama:
    """llama.cpp through its C interface: contexts with the settings asked for, and logits as they come."""

    def __init__(self, path, threads, flash, window=2048):
        lc.llama_log_set(Llama.quiet, None)
        lc.llama_backend_init()
        params = lc.llama_model_default_params()
        params.use_extra_bufts = Llama.extra_buffers
        self.model = lc.llama_model_load_from_file(path.encode(), params)
        params = lc.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = window, window, 512
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = 1 if flash else 0
        self.context = lc.llama_init_from_model(self.model, params)
        self.vocab = lc.llama_model_get_vocab(self.model)
        self.size = lc.llama_vocab_n_tokens(self.vocab)
        self.batch = lc.llama_batch_init(window, 0, 1)

    extra_buffers = True
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
        """n times (token, its logit, all logits)."""
        self.clear()
        tokens = self.tokens(prompt, True)
        self.decode(tokens, 0, "last")
        steps = []
        for i in range(n):
            row = self.logits()[0]
            first = int(np.argmax(row))
            steps.append((first, float(row[first]), row.copy()))
            self.decode([first], len(tokens) + i, "last")
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
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return done


def tern_tokens(args, prompt, compute):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "steps")
        run(args, "--prompt", prompt, "--no-chat", "--greedy", "--ignore-end", "-n", args.tokens, "--steps", path, "--compute", compute)
        return [int(line.split()[0]) for line in open(path)]


def parting(reference, tokens):
    """How many tokens are equal, and how far apart the two candidates are in the reference's logits after those."""
    equal = next((i for i, (a, b) in enumerate(zip(reference, tokens)) if a[0] != b), len(reference))
    if equal == len(reference):
        return equal, 0.0
    return equal, reference[equal][1] - float(reference[equal][2][tokens[equal]])


def compare_tokens(args, plain, flash):
    def cell(result):
        return f"{result[0]}" + (f", then {result[1]:.4f} apart" if result[0] < args.tokens else "")

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "decoded.gguf")
        decoded_copy(args.model, path)
        exact = Llama(path, args.threads, flash=False)
        print(f"\nEqual tokens of {args.tokens}, greedy, and the candidates' logits where they part:\n")
        print("| prompt | f32: tern, llama.cpp | 8 bits: tern, llama.cpp | 8 bits: llama.cpp with and without flash attention |")
        print("|---|---|---|---|")
        passed = True
        for prompt in PROMPTS:
            formula = parting(exact.greedy(prompt, args.tokens), tern_tokens(args, prompt, "f32"))
            reference = plain.greedy(prompt, args.tokens)
            ours = parting(reference, tern_tokens(args, prompt, args.compute))
            control = parting(reference, [step[0] for step in flash.greedy(prompt, args.tokens)])
            passed = passed and formula[1] <= GAP
            print(f"| {prompt[-40:]!r} | {cell(formula)} | {cell(ours)} | {cell(control)} |", flush=True)
    return passed


def compare_perplexity(args, llama):
    text = open(args.text, encoding="utf-8").read()
    theirs, count = llama.perplexity(text)
    ours = json.loads(run(args, "--perplexity", args.text, "--json", "--compute", args.compute).stdout.splitlines()[-1])
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
        done = json.loads(run(args, "--measure", f"{args.prompt_length},{args.generate}", "--json", "--compute", args.compute).stdout.splitlines()[-1])
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
    parser.add_argument("--compute", default="int8", help="passed on to examples/llm")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt-length", type=int, default=512)
    parser.add_argument("--generate", type=int, default=64)
    parser.add_argument("--no-extra-buffers", action="store_true",
                        help="weights in llama.cpp's plain buffers: neither repacked nor for AMX, with which some builds die")
    parser.add_argument("--only", choices=["tokens", "perplexity", "speed"])
    args = parser.parse_args()
    Llama.extra_buffers = not args.no_extra_buffers
    plain, flash = (Llama(args.model, args.threads, flash=f) for f in (False, True))
    passed = True
    if args.only in (None, "tokens"):
        passed = compare_tokens(args, plain, flash)
    if args.text and args.only in (None, "perplexity"):
        passed = compare_perplexity(args, plain) and passed
    if args.only in (None, "speed"):
        compare_speed(args, {"llama.cpp": plain, "llama.cpp, flash attention": flash})
    raise SystemExit(0 if passed else 1)


if __name__ == "__main__":
    main()
