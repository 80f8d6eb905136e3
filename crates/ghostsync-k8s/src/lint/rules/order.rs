//! What starts before what: restore, then the sidecar, then everything that uses the content.

use serde_json::{Map, Value, json};

use super::Rule;
use crate::lint::finding::{Hit, Severity};
use crate::lint::node::Op;
use crate::lint::pod::{Container, List, Pod};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "restore-missing",
        severity: Severity::Problem,
        why: "nothing brings the content back before the app starts, and a sidecar without a receipt publishes nothing",
        find: restore_missing,
    },
    Rule {
        id: "restore-is-no-init-container",
        severity: Severity::Problem,
        why: "beside the app, restore writes into a directory that the app already uses",
        find: restore_is_no_init_container,
    },
    Rule {
        id: "restore-not-first",
        severity: Severity::Problem,
        why: "init containers start in the order of the list (Helm, kustomize and webhooks reorder it): what uses the \
              content before restore is done sees an empty directory, and dirties it",
        find: restore_not_first,
    },
    Rule {
        id: "consumer-before-sidecar",
        severity: Severity::Warning,
        why: "what writes between restore and the sidecar writes while nobody follows: cut short there, it is lost",
        find: consumer_before_sidecar,
    },
    Rule {
        id: "restore-never-ends",
        severity: Severity::Problem,
        why: "with restartPolicy: Always restore is started again and again beside the running app, and the app does not wait \
              for its end",
        find: restore_never_ends,
    },
    Rule {
        id: "sidecar-without-restart-policy",
        severity: Severity::Problem,
        why: "without restartPolicy: Always a sidecar among the init containers is waited for: the pod hangs in Init for ever",
        find: sidecar_without_restart_policy,
    },
    Rule {
        id: "sidecar-not-restarted",
        severity: Severity::Problem,
        why: "after a crash of the sidecar the app goes on and nobody keeps its changes",
        find: sidecar_not_restarted,
    },
];

fn restore_missing(pod: &Pod<'_>) -> Vec<Hit> {
    if pod.restores().next().is_some() {
        return Vec::new();
    }
    let list = pod.spec.get("initContainers");
    let mut hits = Vec::new();
    for sync in pod.syncs() {
        let restore = restore_like(sync, pod.grace_seconds() + 10);
        hits.push(Hit::new(&list, "no container runs `restore`", vec![list.push_front(restore)]));
    }
    hits
}

/// A container that restores what `sync` keeps.
fn restore_like(sync: &Container<'_>, wait_seconds: u64) -> Value {
    let mut restore = Map::new();
    restore.insert("name".to_owned(), json!(format!("{}-restore", sync.name())));
    let command = sync.node.get("command");
    if let Some(program) = command.words().first().filter(|word| word.ends_with("ghostsync-k8s")) {
        restore.insert("command".to_owned(), json!([program]));
    }
    let wait = format!("--wait-predecessor={wait_seconds}s");
    restore.insert("args".to_owned(), json!(["restore", wait, "--genesis=REPOSITORY-ID"]));
    for key in ["image", "imagePullPolicy", "env", "envFrom", "securityContext", "resources"] {
        if let Some(value) = sync.node.get(key).value {
            restore.insert(key.to_owned(), value.clone());
        }
    }
    restore.insert("terminationMessagePolicy".to_owned(), json!("FallbackToLogsOnError"));
    let mounts = sync.mounts().into_iter().filter_map(|mount| {
        let mut mount = mount.value?.clone();
        mount.as_object_mut()?.remove("readOnly");
        Some(mount)
    });
    restore.insert("volumeMounts".to_owned(), mounts.collect());
    Value::Object(restore)
}

fn restore_is_no_init_container(pod: &Pod<'_>) -> Vec<Hit> {
    let restores = pod.restores().filter(|restore| restore.list == List::Main);
    let list = pod.spec.get("initContainers");
    restores
        .map(|restore| {
            let value = restore.node.value.cloned().unwrap_or_default();
            Hit::new(&restore.node, "among the containers", vec![Op::remove(&restore.node), list.push_front(value)])
        })
        .collect()
}

fn restore_not_first(pod: &Pod<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for restore in pod.restores().filter(|restore| restore.list == List::Init) {
        let sidecars = pod.natives().filter(|native| native.directory() == restore.directory());
        let users = sidecars.chain(pod.consumers().filter(|consumer| consumer.list == List::Init));
        let Some(first) = users.filter(|user| user.index < restore.index).min_by_key(|user| user.index) else {
            continue;
        };
        let patch = vec![Op::relocate(&restore.node, &first.node)];
        hits.push(Hit::new(&restore.node, format!("after {}", first.name()), patch));
    }
    hits
}

fn consumer_before_sidecar(pod: &Pod<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for native in pod.natives() {
        let Some(restore) = pod.restore_for(native) else { continue };
        let between = restore.index + 1..native.index;
        let consumers =
            pod.consumers().filter(|consumer| consumer.list == List::Init && between.contains(&consumer.index));
        let Some(first) = consumers.min_by_key(|consumer| consumer.index) else { continue };
        let patch = vec![Op::relocate(&native.node, &first.node)];
        hits.push(Hit::new(&native.node, format!("after {}", first.name()), patch));
    }
    hits
}

fn restore_never_ends(pod: &Pod<'_>) -> Vec<Hit> {
    let policies = pod.restores().map(|restore| restore.node.get("restartPolicy"));
    let always = policies.filter(|policy| policy.text() == Some("Always"));
    always.map(|policy| Hit::new(&policy, "Always", vec![Op::remove(&policy)])).collect()
}

fn sidecar_without_restart_policy(pod: &Pod<'_>) -> Vec<Hit> {
    let policies = pod.natives().map(|native| native.node.get("restartPolicy"));
    let others = policies.filter(|policy| policy.text() != Some("Always"));
    others
        .map(|policy| Hit::new(&policy, policy.text().unwrap_or("missing"), vec![policy.put(json!("Always"))]))
        .collect()
}

fn sidecar_not_restarted(pod: &Pod<'_>) -> Vec<Hit> {
    let policy = pod.spec.get("restartPolicy");
    match policy.text() {
        Some(text @ ("Never" | "OnFailure")) if pod.classics().next().is_some() => {
            let found = format!("{text}, with the sidecar among the containers");
            vec![Hit::new(&policy, found, vec![policy.put(json!("Always"))])]
        }
        _ => Vec::new(),
    }
}
