#!/bin/bash
# The servers that tests start themselves, and one foreign Modbus master, from Debian's packages.
set -euo pipefail
cd "$(dirname "$0")/.."

PATH=$PATH:/usr/sbin
missing=()
need() { # command package
    command -v "$1" >/dev/null 2>&1 || missing+=("$2")
}
need mosquitto mosquitto
need influxd influxdb
need victoria-metrics victoria-metrics
need mbpoll mbpoll
need systemd-analyze systemd
# Debian keeps PostgreSQL's server programs outside every PATH, by version.
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
if [ ${#missing[@]} -gt 0 ]; then
    scripts/apt-install.sh "${missing[@]}"
fi
