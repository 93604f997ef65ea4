#!/usr/bin/env bash
# Instructions that a request costs, counted by valgrind (apt install valgrind): the same work N1 and N2 times, and the
# difference divided by N2 - N1. With `--process` also of a whole Larder on one thread that is asked over loopback, for
# which it starts a redis-server. Says how each compares with what benches/instructions.txt has, and fails where one
# is more than 3 % dearer; `--write` counts all of it and writes it there. Counts of two compilers do not compare.
# KEEP=DIRECTORY leaves what callgrind has written there, for callgrind_annotate.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

need() { command -v "$1" >/dev/null || { echo "needs $1: apt install $2" >&2; exit 69; }; }
need valgrind valgrind
process='' write=''
for word in "$@"; do
    case $word in
        --process) process=yes; need redis-server redis-server ;;
        --write) write=yes; process=yes; need redis-server redis-server ;;
        *) echo "usage: benches/instructions.sh [--process] [--write]" >&2; exit 64 ;;
    esac
done
known=benches/instructions.txt
work=$(mktemp -d)
started=()
larder=''
finish() {
    for pid in "${started[@]}" $larder; do kill "$pid" || true; done
    rm -rf "$work"
}
trap finish EXIT

hit=$(cargo bench --locked --no-run --bench hit --message-format=json 2>"$work/build" |
    python3 -c 'import json,sys
print(*[m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable") and m["target"]["name"] == "hit"])')

dearer=''
note() { # name, instructions
    local before change=''
    before=$(awk -v name="$1" '$1 == name { print $2 }' "$known" 2>/dev/null || true)
    if [[ -n $before ]]; then
        change=$(awk -v a="$before" -v b="$2" 'BEGIN { printf "%+.1f %%", (b - a) * 100 / a }')
        (($2 * 100 <= before * 103)) || dearer+=" $1"
    fi
    printf '%-10s %8d  %s\n' "$1" "$2" "$change"
    printf '%-10s %8d\n' "$1" "$2" >>"$work/counts"
}

collected() { sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$work/log"; }

total() { # instructions of a command
    valgrind --tool=callgrind --callgrind-out-file="$work/out" "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
    collected
}

for part in key asked read rules lookup encode decode; do
    few=$(total "$hit" "$part" 1000)
    many=$(total "$hit" "$part" 11000)
    note "$part" $(((many - few) / 10000))
done

await() { # a file to have a line like this; prints what is caught
    local found=''
    while [[ -z $found ]]; do
        sleep 0.1
        found=$(sed -n "s/$2/\1/p" "$1" | head -n 1)
    done
    echo "$found"
}

asked() { # work, requests, redis or nothing, valgrind's words
    local name=$1 times=$2 tier=$3 address
    shift 3
    [[ -z $tier ]] || tier="redis = \"$tier\""
    cat >"$work/proxy.toml" <<END
listen = "127.0.0.1:0"
admin = "off"
workers = 1
[cache]
$tier
redis_deadline = "1s"
warm_start = false
[upstream.o]
servers = ["http://$origin"]
[[route]]
name = "all"
match = { path = "/*" }
upstream = "o"
END
    "$@" target/release/larder run -c "$work/proxy.toml" 2>"$work/log" >/dev/null &
    larder=$!
    address=$(await "$work/log" '.*listening on http:\/\/\([0-9.:]*\).*')
    "$hit" ask "$address" "$name" "$times"
    kill -TERM "$larder"
    wait "$larder" || { cat "$work/log" >&2; exit 1; }
    larder=''
}

whole() { # work, requests, more requests, redis or nothing
    local few many callgrind=(valgrind --tool=callgrind --callgrind-out-file="${KEEP:-$work}/callgrind.$1")
    asked "$1" "$2" "${4:-}" "${callgrind[@]}"
    few=$(collected)
    asked "$1" "$3" "${4:-}" "${callgrind[@]}"
    many=$(collected)
    note "$1" $(((many - few) / ($3 - $2)))
}

if [[ -n $process ]]; then
    cargo build --quiet --locked --release --bin larder
    "$hit" origin >"$work/origin" &
    started+=($!)
    origin=$(await "$work/origin" '\(.*\)')
    port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
    redis-server --port "$port" --bind 127.0.0.1 --save '' --dir "$work" >"$work/redis" &
    started+=($!)
    await "$work/redis" '.*\(Ready to accept\).*' >/dev/null
    whole hit 1000 6000
    whole held 1000 6000
    whole miss 300 1300
    # What another Larder has put into Redis.
    asked fill 1300 "redis://127.0.0.1:$port"
    whole redis 300 1300 "redis://127.0.0.1:$port"
fi

if [[ -n $write ]]; then
    {
        echo "# Instructions for each request: benches/instructions.sh --process --write, by $(rustc --version | cut -d' ' -f1,2)."
        cat "$work/counts"
    } >"$work/new"
    mv "$work/new" "$known"
elif [[ -n $dearer ]]; then
    echo "more than 3 % dearer:$dearer" >&2
    exit 1
fi
