#!/bin/bash
# Installs Debian packages, as root or through sudo. A server among them is not started: tests
# start their own.
set -euo pipefail

say() { printf 'setup: %s\n' "$*" >&2; }

# Neither a user's PATH nor that of a plain `su` has these.
PATH=$PATH:/usr/sbin:/sbin
if ! command -v apt-get >/dev/null 2>&1; then
    say "needed and not found: $* (Debian's names). Install it with this system's own tools."
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null 2>&1 || ! sudo true; then
        say "needed and not installed: $*. Installing it takes root, or a user who may use sudo."
        say "Have it installed once, then repeat the command:  apt-get install $*"
        exit 1
    fi
    exec sudo bash "$0" "$@"
fi

# The one word that both systemd and sysv scripts of a package obey; gone again afterwards.
policy=/usr/sbin/policy-rc.d
if ! [ -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
fi

install() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "$@" >&2
}
if ! install "$@"; then
    # Most often the package lists are missing or old.
    say "trying again with fresh package lists"
    if ! apt-get -q update >&2 || ! install "$@"; then
        say "apt-get could not install $*; its own words are above"
        exit 1
    fi
fi
