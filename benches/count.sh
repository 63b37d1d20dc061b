#!/usr/bin/env bash
# Counts the instructions of one plan, one profile and one request, under valgrind, and compares them with benches/instructions.
# A count that grew by more than a tenth fails; with --write the file is written anew.
set -euo pipefail
cd "$(dirname "$0")/.."
program=${1:?the program of benches/count.rs}
file=benches/instructions

# Instructions of so many of a part.
collect() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$1" "$2" 2>&1 >/dev/null |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

failed=0
counted=
for part in plan profile filter request; do
    # What a process takes by itself is in both.
    few=$(collect "$part" 10)
    many=$(collect "$part" 60)
    one=$(((many - few) / 50))
    counted+="$part $one"$'\n'
    known=$(sed -n "s/^$part //p" "$file" 2>/dev/null || true)
    echo "$part: $one instructions${known:+, $known before}"
    if [ -n "$known" ] && [ "${2:-}" != --write ] && [ $((one * 10)) -gt $((known * 11)) ]; then
        echo "$part: more than a tenth above $known: find out why, or run: make count-write"
        failed=1
    fi
done
[ "${2:-}" != --write ] || printf '%s' "$counted" >"$file"
exit "$failed"
