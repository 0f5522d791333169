#!/usr/bin/env bash
# build.sh - configure and build one CMake preset.
#
#   tools/build.sh PRESET [-DNAME=VALUE...] [TARGET...]
#
# Log of the configuration: build/PRESET/configure.log
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

preset=${1:?usage: tools/build.sh PRESET [-DNAME=VALUE...] [TARGET...]}
shift
definitions=() targets=()
for word in "$@"; do
  case $word in
    -D*) definitions+=("$word");;
    *) targets+=("$word");;
  esac
done

mkdir -p "build/$preset"
log=build/$preset/configure.log
printf 'build: configuring %s\n' "$preset"
cmake --preset "$preset" ${definitions[@]+"${definitions[@]}"} >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
export NINJA_STATUS='[%f/%t %es] '
cmake --build "build/$preset" ${targets[@]+--target "${targets[@]}"}
