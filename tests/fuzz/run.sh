#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Fuzzes the GGUF reader with clang's libFuzzer and the address and undefined sanitizers: tests/fuzz/run.sh [seconds] [folder]
set -eu
seconds=${1:-60}
here=$(cd "$(dirname "$0")" && pwd)
build=${2:-$here/../../build/fuzz}
mkdir -p "$build/seeds" "$build/corpus"
compiler=${CXX_CLANG:-clang++}
"$compiler" -std=c++20 -O1 "$here/gguf_seeds.cpp" -o "$build/gguf_seeds"
"$build/gguf_seeds" "$build/seeds"
"$compiler" -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -I"$here/../../include" \
  ${TERN_FUZZ_FLAGS:-} "$here/gguf_fuzz.cpp" -o "$build/gguf_fuzz"
"$build/gguf_fuzz" -max_total_time="$seconds" -max_len=4096 -artifact_prefix="$build/" -print_final_stats=1 "$build/corpus" "$build/seeds"
