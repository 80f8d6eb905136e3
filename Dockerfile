# syntax=docker/dockerfile:1
# The image for those who have Docker, in two architectures; `just image` makes the same one without.
#
#   docker buildx build --platform linux/amd64,linux/arm64 --tag registry.example/ghostsync:0.1.0 --push .
#
# Compiles on the machine's own architecture for the other one, by Debian's cross compiler: minutes, where an emulated
# compiler (qemu) would take hours. Nothing of the image is run, so no emulator is needed.

# The version that Cargo.toml promises to build with.
ARG RUST_VERSION=1.95
FROM --platform=$BUILDPLATFORM rust:${RUST_VERSION}-bookworm AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
ARG TARGETARCH
# Names that no text in the binary has: they are looked for there.
WORKDIR /ghostsync-sources
# Whatever version of the compiler bookworm has.
# hadolint ignore=DL3008
RUN case "$TARGETARCH" in \
      amd64) target=x86_64-unknown-linux-gnu compiler=gcc-x86-64-linux-gnu ;; \
      arm64) target=aarch64-unknown-linux-gnu compiler=gcc-aarch64-linux-gnu ;; \
      *) echo "no image for $TARGETARCH" >&2; exit 1 ;; \
    esac; \
    rustup target add "$target"; \
    if [ "$(dpkg --print-architecture)" != "$TARGETARCH" ]; then \
      apt-get update; \
      apt-get install -y --no-install-recommends "$compiler" "libc6-dev-$TARGETARCH-cross"; \
      rm -rf /var/lib/apt/lists/*; \
    fi; \
    echo "$target" >/target
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/ghostsync-target,id=ghostsync-$TARGETARCH \
    made=$(CARGO_TARGET_DIR=/ghostsync-target scripts/image/binary.sh "$(cat /target)"); \
    install -D -t /root-of-image "$made"; \
    ln -s ghostsync-k8s /root-of-image/ghostsync; \
    install -D -m 0644 -t /root-of-image/licenses LICENSE-APACHE LICENSE-MIT; \
    install -D -m 0644 -t /root-of-image/etc/ssl/certs /etc/ssl/certs/ca-certificates.crt

FROM scratch
LABEL org.opencontainers.image.title="ghostsync" \
      org.opencontainers.image.description="Keeps a pod's directory in an object store: restored before the app, followed, saved at the end" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /root-of-image/ /
# Any other user will do as well: take the app's.
USER 65532:65532
ENTRYPOINT ["/ghostsync-k8s"]
