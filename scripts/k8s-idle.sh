#!/usr/bin/env bash
# Measures what a sidecar costs that follows 10,000 files in 100 folders while nothing happens: memory after the start,
# after a pass that saves one file and after an idle minute, and the processor time and requests of that minute.
#
#   scripts/k8s-idle.sh
#
# Nothing is asserted. The program comes from `just k8s-idle`; the repository is a folder.
set -euo pipefail
cd "$(dirname "$0")/.."

programs=$(cd "${CARGO_TARGET_DIR:-target}/release" && pwd)
work=$(mktemp -d -p /dev/shm k8s-idle.XXXXXX)
sidecar=''
finish() {
  [ -z "$sidecar" ] || kill -KILL "$sidecar" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

port=$((20000 + RANDOM % 10000))
pod=(env -u GHOSTSYNC_TOOLS GHOSTSYNC_REPO="$work/repository" GHOSTSYNC_PATH="$work/data" GHOSTSYNC_STATE_DIR="$work/run"
  GHOSTSYNC_OWNER=pod GHOSTSYNC_TERMINATION_LOG="$work/words" "$programs/ghostsync-k8s")
mkdir "$work/data" "$work/run"
id=$("$programs/ghostsync" init --repo "$work/repository" --skip-probe 2>&1 | grep -oE '[0-9a-f]{32}' | head -1)

follow() {
  "${pod[@]}" sync --listen "127.0.0.1:$port" 2>"$work/log" &
  sidecar=$!
  passed 1
}

passed() { # PASSES: waits until so many are told
  until [ "$(grep -c '"cause":' "$work/log")" -ge "$1" ]; do sleep 0.05; done
}

memory() { # WHEN
  awk -v when="$1" '/^(VmRSS|RssAnon):/ { kib[$1] = $2 }
    END { printf "%s: %.1f MiB resident, of which %.1f of its own\n", when, kib["VmRSS:"] / 1024, kib["RssAnon:"] / 1024 }' \
    "/proc/$sidecar/status"
}

ticks() { sed 's/.*) //' "/proc/$sidecar/stat" | awk '{ print $12 + $13 }'; }
requests() {
  exec 3<>"/dev/tcp/127.0.0.1/$port"
  printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
  awk '/^ghostsync_store_requests_total/ { sum += $2 } END { print sum + 0 }' <&3
}

"${pod[@]}" restore --genesis "$id" 2>/dev/null
for folder in {00..99}; do
  mkdir "$work/data/$folder"
  head -c 100000 /dev/urandom | split -b 1000 -a 2 - "$work/data/$folder/"
done
follow
memory "after a first pass that stores 10,000 files"
kill -TERM "$sidecar"
wait "$sidecar"
"${pod[@]}" restore --genesis "$id" 2>/dev/null
follow
memory "after a start, everything compared once"
echo changed >"$work/data/changed"
passed 2
memory "after a pass that stores one file"
before=$(requests) began=$(ticks)
sleep 60
memory "after an idle minute"
awk -v ticks="$(($(ticks) - began))" -v hertz="$(getconf CLK_TCK)" -v requests="$(($(requests) - before))" \
  'BEGIN { printf "in that minute: %.2f %% of a core, %d requests\n", ticks / hertz / 60 * 100, requests }'
kill -TERM "$sidecar"
wait "$sidecar"
sidecar=''
