#!/bin/bash
# Installs the program for a machine: every version in a directory of its own, with its own virtual
# environment of exactly the locked packages that it runs with; users, units, a first configuration.
#
#   scripts/install-system.sh [install]      as root; again for an upgrade
#   scripts/install-system.sh uninstall      keeps configuration, data and users
#   scripts/install-system.sh wheels DIR     fetches the packages for a machine without a network
#
# DESTDIR=DIR   into a tree: files only, no user is made and no service touched
# PREFIX=DIR    /opt/headend
# WHEELS=DIR    packages from there, and from nowhere else
# PYTHON=FILE   the interpreter; else Debian's own, 3.11 or later
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."
# Neither a user's PATH nor that of a plain `su` has these.
PATH=$PATH:/usr/sbin:/sbin

destdir=${DESTDIR:-}
prefix=${PREFIX:-/opt/headend}
root=$destdir$prefix
lib=$destdir/usr/local/lib # systemd looks there; /etc stays free for the operator's own units
command_link=$destdir/usr/local/bin/headend
etc=$destdir/etc/headend
units=(headend.service headend-billing.service)
# What the installed program consists of besides its packages.
parts=(headend protocols simulators config docs README.md README.zh-CN.md CHANGELOG.md)
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' headend/__init__.py)

say() { printf 'install: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
is_real() { [ -z "$destdir" ]; }
has_systemd() { is_real && [ -d /run/systemd/system ]; }

is_usable() { # an interpreter that can make environments
    "$1" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        is_usable "$PYTHON" || fail "PYTHON=$PYTHON is not 3.11 or later with ensurepip and venv"
        echo "$PYTHON"
        return
    fi
    for candidate in /usr/bin/python3.11 /usr/bin/python3; do
        if is_usable $candidate; then
            echo $candidate
            return
        fi
    done
    # The services may not look into home directories, where another one may live.
    is_real && return 1
    for candidate in python3.11 python3.12 python3.13 python3; do
        if is_usable $candidate; then
            command -v $candidate
            return
        fi
    done
    return 1
}

run_lock() { # the blocks of requirements.lock that requirements-run.txt names
    awk 'NR == FNR { if ($0 !~ /^#/) wanted[$1] = 1; next }
         /^[^ #]/ { split($1, at, "=="); name = at[1]; sub(/\[.*/, "", name); keep = name in wanted
                    if (keep) found[name] = 1 }
         keep { print }
         END { for (name in wanted) if (!(name in found)) {
                   print "not in requirements.lock: " name > "/dev/stderr"; exit 1 } }' \
        requirements-run.txt requirements.lock
}

content() { # a name for everything that is installed
    {
        echo "$1" "$prefix"
        "$1" -V
        cat requirements.lock requirements-run.txt scripts/install-system.sh
        find "${parts[@]}" -type f ! -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    } | sha256sum | cut -c1-64
}

make_version() { # python stamp
    local target=$root/$version new=$root/.new-$version old=$root/.old-$version lock site
    if [ "$(cat "$target/.installed" 2>/dev/null)" = "$2" ]; then
        say "$version is there already"
        return
    fi
    say "making $target with $1"
    rm -rf "$new" "$old"
    mkdir -p "$new/app"
    "$1" -m venv "$new"
    lock=$new/requirements.txt
    run_lock >"$lock"
    local pip=("$new/bin/python" -m pip --disable-pip-version-check --quiet)
    local from=()
    [ -z "${WHEELS:-}" ] || from=(--no-index --find-links "$WHEELS")
    # The environment of whoever installs must not decide where packages come from then.
    if [ -n "${WHEELS:-}" ]; then
        env -u PIP_FIND_LINKS -u PIP_EXTRA_INDEX_URL PIP_CONFIG_FILE=/dev/null \
            "${pip[@]}" install --no-deps --require-hashes "${from[@]}" -r "$lock"
    else
        "${pip[@]}" install --no-deps --require-hashes -r "$lock"
    fi
    "${pip[@]}" check || fail "the locked packages do not fit together"
    cp -R "${parts[@]}" "$new/app/"
    find "$new/app" -name __pycache__ -type d -prune -exec rm -rf {} +
    # Relative, so that the tree works wherever it is put; and beside app/config, where profiles are.
    site=$("$new/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    realpath --relative-to="$site" "$new/app" >"$site/headend.pth"
    # Programs of other packages name the place they were made in; nothing here needs them.
    find "$new/bin" -mindepth 1 ! -name 'python*' -delete
    cat >"$new/bin/headend" <<'LAUNCHER'
#!/bin/sh
exec "$(dirname "$(readlink -f "$0")")/python" -I -m headend.cli.main "$@"
LAUNCHER
    chmod 755 "$new/bin/headend"
    "$new/bin/python" -m compileall -q "$new/app/headend" "$new/app/protocols" "$new/app/simulators"
    "$new/bin/headend" check --config systemd/headend.yaml >/dev/null ||
        fail "the new version does not run; nothing was changed"
    printf '%s\n' "$2" >"$new/.installed"
    if [ -e "$target" ]; then
        mv "$target" "$old"
    fi
    mv "$new" "$target"
    rm -rf "$old"
}

place_units() {
    local unit
    mkdir -p "$lib/systemd/system" "$lib/sysusers.d" "$lib/tmpfiles.d" "$(dirname "$command_link")"
    for unit in "${units[@]}"; do
        sed "s|/opt/headend/current|$prefix/current|g" "systemd/$unit" >"$lib/systemd/system/$unit"
    done
    cp systemd/headend.sysusers.conf "$lib/sysusers.d/headend.conf"
    cp systemd/headend.tmpfiles.conf "$lib/tmpfiles.d/headend.conf"
    ln -sfn "$prefix/current/bin/headend" "$command_link"
}

place_configuration() {
    mkdir -p "$etc/secrets/headend" "$etc/secrets/billing"
    if [ -e "$etc/headend.yaml" ]; then
        say "kept $etc/headend.yaml"
    else
        cp systemd/headend.yaml "$etc/headend.yaml"
        say "new: $etc/headend.yaml"
    fi
    chmod 750 "$etc"
    chmod 640 "$etc/headend.yaml"
    chmod 700 "$etc/secrets" "$etc/secrets/headend" "$etc/secrets/billing"
}

state() { # changes when something that runs does
    readlink "$root/current" || true
    cat "$root/current/.installed" "${units[@]/#/$lib/systemd/system/}" 2>/dev/null || true
}

install_() {
    local python stamp before
    if is_real && [ "$(id -u)" != 0 ]; then
        fail "this needs root: sudo make install-system"
    fi
    if is_real && ! command -v systemd-sysusers >/dev/null 2>&1; then
        fail "this needs systemd. Without it: make install, and run headend by hand (operations guide)"
    fi
    if ! python=$(find_python); then
        say "no Python 3.11 or later that can make environments; installing Debian's"
        scripts/apt-install.sh python3 python3-venv
        python=$(find_python) || fail "Debian's python3 is older than 3.11"
    fi
    stamp=$(content "$python")
    mkdir -p "$root"
    before=$(state)
    make_version "$python" "$stamp"
    if [ -e "$etc/headend.yaml" ]; then
        "$root/$version/bin/headend" check --config "$etc/headend.yaml" >/dev/null ||
            fail "$version does not take this configuration; what ran before goes on"
    fi
    place_units
    place_configuration
    # From here on the new version is the one that starts.
    ln -sfn "$version" "$root/.current"
    mv -T "$root/.current" "$root/current"
    if is_real; then
        systemd-sysusers headend.conf
        systemd-tmpfiles --create headend.conf
    fi
    if has_systemd; then
        systemctl daemon-reload
    fi
    if has_systemd && [ "$(state)" != "$before" ]; then
        systemctl try-restart "${units[@]}" || fail "$version is installed, but a service does not" \
            "come up with it: journalctl -u headend -u headend-billing"
    fi
    say "done: $root/current -> $version"
}

uninstall() {
    if is_real && [ "$(id -u)" != 0 ]; then
        fail "this needs root: sudo make uninstall-system"
    fi
    if has_systemd; then
        systemctl disable --quiet --now "${units[@]}" 2>/dev/null || true
    fi
    rm -rf "$root"
    rm -f "${units[@]/#/$lib/systemd/system/}" "$lib/sysusers.d/headend.conf" \
        "$lib/tmpfiles.d/headend.conf" "$command_link"
    if has_systemd; then
        systemctl daemon-reload
    fi
    say "removed. Kept: $etc, $destdir/var/lib/headend, $destdir/var/lib/headend-billing, the users"
}

wheels() {
    local python lock
    [ -n "${1:-}" ] || fail "where to? scripts/install-system.sh wheels DIR"
    python=$(find_python) || fail "no Python 3.11 or later with ensurepip: apt install python3-venv"
    mkdir -p "$1"
    lock=$(mktemp -d)
    # shellcheck disable=SC2064 # the directory of now
    trap "rm -rf '$lock'" EXIT
    run_lock >"$lock/requirements.txt"
    "$python" -m venv "$lock/venv"
    "$lock/venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps \
        --require-hashes -r "$lock/requirements.txt" -d "$1"
    say "done: copy $1 and this checkout to the machine, there: make install-system WHEELS=$1"
}

case ${1:-install} in
install) install_ ;;
uninstall) uninstall ;;
wheels) wheels "${2:-}" ;;
*) fail "one of: install, uninstall, wheels DIR" ;;
esac
