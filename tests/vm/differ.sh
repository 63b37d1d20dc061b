#!/usr/bin/env bash
# Builds the generator of unusual specs and runs it in the virtual machine, on cgroup v2. The arguments are the generator's.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=$PWD/target/$(rustc --print host-tuple)/release
cargo build --release --example differ --features sabotage
export COFFERDAM_INTEGRATION=$bin/examples/differ COFFERDAM_SHIM=$bin/containerd-shim-cofferdam-v1
exec tests/vm/run.sh --runc /cofferdam/test/runc/runc --cofferdam /cofferdam/cli "$@"
