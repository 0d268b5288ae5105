#!/bin/bash
# The servers and programs that tests start themselves, from Debian's packages.
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
need chromium chromium
need promtool prometheus
need amtool prometheus-alertmanager
# Debian keeps PostgreSQL's server programs outside every PATH, by version.
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
# A Modbus device in C is built by the tests.
need cc gcc
[ -f /usr/include/stdio.h ] || missing+=(libc6-dev)
[ -f /usr/include/modbus/modbus.h ] || missing+=(libmodbus-dev)
# Chinese in the browser's pictures.
[ -d /usr/share/fonts/truetype/wqy ] || missing+=(fonts-wqy-microhei)
if [ ${#missing[@]} -gt 0 ]; then
    scripts/apt-install.sh "${missing[@]}"
fi
