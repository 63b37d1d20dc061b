#!/usr/bin/env bash
# Installs what the tests, the demo and the benchmark need, and builds their images. Does nothing where all is there.
# The node's own containerd is not touched: Debian's package of containerd 2.x is unpacked below target/, not installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=$PWD/target/test
log=$target/prepare.log
mkdir -p "$target"
: >"$log"

say() { printf '%s\n' "$*"; }

# Runs quietly; shows the output where it fails.
quiet() {
    if ! "$@" >>"$log" 2>&1; then
        say "failed: $*"
        tail -n 30 "$log"
        exit 1
    fi
}

apt_updated=
apt_update() {
    [ -n "$apt_updated" ] || quiet apt-get update
    apt_updated=1
}

install_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${missing[*]}"
    apt_update
    quiet env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
}

# Where this machine gets Debian from.
mirror() {
    { cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | awk '$1 == "deb" { sub(/\[[^]]*\] */, ""); print $2 }'
      cat /etc/apt/sources.list.d/*.sources 2>/dev/null | awk '$1 == "URIs:" { print $2 }'
    } | grep -E '/debian/?$' | head -n 1
}

# apt-get for another suite of the same mirror, in a directory of ours.
foreign_apt() {
    local suite=$1 dir=$target/apt/$1
    shift
    if [ ! -e "$dir/ready" ]; then
        mkdir -p "$dir"/{lists/partial,cache/archives/partial,parts}
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(mirror) $suite main" >"$dir/sources.list"
        touch "$dir/ready"
        foreign_apt "$suite" update
    fi
    apt-get -o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts="$dir/parts" \
        -o Dir::State::lists="$dir/lists" -o Dir::Cache="$dir/cache" -o APT::Sandbox::User=root "$@"
}

# Unpacks another suite's containerd into target/test/containerd-NAME.
unpack_containerd() {
    local name=$1 suite=$2 dir=$target/containerd-$1
    [ ! -x "$dir/usr/bin/containerd" ] || return 0
    say "unpacking containerd $name from Debian $suite"
    rm -rf "$dir" "$target/download"
    mkdir -p "$target/download"
    (cd "$target/download" && quiet foreign_apt "$suite" download containerd)
    quiet dpkg -x "$target"/download/containerd_*.deb "$dir.new"
    rm -rf "$target/download"
    mv "$dir.new" "$dir"
}

# A current runc, to compare with: Debian's of another suite, with the C library that it was built for.
unpack_runc() {
    local suite=$1 dir=$target/runc
    [ ! -x "$dir/runc" ] || return 0
    say "unpacking runc from Debian $suite"
    rm -rf "$dir" "$dir.new" "$target/download"
    mkdir -p "$target/download" "$dir.new"
    (cd "$target/download" && quiet foreign_apt "$suite" download runc libc6 libseccomp2)
    local package
    for package in "$target"/download/*.deb; do quiet dpkg -x "$package" "$target/download/all"; done
    cp "$target"/download/all/usr/bin/runc "$target"/download/all/usr/lib/*/{libc.so.6,ld-linux-*.so.*,libseccomp.so.2} "$dir.new"
    # It executes itself again, so a loader in front of it would not do.
    quiet patchelf --set-interpreter "$(echo "$dir"/ld-linux-x86-64.so.2)" --set-rpath "$dir" "$dir.new/runc"
    rm -rf "$target/download"
    mv "$dir.new" "$dir"
}

build_image() {
    local name=$1 context=$2
    cp tests/images/"$name"/* "$context"/
    quiet buildah --root "$target/buildah" --runroot "$target/buildah-run" --storage-driver vfs \
        bud --isolation chroot --tag "localhost/$name:1" "$context"
    rm -f "$target/images/$name.tar"
    quiet buildah --root "$target/buildah" --runroot "$target/buildah-run" --storage-driver vfs \
        push "localhost/$name:1" "docker-archive:$target/images/$name.new.tar:localhost/$name:1"
    mv "$target/images/$name.new.tar" "$target/images/$name.tar"
    rm -rf "$context"
}

# Whether an image is missing or older than what it is made from.
stale() {
    [ ! -e "$target/images/$1.tar" ] || [ -n "$(find "tests/images/$1" -newer "$target/images/$1.tar" -print -quit)" ]
}

compile_pause() {
    gcc -Os -Wall -Werror -static -o "$1" tests/images/pause/pause.c
}

build_images() {
    mkdir -p "$target/images"
    local context applet
    if stale busybox; then
        say "building the busybox image"
        context=$(mktemp -d)
        mkdir -p "$context"/rootfs/{bin,etc,proc,sys,dev,tmp,root,home/user}
        cp /bin/busybox "$context/rootfs/bin/busybox"
        for applet in $(/bin/busybox --list | grep -vx busybox); do ln -s busybox "$context/rootfs/bin/$applet"; done
        printf 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n' >"$context/rootfs/etc/passwd"
        printf 'root:x:0:\nuser:x:1000:\nextra:x:2000:user\n' >"$context/rootfs/etc/group"
        chmod 1777 "$context/rootfs/tmp"
        chown 1000:1000 "$context/rootfs/home/user"
        tar -C "$context/rootfs" --numeric-owner -cf "$context/rootfs.tar" .
        rm -rf "$target/rootfs"
        mv "$context/rootfs" "$target/rootfs"
        build_image busybox "$context"
    fi
    if stale pause; then
        say "building the pause image"
        context=$(mktemp -d)
        compile_pause "$context/pause"
        build_image pause "$context"
    fi
    [ -e "$target/rootfs/pause" ] || compile_pause "$target/rootfs/pause"
    if stale nginx; then
        say "building the nginx image from Debian's packages"
        context=$(mktemp -d)
        quiet mmdebstrap --variant=extract --include=base-files,nginx-light,busybox-static bookworm "$context/rootfs.tar" "deb $(mirror) bookworm main"
        build_image nginx "$context"
    fi
    rm -rf "$target/buildah" "$target/buildah-run"
}

# A root with the services and toolchains that people run most, as Debian makes them. It is no image: importing 500 MB for
# every test's daemon would take longer than the tests.
build_common() {
    [ ! -e "$target/common/etc/debian_version" ] || return 0
    say "building a root of common services and toolchains"
    # By way of an archive: mmdebstrap mounts the node's /proc, /sys and /dev where it works, which is no place for our `rm`.
    rm -rf --one-file-system "$target/common.new" "$target/common"
    quiet mmdebstrap --variant=apt --include=busybox-static,gcc,libc6-dev,nginx-light,nodejs,postgresql,python3-venv,redis-server \
        bookworm "$target/common.tar" "deb $(mirror) bookworm main"
    mkdir "$target/common.new"
    quiet tar -C "$target/common.new" --exclude='./dev/*' -xf "$target/common.tar"
    rm "$target/common.tar"
    mv "$target/common.new" "$target/common"
}

# tests/vm/build.sh uses the functions above.
[ -z "${COFFERDAM_PREPARE_ONLY_FUNCTIONS:-}" ] || return 0

if [ "$(id -u)" != 0 ]; then
    say "tests/prepare.sh needs root: it installs Debian packages, and containers are made by root"
    exit 1
fi
install_packages containerd runc containernetworking-plugins iptables busybox-static buildah g++ mmdebstrap curl podman procps \
    protobuf-compiler gcc libc6-dev iproute2 util-linux patchelf uidmap "$@"
unpack_containerd 2 sid
unpack_runc sid
build_images
build_common
