#!/usr/bin/env bash
# Runs the integration tests (or another program, which uses their support: the benchmark) in a virtual machine on cgroup v2, under
# software emulation: no KVM is needed. The arguments are the program's: a part of a test's name, --skip NAME, …
set -euo pipefail
cd "$(dirname "$0")/../.."
target=$PWD/target/test
vm=$target/vm-${VM_KERNEL:-bookworm}
tests/vm/build.sh

shim=${COFFERDAM_SHIM:?names the shim\'s binary}
integration=${COFFERDAM_INTEGRATION:?names the integration tests\' binary}
payload=$(mktemp -d)
trap 'rm -rf "$payload" "$payload.img"' EXIT
mkdir -p "$payload"/{test,repository}
cp "$shim" "$payload/shim"
cp "$(dirname "$shim")/cofferdam" "$payload/cli"
cp "$integration" "$payload/integration"
for tool in ${COFFERDAM_NOTHING:-} ${COFFERDAM_FLOOR:-}; do cp "$tool" "$payload/"; done
find "$payload" -maxdepth 1 -type f -exec strip --strip-debug {} +
cp -a "$target/images" "$target/rootfs" "$target/containerd-2" "$payload/test/"
# The generator of unusual specs compares with this runc, whose C library is beside it.
cp -a "$target/runc" "$payload/test/"
patchelf --set-interpreter /cofferdam/test/runc/ld-linux-x86-64.so.2 --set-rpath /cofferdam/test/runc "$payload/test/runc/runc"
cp -a shim-config "$payload/repository/"
install -m 755 tests/vm/start "$payload/start"
printf '%s\n' "$@" >"$payload/arguments"
truncate -s 600M "$payload.img"
mke2fs -q -t ext4 -d "$payload" "$payload.img"

# One processor for each machine: with two, a lost interrupt between them hangs this emulator now and then. A kernel that is
# stuck all the same ends its machine with the stack on the console, and none runs longer than an hour.
machine() {
    timeout 3600 qemu-system-x86_64 -accel tcg -cpu max -smp 1 -m 3072 -nographic -no-reboot -nodefaults \
        -serial stdio -kernel "$vm/vmlinuz" -initrd "$vm/initrd.img" \
        -append "console=ttyS0 quiet panic=-1 softlockup_panic=1 systemd.unit=cofferdam-tests.service systemd.setenv=COFFERDAM_PART=$1/$machines systemd.setenv=COFFERDAM_ONLY=${COFFERDAM_ONLY:-} ${VM_APPEND:-}" \
        -drive "file=$vm/root.img,format=raw,if=virtio,snapshot=on,cache=unsafe" \
        -drive "file=$payload.img,format=raw,if=virtio,readonly=on" </dev/null |
        if [ "$machines" = 1 ]; then tee "$vm/log.$1"; else tee "$vm/log.$1" | sed -u "s/^/$1| /"; fi
}
machines=${VM_MACHINES:-1}
for ((i = 0; i < machines; i++)); do machine "$i" & done
wait
for ((i = 0; i < machines; i++)); do grep -q '^exit status of the tests: 0' "$vm/log.$i"; done
