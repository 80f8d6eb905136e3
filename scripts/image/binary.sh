#!/usr/bin/env bash
# Compiles `ghostsync-k8s`, which is `ghostsync` too under that name, for a target, statically, and prints where it is.
#
#   scripts/image/binary.sh TARGET     x86_64-unknown-linux-gnu, aarch64-unknown-linux-gnu
#
# For another machine than this one it needs Rust's target and a C compiler called like Debian's, aarch64-linux-gnu-gcc.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=$1
machine=${target%%-*}
build=$(realpath -m "${CARGO_TARGET_DIR:-target}")
cargo_home=$(realpath -m "${CARGO_HOME:-$HOME/.cargo}")
key=$(tr 'a-z-' 'A-Z_' <<<"$target")

# No path of this machine in the binary, whoever builds it. The flags are the target's alone, since what runs while
# compiling (build scripts, macros) must not be static.
export "CARGO_TARGET_${key}_RUSTFLAGS=-C target-feature=+crt-static \
--remap-path-prefix=$build=/target --remap-path-prefix=$cargo_home=/cargo"
export "CFLAGS_${target//-/_}=-ffile-prefix-map=$build=/target -ffile-prefix-map=$cargo_home=/cargo"
[ "$machine" = "$(uname -m)" ] || export "CARGO_TARGET_${key}_LINKER=$machine-linux-gnu-gcc"
CARGO_INCREMENTAL=0 cargo build --locked --profile dist --target "$target" --package ghostsync-k8s --bin ghostsync-k8s >&2

made=$build/$target/dist/ghostsync-k8s
if readelf --program-headers --wide "$made" | grep INTERP; then
  echo "$made is not static: it wants a loader" >&2
  exit 1
fi
if grep --text --only-matching -e "$build/[ -~]*" -e "$cargo_home/[ -~]*" -e "$PWD/[ -~]*" "$made" >&2; then
  echo "$made names folders of this machine" >&2
  exit 1
fi
echo "$made"
