# Read by the store scripts beside it; runs nothing by itself.
#
# A store script says what it needs with `require`, defines `launch`, and ends with `run "$@"`:
#
#   SCRIPT start DIR PORT   start the server on 127.0.0.1:PORT (0: a free one), keep everything in DIR
#   SCRIPT stop DIR         end what `start` started there, and nothing else
#
# `start` prints KEY=VALUE lines on stdout and ends with 0 once the server answers and the bucket
# exists; with 77 and one line on stderr when the server is not installed; with 1 and the end of the
# log otherwise, leaving nothing running. Keys are made anew for every start, so a test can never
# talk to another server that has the port by accident. Servers end by themselves after
# GHOSTSYNC_STORE_SECONDS (default 3600), should nobody stop them.
# shellcheck shell=bash
set -euo pipefail

STORE=$(basename "$0" .sh)
LIFETIME_SECONDS=${GHOSTSYNC_STORE_SECONDS:-3600}
MARK=.ghostsync-store # in DIR: one line "pid start-time label" for each process
BUCKET='test'
REGION=us-east-1
PATH=$("$(dirname "${BASH_SOURCE[0]}")/../tools.sh" path):$PATH

complain() { printf '%s: %s\n' "$STORE" "$*" >&2; }

require() { # COMMAND...
  local command
  [ "${ACTION:-}" != stop ] || return 0
  for command in "$@"; do
    command -v "$command" >/dev/null || { complain "skipped: $command is not installed (scripts/tools.sh)"; exit 77; }
  done
}

random_hex() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; } # BYTES

# Prints the first of COUNT neighbouring ports that nobody listens on, from below the range that the
# kernel hands out to outgoing connections.
free_ports() { # COUNT
  local first port try
  for try in {1..200}; do
    first=$((15000 + (RANDOM * 32768 + RANDOM) % 15000))
    for ((port = first; port < first + $1; port++)); do
      ! (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || continue 2
    done
    echo "$first"
    return 0
  done
  complain "no $1 free ports after $try tries"
  return 1
}

# Field 22 of /proc/PID/stat; together with the pid it names one process for good.
started_at() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; } # PID

# Starts a server in a process group of its own, logs to DIR/LABEL.log, and remembers it for `stop`.
spawn() { # LABEL COMMAND...
  setsid timeout --kill-after=5 "$LIFETIME_SECONDS" "${@:2}" >"$DIR/$1.log" 2>&1 </dev/null &
  echo "$! $(started_at $!) $1" >>"$DIR/$MARK"
}

# Waits for COMMAND to succeed; fails at once when a server has ended, or when SECONDS are over.
await() { # SECONDS COMMAND...
  local until=$((SECONDS + $1)) pid label
  shift
  until "$@" >/dev/null 2>&1; do
    while read -r pid _ label; do
      kill -0 "$pid" 2>/dev/null || { complain "$label ended"; return 1; }
    done <"$DIR/$MARK"
    [ "$SECONDS" -lt "$until" ] || { complain "still waiting for: $*"; return 1; }
    sleep 0.05
  done
}

answers() { curl --silent --output /dev/null --max-time 2 "$1"; } # URL

# Runs a set-up command; its output goes to the log.
setup() { "$@" >>"$DIR/setup.log" 2>&1 || { complain "failed: $*"; return 1; }; }

new_s3_keys() {
  ACCESS_KEY=GK$(random_hex 12)
  SECRET_KEY=$(random_hex 32)
}

# A signed request without a body. The hash of the empty body is given since curl before 8 leaves the header out.
s3() { # CURL-ARGUMENT...
  curl --silent --show-error --fail --max-time 30 --aws-sigv4 "aws:amz:$REGION:s3" \
    --user "$ACCESS_KEY:$SECRET_KEY" \
    --header 'x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855' "$@"
}

s3_settings() {
  cat <<SETTINGS
KIND=s3
AWS_ENDPOINT_URL=http://127.0.0.1:$PORT
AWS_ACCESS_KEY_ID=$ACCESS_KEY
AWS_SECRET_ACCESS_KEY=$SECRET_KEY
AWS_REGION=$REGION
AWS_ALLOW_HTTP=true
AWS_EC2_METADATA_DISABLED=true
BUCKET=$BUCKET
SETTINGS
}

group_lives() { # PID START-TIME
  local now
  kill -0 -- "-$1" 2>/dev/null || return 1
  now=$(started_at "$1") || true
  [ -z "$now" ] || [ "$now" = "$2" ] # another process has the pid now
}

stop() {
  local pid start left i signal=TERM
  [ -f "$DIR/$MARK" ] || return 0
  for i in {1..100}; do
    left=
    while read -r pid start _; do
      group_lives "$pid" "$start" || continue
      left=1
      # Asked once, and after two seconds no longer asked: nothing in DIR is worth a longer wait.
      if [ "$i" = 1 ] || [ "$i" = 20 ]; then kill -"$signal" -- "-$pid" 2>/dev/null || true; fi
    done < <(tac "$DIR/$MARK")
    [ -n "$left" ] || break
    [ "$i" -lt 19 ] || signal=KILL
    sleep 0.1
  done
  [ -z "$left" ] || { complain "could not end everything in $DIR"; return 1; }
  : >"$DIR/$MARK"
}

show_logs() {
  local log
  for log in "$DIR"/*.log; do
    [ -s "$log" ] || continue
    printf -- '--- %s\n' "$log" >&2
    tail -n 20 "$log" >&2
  done
}

run() {
  local began=$EPOCHREALTIME
  case "$ACTION:$#" in
    stop:2) stop ;;
    start:3)
      if [ -e "$DIR/$MARK" ]; then
        stop
        find "$DIR" -mindepth 1 -delete
      elif [ -n "$(ls -A "$DIR" 2>/dev/null)" ]; then
        complain "$DIR is not empty, and not of an earlier start"
        exit 2
      fi
      mkdir -p "$DIR"
      DIR=$(cd "$DIR" && pwd)
      : >"$DIR/$MARK"
      trap '[ -n "$READY" ] || { show_logs; stop; }' EXIT
      launch
      READY=1
      complain "ready after $(((${EPOCHREALTIME/./} - ${began/./}) / 1000)) ms, port $PORT"
      ;;
    *)
      echo "usage: $0 start DIR PORT | stop DIR" >&2
      exit 2
      ;;
  esac
}

READY=
ACTION=${1:-}
DIR=${2:-}
PORT=${3:-0}
