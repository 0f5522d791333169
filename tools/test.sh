#!/usr/bin/env bash
# test.sh - configure and build one CMake preset with its tests and run those that need no GPU.
#
#   tools/test.sh PRESET [CTEST ARGUMENT...]
#
# Prints ctest's closing line last. Logs: build/PRESET/{configure,tests}.log
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

preset=${1:?usage: tools/test.sh PRESET [CTEST ARGUMENT...]}
shift
tools/build.sh "$preset" -DHEADWISE_TESTS=ON

log=build/$preset/tests.log
printf 'test: running the tests of %s\n' "$preset"
failed=0
ctest --preset "$preset" --parallel "$(nproc)" --output-log "$log" "$@" </dev/null || failed=$?
closing=$(grep -E '^[0-9]+% tests passed' "$log" || true)
[[ $closing ]] || { printf 'test: ctest ran no test\n' >&2; exit 1; }
printf 'test: %s: %s\n' "$preset" "$closing"
exit "$failed"
