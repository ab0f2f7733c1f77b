#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes vectors/reference.json, what another implementation makes of some texts: tokens, and for sentences their embeddings.

    pip install torch transformers
    examples/encoder/reference.py build/model/all-MiniLM-L6-v2 > examples/encoder/vectors/reference.json

Embeddings are transformers' BertModel in f32, the mean over tokens, divided by its length, as sentence-transformers computes them.
`encoder MODEL --check examples/encoder/vectors/reference.json` compares.
"""
import json
import sys

import torch
import transformers

MOST = 256  # tokens, as sentence_bert_config.json has it

SENTENCES = [
    "A man is eating food.",
    "The new movie is awesome, but the cat plays in the garden.",
    "How do I undo the last commit in git?",
    "Le café de l'École normale est fermé jusqu'à mardi.",
    "München liegt an der Isar; Straßenbahnen fahren alle zehn Minuten.",
    "東京は日本の首都です。",
    "E = mc², F ≠ ma when v ≈ c — see §4.2(b) of [12].",
    "def quicksort(numbers): return numbers if len(numbers) < 2 else ...",
    "yes",
    "",
    "The fox jumps over the dog. " * 9,
    "Of shoes and ships and sealing-wax, of cabbages and kings, and why the sea is boiling hot, and whether pigs have wings. " * 12,
]
HARD = [
    " \t\r\n ",
    "[CLS] and [SEP] and [MASK] in [PAD]ding, [SEP",
    "unaffable hyperparameterization antidisestablishmentarianism xqzvbkjw",
    "ÀÉÎÕÜ àéîõü ÅÄÖ Ñ ç İstanbul ΣΊΣΥΦΟΣ Ёлка ẞ ǅ",
    "e\u0301 a\u0308\u0323 o\u0302\u0301 \u0301x",
    "don't can't o'clock rock-'n'-roll “quoted” ‘single’ «angles» …",
    "$3.50 100% a+b=c x^2 `code` ~tilde |pipe| <tag> {brace} back\\slash",
    "한국어 문장을 나눕니다",
    "漢字かな交じり文 中文混合English文字",
    "豈更車 \U00020000\U0002a700",
    "zero\u200bwidth soft\u00adhyphen nul\x00byte bell\x07 \ufeffmark re\ufffdplaced",
    "no\u00a0break thin\u2009space ideographic\u3000space line\u2028separator next\u0085line",
    "हिन्दी में लिखा ১২৩ ไทย עברית العَرَبِيَّة",
    "😀 👨‍👩‍👧 ☕️ 🇪🇺 ™ ½ ﬁ Ｆｕｌｌ ①",
    "a" * 100,
    "a" * 101,
    "é" * 100,
    "é" * 101,
    "https://example.org/path?query=1&x=%20#anchor me@example.org C:\\dir\\file.txt",
]


def main():
    folder = sys.argv[1]
    tokenizer = transformers.BertTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json")
    model = transformers.BertModel.from_pretrained(folder, torch_dtype=torch.float32).eval()
    lines = []
    for text in SENTENCES + HARD:
        entry = {"text": text, "tokens": tokenizer(text, truncation=True, max_length=MOST)["input_ids"]}
        if text in SENTENCES:
            with torch.no_grad():
                hidden = model(input_ids=torch.tensor([entry["tokens"]])).last_hidden_state[0]
            mean = hidden.mean(dim=0)
            entry["embedding"] = [round(float(x), 6) for x in mean / mean.norm()]
        lines.append(json.dumps(entry))
    print("[\n" + ",\n".join(lines) + "\n]")


if __name__ == "__main__":
    main()
