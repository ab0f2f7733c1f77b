#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, with apt and as root or through sudo: bash cmake/setup.sh [build] [tests] [bench] [python] [format] [ci]
# Prints nothing when all is there already; on a machine without apt it only says what it would need.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=$here/build/tools
missing=()

need() {  # need PACKAGE FILE-OR-COMMAND...: one of them is enough
  local package=$1 thing
  shift
  for thing in "$@"; do
    if [[ $thing == */* ]] && compgen -G "$thing" >/dev/null; then return; fi
    if [[ $thing != */* ]] && command -v "$thing" >/dev/null; then return; fi
  done
  missing+=("$package")
}

install_missing() {
  [[ ${#missing[@]} -gt 0 ]] || return 0
  local as_root=()
  if [[ $(id -u) != 0 ]]; then as_root=(sudo); fi
  if ! command -v apt-get >/dev/null; then
    echo "setup: please install: ${missing[*]}" >&2
    missing=()
    return 0
  fi
  echo "setup: installing ${missing[*]}" >&2
  export DEBIAN_FRONTEND=noninteractive
  "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 || {
    "${as_root[@]}" apt-get update -qq >/dev/null
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  }
  missing=()
}

# A Python environment of the checkout's own, in build/tools.
python_tools() {
  if [[ ! -x $tools/bin/pip ]]; then
    need python3-venv "$(python3 -c 'import ensurepip; print(ensurepip.__file__)' 2>/dev/null || echo none/none)"
    install_missing
    python3 -m venv "$tools"
  fi
}

version_at_least() { [[ $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]; }

for part in "${@:-build}"; do
  case $part in
    build)
      need g++ g++ clang++
      need cmake cmake
      need ninja-build ninja
      need python3 python3
      need libxsimd-dev /usr/include/xsimd/xsimd.hpp
      need libeigen3-dev /usr/include/eigen3/Eigen/Core
      install_missing
      if ! version_at_least 3.25 "$(cmake --version | sed -n 's/cmake version //p')" && [[ ! -x $tools/bin/cmake ]]; then
        python_tools
        echo "setup: installing a newer cmake in build/tools" >&2
        "$tools/bin/pip" install -q 'cmake>=3.25,<4'
      fi
      ;;
    tests)
      need catch2 "/usr/include/catch2/catch*.hpp"
      install_missing
      ;;
    bench)
      need libbenchmark-dev /usr/include/benchmark/benchmark.h
      install_missing
      ;;
    python) python_tools ;;
    format)
      if [[ ! -x $tools/bin/clang-format ]]; then
        python_tools
        "$tools/bin/pip" install -q clang-format==18.1.8
      fi
      ;;
    ci)
      need clang clang++
      need libclang-rt-dev "/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a"
      need ccache ccache
      need unzip unzip
      need qemu-user qemu-x86_64
      need g++-aarch64-linux-gnu aarch64-linux-gnu-g++
      need libtbb-dev "/usr/include/oneapi/tbb.h"
      install_missing
      ;;
    *)
      echo "setup: $part is not one of: build tests bench python format ci" >&2
      exit 2
      ;;
  esac
done
