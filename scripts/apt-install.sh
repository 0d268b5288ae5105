#!/bin/bash
# Installs Debian packages, as root or through sudo, without starting their services.
set -euo pipefail

as_root=()
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "setup: $* is needed; install it as root (apt-get install $*)" >&2
        exit 1
    fi
    as_root=(sudo)
fi
# RUNLEVEL=1 keeps a freshly installed server from being started: ours are started by the tests.
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -q -y)
"${apt[@]}" install --no-install-recommends "$@" >&2 && exit 0
"${apt[@]}" update >&2
"${apt[@]}" install --no-install-recommends "$@" >&2
