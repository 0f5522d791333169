#!/usr/bin/env bash
# peers.sh - make the Python environments of other people's attention: build/peers/<set>.
#
#   tools/peers.sh [--dry-run] [SET...]      sets: peers/requirements/*.txt (default: all)
#
#   --dry-run  only say what would be fetched, with sizes
#
# SET may be a list with commas, and a peer's name (torch.flash) stands for its set. Says what it fetches and
# how large that is before it does; asks nothing. Where packages come from is pip's own configuration. An
# environment that is complete takes a moment, a broken one is made anew, and a set that fails leaves the
# others alone; the last line then names it. Logs: build/setup/peers-*.log
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case " $* " in *' -h '*|*' --help '*) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0;; esac
tools/setup.sh peers
# Debian's python3 before any other: another one may lack venv or ssl, or the headers that torch.compile wants.
python=python3
if [[ -x /usr/bin/python3 ]]; then python=/usr/bin/python3; fi
exec "$python" -B tools/peer_environments.py "$@"
