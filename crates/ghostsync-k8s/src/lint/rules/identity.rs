//! Who the containers are: user IDs, and what the Pod Security profile *restricted* asks for.

use serde_json::{Value, json};

use super::Rule;
use crate::lint::finding::{Hit, Severity};
use crate::lint::node::{Node, Op};
use crate::lint::pod::{Container, Pod};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "user-differs",
        severity: Severity::Problem,
        why: "files that the app makes with mode 0600 cannot be read by another user, and what restore makes cannot be written \
              by the app: pages are served and every write fails",
        find: user_differs,
    },
    Rule {
        id: "user-not-set",
        severity: Severity::Problem,
        why: "each image then brings a user of its own, and what one makes the other cannot read or write",
        find: user_not_set,
    },
    Rule {
        id: "fs-group-missing",
        severity: Severity::Warning,
        why: "a volume that belongs to root stays so without fsGroup: restore may not write into it",
        find: fs_group_missing,
    },
    Rule {
        id: "fs-group-walks-each-start",
        severity: Severity::Note,
        why: "the kubelet changes the owner of every file of a claim at every start, unless only the root is looked at",
        find: fs_group_walks_each_start,
    },
    Rule {
        id: "runs-as-root",
        severity: Severity::Warning,
        why: "the profile restricted wants runAsNonRoot, and admits no pod without",
        find: runs_as_root,
    },
    Rule {
        id: "privilege-escalation",
        severity: Severity::Warning,
        why: "the profile restricted wants allowPrivilegeEscalation: false in every container, and admits no pod without",
        find: privilege_escalation,
    },
    Rule {
        id: "capabilities-kept",
        severity: Severity::Warning,
        why: "the profile restricted wants all capabilities dropped in every container, and admits no pod without",
        find: capabilities_kept,
    },
    Rule {
        id: "seccomp-profile-missing",
        severity: Severity::Warning,
        why: "the profile restricted wants a seccomp profile, and admits no pod without",
        find: seccomp_profile_missing,
    },
    Rule {
        id: "host-namespace",
        severity: Severity::Warning,
        why: "the profile restricted admits no pod that shares a namespace of its host",
        find: host_namespace,
    },
    Rule {
        id: "host-path",
        severity: Severity::Problem,
        why: "a folder of the node is left behind when the pod moves, is shared by two pods that overlap there, and is not \
              admitted by the profile restricted",
        find: host_path,
    },
    Rule {
        id: "root-writable",
        severity: Severity::Note,
        why: "ghostsync writes to its volumes alone: a read-only root costs nothing",
        find: root_writable,
    },
    Rule {
        id: "service-account-token",
        severity: Severity::Warning,
        why: "ghostsync and the app never ask the API server: a token in each container is there for whoever breaks in",
        find: service_account_token,
    },
];

fn user<'a>(pod: &Pod<'a>, container: &Container<'a>) -> Option<u64> {
    let own = container.node.at(&["securityContext", "runAsUser"]).number();
    own.or_else(|| pod.spec.at(&["securityContext", "runAsUser"]).number())
}

fn user_differs(pod: &Pod<'_>) -> Vec<Hit> {
    let Some((app, wanted)) = pod.apps().find_map(|app| Some((app, user(pod, app)?))) else { return Vec::new() };
    let mut hits = Vec::new();
    for container in pod.ghostsync() {
        let Some(actual) = user(pod, container).filter(|actual| *actual != wanted) else { continue };
        let place = container.node.at(&["securityContext", "runAsUser"]);
        let found = format!("{} runs as {actual}, {} as {wanted}", container.name(), app.name());
        hits.push(Hit::new(&place, found, vec![place.put(json!(wanted))]));
    }
    hits
}

fn user_not_set(pod: &Pod<'_>) -> Vec<Hit> {
    let users: Vec<_> =
        pod.ghostsync().chain(pod.apps()).map(|container| (container.name(), user(pod, container))).collect();
    let without: Vec<_> = users.iter().filter(|(_, user)| user.is_none()).map(|(name, _)| *name).collect();
    if without.is_empty() {
        return Vec::new();
    }
    let known = users.iter().find_map(|(_, user)| *user).unwrap_or(1000);
    let place = pod.spec.at(&["securityContext", "runAsUser"]);
    vec![Hit::new(&place, format!("no user for {}", without.join(", ")), vec![place.put(json!(known))])]
}

fn fs_group_missing(pod: &Pod<'_>) -> Vec<Hit> {
    let place = pod.spec.at(&["securityContext", "fsGroup"]);
    if place.exists() {
        return Vec::new();
    }
    let user = pod.ghostsync().find_map(|container| user(pod, container)).unwrap_or(1000);
    vec![Hit::new(&place, "missing", vec![place.put(json!(user))])]
}

fn fs_group_walks_each_start(pod: &Pod<'_>) -> Vec<Hit> {
    let context = pod.spec.get("securityContext");
    let policy = context.get("fsGroupChangePolicy");
    if !context.get("fsGroup").exists() || policy.text() == Some("OnRootMismatch") {
        return Vec::new();
    }
    vec![Hit::new(&policy, policy.text().unwrap_or("missing"), vec![policy.put(json!("OnRootMismatch"))])]
}

/// A field of the security context that every container must have, itself or from the pod.
fn every_container<'a>(
    pod: &Pod<'a>,
    keys: &[&str],
    holds: impl Fn(&Node<'a>) -> bool,
    right: Value,
) -> impl Iterator<Item = Hit> {
    let of_pod = holds(&pod.spec.get("securityContext").at(keys));
    let mut hits = Vec::new();
    let mut missing = false;
    for container in &pod.containers {
        let place = container.node.get("securityContext").at(keys);
        match place.value {
            Some(value) if !holds(&place) => {
                hits.push(Hit::new(&place, value.to_string(), vec![place.put(right.clone())]))
            }
            Some(_) => {}
            None => missing |= !of_pod,
        }
    }
    if missing {
        let place = pod.spec.get("securityContext").at(keys);
        hits.push(Hit::new(&place, "not set for every container", vec![place.put(right)]));
    }
    hits.into_iter()
}

fn runs_as_root(pod: &Pod<'_>) -> Vec<Hit> {
    let flags = every_container(pod, &["runAsNonRoot"], |place| place.is(true), json!(true));
    let contexts = pod.containers.iter().map(|container| &container.node).chain([&pod.spec]);
    let roots = contexts.map(|node| node.at(&["securityContext", "runAsUser"])).filter(|user| user.number() == Some(0));
    flags.chain(roots.map(|place| Hit::new(&place, "0", vec![place.put(json!(1000))]))).collect()
}

fn privilege_escalation(pod: &Pod<'_>) -> Vec<Hit> {
    let contexts = pod.containers.iter().map(|container| container.node.get("securityContext"));
    let mut hits = Vec::new();
    for context in contexts {
        let (escalation, privileged) = (context.get("allowPrivilegeEscalation"), context.get("privileged"));
        if privileged.is(true) {
            hits.push(Hit::new(&privileged, "privileged", vec![Op::remove(&privileged)]));
        }
        if !escalation.is(false) {
            hits.push(Hit::new(&escalation, "not false", vec![escalation.put(json!(false))]));
        }
    }
    hits
}

fn capabilities_kept(pod: &Pod<'_>) -> Vec<Hit> {
    let sets = pod.containers.iter().map(|container| container.node.at(&["securityContext", "capabilities"]));
    let mut hits = Vec::new();
    for capabilities in sets {
        let (add, drop) = (capabilities.get("add"), capabilities.get("drop"));
        let adds = add.words().iter().any(|name| *name != "NET_BIND_SERVICE");
        if !adds && drop.words().contains(&"ALL") {
            continue;
        }
        let found = if adds { format!("adds {}", add.words().join(", ")) } else { "does not drop ALL".to_owned() };
        hits.push(Hit::new(&capabilities, found, vec![capabilities.put(json!({"drop": ["ALL"]}))]));
    }
    hits
}

fn seccomp_profile_missing(pod: &Pod<'_>) -> Vec<Hit> {
    let good = |place: &Node<'_>| matches!(place.text(), Some("RuntimeDefault" | "Localhost"));
    every_container(pod, &["seccompProfile", "type"], good, json!("RuntimeDefault")).collect()
}

fn host_namespace(pod: &Pod<'_>) -> Vec<Hit> {
    let flags = ["hostPID", "hostIPC", "hostNetwork"].map(|key| pod.spec.get(key));
    let set = flags.into_iter().filter(|flag| flag.is(true));
    set.map(|flag| Hit::new(&flag, "true", vec![Op::remove(&flag)])).collect()
}

fn host_path(pod: &Pod<'_>) -> Vec<Hit> {
    let folders = pod.spec.get("volumes").items().into_iter().map(|volume| volume.get("hostPath")).filter(Node::exists);
    folders
        .map(|folder| {
            let patch = vec![Op::remove(&folder), folder.parent().get("emptyDir").put(json!({}))];
            Hit::new(&folder, folder.get("path").text().unwrap_or_default(), patch)
        })
        .collect()
}

fn root_writable(pod: &Pod<'_>) -> Vec<Hit> {
    let flags = pod.ghostsync().map(|container| container.node.at(&["securityContext", "readOnlyRootFilesystem"]));
    let writable = flags.filter(|flag| !flag.is(true));
    writable.map(|flag| Hit::new(&flag, "not true", vec![flag.put(json!(true))])).collect()
}

fn service_account_token(pod: &Pod<'_>) -> Vec<Hit> {
    let flag = pod.spec.get("automountServiceAccountToken");
    if flag.is(false) {
        return Vec::new();
    }
    vec![Hit::new(&flag, "not false", vec![flag.put(json!(false))])]
}
