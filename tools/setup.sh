#!/usr/bin/env bash
# setup.sh - install what Headwise needs, where it is missing.
#
#   tools/setup.sh [--list] [GROUP...]        groups (default: build charts):
#
#     build    compiler, CMake, Ninja, the program's libraries
#     test     GoogleTest, RapidCheck, Python
#     check    clang 19 with sanitizers, clang-tidy, clang-format; Chromium for the report's test
#     charts   the chart renderer, into build/: reports without it have tables and no charts, and charts
#              cannot be written as files
#     peers    what `make peers` needs to make environments, and torch.compile to compile
#     conformance  the node tests of ONNX's Attention as files, into build/: their tests are skipped without
#
#   --list     only print the packages of the groups
#
# May be run any number of times; takes a moment when nothing is missing. Tried on Debian 12; the
# package names of Ubuntu 24.04 are known but untested. Elsewhere it checks for the tools and says
# which are missing. Logs: build/setup/*.log
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
state=$root/build/setup
say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# --- what is needed -----------------------------------------------------------------------------
packages_build=(g++ cmake ninja-build make git libcli11-dev libfmt-dev nlohmann-json3-dev python3)
packages_test=(libgtest-dev libgmock-dev librapidcheck-dev python3)
packages_check=(clang-19 clang-tidy-19 clang-format-19 libomp-19-dev libclang-rt-19-dev llvm-19 chromium)
packages_charts=(python3 python3-venv ca-certificates)
packages_peers=(python3 python3-venv python3-dev g++ ca-certificates)
packages_conformance=(python3 python3-venv ca-certificates)
renderer_requirement='vl-convert-python>=1.9,<2'
script_requirement='quickjs>=1.19,<2'  # runs the page's data preparation for charts as files

# The same as commands and headers, for systems whose packages have other names.
commands_build=(g++ cmake ninja make python3)
headers_build=(CLI/CLI.hpp fmt/core.h nlohmann/json.hpp omp.h)
commands_test=(python3)
headers_test=(gtest/gtest.h gmock/gmock.h rapidcheck.h)
commands_check=(clang++-19 clang-tidy-19 clang-format-19)
headers_check=()
commands_charts=(python3)
headers_charts=()
commands_peers=(python3)
headers_peers=()
commands_conformance=(python3)
headers_conformance=()

# --- arguments ----------------------------------------------------------------------------------
list_only=0
groups=()
for word in "$@"; do
  case $word in
    build|test|check|charts|peers|conformance) groups+=("$word");;
    --list) list_only=1;;
    -h|--help) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0;;
    *) die "unknown group '$word': build, test, check, charts, peers, conformance (see --help)";;
  esac
done
((${#groups[@]})) || groups=(build charts)

# --- the system ---------------------------------------------------------------------------------
system=unknown
if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
  os_id=$(. /etc/os-release 2>/dev/null && echo "${ID:-} ${ID_LIKE:-}") || os_id=
  case " $os_id " in
    *' ubuntu '*) system=ubuntu;;
    *' debian '*) system=debian;;
  esac
fi
# Ubuntu's chromium is a stub that needs snapd, which containers lack; the test that wants a
# browser skips itself.
if [[ $system == ubuntu ]]; then packages_check=("${packages_check[@]/chromium/}"); fi

wanted=()
for group in "${groups[@]}"; do
  declare -n of_group=packages_$group
  for package in "${of_group[@]}"; do
    [[ -z $package || " ${wanted[*]:-} " == *" $package "* ]] || wanted+=("$package")
  done
done
if ((list_only)); then printf '%s\n' "${wanted[@]}"; exit 0; fi

# Prints the commands and headers of the groups that this machine lacks.
missing_tools() {
  local group name
  for group in "${groups[@]}"; do
    local -n commands=commands_$group headers=headers_$group
    for name in "${commands[@]}"; do command -v "$name" >/dev/null || echo "$name"; done
    command -v g++ >/dev/null || continue
    for name in "${headers[@]}"; do
      printf '#if !__has_include(<%s>)\n#error\n#endif\n' "$name" | g++ -E -x c++ -std=c++20 - >/dev/null 2>&1 || echo "<$name>"
    done
  done | sort -u
}

# --- packages -----------------------------------------------------------------------------------
as_root=()
find_root() {
  ((EUID == 0)) && return 0
  command -v sudo >/dev/null || return 1
  if [[ -t 0 ]]; then as_root=(sudo); else as_root=(sudo -n); fi
  "${as_root[@]}" true 2>/dev/null
}

apt() {  # runs apt-get unattended; a line of progress every few seconds, everything in the log
  local shown=$SECONDS errors=0 line status
  # Status of apt-get, not of the loop: through the last line.
  { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a LC_ALL=C.UTF-8 \
      apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 "$@" \
      </dev/null 2>&1; echo "apt-get ended with $?"; } |
    while IFS= read -r line; do
      printf '%s\n' "$line" >>"$state/apt.log"
      status=${line#apt-get ended with }
      [[ $status != "$line" ]] && exit "$status"
      case $line in
        E:*) if ((errors++ < 3)); then say "apt: $line"; fi;;
        'Need to get'*) say "apt: $line";;
        Get:*|Unpacking*|'Setting up'*)
          if ((SECONDS - shown >= 4)); then shown=$SECONDS; say "apt: ${line:0:90}"; fi;;
      esac
    done
}

apt_install() {
  : >"$state/apt.log"
  local fresh=0
  if ! compgen -G '/var/lib/apt/lists/*Packages*' >/dev/null; then
    say "reading the package lists"
    apt update || return 1
    fresh=1
  fi
  apt install --no-install-recommends "$@" && return 0
  ((fresh)) && return 1
  say "the package lists may be old: reading them again"
  apt update && apt install --no-install-recommends "$@"
}

install_packages() {
  local missing=() package
  if [[ $system != unknown ]]; then
    local installed
    installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null || true)
    for package in "${wanted[@]}"; do
      grep -qx "installed $package" <<<"$installed" || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    if find_root; then
      say "installing ${missing[*]}"
      [[ $system == debian ]] || say "note: these names are untested on this system"
      mkdir -p "$state"
      local start=$SECONDS
      if apt_install "${missing[@]}"; then
        say "packages installed in $((SECONDS - start)) s"
        return 0
      fi
      say "apt-get failed: see $state/apt.log"
    fi
  fi
  # No packages, or no right to install them: good enough when the tools are here by other ways.
  local tools
  tools=$(missing_tools)
  [[ $tools ]] || return 0
  say "missing here: $(tr '\n' ' ' <<<"$tools")" >&2
  if [[ $system != unknown ]]; then
    die "install them as root, then try again:  apt-get install --no-install-recommends ${missing[*]}"
  fi
  die "this system is not known to set-up; Debian 12 calls the packages: ${wanted[*]}"
}

# --- the chart renderer -------------------------------------------------------------------------
install_charts() {
  local venv=$root/build/renderer-venv folder=$root/build/renderer stamp=$state/charts.stamp
  local bundle=$folder/vega-bundle.js wanted_stamp="$renderer_requirement $script_requirement"
  if [[ -s $bundle && -f $stamp && $(<"$stamp") == "$wanted_stamp" ]]; then return 0; fi
  # Debian's python3 before any other: another one may lack venv or ssl.
  local python=python3 log=$state/pip.log
  local -a pip=("$venv/bin/python" -m pip install --disable-pip-version-check --no-input --retries 1
    --timeout 15 --only-binary :all:)
  if [[ -x /usr/bin/python3 ]]; then python=/usr/bin/python3; fi
  mkdir -p "$state" "$folder"
  say "fetching the chart renderer ($renderer_requirement, about 40 MB) into build/renderer-venv"
  rm -rf "$venv" "$folder/python"  # what is left half made is of no use
  if "$python" -m venv "$venv" >"$log" 2>&1 &&
     "${pip[@]}" "$renderer_requirement" >>"$log" 2>&1 </dev/null &&
     "$venv/bin/python" "$root/tools/write_renderer.py" "$bundle" >>"$log" 2>&1; then
    if "${pip[@]}" "$script_requirement" >>"$log" 2>&1 </dev/null; then
      # A link would not do: Python finds its environment beside the name it is called by.
      printf '#!/bin/sh\nexec %q "$@"\n' "$venv/bin/python" >"$folder/python"
      chmod +x "$folder/python"
    else
      say "no $script_requirement (see build/setup/pip.log): reports have charts, but charts cannot be written as files; to try again: rm build/setup/charts.stamp && tools/setup.sh charts"
    fi
    printf '%s' "$wanted_stamp" >"$stamp"
    say "chart renderer ready"
  else
    rm -rf "$venv"
    say "no chart renderer (see build/setup/pip.log): reports will have tables and no charts; to try again: tools/setup.sh charts"
  fi
}

# --- cases of conformance tests -----------------------------------------------------------------
install_conformance() {
  local source=$root/tests/conformance folder=$root/build/conformance stamp=$state/conformance.stamp
  local venv=$folder/venv log=$state/conformance.log python=python3 wanted_stamp
  wanted_stamp=$(cat "$source/requirements.txt" "$source/write_cases.py" | sha256sum)
  if [[ -d $folder/onnx && -f $stamp && $(<"$stamp") == "$wanted_stamp" ]]; then return 0; fi
  if [[ -x /usr/bin/python3 ]]; then python=/usr/bin/python3; fi  # as for the charts
  mkdir -p "$state" "$folder"
  say "fetching the conformance cases ($(grep -m1 '^onnx' "$source/requirements.txt"), about 27 MB) into build/conformance"
  rm -rf "$venv" "$folder/onnx" "$stamp"
  if "$python" -m venv "$venv" >"$log" 2>&1 &&
     "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --retries 1 --timeout 15 \
       --only-binary :all: --requirement "$source/requirements.txt" >>"$log" 2>&1 </dev/null &&
     "$venv/bin/python" "$source/write_cases.py" "$folder/onnx" >>"$log" 2>&1; then
    printf '%s' "$wanted_stamp" >"$stamp"
    say "$(tail -n 1 "$log")"
  else
    say "no conformance cases (see build/setup/conformance.log): their tests will be skipped; to try again: tools/setup.sh conformance"
  fi
  rm -rf "$venv"  # the cases are all that is needed of it
}

# --- go -----------------------------------------------------------------------------------------
mkdir -p "$root/build"
if command -v flock >/dev/null; then  # two makes at once: one sets up, the other waits
  exec 9>"$root/build/setup.lock"
  flock -n 9 || { say "another set-up is running: waiting"; flock 9; }
fi
install_packages
for group in "${groups[@]}"; do
  [[ $group != charts ]] || install_charts
  [[ $group != conformance ]] || install_conformance
done
