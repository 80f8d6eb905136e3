#!/usr/bin/env bash
# Fuzzes every decoder for SECONDS each (default 10), beginning with the seeds: fuzz/run.sh [SECONDS] [TARGET…]
# With 0 seconds the seeds alone are tried.
#
# Runs on a stable compiler: the pass that libFuzzer needs is in every LLVM, and no sanitizer is asked for. The library
# has no unsafe code of its own, so what a sanitizer would find lies elsewhere; panics, overflows, hangs and memory
# over the limit are found as usual. What a run learns is kept beside what is built, in
# target/corpus, what it finds in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-10}
[ $# -eq 0 ] || shift
limit="-max_total_time=$seconds"
[ "$seconds" -gt 0 ] || limit=-runs=0
built=${CARGO_TARGET_DIR:-$PWD/target}
host=$(rustc -vV | sed -n 's/^host: //p')
# With --target the flags stay away from build scripts, which have no libFuzzer to link.
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares" \
    cargo build --quiet --target-dir "$built" --target "$host" --bins
if [ $# -eq 0 ]; then
    set -- fuzz_targets/*.rs
fi
for target in "$@"; do
    target=$(basename "$target" .rs)
    echo "== $target"
    mkdir -p "$built/corpus/$target" "artifacts/$target"
    "$built/$host/debug/$target" "$built/corpus/$target" "corpus/$target" -artifact_prefix="artifacts/$target/" \
        "$limit" -max_len=65536 -timeout=20 -rss_limit_mb=2048 -print_funcs=0 -print_final_stats=1 -verbosity=0 \
        2>&1 | grep -vE '^("|######)' # the words that it found useful
done
