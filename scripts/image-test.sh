#!/usr/bin/env bash
# Runs the image as a cluster would: a random user, a root that cannot be written to, no capabilities, no new privileges.
#
#   scripts/image-test.sh          build the image (scripts/image.sh), check it, run it
#   scripts/image-test.sh again    compile it once more, from a clone in another folder: the same digest? (minutes)
#
# Under runc, the containers live through a pod's life: init, restore --genesis, sync, ctl, health, a changed file,
# SIGTERM, the final snapshot, a restore elsewhere. containerd imports the archive and starts it, too. Both come from
# Debian (`scripts/tools.sh image`) and need root; where they cannot be had, what was not checked is told as "SKIPPED".
set -euo pipefail
cd "$(dirname "$0")/.."

MAX_IMAGE_BYTES=25000000
LIMIT_SECONDS=60 # for each container, and for each thing that is waited for

say() { printf 'image-test: %s\n' "$*" >&2; }
fail() { say "FAILED: $*"; exit 1; }
skipped=0
skip() { say "SKIPPED: $*"; skipped=$((skipped + 1)); }

work=$(mktemp -d)
started=() containers=()
end() {
  local pid container
  for container in "${containers[@]}"; do
    runc --root "$work/runc" delete --force "$container" >/dev/null 2>&1 || true
  done
  for pid in "${started[@]}"; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  rm -rf "$work"
}
trap end EXIT

# Waits until a command succeeds.
wait_for() { # WHAT COMMAND...
  local what=$1 until=$((SECONDS + LIMIT_SECONDS))
  shift
  until "$@" >"$work/waited" 2>&1; do
    [ "$SECONDS" -lt "$until" ] || { cat "$work/waited" >&2; fail "waited in vain: $what"; }
    sleep 0.05
  done
}

value_of() { sed -n "s/^$1: //p" "$work/shown"; } # KEY, of `oci.py show`

build() {
  scripts/image.sh >"$work/shown" || fail 'the image was not built'
  archive=$(value_of archive) sbom=$(value_of sbom)
}

compile_again() {
  local edited
  edited=$(git status --porcelain --untracked-files=no)
  [ -z "$edited" ] || fail 'a clone has what is committed, and here is more'
  build
  git clone --quiet . "$work/clone"
  CARGO_TARGET_DIR=$work/target "$work/clone/scripts/image.sh" "$work/again" >"$work/shown-again"
  cmp "$archive" "$work/again/$(basename "$archive")" || fail 'two builds differ'
  cmp "$sbom" "$work/again/$(basename "$sbom")" || fail 'two SBOMs differ'
  say "ok: compiled twice, in two folders: $(value_of digest)"
}

check_archive() {
  python3 scripts/image/test_oci.py 2>"$work/output" || { cat "$work/output" >&2; fail 'the tests of oci.py'; }
  cat "$work/shown"
  local packed unpacked
  packed=$(stat --format %s "$archive") unpacked=$(value_of unpacked_bytes)
  say "$(awk -v packed="$packed" -v unpacked="$unpacked" \
    'BEGIN { printf "the image is %.1f MB as an archive and in a registry, %.1f MB unpacked", packed / 1e6, unpacked / 1e6 }')"
  [ "$packed" -le "$MAX_IMAGE_BYTES" ] || fail "larger than $MAX_IMAGE_BYTES bytes"

  # Packed once more, from copies that are new.
  python3 scripts/image/oci.py unpack "$archive" "$work/first" --uid 1
  local files=() path created
  while read -r path; do files+=("$path"); done < <(
    cd "$work/first/rootfs" && find . -type f -printf "/%P=$work/first/rootfs/%P\n" -or -type l -printf '/%P->%l\n' | sort --reverse)
  created=$(date --date "$(sed -n 's/^label: org.opencontainers.image.created=//p' "$work/shown")" +%s)
  python3 scripts/image/oci.py pack "$work/again.tar" --name "$(value_of name | sed 's/:[^:]*$//')" \
    --version "$(sed -n 's/^label: org.opencontainers.image.version=//p' "$work/shown")" \
    --revision "$(sed -n 's/^label: org.opencontainers.image.revision=//p' "$work/shown")" \
    --created "$created" --arch "$(value_of platform | cut -d/ -f2)" "${files[@]}" >/dev/null
  cmp "$archive" "$work/again.tar" || fail 'packed again, the archive differs'

  rm -rf "$work/first" "$work/again.tar"
  say 'ok: archive'
}

check_sbom() {
  # What the program itself says it was made of: the places that a panic would name.
  python3 scripts/image/oci.py unpack "$archive" "$work/first" --uid 1
  grep --text --only-matching '/cargo/registry/src/[^/]*/[^/]*/' "$work/first/rootfs/ghostsync-k8s" |
    sed 's#/$##; s#.*/##; s#-\([0-9]\)#@\1#' | sort -u >"$work/named"
  rm -rf "$work/first"
  python3 - "$sbom" "$work/named" "$(value_of digest)" <<'PYTHON' || fail 'the SBOM'
import json, sys
bom = json.load(open(sys.argv[1]))
listed = {f"{each['name']}@{each['version']}" for each in bom["components"]}
named = set(open(sys.argv[2]).read().split())
assert len(named) > 30, named
assert named <= listed, f"not in the SBOM: {sorted(named - listed)}"
assert bom["metadata"]["component"]["purl"].endswith(sys.argv[3].replace(":", "%3A")), "of another image"
for name in ("ghostsync-k8s", "ghostsync-cli", "ghostsync-core", "certifi", "glibc", "rust-std"):
    assert any(each["name"] == name for each in bom["components"]), name
refs = {each["bom-ref"] for each in bom["components"]} | {bom["metadata"]["component"]["bom-ref"]}
for each in bom["dependencies"]:
    unknown = {each["ref"], *each.get("dependsOn", [])} - refs
    assert not unknown, f"a dependency on {unknown}, which is not listed"
print(f"image-test: ok: SBOM, {len(listed)} components; all {len(named)} crates that the program names", file=sys.stderr)
PYTHON
}

# Makes the bundle of a container.
bundle() { # NAME OPTION... -- ARGUMENT...
  local name=$1
  shift
  python3 scripts/image/oci.py unpack "$archive" "$work/bundles/$name" --uid "$uid" --hostname "$name" "$@"
  containers+=("$name")
}

# Runs a container to its end; its output is in $work/NAME.out and .err.
run() { # NAME OPTION... -- ARGUMENT...
  local name=$1 code=0
  bundle "$@"
  timeout --kill-after=5 "$LIMIT_SECONDS" runc --root "$work/runc" run --bundle "$work/bundles/$name" "$name" \
    </dev/null >"$work/$name.out" 2>"$work/$name.err" || code=$?
  rm -rf "$work/bundles/$name"
  return "$code"
}

told() { # NAME: what a container said, then how the test ends
  cat "$work/$1.out" "$work/$1.err" >&2
  fail "$2"
}

as_user() { setpriv --reuid "$uid" --regid "$uid" --clear-groups -- "$@"; }
# Runs a command in the container sync, with a variable if it begins with --env NAME=VALUE.
inside() {
  local options=()
  [ "$1" != --env ] || { options=("$1" "$2"); shift 2; }
  timeout "$LIMIT_SECONDS" runc --root "$work/runc" exec "${options[@]}" sync "$@"
}
ctl_status() { inside /ghostsync-k8s ctl status; }

# The image's authorities are read, and a pod's own takes their place: in the network of the container with this process.
trust_certificates() { # PID
  local at=$work/tls authority=/run/ghostsync/authority.pem new=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2)
  mkdir "$at"
  openssl req -x509 "${new[@]}" -subj /CN=authority -keyout "$at/authority.key" -out "$work/state/authority.pem" \
    2>"$at/log" || { cat "$at/log" >&2; fail 'openssl made no authority'; }
  openssl req -x509 "${new[@]}" -CA "$work/state/authority.pem" -CAkey "$at/authority.key" -subj /CN=store.test \
    -addext subjectAltName=DNS:store.test -addext basicConstraints=critical,CA:FALSE \
    -keyout "$at/key" -out "$at/certificate" 2>"$at/log" || { cat "$at/log" >&2; fail 'openssl made no certificate'; }
  nsenter --target "$1" --net timeout "$LIMIT_SECONDS" \
    openssl s_server -accept 127.0.0.1:8443 -cert "$at/certificate" -key "$at/key" -www >"$at/server" 2>&1 &
  started+=("$!")
  wait_for 'the server with TLS' grep -q ACCEPT "$at/server"
  # The page that answers is no repository; what counts is how far it comes.
  local ask=(/ghostsync --repo https://store.test:8443/x --retry-time 1s snapshots)
  ! inside "${ask[@]}" 2>"$at/asked" || fail 'a page is no repository'
  grep -q 'invalid peer certificate: UnknownIssuer' "$at/asked" || { cat "$at/asked" >&2; fail 'an unknown authority'; }
  ! inside --env "SSL_CERT_FILE=$authority" "${ask[@]}" 2>"$at/asked" || fail 'a page is no repository'
  grep -q 'Content-Length' "$at/asked" || { cat "$at/asked" >&2; fail "a pod's own authority"; }
  say "ok: a store's certificate is checked, by the image's authorities or a pod's own"
}

live_in_runc() {
  # More than any account of this machine.
  uid=$((200000 + RANDOM))
  say "$(runc --version | head -n 1), as user $uid"
  chmod 0711 "$work"
  mkdir "$work"/{repository,data,state,elsewhere,state-elsewhere}
  touch "$work/last-words"
  printf '127.0.0.1 named.test\n' >"$work/hosts"
  printf 'nameserver 127.0.0.1\noptions attempts:1 timeout:2\n' >"$work/resolv.conf"
  chown "$uid:$uid" "$work"/{repository,data,state,elsewhere,state-elsewhere,last-words}

  local repository=(--mount "$work/repository:/repository") status id
  run init "${repository[@]}" --entrypoint /ghostsync -- --repo /repository init --json || told init 'init'
  id=$(jq --raw-output .repository "$work/init.out")
  [ ${#id} = 32 ] || told init "init printed no id"

  # What shows that the root cannot be written to.
  ! run elsewhere --entrypoint /ghostsync -- --repo /elsewhere init || told elsewhere 'the root could be written to'
  grep -qi 'read-only file system' "$work/elsewhere.err" || told elsewhere 'init failed, but not at a root that is read-only'

  local pod=(--repo /repository --path /data --grace-period 30s)
  run restore "${repository[@]}" --mount "$work/data:/data" --mount "$work/state:/run/ghostsync" \
    --mount "$work/last-words:/dev/termination-log" -- \
    restore "${pod[@]}" --owner first --genesis "$id" || told restore 'restore --genesis'
  [ -s "$work/state/receipt.json" ] || told restore 'restore left no receipt'
  say 'ok: init, restore --genesis'

  as_user sh -c "echo one >$work/data/first"
  bundle sync "${repository[@]}" --mount "$work/data:/data:ro" --mount "$work/state:/run/ghostsync" \
    --mount "$work/last-words:/dev/termination-log" --mount "$work/hosts:/etc/hosts:ro" \
    --mount "$work/resolv.conf:/etc/resolv.conf:ro" -- sync "${pod[@]}" --owner first --quiet 200ms
  runc --root "$work/runc" run --bundle "$work/bundles/sync" sync </dev/null >"$work/sync.out" 2>"$work/sync.err" &
  local runner=$!
  started+=("$runner")
  wait_for 'sync serves its socket' ctl_status
  wait_for 'the first snapshot' sh -c "grep -q '\"result\":\"ok\"' '$work/sync.err'"
  status=$(ctl_status)
  jq --exit-status '.started and .holds and .owner == "first" and .watched' <<<"$status" >/dev/null ||
    told sync "ctl status said $status"
  say 'ok: sync, ctl status'

  # What the kernel says of the process.
  local pid
  pid=$(runc --root "$work/runc" state sync | jq .pid)
  awk -v uid="$uid" '
    $1 == "Uid:" && ($2 != uid || $3 != uid) || $1 ~ /^Cap[A-Z][a-z]+:$/ && $2 !~ /^0+$/ { wrong = wrong $0 "\n" }
    $1 == "NoNewPrivs:" { privileges = $2 }
    END { printf "%s", wrong; exit wrong != "" || privileges != 1 }' "/proc/$pid/status" || fail 'the container may do more'
  say 'ok: no capabilities, no new privileges, a user of no account'

  inside /ghostsync-k8s health --url http://127.0.0.1:9108/startupz >/dev/null || told sync 'health'
  ! inside /ghostsync-k8s health --url http://127.0.0.1:9108/nothing 2>/dev/null || told sync 'health took 404 for a success'
  # A static binary has the C library's resolver in it, and no plug-ins.
  inside /ghostsync-k8s health --url http://named.test:9108/livez >/dev/null || told sync 'a name of /etc/hosts'
  nsenter --target "$pid" --net python3 scripts/image/nameserver.py store.test 127.0.0.1 >"$work/nameserver" 2>&1 &
  started+=("$!")
  wait_for 'the name server' grep -q ready "$work/nameserver"
  inside /ghostsync-k8s health --url http://store.test:9108/livez >/dev/null || told sync 'a name of DNS'
  ! inside /ghostsync-k8s health --url http://unknown.test:9108/livez 2>/dev/null || told sync 'an unknown name'
  say 'ok: health, by address, by /etc/hosts, by DNS'

  trust_certificates "$pid"

  # A change while it runs: waits until another container finds it in a snapshot.
  as_user sh -c "echo two >$work/data/second"
  seen() { run look "${repository[@]}" --entrypoint /ghostsync -- --repo /repository cat latest:second &&
    [ "$(cat "$work/look.out")" = two ]; }
  wait_for 'the changed file in a snapshot' seen
  say 'ok: a changed file is in a snapshot'

  # In the moment before the end, so that only the final snapshot can have it.
  as_user sh -c "echo three >$work/data/last"
  runc --root "$work/runc" kill sync TERM
  local code=0
  wait "$runner" || code=$?
  [ "$code" = 0 ] || told sync "sync ended with $code after SIGTERM"
  grep -q '^final snapshot done' "$work/last-words" || told sync "the last words are '$(cat "$work/last-words")'"
  say "ok: SIGTERM, exit code 0: $(cat "$work/last-words")"

  run restored "${repository[@]}" --mount "$work/elsewhere:/data" --mount "$work/state-elsewhere:/run/ghostsync" -- \
    restore "${pod[@]}" --owner second --genesis "$id" || told restored 'restore in the next pod'
  diff -r "$work/data" "$work/elsewhere" || told restored 'the next pod has something else'
  [ "$(cat "$work/elsewhere/last")" = three ] || fail 'the last file is not there'
  say 'ok: the next pod has everything'
}

# Another reader of the archive, and another hand that applies its configuration.
import_into_containerd() {
  local at=$work/containerd name
  say "$(containerd --version)"
  mkdir "$at"
  cat >"$at/config.toml" <<TOML
version = 2
root = "$at/root"
state = "$at/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$at/socket"
[ttrpc]
  address = "$at/socket.ttrpc"
TOML
  containerd --config "$at/config.toml" >"$at/log" 2>&1 &
  local daemon=$!
  started+=("$daemon")
  client() { timeout "$LIMIT_SECONDS" ctr --address "$at/socket" --namespace image-test "$@"; }
  wait_for 'containerd' client version
  client images import --snapshotter native "$archive" >"$at/imported" 2>&1 || { cat "$at/imported" "$at/log" >&2; fail 'import'; }
  name=$(client images list --quiet)
  client images list | grep -qF "$(value_of digest)" || fail "containerd's digest is another: $(client images list)"
  [[ $name == *"$(value_of name)" ]] || fail "containerd calls it $name"
  # Without arguments its own entrypoint is run, which tells what it may be asked.
  client run --rm --snapshotter native --read-only "$name" asked >"$at/out" 2>&1 || true
  grep -q '^Usage: ghostsync-k8s' "$at/out" || { cat "$at/out" "$at/log" >&2; fail 'the image does not start'; }
  # With arguments those are all that is run, by the image's own user: whose the receipt is tells who that was.
  mkdir -p "$at"/volumes/{data,state}
  cp -R "$work/repository" "$at/volumes/repository"
  chown -R 65532:65532 "$at/volumes"
  client run --rm --snapshotter native --read-only \
    --mount "type=bind,src=$at/volumes/repository,dst=/repository,options=rbind:rw" \
    --mount "type=bind,src=$at/volumes/data,dst=/data,options=rbind:rw" \
    --mount "type=bind,src=$at/volumes/state,dst=/run/ghostsync,options=rbind:rw" \
    "$name" once /ghostsync-k8s restore --repo /repository --path /data --owner third >"$at/out" 2>&1 ||
    { cat "$at/out" "$at/log" >&2; fail 'restore under containerd'; }
  diff -r "$work/data" "$at/volumes/data" || fail 'a restore under containerd has something else'
  [ "$(stat --format %u "$at/volumes/state/receipt.json")" = 65532 ] || fail 'the image ran as another user than its own'
  say "ok: containerd imports $name, and its own user restores everything"
  kill "$daemon"
  wait "$daemon" || true
}

case ${1:-} in
  '') ;;
  again)
    compile_again
    exit 0
    ;;
  *)
    sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "$0"
    [ "$1" = --help ] || exit 2
    exit 0
    ;;
esac

build
check_archive
check_sbom
if [ "$(id -u)" != 0 ]; then
  skip 'NOTHING WAS RUN: runc and containerd need root here'
elif ! command -v runc >/dev/null || ! command -v jq >/dev/null || ! command -v openssl >/dev/null; then
  skip 'NOTHING WAS RUN: runc, jq or openssl is not installed (scripts/tools.sh image)'
else
  live_in_runc
  if command -v containerd >/dev/null && command -v ctr >/dev/null; then
    import_into_containerd
  else
    skip 'the import into containerd: it is not installed (scripts/tools.sh containerd)'
  fi
fi
promised=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' Cargo.toml)
grep -qx "ARG RUST_VERSION=$promised" Dockerfile || fail "the Dockerfile's Rust is not the $promised of Cargo.toml"
if command -v hadolint >/dev/null; then
  hadolint Dockerfile || fail 'hadolint'
  say 'ok: hadolint Dockerfile'
else
  skip 'the Dockerfile: hadolint is not installed (scripts/tools.sh hadolint)'
fi
say "done in $SECONDS s, $skipped skipped"
