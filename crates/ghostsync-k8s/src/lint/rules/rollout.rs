//! How many pods there are at a time, and how long a new one may take.

use std::time::Duration;

use serde_json::json;

use super::Rule;
use crate::lint::finding::{Hit, Severity};
use crate::lint::node::Node;
use crate::lint::pod::{Container, Pod, Setting, duration};

/// What a first restore may take beyond the wait for the predecessor.
const FIRST_RESTORE_SECONDS: u64 = 900;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "rolling-update",
        severity: Severity::Problem,
        why: "at every rollout the new pod claims the branch while the old one still serves: what the old one goes on writing \
              lands on a fork",
        find: rolling_update,
    },
    Rule {
        id: "several-replicas",
        severity: Severity::Problem,
        why: "a branch has one writer: each pod that starts fences the one before it",
        find: several_replicas,
    },
    Rule {
        id: "one-branch-for-all-nodes",
        severity: Severity::Problem,
        why: "a DaemonSet starts a pod on each node, and a branch has one writer: give each node a branch of its own",
        find: one_branch_for_all_nodes,
    },
    Rule {
        id: "autoscaled",
        severity: Severity::Problem,
        why: "an autoscaler adds pods, and a branch has one writer: each pod that starts fences the one before it",
        find: autoscaled,
    },
    Rule {
        id: "progress-deadline",
        severity: Severity::Warning,
        why: "the first restore of a large directory takes longer than that: the rollout is marked as failed while all is well, \
              and a promotion stops or is rolled back",
        find: progress_deadline,
    },
    Rule {
        id: "service-names-sidecar-port",
        severity: Severity::Warning,
        why: "named ports of native sidecars reach a Service only from Kubernetes 1.33 on: before, its endpoints stay empty",
        find: service_names_sidecar_port,
    },
];

fn branch_is_per_pod(pod: &Pod<'_>) -> bool {
    pod.syncs().all(|sync| match sync.setting("--branch", "GHOSTSYNC_BRANCH") {
        Setting::Given { text, .. } => text.contains("$("),
        Setting::Elsewhere => true,
        Setting::Missing => false,
    })
}

fn has_writer(pod: &Pod<'_>) -> bool {
    pod.syncs().next().is_some()
}

fn rolling_update(pod: &Pod<'_>) -> Vec<Hit> {
    let strategy = pod.root.at(&["spec", "strategy"]);
    if pod.root.object.kind() != "Deployment" || !has_writer(pod) || strategy.get("type").text() == Some("Recreate") {
        return Vec::new();
    }
    let found = strategy.get("type").text().unwrap_or("the default, RollingUpdate");
    vec![Hit::new(&strategy, found, vec![strategy.put(json!({"type": "Recreate"}))])]
}

fn several_replicas(pod: &Pod<'_>) -> Vec<Hit> {
    let replicas = pod.root.at(&["spec", "replicas"]);
    match replicas.number() {
        Some(number) if number > 1 && has_writer(pod) && !branch_is_per_pod(pod) => {
            vec![Hit::new(&replicas, number.to_string(), vec![replicas.put(json!(1))])]
        }
        _ => Vec::new(),
    }
}

fn one_branch_for_all_nodes(pod: &Pod<'_>) -> Vec<Hit> {
    if pod.root.object.kind() != "DaemonSet" || !has_writer(pod) || branch_is_per_pod(pod) {
        return Vec::new();
    }
    let mut patch = Vec::new();
    for container in pod.ghostsync() {
        let env = container.node.get("env");
        let node_name = json!({"fieldRef": {"fieldPath": "spec.nodeName"}});
        match container.env("GHOSTSYNC_BRANCH") {
            Some(entry) => patch.push(entry.put(json!({"name": "GHOSTSYNC_BRANCH", "valueFrom": node_name}))),
            None => patch.push(env.push(json!({"name": "GHOSTSYNC_BRANCH", "valueFrom": node_name}))),
        }
    }
    vec![Hit::new(&pod.root.get("kind"), "DaemonSet", patch)]
}

fn autoscaled(pod: &Pod<'_>) -> Vec<Hit> {
    if !has_writer(pod) || branch_is_per_pod(pod) {
        return Vec::new();
    }
    let target = (pod.root.object.kind(), pod.root.object.name());
    let scalers = pod.objects.iter().filter(|object| object.kind() == "HorizontalPodAutoscaler").map(Node::root);
    let mut hits = Vec::new();
    for scaler in scalers {
        let reference = scaler.at(&["spec", "scaleTargetRef"]);
        let named =
            (reference.get("kind").text().unwrap_or_default(), reference.get("name").text().unwrap_or_default());
        let most = scaler.at(&["spec", "maxReplicas"]);
        if named == target && most.number().is_some_and(|number| number > 1) {
            let mut patch = vec![most.put(json!(1))];
            let least = scaler.at(&["spec", "minReplicas"]);
            patch.extend(least.exists().then(|| least.put(json!(1))));
            hits.push(Hit::new(&most, "maxReplicas above 1", patch));
        }
    }
    hits
}

fn progress_deadline(pod: &Pod<'_>) -> Vec<Hit> {
    if pod.root.object.kind() != "Deployment" {
        return Vec::new();
    }
    let waits = pod.restores().filter_map(|restore| {
        match restore.setting("--wait-predecessor", "GHOSTSYNC_WAIT_PREDECESSOR") {
            Setting::Given { text, .. } => duration(text).as_ref().map(Duration::as_secs),
            Setting::Elsewhere | Setting::Missing => None,
        }
    });
    let needed = waits.max().unwrap_or(0) + FIRST_RESTORE_SECONDS;
    let deadline = pod.root.at(&["spec", "progressDeadlineSeconds"]);
    let actual = deadline.number().unwrap_or(600);
    if actual >= needed {
        return Vec::new();
    }
    let found = if deadline.exists() { format!("{actual} s") } else { "the default, 600 s".to_owned() };
    vec![Hit::new(&deadline, found, vec![deadline.put(json!(needed.max(1800)))])]
}

fn service_names_sidecar_port(pod: &Pod<'_>) -> Vec<Hit> {
    let template = pod.spec.parent();
    let labels = template.at(&["metadata", "labels"]);
    let selects = |service: &Node<'_>| {
        let selector = service.at(&["spec", "selector"]);
        let wanted = selector.value.and_then(serde_json::Value::as_object);
        wanted.is_some_and(|wanted| {
            !wanted.is_empty() && wanted.iter().all(|(key, value)| labels.get(key).text() == value.as_str())
        })
    };
    let mut hits = Vec::new();
    for service in pod.objects.iter().filter(|object| object.kind() == "Service").map(Node::root) {
        if !selects(&service) {
            continue;
        }
        for target in service.at(&["spec", "ports"]).items().iter().map(|port| port.get("targetPort")) {
            let Some(name) = target.text() else { continue };
            let number = pod.natives().find_map(|native| port_named(native, name));
            if let Some(number) = number {
                hits.push(Hit::new(&target, name, vec![target.put(json!(number))]));
            }
        }
    }
    hits
}

fn port_named(container: &Container<'_>, name: &str) -> Option<u64> {
    let ports = container.node.get("ports").items();
    ports.iter().find(|port| port.get("name").text() == Some(name))?.get("containerPort").number()
}
