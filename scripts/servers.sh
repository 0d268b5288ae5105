#!/bin/bash
# The servers that tests start themselves, from Debian's packages.
set -euo pipefail
cd "$(dirname "$0")/.."

PATH=$PATH:/usr/sbin
command -v mosquitto >/dev/null 2>&1 || scripts/apt-install.sh mosquitto
