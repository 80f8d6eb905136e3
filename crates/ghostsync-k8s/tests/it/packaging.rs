//! What `deploy/` holds is made from the template of `manifest`, or held against it: nobody keeps two sources equal.
//! `just packaging write` writes what has changed.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Parser;
use ghostsync_k8s::args::{Cli, Command};
use ghostsync_k8s::lint::{Input, catalogue, lint};
use ghostsync_k8s::manifest;
use serde_json::{Value, json};

const DEPLOYMENT: &str = include_str!("../../src/manifest/deployment.yaml");
const APP: &str = include_str!("../../src/manifest/app.yaml");

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

fn printed(mode: &str) -> String {
    let words = ["ghostsync-k8s", "manifest", "--mode", mode];
    let Command::Manifest(args) = Cli::parse_from(words).command else { panic!("another command") };
    manifest::render(&args)
}

/// The files that are made, and what must stand in them.
fn made() -> Vec<(String, String)> {
    let mut files = vec![("helm/ghostsync/templates/deployment.yaml".to_owned(), chart())];
    for mode in ["native", "classic"] {
        files.push((format!("plain/{mode}.yaml"), printed(mode)));
        files.push((format!("kustomize/{mode}/ghostsync.yaml"), component(mode)));
    }
    let rules = std::fs::read_to_string(folder().join("prometheus/ghostsync.rules.yaml")).unwrap();
    files.push(("../examples/ghost-kubernetes/base/alerts.yaml".to_owned(), prometheus_rule(&rules)));
    files.push(("helm/ghostsync/ghostsync.rules.yaml".to_owned(), rules));
    files.push(("../docs/lint.md".to_owned(), traps()));
    files
}

#[test]
fn what_deploy_holds_is_what_manifest_prints() {
    for (name, expected) in made() {
        let path = folder().join(&name);
        if std::env::var_os("GHOSTSYNC_WRITE").is_some() {
            std::fs::write(&path, &expected).unwrap();
        }
        let actual = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(actual == expected, "deploy/{name} is not what the template makes: run `just packaging write`");
    }
}

/// The rules of `lint`, as a document.
fn traps() -> String {
    let mut text = String::from(
        "# What `ghostsync-k8s lint` looks for\n\n\
         Made from the rules themselves (`just packaging write`). A **problem** loses state, or makes an outage of the store\n\
         one of the app; a **warning** goes wrong in a situation that comes sooner or later; a **note** is worth knowing.\n\n\
         `ghostsync-k8s lint FILE…` reads plain manifests and what `helm template` and `kustomize build` print, `-` is stdin.\n\
         Each finding brings a JSON patch that closes it, for `kubectl patch --type=json` or the `patches` of a\n\
         kustomization. It ends with 0 without problems (with `--strict`: and without warnings), with 10 if there are some,\n\
         and with 2 if a file cannot be read, or if no workload in it has a container of ghostsync: then nothing was checked.\n\n\
         | rule | | what happens |\n|---|---|---|\n",
    );
    for (rule, severity, why) in catalogue() {
        text.push_str(&format!("| `{rule}` | {} | {why} |\n", severity.name()));
    }
    text
}

/// kustomize puts the versions of the images in; everything else stands in the base.
#[test]
fn the_blog_of_the_example_has_no_open_trap() {
    let file = folder().join("../examples/ghost-kubernetes/base/deployment.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let report = lint(&[Input { file: file.display().to_string(), text }]).unwrap();
    let rules: Vec<_> = report.findings.iter().map(|finding| finding.rule).collect();
    assert_eq!((report.workloads, rules), (1, vec!["image-not-pinned"]));
}

/// A reader wants to know of each file what it is for.
#[test]
fn every_file_of_the_example_stands_in_its_readme_and_no_other_does() {
    let root = folder().join("../examples/ghost-kubernetes");
    let mut there = BTreeSet::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                there.insert(path.strip_prefix(&root).unwrap().display().to_string());
            }
        }
    }
    there.remove("README.md");
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let names = rows.flat_map(|cell| cell.split('`')).filter(|name| name.ends_with(".yaml"));
    assert_eq!(names.map(str::to_owned).collect::<BTreeSet<_>>(), there);
}

/// What is called `ghostsync_…` in a text.
pub(crate) fn metrics_in(text: &str) -> BTreeSet<String> {
    let names = text.split("ghostsync_").skip(1);
    let name = |part: &str| {
        let end =
            part.find(|character: char| !character.is_ascii_lowercase() && character != '_').unwrap_or(part.len());
        format!("ghostsync_{}", &part[..end])
    };
    names.map(name).collect()
}

/// An alert on a metric that does not exist is silent for ever.
#[test]
fn alerts_and_panels_ask_for_metrics_that_exist() {
    let rules = std::fs::read_to_string(folder().join("prometheus/ghostsync.rules.yaml")).unwrap();
    let dashboard = std::fs::read_to_string(folder().join("grafana/ghostsync.json")).unwrap();
    let parsed: Value = serde_json::from_str(&dashboard).unwrap();
    assert!(parsed["panels"].as_array().unwrap().len() > 10);
    let documented = metrics_in(&std::fs::read_to_string(folder().join("../docs/kubernetes.md")).unwrap());
    let asked: BTreeSet<String> = metrics_in(&rules).union(&metrics_in(&dashboard)).cloned().collect();
    assert!(asked.len() > 10, "{asked:?}");
    for name in asked {
        // The two numbers of a summary.
        let name = name.trim_end_matches("_sum").trim_end_matches("_count");
        assert!(documented.contains(name), "{name} is no metric");
    }
}

/// The rules as an object of the Prometheus operator.
fn prometheus_rule(rules: &str) -> String {
    let head = "# Made from deploy/prometheus/ghostsync.rules.yaml, which is tested.\n\
                apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: ghostsync\nspec:\n";
    let lines = rules.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") });
    head.to_owned() + &lines.collect::<String>()
}

/// The Deployment without the app, as a strategic merge patch of one that has it.
fn component(mode: &str) -> String {
    let mut patch: Value = serde_saphyr::from_str(&printed(mode)).unwrap();
    patch["metadata"] = json!({"name": "any"});
    patch["spec"].as_object_mut().unwrap().remove("selector");
    let template = patch["spec"]["template"].as_object_mut().unwrap();
    template.remove("metadata");
    let pod = template["spec"].as_object_mut().unwrap();
    if mode == "native" {
        pod.remove("containers");
    } else {
        pod["containers"].as_array_mut().unwrap().retain(|container| container["name"] == "ghostsync");
    }
    pod["volumes"].as_array_mut().unwrap().retain(|volume| volume["name"] != "tmp");
    for list in ["initContainers", "containers"] {
        for container in pod.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            // The repository is the user's: it comes from the ConfigMap that the README names.
            container["env"].as_array_mut().unwrap().retain(|entry| entry["name"] != "GHOSTSYNC_REPO");
            let sources = container["envFrom"].as_array_mut().unwrap();
            sources.insert(0, json!({"configMapRef": {"name": "ghostsync"}}));
        }
    }
    // kustomize keeps what the app's own strategy says beside `type`, unless it is taken out.
    patch["spec"]["strategy"]["rollingUpdate"] = Value::Null;
    let source =
        format!("# Made from the template of `ghostsync-k8s manifest --mode {mode}`, which has the reasons.\n");
    source + &serde_saphyr::to_string(&patch).unwrap()
}

/// The template in the language of Helm.
fn chart() -> String {
    let grace = "(int .Values.gracePeriodSeconds)";
    let values = [
        ("mode", ".Values.mode".to_owned()),
        ("name", ".Values.name | default .Release.Name".to_owned()),
        ("image", ".Values.image | quote".to_owned()),
        ("app_image", ".Values.app.image | quote".to_owned()),
        ("repo", ".Values.repo | quote".to_owned()),
        ("path", ".Values.path | quote".to_owned()),
        ("uid", "int .Values.uid".to_owned()),
        ("url", "printf \"https://%s\" .Values.app.host | quote".to_owned()),
        ("host", ".Values.app.host | quote".to_owned()),
        ("port", "int .Values.app.port".to_owned()),
        ("wait_process", "printf \"--wait-app=process:%s\" .Values.app.process | quote".to_owned()),
        ("grace", "int .Values.gracePeriodSeconds".to_owned()),
        ("wait", format!("add {grace} 10")),
        ("deadline", format!("sub {grace} 20")),
        ("progress_deadline", format!("add {grace} 1650")),
        ("genesis", "printf \"--genesis=%s\" .Values.genesis | quote".to_owned()),
        ("interval", ".Values.interval".to_owned()),
        ("secret", ".Values.secret".to_owned()),
    ];
    let app = format!(
        "{{{{- with .Values.app.container }}}}\n      - {{{{- toYaml . | nindent 8 }}}}\n{{{{- else }}}}\n{APP}{{{{- end }}}}\n"
    );
    let text = DEPLOYMENT.replace("{{app}}\n", &app);
    let mut chart = String::new();
    let mut open = false;
    for line in text.split_inclusive('\n') {
        match line.trim_end().strip_prefix("#[").and_then(|rest| rest.strip_suffix(']')) {
            Some(mode) => {
                if open {
                    chart.push_str("{{- end }}\n");
                }
                open = mode != "end";
                if open {
                    chart.push_str(&format!("{{{{- if eq .Values.mode \"{mode}\" }}}}\n"));
                }
            }
            None => chart.push_str(line),
        }
    }
    for (name, value) in values {
        chart = chart.replace(&format!("{{{{{name}}}}}"), &format!("{{{{ {value} }}}}"));
    }
    let volumes = "{{- with .Values.app.volumes }}\n      {{- toYaml . | nindent 6 }}\n{{- end }}\n";
    // An older API server would take the manifest, and drop what makes the sidecar one.
    let refuses = "{{- if and (eq .Values.mode \"native\") (semverCompare \"<1.29.0-0\" .Capabilities.KubeVersion.Version) }}\n\
                   {{- fail \"a native sidecar needs Kubernetes 1.29: set mode to classic\" }}\n{{- end }}\n";
    refuses.to_owned() + &chart + volumes
}
