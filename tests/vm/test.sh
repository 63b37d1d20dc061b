#!/usr/bin/env bash
# Builds the integration tests and runs them in the virtual machine, with the release build of the shim.
set -euo pipefail
cd "$(dirname "$0")/../.."
integration=$(cargo test --test integration --no-run --message-format=json |
    sed -n 's/.*"name":"integration".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
export COFFERDAM_INTEGRATION=$integration
export COFFERDAM_SHIM=${COFFERDAM_SHIM:-$PWD/target/$(rustc --print host-tuple)/release/containerd-shim-cofferdam-v1}
exec tests/vm/run.sh --color never "$@"
