#!/usr/bin/env bash
# Larder beside nginx, HAProxy and Varnish, as far as they are installed: CPU time for each request, on one core, with
# the load and the origin on another. Prints the table that README.md shows.
#   benches/compare.sh            some 15 minutes
#   benches/compare.sh --quick    under 3 minutes
#   benches/compare.sh --only hit
# Debian: apt install nginx-light haproxy varnish nghttp2-client
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:/usr/sbin:/usr/local/sbin"

command -v python3 >/dev/null || { echo "needs python3" >&2; exit 69; }
(($(nproc) >= 2)) || { echo "needs two processors: one for the proxy, one for the load" >&2; exit 69; }
cargo build --quiet --locked --release --bin larder
load=$(cargo bench --locked --no-run --bench load --message-format=json 2>/dev/null |
    python3 -c 'import json,sys
print(*[m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable") and m["target"]["name"] == "load"])')
exec python3 benches/compare.py --larder target/release/larder --load "$load" "$@"
