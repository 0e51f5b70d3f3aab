#!/usr/bin/env bash
# Runs sha256sum for every .go file of the Go source tree as tasks of a queue, and compares with sha256sum run directly.
# Usage: ./run.sh [NUMBER-OF-FILES]
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$root" && go build -o "$work/waggle" ./cmd/waggle)
export PATH="$work:$PATH" WAGGLE_STORE="sqlite:$work/queue.db"

find "$(go env GOROOT)/src" -name '*.go' | sort > "$work/all.txt"
head -n "${1:-10000}" "$work/all.txt" > "$work/files.txt"

waggle enqueue checksum --lines < "$work/files.txt" > "$work/ids.txt"
waggle work --quiet --slots 4 --until-empty -- sha256sum {}

waggle task list --type checksum --state completed -o jsonl |
	sed -n 's/.*"result":"\([0-9a-f]\{64\}  [^"]*\)".*/\1/p' | sort > "$work/results.txt"
xargs -d '\n' sha256sum < "$work/files.txt" | sort > "$work/direct.txt"

cmp "$work/results.txt" "$work/direct.txt"
echo "$(wc -l < "$work/results.txt") checksums, all equal to those of sha256sum run directly"
