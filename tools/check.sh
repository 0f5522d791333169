#!/usr/bin/env bash
# check.sh - what must hold beside the tests: lint, warnings as errors, sanitizers.
#
#   tools/check.sh [STEP...]          steps: lint ci asan tsan (default: all)
#
# Runs every step even after one failed, and says at the end which did.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

lint() { tools/lint.sh; }
ci() { tools/build.sh ci; }
# The sanitizers' presets say which kinds of test they run.
asan() { tools/test.sh asan; }
tsan() { tools/test.sh tsan; }

steps=("$@")
((${#steps[@]})) || steps=(lint ci asan tsan)
failed=()
for step in "${steps[@]}"; do
  case $step in lint|ci|asan|tsan) ;; *) printf 'check: no step %s: lint, ci, asan, tsan\n' "$step" >&2; exit 2;; esac
  start=$SECONDS
  printf 'check: %s\n' "$step"
  if "$step"; then verdict=passed; else verdict=FAILED; failed+=("$step"); fi
  printf 'check: %s %s after %s s\n' "$step" "$verdict" $((SECONDS - start))
done
if ((${#failed[@]})); then printf 'check: failed: %s\n' "${failed[*]}" >&2; exit 1; fi
printf 'check: all passed: %s\n' "${steps[*]}"
