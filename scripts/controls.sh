#!/usr/bin/env bash
# Negative controls of the simulation: each patch in crates/ghostsync-core/tests/controls takes one rule of the
# protocol out of the library, and the simulation must find what breaks. A campaign of minutes, not of CI.
#
#   scripts/controls.sh [SEEDS] [NAME...]     all of them, or these
#
# Prints a table. Fails if a patch does not apply any more, does not compile, or is not found out within SEEDS seeds; one
# that says of itself why it is missed may be.
set -euo pipefail

cd "$(dirname "$0")/.."
patches=$PWD/crates/ghostsync-core/tests/controls
seeds=${1:-500}
shift || true

# One place for all runs, so that each builds over the last; times are new, so that cargo builds what it finds. A
# target folder of its own, since cargo takes a copy of the workspace for the workspace.
controls=${CARGO_TARGET_DIR:-$PWD/target}/controls
export CARGO_TARGET_DIR=$controls/target
tree=$controls/tree
rm -rf "$tree"
mkdir -p "$tree"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$tree"
# A repository of its own, or git would take the paths of the patches for those of the one around it.
git init -q "$tree"
cd "$tree"

names=("$@")
if [ ${#names[@]} = 0 ]; then
  for patch in "$patches"/*.patch; do names+=("$(basename "$patch" .patch)"); done
fi

log=$tree/.git/simulation.log
simulate=(cargo test --quiet --package ghostsync-core --all-features --test it)
failed=()
fail() {
  echo "$1: $2" >&2
  failed+=("$1")
}

# All of them first: one that has rotted is not to be heard of after half an hour.
for name in "${names[@]}"; do
  git apply --check "$patches/$name.patch" || fail "$name" "the patch does not apply"
done
[ ${#failed[@]} = 0 ] || exit 1

echo "| rule | taken out of the library | seed | what the simulation says |"
echo "|---|---|---:|---|"
for name in "${names[@]}"; do
  patch=$patches/$name.patch
  git apply --whitespace=nowarn "$patch"
  if ! "${simulate[@]}" --no-run >"$log" 2>&1; then
    grep -m1 -A5 '^error' "$log" >&2 || true
    fail "$name" "does not compile"
  elif GHOSTSYNC_SEEDS=$seeds "${simulate[@]}" -- simulation::every --nocapture >"$log" 2>&1; then
    if grep -q '^Missed: ' "$patch"; then
      echo "| $(sed -n 's/^Rule: //p' "$patch") | $name: $(sed -n 's/^Broken: //p' "$patch") | | not found out, as is known |"
    else
      fail "$name" "not found out within $seeds seeds"
    fi
  else
    # One line names the seed and the rule; without it the test ended in some other way.
    found=$(sed -n 's/^seed \([0-9]*\): \(.*\)$/\1 | \2/p' "$log" | sed -n 1p)
    if [ -n "$found" ]; then
      echo "| $(sed -n 's/^Rule: //p' "$patch") | $name: $(sed -n 's/^Broken: //p' "$patch") | $found |"
    else
      tail -n 5 "$log" >&2
      fail "$name" "ended without a seed"
    fi
  fi
  git apply -R "$patch"
done

if [ ${#failed[@]} != 0 ]; then
  echo "${#failed[@]} of ${#names[@]} controls are not as they should be: ${failed[*]}" >&2
  exit 1
fi
echo "${#names[@]} controls, all as they should be" >&2
