#!/usr/bin/env bash
# Prove that a clean clone works on a bare Debian 12: make a minimal chroot, clone HEAD into it, run
# the targets (demo, then test) in it with a new HOME.
#
#   sudo tools/chroot_test.sh [--keep] [TARGET...]
#
# Needs root and debootstrap. Packages come from where this machine gets its own: the mirror is the
# one of its apt sources, and its apt and pip client settings (and certificates) are copied in.
# --keep leaves the chroot in place and prints where it is.
set -euo pipefail
cd "$(dirname "$0")/.."

suite=bookworm
keep=no
if [ "${1:-}" = --keep ]; then
    keep=yes
    shift
fi
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(demo test)

[ "$(id -u)" = 0 ] || { echo "a chroot needs root" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "debootstrap is not installed" >&2; exit 1; }

# shellcheck disable=SC2016  # the format is apt's, not the shell's
mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI) $(COMPONENT)' 'Created-By: Packages' |
    awk -v suite="$suite" '$1 == suite && $3 == "main" { print $2; exit }')
[ -n "$mirror" ] || { echo "this machine's apt sources have no $suite (try apt-get update)" >&2; exit 1; }

work=$(mktemp -d)
root=$work/root
mounted=()
finish() {
    local at
    for at in "${mounted[@]}"; do umount "$at" || umount --lazy "$at" || true; done
    if [ "$keep" = yes ]; then
        echo "kept: $root"
    elif ! mount | grep -q " $work/"; then # never through a mount that would not go away
        rm -rf --one-file-system "$work"
    fi
}
trap finish EXIT

echo "== debootstrap $suite"
debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$mirror" >"$work/debootstrap.log" 2>&1 ||
    { tail -n 20 "$work/debootstrap.log"; exit 1; }

# Client settings only: where packages come from, and whom to trust.
copy() {
    local path
    for path in "$@"; do
        [ -e "$path" ] || continue
        mkdir -p "$root$(dirname "$path")"
        cp -rL "$path" "$root$(dirname "$path")/" 2>/dev/null || true
    done
}
rm -f "$root/etc/apt/sources.list"
copy /etc/apt/sources.list /etc/apt/sources.list.d /etc/apt/apt.conf.d /etc/apt/auth.conf \
    /etc/apt/auth.conf.d /etc/apt/keyrings /etc/apt/trusted.gpg.d /usr/share/keyrings \
    /etc/pip.conf /etc/resolv.conf /etc/hosts /usr/local/share/ca-certificates
home=/srv/visitor
mkdir -p "$root$home"
for path in .config/pip .pip; do
    if [ -d "$HOME/$path" ]; then
        mkdir -p "$root$home/$(dirname "$path")"
        cp -rL "$HOME/$path" "$root$home/$path"
    fi
done

for at in proc sys dev dev/pts dev/shm; do
    mkdir -p "$root/$at"
    case $at in
    proc) mount -t proc proc "$root/$at" ;;
    sys) mount -t sysfs -o ro sysfs "$root/$at" ;;
    dev/shm) mount -t tmpfs -o mode=1777 tmpfs "$root/$at" ;;
    *) mount --bind "/$at" "$root/$at" ;;
    esac
    mounted=("$root/$at" "${mounted[@]}")
done

environment=(HOME="$home" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    LANG=C.UTF-8 TERM="${TERM:-dumb}")
while IFS='=' read -r name value; do
    case $name in
    PIP_FIND_LINKS) [ -e "$value" ] || environment+=("$name=$value") ;; # a folder is not copied
    PIP_* | http_proxy | https_proxy | no_proxy | HTTP_PROXY | HTTPS_PROXY | NO_PROXY | SSL_CERT_FILE | \
        REQUESTS_CA_BUNDLE | CI) environment+=("$name=$value") ;;
    esac
done < <(env)
inside() { chroot "$root" /usr/bin/env -i "${environment[@]}" "$@"; }

echo "== what it takes to get the sources: git and make"
inside update-ca-certificates >/dev/null 2>&1
inside apt-get -q update >"$work/apt.log" 2>&1 || { tail -n 20 "$work/apt.log"; exit 1; }
inside env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends git make \
    >>"$work/apt.log" 2>&1 || { tail -n 20 "$work/apt.log"; exit 1; }

git bundle create "$root/cession.bundle" HEAD >/dev/null 2>&1
inside git -c advice.detachedHead=false clone --quiet /cession.bundle "$home/cession"
git rev-parse --short HEAD

for target in "${targets[@]}"; do
    echo "== make $target"
    begin=$SECONDS
    inside make -C "$home/cession" --no-print-directory "$target"
    echo "== make $target: $((SECONDS - begin)) s"
done
