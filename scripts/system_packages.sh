#!/bin/sh
# See that programs are there, or install the Debian packages they are in: system_packages.sh nginx java:openjdk-17-jre-headless.
# What stands after the colon is the package; without one it has the program's name.
# Called by `make test`. Without root or sudo it says what is missing and fails.
set -eu
PATH=$PATH:/usr/sbin:/sbin

missing=
for wanted in "$@"; do command -v "${wanted%%:*}" >/dev/null || missing="$missing ${wanted#*:}"; done
[ "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then sudo=; elif sudo -n true 2>/dev/null; then sudo='sudo -n'; else sudo=none; fi
if [ "$sudo" = none ] || ! command -v apt-get >/dev/null; then
    echo "the tests need these packages, please install them:$missing" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
# A server's package would start it on install; the tests run their own.
$sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $missing
