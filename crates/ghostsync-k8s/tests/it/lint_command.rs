//! `ghostsync-k8s lint` and `manifest` as CI calls them: files and stdin in, exit codes and one JSON document out.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn run(arguments: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ghostsync-k8s"))
        .env_clear()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its stdin may have ended already.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

fn manifest(arguments: &[&str]) -> String {
    let output = run(&[&["manifest"], arguments].concat(), "");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_clean_manifest_ends_with_0() {
    let output = run(&["lint", "-"], &manifest(&[]));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0 problems, 0 warnings, 0 notes in 1 workload\n");
}

#[test]
fn whatever_manifest_is_told_its_pods_are_clean() {
    let told = ["--name", "blog", "--repo", "https://store.example.com/a b?\"c\"#d", "--path", "/var/lib/blog/content"];
    let more =
        ["--uid", "33", "--host", "blog.example.com", "--port", "2368", "--grace-period", "5m", "--interval", "1m"];
    for mode in ["native", "classic"] {
        let text =
            manifest(&[&["--mode", mode][..], &told, &more, &["--process", "node: x", "--secret", "blog-s3"]].concat());
        let output = run(&["lint", "--strict", "-"], &text);
        assert_eq!(output.status.code(), Some(0), "{mode}: {}", String::from_utf8_lossy(&output.stdout));
        let pod: Value = serde_saphyr::from_str(&text).unwrap();
        let restore = &pod["spec"]["template"]["spec"]["initContainers"][0];
        assert_eq!(restore["env"][0]["value"], "https://store.example.com/a b?\"c\"#d");
        assert_eq!(restore["args"][1], "--wait-predecessor=310s");
    }
}

#[test]
fn what_manifest_cannot_make_a_sound_pod_of_is_a_usage_error() {
    for wrong in
        [["--name", "Blog"], ["--uid", "0"], ["--host", "https://x"], ["--grace-period", "20s"], ["--interval", "x"]]
    {
        assert_eq!(run(&["manifest", wrong[0], wrong[1]], "").status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn a_problem_ends_with_10_and_a_warning_only_when_strict() {
    let problem = manifest(&[]).replace("type: Recreate", "type: RollingUpdate");
    assert_eq!(run(&["lint", "-"], &problem).status.code(), Some(10));
    let warning = manifest(&[]).replace("fsGroup: 1000", "# none");
    assert_eq!(run(&["lint", "-"], &warning).status.code(), Some(0));
    assert_eq!(run(&["lint", "--strict", "-"], &warning).status.code(), Some(10));
}

/// As Helm and kustomize print it: other objects before and after, and a list.
#[test]
fn a_finding_says_in_which_file_document_and_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rendered.yaml");
    let pod: Value = serde_saphyr::from_str(&manifest(&[]).replace("path: /livez", "path: /readyz")).unwrap();
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [{"kind": "ConfigMap"}, pod]});
    std::fs::write(&file, format!("# Source: a chart\n---\napiVersion: v1\nkind: Service\n---\n{list}\n---\n"))
        .unwrap();
    let output = run(&["lint", "--json", file.to_str().unwrap()], "");
    assert_eq!(output.status.code(), Some(10));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let finding = &report["findings"][0];
    assert_eq!(report["findings"].as_array().unwrap().len(), 1);
    assert_eq!(
        (finding["rule"].as_str(), finding["severity"].as_str()),
        (Some("liveness-tied-to-store"), Some("problem"))
    );
    assert_eq!((finding["document"].as_u64(), finding["item"].as_u64()), (Some(2), Some(1)));
    assert_eq!((finding["kind"].as_str(), finding["name"].as_str()), (Some("Deployment"), Some("app")));
    assert_eq!(finding["path"], "spec.template.spec.initContainers[1].livenessProbe");
    assert_eq!(finding["found"], "asks /readyz");
}

#[test]
fn a_person_reads_the_patch() {
    let text = manifest(&[]).replace("path: /livez", "path: /readyz");
    let output = run(&["lint", "-"], &text);
    let expected = "\
problem: liveness-tied-to-store: asks /readyz
  at spec.template.spec.initContainers[1].livenessProbe of Deployment/app (stdin, document 1)
  why: only /livez looks at the loop alone: any other probe restarts the sidecar while the store is down, which is when it holds what has not been uploaded
  patch:
    - op: test
      path: /spec/template/spec/initContainers/1/name
      value: ghostsync
    - op: replace
      path: /spec/template/spec/initContainers/1/livenessProbe/httpGet
      value:
        path: /livez
        port: 9108

1 problem, 0 warnings, 0 notes in 1 workload
";
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}

#[test]
fn what_cannot_be_checked_is_no_success() {
    for (text, says) in [
        ("", "error: no workload in stdin has a container of ghostsync: nothing was checked\n"),
        ("apiVersion: v1\nkind: Pod\nspec: {containers: [{image: nginx}]}\n", "error: no workload in stdin has"),
        ("replicas: 1\n", "error: document 1 of stdin is no Kubernetes object: it lacks apiVersion\n"),
        ("a: [\n", "error: cannot parse stdin as YAML"),
    ] {
        let output = run(&["lint", "-"], text);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(2), true), "{message}");
        assert!(message.starts_with(says), "{message}");
    }
    assert_eq!(run(&["lint", "/nowhere/x.yaml"], "").status.code(), Some(2));
}
