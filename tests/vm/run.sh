#!/usr/bin/env bash
# Runs the integration tests in a virtual machine on cgroup v2, under software emulation: no KVM is needed. The arguments
# are the test harness's: a part of a test's name, --skip NAME, …
set -euo pipefail
cd "$(dirname "$0")/../.."
target=$PWD/target/test
vm=$target/vm
tests/vm/build.sh

shim=${COFFERDAM_SHIM:?names the shim\'s binary}
integration=${COFFERDAM_INTEGRATION:?names the integration tests\' binary}
payload=$(mktemp -d)
trap 'rm -rf "$payload" "$payload.img"' EXIT
mkdir -p "$payload"/{test,repository}
cp "$shim" "$payload/shim"
cp "$(dirname "$shim")/cofferdam" "$payload/cli"
cp "$integration" "$payload/integration"
strip --strip-debug "$payload/shim" "$payload/cli" "$payload/integration"
cp -a "$target/images" "$target/rootfs" "$target/containerd-2" "$payload/test/"
cp -a shim-config "$payload/repository/"
install -m 755 tests/vm/start "$payload/start"
printf '%s\n' "$@" >"$payload/arguments"
truncate -s 600M "$payload.img"
mke2fs -q -t ext4 -d "$payload" "$payload.img"

qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 3072 -nographic -no-reboot -nodefaults \
    -serial stdio -kernel "$vm/vmlinuz" -initrd "$vm/initrd.img" -append "console=ttyS0 quiet panic=-1" \
    -drive "file=$vm/root.img,format=raw,if=virtio,snapshot=on,cache=unsafe" \
    -drive "file=$payload.img,format=raw,if=virtio,readonly=on" </dev/null | tee "$vm/log"
grep -q '^exit status of the tests: 0' "$vm/log"
