#!/bin/bash
# The servers that tests start themselves, from Debian's packages.
set -euo pipefail
cd "$(dirname "$0")/.."

PATH=$PATH:/usr/sbin
missing=()
command -v mosquitto >/dev/null 2>&1 || missing+=(mosquitto)
command -v socat >/dev/null 2>&1 || missing+=(socat)
if (( ${#missing[@]} )); then scripts/apt-install.sh "${missing[@]}"; fi
