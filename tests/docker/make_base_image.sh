#!/bin/sh
# Usage: make_base_image.sh NAME:TAG - build a base image from Debian packages if no image registry can be reached.
# Needs root, debootstrap and a Docker engine; takes a minute or two. The image trusts the same certificates and uses the
# same package index as this machine, so the Dockerfile works the same everywhere.
set -eu
name=$1
mirror=${DEBIAN_MIRROR:-} # empty: debootstrap's own
certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
trusted=/etc/ssl/certs/ca-certificates.crt # where Debian keeps them
index=${PIP_INDEX_URL:-$(python3 -m pip config get global.index-url 2>/dev/null || true)}

root=$(mktemp -d)
# If debootstrap is stopped, it leaves /proc and /sys mounted; nothing in them must be removed.
trap 'umount "$root/system/proc" "$root/system/sys" 2>/dev/null || true; rm -rf --one-file-system "$root"' EXIT

debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$root/system" ${mirror:+"$mirror"}
rm -rf "$root"/system/var/cache/apt/* "$root"/system/var/lib/apt/lists/* "$root"/system/var/log/*.log
cp "$certificates" "$root/system$trusted"

set -- --change 'CMD ["python3"]' --change "ENV SSL_CERT_FILE=$trusted PIP_CERT=$trusted"
case $index in
    "") ;; # the default of pip and uv
    file:* | *@*) echo "warning: the image cannot use pip's index on this machine: it is a local folder or has a password in its address" >&2 ;;
    *) set -- "$@" --change "ENV PIP_INDEX_URL=$index UV_DEFAULT_INDEX=$index" ;;
esac
tar --directory "$root/system" --create . | docker import "$@" - "$name"
