#!/usr/bin/env bash
# Measures how long the app of a pod waits, and how long the pod's end takes, with stores on this machine:
#
#   scripts/k8s-times.sh
#
# - the start with 1 GB of content: restore, then sync until /startupz, beside a plain `ghostsync restore`;
# - the restart over a directory that is whole, beside a walk over it;
# - the final snapshot with 10 changed files, over a line of 30 ms round trip (bench/src/line.rs), with its requests:
#   in commit mode `detect` on Garage, and in commit mode `atomic` on Ceph, which is left out where it is not installed.
#
# Nothing is asserted: a machine that is busy with something else would fail for no reason. The programs come from
# `just k8s-times`, the stores from `scripts/tools.sh stores`.
set -euo pipefail
cd "$(dirname "$0")/.."

RUNS=3
ENDS=5
programs=$(cd "${CARGO_TARGET_DIR:-target}/release" && pwd)
line=$(cd "${CARGO_TARGET_DIR:-bench/target}/release" && pwd)/ghostsync-bench
work=$(mktemp -d -p /dev/shm k8s-times.XXXXXX)
sidecar='' passing='' started=''

finish() {
  [ -z "$sidecar" ] || kill -KILL "$sidecar" 2>/dev/null || true
  [ -z "$passing" ] || kill "$passing" 2>/dev/null || true
  [ -z "$started" ] || "scripts/stores/$started.sh" stop "$work/$started" || true
  rm -rf "$work"
}
trap finish EXIT

now() { echo "${EPOCHREALTIME/,/.}"; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.3f\n", b - a }'; } # TIME
median() { sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }

start_store() { # NAME; fails where it is not installed
  local settings name value
  mkdir "$work/$1"
  settings=$("scripts/stores/$1.sh" start "$work/$1" 0) || return
  started=$1
  while IFS='=' read -r name value; do export "$name=$value"; done <<<"$settings"
  export GHOSTSYNC_REPO="s3://$BUCKET/pod"
}

stop_store() {
  "scripts/stores/$started.sh" stop "$work/$started"
  rm -rf "${work:?}/$started"
  started=''
}

save() { # FOLDER COMMIT-MODE: into a new repository
  id=$("$programs/ghostsync" init --commit-mode "$2" 2>&1 | grep -oE '[0-9a-f]{32}' | head -1)
  "$programs/ghostsync" backup --cache-dir "$work/cache" "$1" >"$work/log" 2>&1
  rm -rf "$1" "$work/cache"
}

start_store garage
mkdir "$work/content"
port=$((20000 + RANDOM % 10000))
pod=(env GHOSTSYNC_PATH="$work/data" GHOSTSYNC_STATE_DIR="$work/run" GHOSTSYNC_OWNER=pod
  GHOSTSYNC_TERMINATION_LOG="$work/words" "$programs/ghostsync-k8s")

# 1 GB as a blog has it: pictures, and small files beside them.
for folder in {00..19}; do
  mkdir "$work/content/$folder"
  head -c 52000000 /dev/urandom | split -b 1040000 -a 3 - "$work/content/$folder/image-"
  head -c 200000 /dev/urandom | split -b 4000 -a 3 - "$work/content/$folder/text-"
done
files=$(find "$work/content" -type f | wc -l)
save "$work/content" detect

restore() {
  timeout 60 "${pod[@]}" restore --genesis "$id" 2>>"$work/log" || { tail -5 "$work/log" >&2; exit 1; }
}

follow() { # until the app may start
  "${pod[@]}" sync --listen "127.0.0.1:$port" 2>"$work/sync.log" &
  sidecar=$!
  until timeout 5 "${pod[@]}" health --url "http://127.0.0.1:$port/startupz" >/dev/null 2>&1; do
    kill -0 "$sidecar" || { cat "$work/sync.log" >&2; exit 1; }
    sleep 0.005
  done
}

first_pass() { # one is made of everything at the start, to find what was edited before
  until grep -q '"cause":' "$work/sync.log"; do sleep 0.01; done
}

end() { # as the kubelet does; prints nothing, and waits
  kill -TERM "$sidecar"
  wait "$sidecar" || { cat "$work/sync.log" >&2; exit 1; }
  sidecar=''
}

say() { printf '%s\n' "$*"; }
say "$files files, 1 GB, Garage on this machine; medians of $RUNS runs (the final snapshot: $ENDS)"

for ((run = 0; run < RUNS; run++)); do
  rm -rf "$work/data" "$work/run" "$work/plain" "$work/cache"
  began=$(now)
  "$programs/ghostsync" restore --cache-dir "$work/cache" "$work/plain" >>"$work/log" 2>&1
  since "$began" >>"$work/plain.times"
  rm -rf "$work/plain" "$work/cache"
  mkdir "$work/data" "$work/run"
  began=$(now)
  restore
  follow
  since "$began" >>"$work/start.times"
  first_pass
  # What the kubelet starts again after the node has: the directory is there, and whole.
  kill -KILL "$sidecar"
  wait "$sidecar" 2>/dev/null || true
  began=$(now)
  find "$work/data" -newermt 2100-01-01 >/dev/null
  since "$began" >>"$work/walk.times"
  began=$(now)
  restore
  follow
  since "$began" >>"$work/restart.times"
  first_pass
  end
done

plain=$(median <"$work/plain.times") begun=$(median <"$work/start.times")
say "plain restore:               $plain s"
say "pod start to app start:      $begun s, $(ratio "$begun" "$plain") times a plain restore (goal: 1.3)"
say "restart, directory whole:    $(median <"$work/restart.times") s, of which a walk: $(median <"$work/walk.times") s (goal: 0.5 s beyond)"

hold_line() { # between the pod and the store that was started last
  rm -f "$work/hold" "$work/line"
  mkfifo "$work/hold"
  "$line" line "${AWS_ENDPOINT_URL#http://}" <"$work/hold" >"$work/line" &
  passing=$!
  exec 4>"$work/hold"
  until [ -s "$work/line" ]; do sleep 0.01; done
  AWS_ENDPOINT_URL=http://$(cat "$work/line")
  export AWS_ENDPOINT_URL
}

let_go() {
  exec 4>&-
  wait "$passing" || true
  passing=''
}

ends() { # WHERE
  local run file
  rm -f "$work/end.times"
  hold_line
  for ((run = 0; run < ENDS; run++)); do
    restore
    follow
    first_pass
    for file in {0..9}; do head -c 20000 /dev/urandom >"$work/data/0$file/text-aaa"; done
    began=$(now)
    end
    since "$began" >>"$work/end.times"
    grep -q 'final snapshot done' "$work/sync.log"
  done
  let_go
  say "final snapshot, 10 changed files, 30 ms round trip, $1: $(median <"$work/end.times") s (goal: 1 s)"
  grep '"cause":"final"' "$work/sync.log" | grep -oE '"requests":{[^}]*}|"seconds":[0-9.]+' | paste -sd' '
}

ends 'Garage, detect'
stop_store
if start_store ceph; then
  save "$work/data" atomic
  rm -rf "$work/run"
  mkdir "$work/data" "$work/run"
  restore
  ends 'Ceph, atomic'
  stop_store
fi
