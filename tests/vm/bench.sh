#!/usr/bin/env bash
# Builds the benchmark and runs what it measures of starts in the virtual machine, on cgroup v2, with crun beside runc. Writes the
# results to the file that is the first argument; the others are the benchmark's own.
set -euo pipefail
cd "$(dirname "$0")/../.."
json=$1
shift
program=$(cargo bench --profile compare --features sabotage --bench compare --no-run --message-format=json |
    sed -n 's/.*"name":"compare".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
COFFERDAM_INTEGRATION=$program tests/vm/run.sh --starts --json /dev/ttyS0 "$@"
tr -d '\r' <target/test/vm-bookworm/log.0 | sed -n '/^{/,/^}/p' | sed 's/^}.*/}/' >"$json"
