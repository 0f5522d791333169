#!/usr/bin/env bash
# lint.sh - clang-format and clang-tidy over the tracked C++ files.
#
#   tools/lint.sh [format|tidy]       (default: both)
#   tools/lint.sh fix                 rewrite what clang-format would
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

sources() { git ls-files -- '*.h' '*.cpp' '*.inl'; }

format() {
  printf 'lint: clang-format on %s files\n' "$(sources | wc -l)"
  sources | xargs -r clang-format-19 --dry-run -Werror || { printf 'lint: run `make format`\n' >&2; return 1; }
}

tidy() {
  # The command lines of a clang build: those of g++ name options that clang-tidy does not know.
  tools/build.sh asan headwise_build_info >/dev/null
  local files
  mapfile -t files < <(git ls-files -- 'src/*.cpp')
  printf 'lint: clang-tidy on %s files\n' "${#files[@]}"
  # One file a call, as many calls as processors; a line a file that has something to say.
  printf '%s\n' "${files[@]}" |
    xargs -r -P "$(nproc)" -n 1 clang-tidy-19 --quiet --warnings-as-errors='*' -p build/asan 2>/dev/null ||
    { printf 'lint: clang-tidy found the above\n' >&2; return 1; }
}

case ${1:-all} in
  format) format;;
  tidy) tidy;;
  fix) sources | xargs -r clang-format-19 -i;;
  all) format; tidy;;
  *) printf 'usage: tools/lint.sh [format|tidy|fix]\n' >&2; exit 2;;
esac
