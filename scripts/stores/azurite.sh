#!/usr/bin/env bash
# Azurite: the blob service of Azure, with an account key made for this start.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
require azurite-blob node curl

create_container() { # ENDPOINT ACCOUNT KEY
  node - "$@" "$BUCKET" <<'SCRIPT'
const { createHmac } = require("node:crypto");
const [endpoint, account, key, container] = process.argv.slice(2);
const headers = { "x-ms-date": new Date().toUTCString(), "x-ms-version": "2023-11-03" };
const signed = [
  "PUT", ...Array(11).fill(""),
  `x-ms-date:${headers["x-ms-date"]}`, `x-ms-version:${headers["x-ms-version"]}`,
  `/${account}/${account}/${container}`, "restype:container",
].join("\n");
const signature = createHmac("sha256", Buffer.from(key, "base64")).update(signed, "utf8").digest("base64");
headers.authorization = `SharedKey ${account}:${signature}`;
fetch(`${endpoint}/${container}?restype=container`, { method: "PUT", headers }).then(async (answer) => {
  if (answer.status !== 201) throw new Error(`${answer.status} ${await answer.text()}`);
}).catch((error) => { console.error(error); process.exit(1); });
SCRIPT
}

launch() {
  local account=devstoreaccount1 key
  key=$(head -c 64 /dev/urandom | base64 --wrap=0)
  [ "$PORT" != 0 ] || PORT=$(free_ports 1)
  # By default it closes a connection after 5 s without a request, perhaps just when the next one is sent.
  AZURITE_ACCOUNTS="$account:$key" spawn azurite azurite-blob --silent --disableTelemetry --blobKeepAliveTimeout 3600 \
    --skipApiVersionCheck --blobHost 127.0.0.1 --blobPort "$PORT" --location "$DIR/data"
  await 60 answers "http://127.0.0.1:$PORT/"
  setup create_container "http://127.0.0.1:$PORT/$account" "$account" "$key"
  cat <<SETTINGS
KIND=azure
AZURE_STORAGE_ACCOUNT_NAME=$account
AZURE_STORAGE_ACCOUNT_KEY=$key
AZURE_STORAGE_ENDPOINT=http://127.0.0.1:$PORT/$account
AZURE_CONTAINER_NAME=$BUCKET
AZURE_ALLOW_HTTP=true
BUCKET=$BUCKET
SETTINGS
}

run "$@"
