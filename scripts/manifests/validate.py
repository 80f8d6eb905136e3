#!/usr/bin/env python3
"""Holds Kubernetes objects against the schemas of their kinds, offline.

  validate.py schemas --kubernetes 1.29.0,1.37.0 [--crds DIR] [--without-schema GROUP]... [--elsewhere GROUP]... FILE...
  validate.py restricted FILE...     the Pod Security profile restricted, for every pod in the files
  validate.py patched REPORT FILE    a kustomization of FILE with the patches of a `lint --json` report, on stdout
  validate.py panels DASHBOARD       the queries of a Grafana dashboard as recording rules, on stdout
  validate.py same FILE FILE         do two files hold the same objects, comments and order of keys apart?

Built-in kinds are checked by kubernetes-validate, strictly, in each version; custom kinds by the definitions in DIR,
strictly too. A kind without any schema fails, unless its group is named by --without-schema, which tells it as skipped, or
by --elsewhere, since another check has its schema.
"""

import argparse
import json
import pathlib
import sys

import yaml


def objects_of(path):
    for document in yaml.safe_load_all(pathlib.Path(path).read_text()):
        if document is None:
            continue
        items = document.get("items") if str(document.get("kind", "")).endswith("List") else None
        yield from items if items is not None else [document]


def title(path, value):
    return f"{path}: {value.get('kind')}/{value.get('metadata', {}).get('name')}"


def strict(schema):
    """A structural schema as JSON Schema that accepts no field which is not named."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items() if not key.startswith("x-kubernetes-") and key != "description"}
    for named in ("properties", "patternProperties"):
        if named in schema:
            made[named] = {key: strict(value) for key, value in schema[named].items()}
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if "properties" in schema and not open_ended:
        made["additionalProperties"] = False
    if schema.get("nullable") and "type" in made:
        made["type"] = [made["type"], "null"]
    made.pop("nullable", None)
    made.pop("default", None)
    made.pop("format", None)
    return made


def definitions(folder):
    found = {}
    for path in sorted(pathlib.Path(folder).glob("*.yaml")) if folder else []:
        for crd in objects_of(path):
            spec = crd["spec"]
            for version in spec["versions"]:
                schema = strict(version["schema"]["openAPIV3Schema"])
                properties = schema.setdefault("properties", {})
                for key in ("apiVersion", "kind", "metadata"):
                    properties[key] = {}
                # Parts of a CRD say "one of these is required" without naming the type again: those stay open.
                found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = loosen(schema)
    return found


def loosen(schema, inside=False):
    """Branches of allOf, anyOf, oneOf and not only add conditions: what they do not name is not forbidden by them."""
    if isinstance(schema, list):
        return [loosen(each, inside) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {}
    for key, value in schema.items():
        if key == "additionalProperties" and value is False and inside:
            continue
        made[key] = loosen(value, inside or key in ("allOf", "anyOf", "oneOf", "not"))
    return made


def check_schemas(arguments):
    import jsonschema
    import kubernetes_validate

    custom = definitions(arguments.crds)
    versions = arguments.kubernetes.split(",")
    problems, checked, skipped = [], 0, {}
    for path in arguments.files:
        for value in objects_of(path):
            name = title(path, value)
            group_version = value.get("apiVersion", "")
            group = group_version.rpartition("/")[0]
            schema = custom.get((group_version, value.get("kind")))
            if schema is not None:
                checked += 1
                errors = jsonschema.Draft7Validator(schema).iter_errors(value)
                problems += [f"{name}: {'.'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]
            elif group in arguments.without_schema:
                skipped[f"{group_version} {value.get('kind')}"] = None
            elif group in arguments.elsewhere:
                continue
            elif "." not in group or (group.endswith(".k8s.io") and not group.startswith("gateway.")):
                for version in versions:
                    checked += 1
                    try:
                        kubernetes_validate.validate(value, version, strict=True)
                    except kubernetes_validate.ValidationError as error:
                        problems.append(f"{name} in {version}: {'.'.join(map(str, error.path))}: {error.message}")
                    except Exception as error:  # a version or a kind that it does not know
                        problems.append(f"{name} in {version}: {type(error).__name__}: {error}")
            else:
                problems.append(f"{name}: there is no schema of {group_version}")
    for kind in skipped:
        print(f"skipped: {kind}: there is no schema of this kind", file=sys.stderr)
    return problems, f"{checked} checks against schemas"


def pods_of(path):
    for value in objects_of(path):
        for keys in (["spec", "template", "spec"], ["spec", "jobTemplate", "spec", "template", "spec"], ["spec"]):
            spec = value
            for key in keys:
                spec = spec.get(key, {}) if isinstance(spec, dict) else {}
            if isinstance(spec, dict) and "containers" in spec:
                yield title(path, value), spec
                break


ALLOWED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def check_restricted(arguments):
    problems, pods = [], 0
    for path in arguments.files:
        for name, spec in pods_of(path):
            pods += 1
            of_pod = spec.get("securityContext", {})
            for key in ("hostNetwork", "hostPID", "hostIPC"):
                if spec.get(key):
                    problems.append(f"{name}: {key}")
            for volume in spec.get("volumes", []):
                if not set(volume) - {"name"} <= ALLOWED_VOLUMES:
                    problems.append(f"{name}: volume {volume['name']}")
            for container in spec.get("initContainers", []) + spec["containers"]:
                own = container.get("securityContext", {})
                effective = {**of_pod, **own}
                holds = {
                    "runAsNonRoot": effective.get("runAsNonRoot") is True and effective.get("runAsUser") != 0,
                    "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False and not own.get("privileged"),
                    "capabilities": "ALL" in own.get("capabilities", {}).get("drop", [])
                    and set(own.get("capabilities", {}).get("add", [])) <= {"NET_BIND_SERVICE"},
                    "seccompProfile": effective.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
                    "hostPort": not any(port.get("hostPort") for port in container.get("ports", [])),
                }
                problems += [f"{name}: {container['name']}: {what}" for what, good in holds.items() if not good]
    if pods == 0:
        problems.append("no pod was found")
    return problems, f"{pods} pods are restricted"


def check_same(arguments):
    first, second = (list(objects_of(path)) for path in arguments.files)
    problems = [] if first and first == second else [f"{arguments.files[0]} and {arguments.files[1]} differ"]
    return problems, "the same objects"


def check_patched(arguments):
    report = json.loads(pathlib.Path(arguments.files[0]).read_text())
    patches = [
        {"target": {"kind": finding["kind"], "name": finding["name"]}, "patch": yaml.safe_dump(finding["patch"])}
        for finding in report["findings"]
    ]
    kustomization = {"resources": [arguments.files[1]], "patches": patches}
    return [] if patches else ["the report has no finding"], yaml.safe_dump(kustomization)


def check_panels(arguments):
    """Prometheus has no check for queries alone, but parses those of rules."""
    rules = []
    for panel in json.loads(pathlib.Path(arguments.files[0]).read_text())["panels"]:
        for target in panel["targets"]:
            query = target["expr"].replace("$__rate_interval", "5m").replace("$namespace", "blog").replace("$pod", ".+")
            rules.append({"record": f"panel:{panel['id']}:{target['refId']}", "expr": query})
    return [] if rules else ["no panel has a query"], yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("schemas", "restricted", "same", "patched", "panels"):
        sub = verbs.add_parser(verb)
        if verb == "schemas":
            sub.add_argument("--kubernetes", required=True)
            sub.add_argument("--crds")
            sub.add_argument("--without-schema", action="append", default=[])
            sub.add_argument("--elsewhere", action="append", default=[])
        sub.add_argument("files", nargs=2 if verb in ("same", "patched") else "+")
    arguments = parser.parse_args()
    checks = {
        "schemas": check_schemas,
        "restricted": check_restricted,
        "same": check_same,
        "patched": check_patched,
        "panels": check_panels,
    }
    check = checks[arguments.verb]
    problems, done = check(arguments)
    for problem in problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    if not problems:
        print(done)
    return 1 if problems else 0


sys.exit(main())
