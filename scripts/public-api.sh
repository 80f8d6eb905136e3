#!/usr/bin/env bash
# Compares the public API of the core with docs/public-api.txt, so that a change of it is seen in review.
#
#   scripts/public-api.sh check   fails, and shows the difference
#   scripts/public-api.sh write   makes today's API the accepted one
#
# The list is made from rustdoc's JSON, whose format moves with the compiler: another compiler than
# the one that cargo-public-api was released for is reported, and is not a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
accepted=docs/public-api.txt
if [ "${1:-check}" = check ] && [ ! -f "$accepted" ]; then
  echo "public-api: skipped: there is no $accepted yet (just public-api write)" >&2
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# JSON is not stable yet. The permission goes to rustdoc alone: given to cargo it would compile every dependency again.
printf '#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc "$@"\n' >"$work/rustdoc"
chmod +x "$work/rustdoc"
RUSTDOC=$work/rustdoc cargo rustdoc --quiet -p ghostsync-core --lib -- -Z unstable-options --output-format json
json=${CARGO_TARGET_DIR:-target}/doc/ghostsync_core.json

if ! cargo public-api --rustdoc-json "$json" -sss >"$work/api" 2>"$work/errors"; then
  if grep -qi 'format version' "$work/errors"; then
    echo "public-api: skipped: $(rustc --version) writes another format than cargo-public-api reads" >&2
    exit 0
  fi
  cat "$work/errors" >&2
  exit 1
fi
case ${1:-check} in
  write)
    mkdir -p docs
    cp "$work/api" "$accepted"
    ;;
  check)
    if ! diff -u "$accepted" "$work/api"; then
      echo 'The public API has changed. If that is meant: just public-api write' >&2
      exit 1
    fi
    ;;
  *)
    echo "usage: $0 check|write" >&2
    exit 2
    ;;
esac
