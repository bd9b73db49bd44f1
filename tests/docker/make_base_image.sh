#!/bin/sh
# Usage: make_base_image.sh NAME:TAG - make a base image of Debian packages, for a machine that reaches no image registry.
# Needs root, debootstrap and a Docker engine; takes a minute or two. The image trusts the certificates that this machine
# trusts and asks the package index that pip asks here, so the Dockerfile need not know where it is built.
set -eu
name=$1
mirror=${DEBIAN_MIRROR:-} # none: debootstrap's own
certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
trusted=/etc/ssl/certs/ca-certificates.crt # where Debian has them
index=${PIP_INDEX_URL:-$(python3 -m pip config get global.index-url 2>/dev/null || true)}

root=$(mktemp -d)
# A debootstrap that was stopped leaves /proc and /sys mounted, and nothing in there must be removed.
trap 'umount "$root/system/proc" "$root/system/sys" 2>/dev/null || true; rm -rf --one-file-system "$root"' EXIT

debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$root/system" ${mirror:+"$mirror"}
rm -rf "$root"/system/var/cache/apt/* "$root"/system/var/lib/apt/lists/* "$root"/system/var/log/*.log
cp "$certificates" "$root/system$trusted"

set -- --change 'CMD ["python3"]' --change "ENV SSL_CERT_FILE=$trusted PIP_CERT=$trusted"
case $index in
    "") ;; # the tools' own default
    file:* | *@*) echo "warning: the image cannot use pip's index here, a local folder or an address with a password" >&2 ;;
    *) set -- "$@" --change "ENV PIP_INDEX_URL=$index UV_DEFAULT_INDEX=$index" ;;
esac
tar --directory "$root/system" --create . | docker import "$@" - "$name"
