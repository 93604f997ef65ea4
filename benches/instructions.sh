#!/usr/bin/env bash
# Instructions that a hit costs, counted by valgrind (apt install valgrind): the same work N1 and N2
# times, and the difference divided by N2 - N1. With `--process` also of a whole Larder on one thread.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v valgrind >/dev/null || { echo "needs valgrind: apt install valgrind" >&2; exit 69; }
work=$(mktemp -d)
trap 'rm -rf "$work"; [[ -z ${origin:-} ]] || kill "$origin"' EXIT

hit=$(cargo bench --locked --no-run --bench hit --message-format=json 2>"$work/build" |
    python3 -c 'import json,sys
print(*[m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable") and m["target"]["name"] == "hit"])')

total() { # instructions of a command
    valgrind --tool=callgrind --callgrind-out-file="$work/out" "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
    sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$work/log"
}

per_hit() { # what, fields
    local few many
    few=$(total "$hit" "$1" 1000 "$2")
    many=$(total "$hit" "$1" 11000 "$2")
    printf '%-8s %2s more fields stored: %6d instructions\n' "$1" "$2" $(((many - few) / 10000))
}

for what in rules lookup read; do
    per_hit "$what" 0
    per_hit "$what" 7
done

[[ ${1:-} == --process ]] || exit 0
cargo build --quiet --locked --release --bin larder
"$hit" origin >"$work/origin" &
origin=$!
while [[ ! -s $work/origin ]]; do sleep 0.05; done
whole() { # requests
    printf 'listen = "127.0.0.1:0"\nadmin = "off"\nworkers = 1\n[upstream.o]\nservers = ["http://%s"]\n[[route]]\nname = "all"\nmatch = { path = "/*" }\nupstream = "o"\n' "$(cat "$work/origin")" >"$work/proxy.toml"
    valgrind --tool=callgrind --callgrind-out-file="$work/out" target/release/larder run -c "$work/proxy.toml" 2>"$work/log" &
    local larder=$! address=
    while [[ -z $address ]]; do
        sleep 0.1
        address=$(sed -n 's/.*listening on http:\/\/\([0-9.:]*\).*/\1/p' "$work/log")
    done
    "$hit" ask "$address" "$1"
    kill -TERM "$larder"
    wait "$larder" || true
    sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$work/log"
}
few=$(whole 1000)
many=$(whole 6000)
printf 'a whole Larder, one thread, HTTP/1.1: %d instructions for each hit\n' $(((many - few) / 5000))
