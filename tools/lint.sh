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

# One file: quiet when it is clean, and remembered until it, a header or the configuration changes.
tidy_file() {
  local file=$1 stamp=build/lint/${1//\//_}.clean key output
  key=$(cat "$file" - <<<"$HEADWISE_LINT_KEY" | sha256sum)
  [[ -f $stamp && $(<"$stamp") == "$key" ]] && return 0
  if output=$(clang-tidy-19 --quiet --warnings-as-errors='*' -p build/asan "$file" 2>&1); then
    printf '%s' "$key" >"$stamp"
  else
    grep -vE '^[0-9]+ warnings? (generated|treated)|^Suppressed ' <<<"$output"
    return 1
  fi
}

tidy() {
  # The command lines of a clang build: those of g++ name options that clang-tidy does not know.
  tools/build.sh asan headwise_build_info >/dev/null
  mkdir -p build/lint
  HEADWISE_LINT_KEY=$({ cat .clang-tidy; git ls-files -- '*.h' '*.inl' | xargs cat; } | sha256sum)
  export HEADWISE_LINT_KEY
  export -f tidy_file
  local files
  mapfile -t files < <(git ls-files -- 'src/*.cpp')
  printf 'lint: clang-tidy on %s files\n' "${#files[@]}"
  printf '%s\n' "${files[@]}" | xargs -r -P "$(nproc)" -I {} bash -c 'tidy_file {}' ||
    { printf 'lint: clang-tidy found the above\n' >&2; return 1; }
}

case ${1:-all} in
  format) format;;
  tidy) tidy;;
  fix) sources | xargs -r clang-format-19 -i;;
  all)
    failed=0
    format || failed=1
    tidy || failed=1
    exit "$failed";;
  *) printf 'usage: tools/lint.sh [format|tidy|fix]\n' >&2; exit 2;;
esac
