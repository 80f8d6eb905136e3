#!/usr/bin/env bash
# Renders every manifest that the project prints or ships by the real tools, and holds the result against the schemas of
# Kubernetes and of the custom kinds, the Pod Security profile restricted, our own lint, and promtool.
#
#   scripts/manifests.sh
#
# Tools come from `scripts/tools.sh manifests`. One that is missing is told as "skipped", with what was not checked; what
# fails ends with 1, after everything else was tried too. No cluster and no network is used.
set -euo pipefail
cd "$(dirname "$0")/.."

# The oldest with native sidecars, the one that made them stable, the newest that the validator knows.
VERSIONS=1.29.0,1.33.0,1.37.0
POLICY_VERSIONS=1.34.0,1.37.0
EXAMPLE=examples/ghost-kubernetes
LIMIT_SECONDS=120 # for each step; the build apart

PATH=$(scripts/tools.sh path):$PATH
export PATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0

say() { printf 'manifests: %s\n' "$*" >&2; }

skip() { # WHAT
  say "skipped: $1"
  skipped=$((skipped + 1))
}

# Runs a command under the time limit; says how it went, and shows its output if it failed.
step() { # NAME COMMAND...
  local name=$1 code=0
  shift
  timeout --kill-after=10 "$LIMIT_SECONDS" "$@" >"$work/output" 2>&1 || code=$?
  if [ "$code" = 0 ]; then
    say "ok: $name"
    passed=$((passed + 1))
    local line
    while read -r line; do skip "${line#skipped: }"; done < <(grep '^skipped: ' "$work/output")
  else
    say "FAILED: $name (exit code $code)"
    cat "$work/output" >&2
    failed=$((failed + 1))
  fi
}

# A check that accepts everything would pass as well: each is shown something broken.
refuses() { # NAME CODE COMMAND...
  local name=$1 expected=$2 code=0
  shift 2
  timeout --kill-after=10 "$LIMIT_SECONDS" "$@" >"$work/output" 2>&1 || code=$?
  if [ "$code" != "$expected" ]; then
    say "FAILED: $name was not refused (exit code $code, and not $expected)"
    cat "$work/output" >&2
    failed=$((failed + 1))
  else
    say "ok: $name is refused"
    passed=$((passed + 1))
  fi
}

# What a command prints becomes FILE.
render() { # NAME FILE COMMAND...
  local name=$1 file=$2
  shift 2
  # shellcheck disable=SC2016 # the inner shell expands them
  step "$name" bash -c 'file=$1; shift; "$@" >"$file"' - "$file" "$@"
}

cargo build --quiet --locked --package ghostsync-k8s
program=$(cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/debug/ghostsync-k8s
# Without our own variables, which are no settings of the program.
ghostsync_k8s=$work/ghostsync-k8s
printf '#!/bin/sh\nexec env -i "%s" "$@"\n' "$program" >"$ghostsync_k8s"
chmod +x "$ghostsync_k8s"

rendered=() # every file with workloads
for mode in native classic; do
  rendered+=("deploy/plain/$mode.yaml" "$work/told-$mode.yaml")
  render "manifest --mode $mode" "$work/told-$mode.yaml" "$ghostsync_k8s" manifest --mode "$mode" --name blog \
    --repo s3://bucket/blog --path /var/lib/blog --uid 33 --host blog.example.com --port 2368 --grace-period 4m
done

validate=
if validator=$(scripts/tools.sh home kubernetes-validate); then
  validate=$work/validate
  printf '#!/bin/sh\nPYTHONPATH="%s" exec python3 scripts/manifests/validate.py "$@"\n' "$validator" >"$validate"
  chmod +x "$validate"
fi

if command -v helm >/dev/null; then
  chart=deploy/helm/ghostsync
  step 'helm lint' helm lint --strict --kube-version 1.37.0 "$chart"
  refuses 'a grace period of 20 s in the chart' 1 helm template app "$chart" --kube-version 1.37.0 --set gracePeriodSeconds=20
  refuses 'a native sidecar before Kubernetes 1.29' 1 helm template app "$chart" --kube-version 1.28.0
  for mode in native classic; do
    render "helm template, $mode" "$work/helm-$mode.yaml" helm template app "$chart" --kube-version 1.37.0 --set "mode=$mode"
    rendered+=("$work/helm-$mode.yaml")
    if [ -n "$validate" ]; then
      step "the chart renders what manifest prints, $mode" "$validate" same "deploy/plain/$mode.yaml" "$work/helm-$mode.yaml"
    fi
  done
  render 'helm template with the alert rules' "$work/helm-rules.yaml" helm template app "$chart" --kube-version 1.37.0 \
    --set prometheusRule.enabled=true --show-only templates/prometheusrule.yaml
else
  skip 'helm is not installed: the chart was not rendered'
fi

if command -v kustomize >/dev/null; then
  cp -r deploy/kustomize "$work/kustomize"
  cp -r "$work/kustomize/example" "$work/kustomize/example-classic"
  sed -i 's/native/classic/' "$work/kustomize/example-classic/"*.yaml
  render 'kustomize build, component native' "$work/component-native.yaml" kustomize build "$work/kustomize/example"
  render 'kustomize build, component classic' "$work/component-classic.yaml" kustomize build "$work/kustomize/example-classic"
  rendered+=("$work/component-native.yaml" "$work/component-classic.yaml")
  for overlay in native classic; do
    render "kustomize build, Ghost $overlay" "$work/ghost-$overlay.yaml" kustomize build "$EXAMPLE/overlays/$overlay"
    rendered+=("$work/ghost-$overlay.yaml")
  done
else
  skip 'kustomize is not installed: the components and the Ghost example were not rendered'
fi

step "lint of ${#rendered[@]} files" "$ghostsync_k8s" lint --strict "${rendered[@]}"
sed 's/type: Recreate/type: RollingUpdate/' deploy/plain/native.yaml >"$work/trap.yaml"
refuses 'an open trap' 10 "$ghostsync_k8s" lint "$work/trap.yaml"

if [ -n "$validate" ] && command -v kustomize >/dev/null; then
  # What the lint prints must be what kustomize takes: all at once, as a user would keep them.
  mkdir "$work/patched"
  sed -e 's/type: Recreate/type: RollingUpdate/' -e 's/\/livez/\/readyz/' -e '/fsGroup: /d' -e '/restartPolicy: Always/d' \
    -e 's/{name: content, emptyDir: {}}/{name: content, emptyDir: {sizeLimit: 1Gi}}/' \
    -e 's/, readOnly: true//' deploy/plain/native.yaml >"$work/patched/traps.yaml"
  "$ghostsync_k8s" lint --json "$work/patched/traps.yaml" >"$work/report.json" || true
  render 'the patches of six open traps as a kustomization' "$work/patched/kustomization.yaml" \
    "$validate" patched "$work/report.json" traps.yaml
  render 'kustomize build with these patches' "$work/patched.yaml" kustomize build "$work/patched"
  step 'lint of what was patched' "$ghostsync_k8s" lint --strict "$work/patched.yaml"
fi

if [ -n "$validate" ]; then
  crds=$(scripts/tools.sh home kubernetes-crds) || crds=
  more=("$EXAMPLE/argocd/application.yaml" "$EXAMPLE/kargo/kargo.yaml")
  # The operator's kinds are checked below, by its own schemas. No registry carries those of Kargo.
  without=(--elsewhere monitoring.coreos.com --without-schema kargo.akuity.io)
  if [ -z "$crds" ]; then
    skip 'kubernetes-crds is not installed: custom kinds were not checked'
    for group in cert-manager.io gateway.networking.k8s.io bitnami.com argoproj.io; do without+=(--without-schema "$group"); done
  fi
  step "schemas of Kubernetes $VERSIONS and of custom kinds" "$validate" schemas --kubernetes "$VERSIONS" \
    --crds "$crds" "${without[@]}" "${rendered[@]}" "${more[@]}"
  step "schemas of Kubernetes $POLICY_VERSIONS for the admission policy" "$validate" schemas \
    --kubernetes "$POLICY_VERSIONS" deploy/admission/mutating-admission-policy.yaml
  sed 's/progressDeadlineSeconds/progressDeadline/' deploy/plain/native.yaml >"$work/typo.yaml"
  refuses 'a misspelt field' 1 "$validate" schemas --kubernetes 1.33.0 "$work/typo.yaml"
  if [ -n "$crds" ]; then
    sed 's/dnsNames/dnsName/' "$EXAMPLE/base/certificate.yaml" >"$work/typo.yaml"
    refuses 'a misspelt field of a custom kind' 1 "$validate" schemas --kubernetes 1.33.0 --crds "$crds" "$work/typo.yaml"
  fi
  step 'the Pod Security profile restricted' "$validate" restricted "${rendered[@]}"
  sed '0,/drop: \[ALL\]/s//drop: []/' deploy/plain/native.yaml >"$work/typo.yaml"
  refuses 'a container with capabilities' 1 "$validate" restricted "$work/typo.yaml"
else
  skip 'kubernetes-validate is not installed: nothing was checked against the schemas of Kubernetes'
fi

if schemas=$(scripts/tools.sh home prometheus-schemas) && [ -n "$validate" ] && command -v node >/dev/null; then
  PYTHONPATH=$validator python3 -c '
import json, sys, yaml
print(json.dumps([value for path in sys.argv[1:] for value in yaml.safe_load_all(open(path)) if value]))
' "$EXAMPLE/base/alerts.yaml" "$EXAMPLE/base/monitor.yaml" >"$work/operator.json"
  step 'schemas of the Prometheus operator' node scripts/manifests/prometheus-operator.mjs "$schemas" <"$work/operator.json"
else
  skip 'prometheus-schemas, kubernetes-validate or node is not installed: the kinds of the Prometheus operator were not checked'
fi

if command -v promtool >/dev/null; then
  step 'promtool check rules' promtool check rules deploy/prometheus/ghostsync.rules.yaml
  step 'promtool test rules' promtool test rules deploy/prometheus/ghostsync.rules.test.yaml
  if [ -n "$validate" ]; then
    render 'the queries of the dashboard' "$work/panels.yaml" "$validate" panels deploy/grafana/ghostsync.json
    step 'promtool check of these queries' promtool check rules "$work/panels.yaml"
  fi
  cp deploy/prometheus/*.yaml "$work/"
  sed -i 's/ghostsync_oldest_unsynced_seconds > 300/ghostsync_oldest_unsynced_seconds > 3000/' "$work/ghostsync.rules.yaml"
  refuses 'an alert that comes too late' 1 promtool test rules "$work/ghostsync.rules.test.yaml"
else
  skip 'promtool is not installed: the alert rules were not tested'
fi

say "$passed ok, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
