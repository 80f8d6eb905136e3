#!/usr/bin/env bash
# rclone's WebDAV server over a local folder. No create-only put; a COPY that may not overwrite is kept.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
require rclone curl

launch() {
  [ "$PORT" != 0 ] || PORT=$(free_ports 1)
  mkdir -p "$DIR/data/$BUCKET"
  # A folder whose name only this start knows shows that it is this server that answers.
  local mark
  mark=$(random_hex 8)
  mkdir "$DIR/data/$mark"
  spawn rclone rclone --config /dev/null serve webdav --addr "127.0.0.1:$PORT" "$DIR/data"
  await 30 curl --silent --fail --max-time 2 --request PROPFIND --header 'Depth: 0' "http://127.0.0.1:$PORT/$mark/"
  rmdir "$DIR/data/$mark"
  cat <<SETTINGS
KIND=http
HTTP_URL=http://127.0.0.1:$PORT/$BUCKET
BUCKET=$BUCKET
SETTINGS
}

run "$@"
