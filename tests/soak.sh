#!/usr/bin/env bash
# Keeps a release build of Larder busy for a while: mixed load, hostile clients, faults of the origin and of
# Redis, reloads, purges. Fails if a request failed that should not have, or if memory, descriptors, tasks or
# fetches do not stay flat; prints a table either way.
#
#   tests/soak.sh                    10 minutes
#   SOAK_SECONDS=60 tests/soak.sh    shorter; below a minute it says little
#
# Talks to loopback alone, ends only what it started, and ends by itself.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

seconds=${SOAK_SECONDS:-600}
[[ $seconds =~ ^[0-9]+$ && $seconds -ge 20 ]] || { echo "SOAK_SECONDS: a number from 20 on" >&2; exit 2; }
command -v python3 >/dev/null || { echo "python3 is needed (only its standard library)" >&2; exit 69; }

cargo build --release --locked --quiet
larder=${CARGO_TARGET_DIR:-target}/release/larder

redis=()
if command -v redis-server >/dev/null; then
    redis=(--redis "$(command -v redis-server)")
else
    printf '\n!!! redis-server is not installed: THE SHARED TIER IS NOT PART OF THIS SOAK !!!\n\n' >&2
fi
exec timeout --kill-after=10 $((seconds + 180)) \
    python3 tests/soak/soak.py --larder "$larder" --seconds "$seconds" "${redis[@]}"
