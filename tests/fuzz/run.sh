#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Fuzzes a reader of files with clang's libFuzzer and the address and undefined sanitizers:
# tests/fuzz/run.sh [gguf|safetensors] [seconds] [folder]
set -eu
reader=${1:-gguf}
seconds=${2:-60}
here=$(cd "$(dirname "$0")" && pwd)
build=${3:-$here/../../build/fuzz/$reader}
mkdir -p "$build/seeds" "$build/corpus"
compiler=${CXX_CLANG:-clang++}
"$compiler" -std=c++20 -O1 "$here/${reader}_seeds.cpp" -o "$build/seeds_of"
"$build/seeds_of" "$build/seeds"
"$compiler" -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -I"$here/../../include" \
  ${TERN_FUZZ_FLAGS:-} "$here/${reader}_fuzz.cpp" -o "$build/fuzz"
"$build/fuzz" -max_total_time="$seconds" -max_len=4096 -artifact_prefix="$build/" -print_final_stats=1 "$build/corpus" "$build/seeds"
