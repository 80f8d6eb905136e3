#!/usr/bin/env bash
# Starts each store that is named (default: all), creates one object twice, and compares what the
# store answers with what the tests take for granted of it. Stops what it started.
#
#   scripts/stores/probe.sh [STORE...]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ $# -gt 0 ] || set -- s3s garage azurite webdav ceph

# Prints the HTTP status of a create-only put of BODY.
put_s3() { # KEY BODY
  curl --silent --show-error --max-time 30 --output /dev/null --write-out '%{http_code}' \
    --aws-sigv4 "aws:amz:$AWS_REGION:s3" --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" \
    --header 'If-None-Match: *' --header "x-amz-content-sha256: $(printf %s "$2" | sha256sum | cut -d' ' -f1)" \
    --request PUT --data-binary "$2" "$AWS_ENDPOINT_URL/$BUCKET/$1"
}

get_s3() { # KEY
  curl --silent --show-error --max-time 30 \
    --aws-sigv4 "aws:amz:$AWS_REGION:s3" --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" \
    --header "x-amz-content-sha256: $(sha256sum </dev/null | cut -d' ' -f1)" "$AWS_ENDPOINT_URL/$BUCKET/$1"
}

azure() { # put|get KEY [BODY]
  node - "$@" <<'SCRIPT'
const { createHmac } = require("node:crypto");
const [verb, name, body = ""] = process.argv.slice(2);
const { AZURE_STORAGE_ACCOUNT_NAME: account, AZURE_STORAGE_ACCOUNT_KEY: key, AZURE_STORAGE_ENDPOINT: endpoint, BUCKET } = process.env;
const own = { "x-ms-date": new Date().toUTCString(), "x-ms-version": "2023-11-03" };
const method = verb === "put" ? "PUT" : "GET";
const type = verb === "put" ? "text/plain" : "";
if (verb === "put") own["x-ms-blob-type"] = "BlockBlob";
const lines = Object.keys(own).sort().map((header) => `${header}:${own[header]}`);
const signed = [method, "", "", body.length || "", "", type, "", "", "", verb === "put" ? "*" : "", "", "",
  ...lines, `/${account}/${account}/${BUCKET}/${name}`].join("\n");
const signature = createHmac("sha256", Buffer.from(key, "base64")).update(signed, "utf8").digest("base64");
const headers = { ...own, authorization: `SharedKey ${account}:${signature}` };
if (verb === "put") Object.assign(headers, { "if-none-match": "*", "content-type": type });
fetch(`${endpoint}/${BUCKET}/${name}`, { method, headers, body: verb === "put" ? body : undefined })
  .then(async (answer) => process.stdout.write(verb === "put" ? String(answer.status) : await answer.text()));
SCRIPT
}

webdav() { # put|get|copy KEY [BODY|KEY]
  local arguments=()
  case $1 in
    put) arguments=(--write-out '%{http_code}' --output /dev/null --upload-file -) ;;
    copy) arguments=(--write-out '%{http_code}' --output /dev/null --request COPY --header 'Overwrite: F' --header "Destination: $HTTP_URL/$3") ;;
  esac
  printf %s "${3:-}" | curl --silent --show-error --max-time 30 "${arguments[@]}" "$HTTP_URL/$2"
}

expected() { # STORE: first put, second put, what is then read
  case $1 in
    s3s) echo '200 412 one' ;;
    garage) echo '200 200 two' ;; # ignores the condition
    azurite) echo '201 409 one' ;;
    webdav) echo '201 412 one' ;; # of copies that may not overwrite
    ceph) echo '200 412 one' ;;
  esac
}

probe() ( # STORE DIR
  local settings line seen began=$SECONDS
  settings=$("$here/$1.sh" start "$2" 0) || exit
  trap '"$here/$1.sh" stop "$2"' EXIT
  while read -r line; do export "${line?}"; done <<<"$settings"
  case $KIND in
    s3) seen="$(put_s3 twice one) $(put_s3 twice two) $(get_s3 twice)" ;;
    azure) seen="$(azure put twice one) $(azure put twice two) $(azure get twice)" ;;
    http)
      webdav put first one >"$2/put.log"
      webdav put second two >>"$2/put.log"
      seen="$(webdav copy first twice) $(webdav copy second twice) $(webdav get twice)"
      ;;
  esac
  echo "$1: $seen (expected $(expected "$1")), $((SECONDS - began)) s"
  [ "$seen" = "$(expected "$1")" ]
)

failed=0
for store in "$@"; do
  dir=$(mktemp -d)
  code=0
  probe "$store" "$dir" || code=$?
  case $code in
    0) rm -rf "$dir" ;;
    77) rmdir "$dir" ;;
    *) echo "$store: FAILED, logs in $dir" >&2; failed=1 ;;
  esac
done
exit "$failed"
