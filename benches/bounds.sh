#!/usr/bin/env bash
# What Larder may cost beside CPU time for each request (for that: compare.sh): memory for each object and each
# connection, what a small memory hits, a stampede, many objects, many routes, a start, hits in Redis (which it starts),
# the tail under a mixed load. Prints a table.
#   benches/bounds.sh              some 5 minutes
#   benches/bounds.sh --only idle  what has this in its name
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v python3 >/dev/null || { echo "needs python3" >&2; exit 69; }
cargo build --quiet --locked --release --bin larder
load=$(cargo bench --locked --no-run --bench load --message-format=json 2>/dev/null |
    python3 -c 'import json,sys
print(*[m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable") and m["target"]["name"] == "load"])')
exec python3 benches/bounds.py --larder "${CARGO_TARGET_DIR:-target}/release/larder" --load "$load" "$@"
