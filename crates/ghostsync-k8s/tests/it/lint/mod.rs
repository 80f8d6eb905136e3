//! Every rule of `lint`: the pods that `manifest` prints are clean; with a remedy taken out its rule fires, and the patch
//! that is printed makes the manifest clean again.

mod table;

use clap::Parser;
use ghostsync_k8s::args::{Cli, Command};
use ghostsync_k8s::lint::{Input, Report, catalogue, lint};
use ghostsync_k8s::manifest;
use serde_json::{Value, json};

use table::{Mode, Row, rows};

/// What `ghostsync-k8s manifest` prints, parsed.
fn printed(mode: Mode) -> Value {
    let mode = format!("--mode={}", if mode == Mode::Native { "native" } else { "classic" });
    let Command::Manifest(args) = Cli::parse_from(["ghostsync-k8s", "manifest", &mode]).command else {
        panic!("another command");
    };
    serde_saphyr::from_str(&manifest::render(&args)).unwrap()
}

/// JSON is YAML: the documents as one stream.
fn linted(documents: &[Value]) -> Report {
    let text: String = documents.iter().map(|document| format!("---\n{document}\n")).collect();
    lint(&[Input { file: "pods.yaml".to_owned(), text }]).unwrap()
}

fn fired(report: &Report) -> Vec<&'static str> {
    let mut rules: Vec<_> = report.findings.iter().map(|finding| finding.rule).collect();
    rules.dedup();
    rules
}

fn documents_of(row: &Row) -> Vec<Value> {
    let mut pod = printed(row.mode);
    let patch: json_patch::Patch = serde_json::from_value(Value::Array(row.taken_out.clone())).unwrap();
    json_patch::patch(&mut pod, &patch).unwrap_or_else(|error| panic!("{}: the row does not fit: {error}", row.rule));
    std::iter::once(pod).chain(row.beside.iter().cloned()).collect()
}

#[test]
fn the_pods_that_we_print_are_clean() {
    for mode in [Mode::Native, Mode::Classic] {
        assert_eq!(fired(&linted(&[printed(mode)])), [""; 0], "{mode:?}");
    }
}

#[test]
fn a_startup_probe_that_waits_for_the_retries_and_the_begin_is_long_enough() {
    for (threshold, period, delay, retry_time) in
        [(90, 1, 0, "60s"), (9, 10, 0, "60s"), (6, 10, 30, "60s"), (40, 1, 0, "10s")]
    {
        let mut pod = printed(Mode::Native);
        let sync = pod.pointer_mut("/spec/template/spec/initContainers/1").unwrap();
        let probe = sync.pointer_mut("/startupProbe").unwrap();
        (probe["failureThreshold"], probe["periodSeconds"]) = (json!(threshold), json!(period));
        probe["initialDelaySeconds"] = json!(delay);
        sync["args"].as_array_mut().unwrap().push(json!(format!("--retry-time={retry_time}")));
        assert_eq!(fired(&linted(&[pod])), [""; 0], "{threshold} times {period} s after {delay} s");
    }
}

#[test]
fn with_a_remedy_taken_out_its_rule_fires_and_no_other() {
    let mut wrong = Vec::new();
    for row in rows() {
        let found = fired(&linted(&documents_of(&row)));
        if found != [row.rule] {
            wrong.push(format!("{:?} {}: fired: {found:?}: {:?}", row.mode, row.rule, row.taken_out));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_patch_that_is_printed_closes_its_finding_until_the_manifest_is_clean() {
    for row in rows() {
        let mut documents = documents_of(&row);
        let mut report = linted(&documents);
        let mut rounds = 0;
        while let Some(finding) = report.findings.first() {
            rounds += 1;
            assert!(rounds < 20, "{}: the patches open each other's traps: {:?}", row.rule, fired(&report));
            assert!(!finding.patch.is_empty(), "{}: no patch", finding.rule);
            let patch: json_patch::Patch = serde_json::from_value(Value::Array(finding.patch.clone())).unwrap();
            json_patch::patch(&mut documents[finding.document - 1], &patch).unwrap_or_else(|error| {
                panic!("{}: the patch does not fit: {error}: {:?}", finding.rule, finding.patch)
            });
            let after = linted(&documents);
            let open = |report: &Report| report.findings.iter().filter(|other| other.rule == finding.rule).count();
            assert!(open(&after) < open(&report), "{}: still open after {:?}", finding.rule, finding.patch);
            report = after;
        }
    }
}

/// As somebody would begin: a container more, and nothing else that it needs.
#[test]
fn a_manifest_with_many_open_traps_becomes_clean_patch_by_patch() {
    let mut documents = vec![json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "wiki"},
        "spec": {
            "replicas": 2,
            "template": {"spec": {"containers": [
                {
                    "name": "wiki", "image": "wiki:2", "command": ["/bin/sh", "-c", "node server"],
                    "volumeMounts": [{"name": "data", "mountPath": "/data", "subPath": "current"}],
                    "livenessProbe": {"httpGet": {"path": "/", "port": 3000}},
                },
                {
                    "name": "gs", "image": "registry.example/ghostsync", "args": ["sync", "--repo", "s3://b/wiki", "--path=/data"],
                    "env": [{"name": "AWS_SECRET_ACCESS_KEY", "value": "abc"}],
                    "readinessProbe": {"exec": {"command": ["sh", "-c", "curl localhost:9108/readyz"]}},
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                },
            ]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}],
        },
    })];
    let mut closed = 0;
    while let Some(finding) = linted(&documents).findings.into_iter().next() {
        closed += 1;
        assert!(closed < 60, "the patches open each other's traps: {}", finding.rule);
        let patch: json_patch::Patch = serde_json::from_value(Value::Array(finding.patch)).unwrap();
        json_patch::patch(&mut documents[0], &patch).unwrap_or_else(|error| panic!("{}: {error}", finding.rule));
    }
    assert!(closed > 25, "only {closed} findings");
}

#[test]
fn no_rule_is_without_a_row_of_the_table() {
    let rows = rows();
    for (rule, _, _) in catalogue() {
        assert!(rows.iter().any(|row| row.rule == rule), "{rule} has no row");
    }
    for row in rows {
        assert!(catalogue().any(|(rule, _, _)| rule == row.rule), "{} is no rule", row.rule);
    }
}

#[test]
fn a_rule_says_what_happens_in_one_sentence() {
    for (rule, _, why) in catalogue() {
        assert!(!why.ends_with('.') && !why.contains("  ") && !why.contains(". "), "{rule}: {why}");
        assert!(
            why.chars().next().is_some_and(|first| !first.is_uppercase() || why.starts_with("DaemonSet")),
            "{rule}"
        );
    }
}

/// A patch is kept for long: it must not change another container once the list has changed.
#[test]
fn a_patch_of_one_container_does_not_fit_another() {
    let row = rows().into_iter().find(|row| row.rule == "final-snapshot-in-prestop").unwrap();
    let mut documents = documents_of(&row);
    let report = linted(&documents);
    let patch: json_patch::Patch = serde_json::from_value(Value::Array(report.findings[0].patch.clone())).unwrap();
    let containers = documents[0].pointer_mut("/spec/template/spec/initContainers").unwrap().as_array_mut().unwrap();
    containers.swap(0, 1);
    assert!(json_patch::patch(&mut documents[0], &patch).is_err());
}

/// Every place of a value, the root apart.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(map) => {
            map.iter().map(|(key, child)| (key.replace('~', "~0").replace('/', "~1"), child)).collect()
        }
        Value::Array(list) => list.iter().enumerate().map(|(index, child)| (index.to_string(), child)).collect(),
        _ => Vec::new(),
    };
    for (key, child) in children {
        let place = format!("{at}/{key}");
        places(child, &place, found);
        found.push(place);
    }
}

/// Manifests are written by people and templates: a wrong type anywhere is for the API server to tell, and must neither
/// end the lint nor make it print a patch that fits nowhere.
#[test]
fn whatever_stands_in_a_place_of_the_pod_is_linted_and_the_patches_fit() {
    let pod = printed(Mode::Native);
    let mut all = Vec::new();
    places(&pod, "", &mut all);
    assert!(all.len() > 200, "{}", all.len());
    for place in all.iter().filter(|place| *place != "/kind" && *place != "/apiVersion") {
        for strange in [Value::Null, json!("x"), json!([])] {
            let mut changed = pod.clone();
            *changed.pointer_mut(place).unwrap() = strange.clone();
            let report = linted(std::slice::from_ref(&changed));
            for finding in report.findings {
                let patch: json_patch::Patch = serde_json::from_value(Value::Array(finding.patch)).unwrap();
                let fits = json_patch::patch(&mut changed.clone(), &patch);
                assert!(fits.is_ok(), "{place} = {strange}: {}: {fits:?}: {patch:?}", finding.rule);
            }
        }
    }
}
