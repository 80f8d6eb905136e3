#!/usr/bin/env bash
# s3s-fs: S3 over a local folder. Refuses a second create when alone, and lets several win a race:
# the negative control of the tests that race.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
require s3s-fs curl

launch() {
  new_s3_keys
  [ "$PORT" != 0 ] || PORT=$(free_ports 1)
  mkdir -p "$DIR/data"
  RUST_LOG=${RUST_LOG:-warn} spawn s3s-fs s3s-fs --host 127.0.0.1 --port "$PORT" \
    --access-key "$ACCESS_KEY" --secret-key "$SECRET_KEY" "$DIR/data"
  await 30 answers "http://127.0.0.1:$PORT/"
  setup s3 --request PUT "http://127.0.0.1:$PORT/$BUCKET"
  s3_settings
}

run "$@"
