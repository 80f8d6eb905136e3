# What CI runs, and what a change should pass before it is sent. `just` alone lists the recipes.

set shell := ["bash", "-euo", "pipefail", "-c"]

export PATH := `scripts/tools.sh path` + ":" + env("PATH")

# The tests that start a real store, as a filter of the integration tests of both crates.
real_stores := "real_stores"
# The tests that kill the command at random moments, as a filter of its integration tests.
kills := "kills"

_list:
    @just --list --unsorted

# Everything below, with bounded campaigns
ci: fmt typos scripts deny clippy test doc msrv public-api manifests image-test model simulate stores-probe stores kills races podsim fuzz

# Install the pinned tools (see scripts/tools.sh list)
tools *NAMES="checks test-tools":
    scripts/tools.sh {{ NAMES }}

# Formatting, of the fuzz targets and the model too
fmt:
    cargo fmt --all --check
    if [ -f fuzz/Cargo.toml ]; then cargo fmt --manifest-path fuzz/Cargo.toml --check; fi
    cargo fmt --manifest-path model/Cargo.toml --check
    cargo fmt --manifest-path bench/Cargo.toml --check

# Lints on every target and feature
clippy:
    cargo clippy --workspace --all-targets --all-features -- -D warnings
    cargo clippy --manifest-path model/Cargo.toml --release --locked -- -D warnings
    cargo clippy --manifest-path bench/Cargo.toml --all-targets --locked -- -D warnings

# Unit, integration and documentation tests
test *ARGS:
    cargo test --workspace --all-features {{ ARGS }}

# Documentation without a warning
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --all-features

# Licences, bans and sources block
deny:
    cargo deny --all-features check --hide-inclusion-graph licenses bans sources

# Known advisories, reported only: needs the advisory database from the network
advisories:
    -cargo deny --all-features check advisories

# Spelling
typos:
    typos

# Shell scripts: syntax, and shellcheck where it is installed. Patches of controls: they apply
scripts:
    for script in .ci/run scripts/*.sh scripts/*/*.sh; do bash -n "$script"; done
    if command -v shellcheck >/dev/null; then shellcheck -x -P SCRIPTDIR .ci/run scripts/*.sh scripts/*/*.sh; else echo "shellcheck is not installed"; fi
    for patch in crates/ghostsync-core/tests/controls/*.patch; do git apply --check "$patch"; done

# The real Ghost beside the program: first boot, posts and images, every way to end, and on elsewhere (minutes)
ghost *ARGS:
    #!/usr/bin/env bash
    set -euo pipefail
    scripts/tools.sh ghost sqlite3
    if ! scripts/tools.sh home ghost >/dev/null || ! command -v sqlite3 >/dev/null; then
      echo "skipped: Ghost cannot be installed here" >&2
      exit 0
    fi
    cargo build --quiet --locked --package ghostsync-cli --package ghostsync-k8s
    timeout 1200 just _only ghostsync-k8s real_ghost --test-threads=1 {{ ARGS }}

# Manifests and what is packaged: rendered by the real tools, against their schemas, our own lint, promtool
manifests:
    scripts/manifests.sh

# The image as an OCI archive with its SBOM, in FOLDER: a static program and certificates; no registry, no Docker
image *FOLDER:
    scripts/image.sh {{ FOLDER }}

# Build the image and run it under runc and containerd as a cluster would; `just image-test again` compiles it twice
image-test *AGAIN:
    scripts/image-test.sh {{ AGAIN }}

# The sample of an admission policy, run by the API server's own code (compiled: minutes, and a gigabyte), then our lint
admission:
    #!/usr/bin/env bash
    set -euo pipefail
    cargo build --quiet --locked --package ghostsync-k8s
    cd scripts/manifests/admission
    timeout 1500 go run . ../../../deploy/admission/mutating-admission-policy.yaml pod.yaml |
      timeout 60 env -i "${CARGO_TARGET_DIR:-../../../target}/debug/ghostsync-k8s" lint --strict -

# Write what deploy/ and the examples take from the template of `ghostsync-k8s manifest`
packaging MODE="check":
    #!/usr/bin/env bash
    set -euo pipefail
    case "{{ MODE }}" in
      write) export GHOSTSYNC_WRITE=1 ;;
      check) ;;
      *) echo "just packaging write, or just packaging" >&2; exit 2 ;;
    esac
    just _only ghostsync-k8s packaging

# The oldest compiler that Cargo.toml promises builds the workspace
msrv:
    #!/usr/bin/env bash
    set -euo pipefail
    promised=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' Cargo.toml)
    used=$(rustc --version | cut -d' ' -f2)
    case "$used" in
      "$promised" | "$promised".*) cargo check --workspace --all-targets --all-features ;;
      *)
        echo "Cargo.toml promises $promised, this is $used: checking with rustup's $promised" >&2
        cargo "+$promised" check --workspace --all-targets --all-features
        ;;
    esac

# The commit protocol in a model checker: smaller bounds, and every broken rule must be noticed
model *RUNS="bounded":
    cargo run --manifest-path model/Cargo.toml --release --locked --quiet -- {{ RUNS }}

# The same within all bounds: minutes, and gigabytes of memory
model-full: (model "whole")

# SEEDS lives of a repository, simulated on a store that misbehaves; a failure prints its seed
simulate SEEDS="500":
    GHOSTSYNC_SEEDS={{ SEEDS }} just _only ghostsync-core simulation::every

# The same at length
simulate-full: (simulate "10000")

# Take each rule of the protocol out of the library, alone; the simulation must find what breaks: minutes, not in CI
controls SEEDS="500" *NAMES="":
    scripts/controls.sh {{ SEEDS }} {{ NAMES }}

# N random histories of several writers against a naive model; a failure prints the shortest that shows it
histories N="500":
    PROPTEST_CASES={{ N }} just _only ghostsync-core state_machine::whatever

# The tests against every real store that is installed (scripts/tools.sh stores)
stores *ARGS: (_only "ghostsync-core" real_stores ARGS) (_only "ghostsync-cli" real_stores ARGS)

# N rounds of real processes that back up at once, on real stores that cannot create an object at most once
store-races N="100":
    GHOSTSYNC_STORE_RACES={{ N }} just _only ghostsync-cli real_stores_races

# Runs the integration tests of a crate whose names contain FILTER, ignored ones too; no such test is a failure
_only CRATE FILTER *ARGS:
    #!/usr/bin/env bash
    set -euo pipefail
    run=(cargo test --package {{ CRATE }} --all-features --test it -- "{{ FILTER }}" --include-ignored)
    found=$("${run[@]}" --list --format terse)
    grep -q ': test$' <<<"$found" || { echo "no test of {{ CRATE }} is called {{ FILTER }}" >&2; exit 1; }
    "${run[@]}" --nocapture {{ ARGS }}

# Does each store behave as the tests take for granted? Start it, create one object twice, stop it
stores-probe *NAMES:
    scripts/stores/probe.sh {{ NAMES }}

# Every fuzz target for SECONDS each, beginning with its seeds; on a stable compiler
fuzz SECONDS="10" *TARGETS="":
    fuzz/run.sh {{ SECONDS }} {{ TARGETS }}

# N backups and restores, each killed at a random moment
kills N="20":
    #!/usr/bin/env bash
    set -euo pipefail
    [ -n "{{ kills }}" ] || { echo "there are no kill tests yet"; exit 0; }
    GHOSTSYNC_KILLS={{ N }} just _only ghostsync-cli "{{ kills }}"

# N operations of racing processes on one repository: backups, claims, forgets, prunes, some of them killed
races N="120":
    GHOSTSYNC_RACES={{ N }} just _only ghostsync-cli races::races_of

# RUNS lives of pods in each scenario and set-up, of real processes; then what is done wrong must be found (minutes)
podsim RUNS="2":
    #!/usr/bin/env bash
    set -euo pipefail
    cargo build --quiet --package ghostsync-k8s --package podsim
    podsim="${CARGO_TARGET_DIR:-target}/debug/podsim"
    # Changes are saved after 3 s at most, so that no more than the last 5 s before a hard end are lost.
    "$podsim" campaign --runs {{ RUNS }} --parallel 54 --max-wait 3s --setup native --setup shared --setup classic
    "$podsim" controls --runs 6 2>/dev/null

# The large cases that the tests leave out: minutes, and gigabytes of disk
scale:
    cargo test --release --package ghostsync-core --all-features --test it -- scale_ --ignored --nocapture

# Measure ghostsync beside its peers and write docs/benchmarks.md (hours; `just bench steps --help` for parts of it)
bench *ARGS="all":
    #!/usr/bin/env bash
    set -euo pipefail
    if [ "{{ ARGS }}" != report ]; then
      scripts/tools.sh bench
      cargo build --release --locked --bin ghostsync
    fi
    export PATH="$(scripts/tools.sh path):$PATH"
    cargo run --release --locked --quiet --manifest-path bench/Cargo.toml -- \
      --ghostsync "${CARGO_TARGET_DIR:-target}/release/ghostsync" {{ ARGS }}

# How long a pod's start, its restart and its final snapshot take, beside a plain restore (three minutes; docs/kubernetes.md)
k8s-times:
    cargo build --release --locked --bin ghostsync --bin ghostsync-k8s
    cargo build --release --locked --quiet --manifest-path bench/Cargo.toml
    scripts/k8s-times.sh

# What an idle sidecar with 10,000 files costs: memory, processor, requests (two minutes; docs/kubernetes.md)
k8s-idle:
    cargo build --release --locked --bin ghostsync --bin ghostsync-k8s
    scripts/k8s-idle.sh

# Micro-benchmarks of the library's parts (crates/ghostsync-core/benches)
micro *ARGS:
    cargo bench --package ghostsync-core --all-features --bench micro -- {{ ARGS }}

# The tests of the benchmark itself
bench-test:
    cargo test --manifest-path bench/Cargo.toml --locked

# Make the frozen repository of a format that has none yet (tests/frozen)
freeze:
    just _only ghostsync-core freeze_this_format

# Compare the core's public API with docs/public-api.txt; `just public-api write` accepts the new one
public-api MODE="check":
    scripts/public-api.sh {{ MODE }}
