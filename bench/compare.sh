#!/usr/bin/env bash
# Times ghostsync beside rsync, rclone and restic on one tree of small files and one of large ones, on one local disk.
# usage: bench/compare.sh [FOLDER]   (default: a new temporary folder, removed afterwards)
# Needs rsync, rclone and restic (Debian: apt-get install rsync rclone restic time) and a quiet machine.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# -gt 0 ]; then base=$1; mkdir -p "$base"; else base=$(mktemp -d); trap 'rm -rf "$base"' EXIT; fi
cargo build --release --quiet --bin ghostsync
ghostsync=${CARGO_TARGET_DIR:-target}/release/ghostsync
export RESTIC_PASSWORD=bench RCLONE_CONFIG=/dev/null

# One command: wall seconds and peak memory in MiB.
measure() { # LABEL COMMAND...
  local label=$1; shift
  /usr/bin/time -f '%e %M' -o "$base/time" "$@" >"$base/out" 2>&1 || { cat "$base/out" >&2; echo "$label failed" >&2; exit 1; }
  read -r seconds kib <"$base/time"
  printf '| %-28s | %8.2f | %6d |\n' "$label" "$seconds" $((kib / 1024))
}

make_small() { # 20,000 files of 1 to 24 KiB in 200 folders, half of it text
  python3 - "$1" <<'P'
import os, random, sys
random.seed(1)
words = [bytes(random.choices(b"abcdefghijklmnopqrstuvwxyz", k=random.randint(2, 9))) for _ in range(2000)]
for i in range(20000):
    folder = f"{sys.argv[1]}/{i % 200:03}"
    os.makedirs(folder, exist_ok=True)
    size = random.randint(1024, 24576)
    data = random.randbytes(size) if i % 2 else b" ".join(random.choices(words, k=size // 6))[:size]
    with open(f"{folder}/{i}", "wb") as file: file.write(data)
P
}

make_large() { # 4 files of 256 MiB, half of it incompressible
  mkdir -p "$1"
  python3 - "$1" <<'P'
import random, sys
random.seed(2)
for i in range(4):
    with open(f"{sys.argv[1]}/{i}", "wb") as file:
        for block in range(256):
            file.write(random.randbytes(1 << 20) if block % 2 else (b"%d line of a log file\n" % block * 60000)[: 1 << 20])
P
}

change() { # one file
  local first; first=$(find "$1" -type f | sort | sed -n 1p)
  printf 'changed' >>"$first"
}

for tree in small large; do
  source=$base/$tree
  [ -d "$source" ] || "make_$tree" "$source"
  echo
  echo "### $tree: $(find "$source" -type f | wc -l) files, $(du -sm --apparent-size "$source" | cut -f1) MiB"
  echo
  echo '| step | seconds | MiB |'
  echo '|---|---:|---:|'
  g=("$ghostsync" --quiet --repo "$base/$tree-ghostsync" --cache-dir "$base/$tree-cache")
  r=(restic --quiet --no-cache --repo "$base/$tree-restic")
  restic init --quiet --repo "$base/$tree-restic"
  "${g[@]}" init >/dev/null
  for step in first unchanged 'one file changed'; do
    [ "$step" != 'one file changed' ] || change "$source"
    measure "rsync, $step" rsync -a --delete "$source/" "$base/$tree-rsync/"
    measure "rclone, $step" rclone sync "$source" "$base/$tree-rclone"
    measure "restic, $step" "${r[@]}" backup "$source"
    measure "ghostsync, $step" "${g[@]}" backup "$source"
  done
  measure 'rsync, restore' rsync -a "$base/$tree-rsync/" "$base/$tree-back-rsync/"
  measure 'rclone, restore' rclone sync "$base/$tree-rclone" "$base/$tree-back-rclone"
  measure 'restic, restore' "${r[@]}" restore latest --target "$base/$tree-back-restic"
  measure 'ghostsync, restore' "${g[@]}" restore "$base/$tree-back-ghostsync"
  diff -r "$source" "$base/$tree-back-ghostsync"
  echo
  echo "stored MiB: rsync $(du -sm "$base/$tree-rsync" | cut -f1), restic $(du -sm "$base/$tree-restic" | cut -f1), ghostsync $(du -sm "$base/$tree-ghostsync" | cut -f1)"
done
