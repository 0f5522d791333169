#!/usr/bin/env bash
# check.sh - what must hold beside the tests: lint, warnings as errors, the report in a browser, other projects'
# conformance tests, sanitizers.
#
#   tools/check.sh [STEP...]          steps: lint ci report conformance asan tsan (default: all)
#
# Runs every step even after one failed, and says at the end which did.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

lint() { tools/lint.sh; }
ci() { tools/build.sh ci; }
# The report in a browser and as files: what `make test` skips where neither is installed.
report() {
  tools/setup.sh charts || return
  tools/build.sh ci headwise_program || return
  local file failed=0
  export HEADWISE_PROGRAM=$PWD/build/ci/bin/headwise HEADWISE_SOURCE_DIR=$PWD
  # Where set-up installs a browser, a skipped test is a failure.
  if tools/setup.sh --list check | grep -qx chromium; then export HEADWISE_REQUIRE_BROWSER=1; fi
  for file in tests/report/*_test.py; do python3 -B "$file" </dev/null || failed=1; done
  return "$failed"
}
# What `make test` skips until the cases have been fetched; from then on the sanitizers run them too.
conformance() {
  tools/setup.sh conformance || return
  tools/build.sh ci headwise_conformance_tests || return
  # Without the package the tests skip themselves, but not where all of this must have run.
  if [[ ${CI:-} ]]; then export HEADWISE_REQUIRE_CONFORMANCE=1; fi
  build/ci/tests/headwise_conformance_tests --gtest_brief=1 </dev/null
}
# The sanitizers' presets say which kinds of test they run.
asan() { tools/test.sh asan; }
tsan() { tools/test.sh tsan; }

steps=("$@")
((${#steps[@]})) || steps=(lint ci report conformance asan tsan)
failed=()
for step in "${steps[@]}"; do
  case $step in lint|ci|report|conformance|asan|tsan) ;; *) printf 'check: no step %s: lint, ci, report, conformance, asan, tsan\n' "$step" >&2; exit 2;; esac
  start=$SECONDS
  printf 'check: %s\n' "$step"
  if "$step"; then verdict=passed; else verdict=FAILED; failed+=("$step"); fi
  printf 'check: %s %s after %s s\n' "$step" "$verdict" $((SECONDS - start))
done
if ((${#failed[@]})); then printf 'check: failed: %s\n' "${failed[*]}" >&2; exit 1; fi
printf 'check: all passed: %s\n' "${steps[*]}"
