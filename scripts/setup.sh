#!/bin/bash
# Makes .venv: the interpreter's own virtual environment, exactly the locked packages, and this
# checkout installed in place. Runs again in an instant when nothing has changed.
# Needs Debian's python3 (3.11 or later) and, the first time, root or sudo for python3-venv.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv
stamp=$venv/.installed

say() { printf 'setup: %s\n' "$*" >&2; }

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    local candidate
    # Debian's own first, where it can make environments already: it is built with the optimiser,
    # and the same daemon takes a fifth to a third more processor time without.
    for candidate in /usr/bin/python3.11 /usr/bin/python3; do
        if is_new_enough $candidate && $candidate -c 'import ensurepip, venv' 2>/dev/null; then
            echo $candidate
            return 0
        fi
    done
    for candidate in python3.11 python3.12 python3.13 python3; do
        if command -v "$candidate" >/dev/null 2>&1 && is_new_enough "$candidate"; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

if ! python=$(find_python); then
    say "no Python 3.11 or later; installing Debian's"
    scripts/apt-install.sh python3 python3-venv
    python=$(find_python) || { say "Debian's python3 is older than 3.11"; exit 1; }
fi

# The place counts too: a virtual environment does not survive being moved.
wanted=$({ pwd -P; cat requirements.lock pyproject.toml scripts/setup.sh; } | sha256sum | cut -c1-64)
if [ -x $venv/bin/python ] && [ -x $venv/bin/headend ] && [ -f $stamp ] &&
    [ "$(cat $stamp)" = "$wanted" ]; then
    exit 0
fi

# Debian ships venv without ensurepip until python3-venv is there.
if ! $venv/bin/pip --version >/dev/null 2>&1; then
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        say "$python cannot make a virtual environment yet; installing python$version-venv"
        scripts/apt-install.sh "python$version-venv"
    fi
    say "creating $venv with $python"
    "$python" -m venv --clear $venv
fi

say "installing the locked packages"
$venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --require-hashes -r requirements.lock
$venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --no-deps --no-build-isolation -e .
printf '%s\n' "$wanted" >$stamp
say "done: $venv/bin/headend"
