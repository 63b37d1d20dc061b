#!/usr/bin/env bash
# Builds the virtual machine of `make test-v2` from Debian's packages, below target/test/vm-RELEASE: a kernel, an initial RAM disk
# and a root file system. Does nothing where all is there.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/prepare.sh
COFFERDAM_PREPARE_ONLY_FUNCTIONS=1 source tests/prepare.sh
# Which release of Debian the kernel is from: bullseye has 5.10, the oldest that Cofferdam runs on.
release=${VM_KERNEL:-bookworm}
vm=$target/vm-$release

[ ! -e "$vm/ready" ] || [ tests/vm/build.sh -nt "$vm/ready" ] || exit 0
rm -rf "$vm"
mkdir -p "$vm/kernel"
install_packages qemu-system-x86 mmdebstrap e2fsprogs kmod cpio busybox-static

say "unpacking Debian's cloud kernel"
apt() { if [ "$release" = bookworm ]; then apt-get -o APT::Sandbox::User=root "$@"; else foreign_apt "$release" "$@"; fi; }
[ -n "$(apt-cache depends linux-image-cloud-amd64 2>/dev/null)" ] || apt_update
cd "$vm/kernel"
# The package of this name is empty but for the name of the current one.
quiet apt download linux-image-cloud-amd64
image=$(dpkg-deb -f linux-image-cloud-amd64_*.deb Depends | sed 's/[ ,].*//')
rm linux-image-cloud-amd64_*.deb
quiet apt download "$image"
quiet dpkg -x "$image"_*.deb .
cd - >/dev/null
version=${image#linux-image-}
cp "$vm/kernel/boot/vmlinuz-$version" "$vm/vmlinuz"
quiet depmod -b "$vm/kernel" "$version"

say "building the root file system from Debian's packages"
quiet mmdebstrap --variant=minbase \
    --include=containerd,crun,containernetworking-plugins,iproute2,curl,kmod,procps,apparmor,systemd-sysv,dbus,dbus-user-session,libpam-systemd,uidmap,busybox-static \
    bookworm "$vm/root.tar" "deb $(mirror) bookworm main"
mkdir "$vm/root"
tar -C "$vm/root" -xf "$vm/root.tar" --exclude './dev/*'
mkdir -p "$vm/root/lib/modules" "$vm/root/cofferdam"
cp -a "$vm/kernel/lib/modules/$version" "$vm/root/lib/modules/"
cat >"$vm/root/etc/systemd/system/cofferdam-tests.service" <<'EOF'
[Unit]
Description=Cofferdam's integration tests
Requires=dbus.socket
After=dbus.socket
[Service]
ExecStart=/cofferdam/start
StandardInput=null
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
LimitNOFILE=1048576
EOF
# Nobody needs these here, and they take time under emulation.
for unit in systemd-udevd.service systemd-udev-trigger.service systemd-udevd-control.socket systemd-udevd-kernel.socket \
    timers.target systemd-tmpfiles-setup.service systemd-update-utmp.service; do
    ln -sf /dev/null "$vm/root/etc/systemd/system/$unit"
done
rm -rf "$vm"/root/usr/share/{doc,man,locale,info} "$vm/root/var/cache/apt"
truncate -s 1500M "$vm/root.img"
quiet mke2fs -q -t ext4 -d "$vm/root" "$vm/root.img"

say "building the initial RAM disk"
mkdir -p "$vm"/initrd/{bin,proc,sys,dev,root,modules}
cp /bin/busybox "$vm/initrd/bin/busybox"
# What a disk with ext4 needs, in the order of loading.
modprobe -d "$vm/kernel" -S "$version" --show-depends virtio_pci >"$vm/modules"
modprobe -d "$vm/kernel" -S "$version" --show-depends virtio_blk >>"$vm/modules"
modprobe -d "$vm/kernel" -S "$version" --show-depends ext4 >>"$vm/modules"
: >"$vm/initrd/modules/order"
awk '$1 == "insmod" && !seen[$2]++ { print $2 }' "$vm/modules" | while read -r module; do
    cp "$module" "$vm/initrd/modules/"
    basename "$module" >>"$vm/initrd/modules/order"
done
cp tests/vm/init "$vm/initrd/init"
(cd "$vm/initrd" && find . | cpio --quiet -o -H newc) >"$vm/initrd.img"
rm -rf "$vm/kernel" "$vm/root" "$vm/root.tar" "$vm/initrd" "$vm/modules"
touch "$vm/ready"
