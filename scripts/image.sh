#!/usr/bin/env bash
# Builds the image of ghostsync as an OCI archive for the machine's own architecture: a static binary under its two names,
# certificates, licences, nothing else. No registry and no Docker; `scripts/tools.sh image` installs what it needs.
#
#   scripts/image.sh [FOLDER]     FOLDER: where it goes, by default image/ in the target folder
#
# Leaves ghostsync-VERSION-ARCH.oci.tar and its SBOM, ghostsync-VERSION-ARCH.cdx.json (CycloneDX), and prints the digest
# and the sizes. The same commit gives the same bytes: `scripts/image-test.sh again` compiles it twice to see that.
#
# GHOSTSYNC_IMAGE_NAME (ghostsync) is what the image is called, such as registry.example/ghostsync.
set -euo pipefail
cd "$(dirname "$0")/.."

# Whom the binaries trust: Mozilla's list as certifi carries it. The machine's own /etc/ssl/certs may hold the authority of
# a proxy that this machine sits behind, and every pod would trust that.
CERTIFICATES_SHA256=9cc2a774b5198dcff14d9be1e66091f538975d867ce029a96bce15a55dfd730f

say() { printf 'image: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

case ${1:-} in
  -h | --help)
    sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "$0"
    exit 0
    ;;
esac
build=$(realpath -m "${CARGO_TARGET_DIR:-target}")
folder=${1:-$build/image}
machine=$(uname -m)
case $machine in
  x86_64) arch=amd64 ;;
  aarch64) arch=arm64 ;;
  *) fail "no image for $machine" ;;
esac
target=$machine-unknown-linux-gnu
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version *= *"\(.*\)"/\1/p' Cargo.toml)
archive=$folder/ghostsync-$version-$arch.oci.tar
sbom=$folder/ghostsync-$version-$arch.cdx.json

certifi=$(scripts/tools.sh home certifi) || fail 'no certificates: scripts/tools.sh image'
sha256sum --quiet --check - <<<"$CERTIFICATES_SHA256  $certifi/certifi/cacert.pem" ||
  fail "certifi's cacert.pem is not the one that this script names"

cyclonedx=$(scripts/tools.sh home cargo-cyclonedx) || fail 'no cargo-cyclonedx: scripts/tools.sh image'

# When and what: of the commit, so that the same sources give the same image.
revision=$(git rev-parse HEAD)
created=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
[ -z "$(git status --porcelain --untracked-files=no)" ] || revision=$revision-edited

made=$(scripts/image/binary.sh "$target")
mkdir -p "$folder"
digest=$(python3 scripts/image/oci.py pack "$archive" --name "${GHOSTSYNC_IMAGE_NAME:-ghostsync}" --version "$version" \
  --revision "$revision" --created "$created" --arch "$arch" \
  /ghostsync-k8s="$made" '/ghostsync->ghostsync-k8s' \
  /etc/ssl/certs/ca-certificates.crt="$certifi/certifi/cacert.pem" \
  /licenses/LICENSE-APACHE=LICENSE-APACHE /licenses/LICENSE-MIT=LICENSE-MIT)

# Of a copy, because the tool writes beside every manifest.
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z Cargo.toml Cargo.lock crates examples | xargs -0 cp --parents -t "$copy"
SOURCE_DATE_EPOCH=$created "$cyclonedx/bin/cargo-cyclonedx" cyclonedx --quiet --format json --spec-version 1.5 \
  --no-build-deps --target "$target" --manifest-path "$copy/crates/ghostsync-k8s/Cargo.toml"
cargo tree --locked --package ghostsync-k8s --edges normal --target "$target" --prefix none --format '{p}' |
  awk 'NF { print $1 "@" substr($2, 2) }' | sort -u >"$copy/crates.txt"
python3 scripts/image/sbom.py "$copy/crates/ghostsync-k8s/ghostsync-k8s.cdx.json" --workspace "$copy" \
  --crates "$copy/crates.txt" --version "$version" --digest "$digest" \
  --certifi "${certifi##*certifi-}" --rust "$(rustc --version | cut -d' ' -f2)" \
  --glibc "$(getconf GNU_LIBC_VERSION | cut -d' ' -f2)" \
  --glibc-package "$(dpkg-query --show --showformat '${Version}' libc6-dev 2>/dev/null || true)" >"$copy/sbom"
mv "$copy/sbom" "$sbom"

python3 scripts/image/oci.py show "$archive"
echo "archive: $archive"
echo "sbom: $sbom"
