#!/usr/bin/env bash
# Runs every test. Installs what they need with apt where that is missing and we are root;
# otherwise says which packages to install and exits with 69.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Daemons are in sbin, which is not on everybody's path.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

say() { printf '==> %s\n' "$*"; }

# Command and the Debian package that has it.
needs=(
    redis-server:redis-server
    nginx:nginx-light
    promtool:prometheus
    curl:curl
    python3:python3
    openssl:openssl
    chromium:chromium
)

missing_packages() {
    local need
    for need in "${needs[@]}"; do
        command -v "${need%%:*}" >/dev/null || printf '%s\n' "${need#*:}"
    done
}

policy=/usr/sbin/policy-rc.d
wrote_policy=no

forbid_starting_services() {
    # Debian starts a service as it is installed; the tests start their own. A policy that is
    # there already is somebody's decision and stays.
    if [[ ! -e $policy ]]; then
        wrote_policy=yes
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
}

allow_starting_services() {
    if [[ $wrote_policy == yes ]]; then
        rm -f "$policy"
        wrote_policy=no
    fi
}

install_packages() {
    trap allow_starting_services EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    forbid_starting_services
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "$@"
    unset RUNLEVEL
    allow_starting_services
    trap - EXIT INT TERM
}

mapfile -t packages < <(missing_packages)
if ((${#packages[@]} > 0)); then
    if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
        echo "The tests need these Debian packages, and only root can install them: ${packages[*]}" >&2
        exit 69
    fi
    say "installing ${packages[*]}"
    install_packages "${packages[@]}"
    mapfile -t packages < <(missing_packages)
    if ((${#packages[@]} > 0)); then
        echo "Installed, but their commands are still not found: ${packages[*]}" >&2
        exit 69
    fi
else
    say "redis-server, nginx, promtool, curl, python3, openssl and chromium are here"
fi

if ! command -v cargo >/dev/null; then
    echo "The tests need Rust's cargo, which is not on the path: see https://rustup.rs" >&2
    exit 69
fi

start=$SECONDS
if (($# > 0)); then
    say "cargo test $*"
    cargo test --locked "$@"
else
    # What is built once and thrown away gains nothing from being built in the smallest pieces.
    if [[ ${CI:-} == true ]]; then
        export CARGO_INCREMENTAL=0
    fi
    say "all tests, several binaries at once"
    python3 tests/parallel.py
fi
say "all tests passed in $((SECONDS - start)) s, compiling included"
