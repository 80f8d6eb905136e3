#!/usr/bin/env bash
# Garage, one node. S3 that takes `If-None-Match: *` and ignores it: a store for `detect` mode only.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
require garage curl

launch() {
  local rpc admin node
  REGION=garage
  new_s3_keys
  rpc=$(free_ports 3)
  admin=$((rpc + 1))
  [ "$PORT" != 0 ] || PORT=$((rpc + 2))

  # The configuration holds the secret that lets a command steer the node.
  (umask 077 && cat >"$DIR/garage.toml") <<CONFIG
metadata_dir = "$DIR/meta"
data_dir = "$DIR/data"
db_engine = "sqlite"
metadata_fsync = false
data_fsync = false
replication_factor = 1
rpc_bind_addr = "127.0.0.1:$rpc"
rpc_public_addr = "127.0.0.1:$rpc"
rpc_secret = "$(random_hex 32)"

[s3_api]
api_bind_addr = "127.0.0.1:$PORT"
s3_region = "$REGION"

[admin]
api_bind_addr = "127.0.0.1:$admin"
CONFIG
  export GARAGE_CONFIG_FILE=$DIR/garage.toml

  spawn garage garage server
  await 30 answers "http://127.0.0.1:$admin/health"
  await 30 garage status
  node=$(garage node id --quiet 2>>"$DIR/setup.log")
  setup garage layout assign --zone test --capacity 10G "${node%%@*}"
  setup garage layout apply --version 1
  setup garage key import --yes -n test "$ACCESS_KEY" "$SECRET_KEY"
  setup garage bucket create "$BUCKET"
  setup garage bucket allow --read --write --owner --key "$ACCESS_KEY" "$BUCKET"
  await 30 s3 "http://127.0.0.1:$PORT/$BUCKET" # signed: another server on this port would refuse it
  s3_settings
}

run "$@"
