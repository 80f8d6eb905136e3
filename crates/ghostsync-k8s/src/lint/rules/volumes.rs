//! The volumes: of the content, and of the state beside it (receipt, control socket, cache).

use serde_json::json;

use super::Rule;
use crate::lint::finding::{Hit, Severity};
use crate::lint::node::{Node, Op};
use crate::lint::pod::{Container, List, Pod, Role, lies_in};

const STATE_VOLUME: &str = "ghostsync-state";

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "size-limit",
        severity: Severity::Problem,
        why: "emptyDir.sizeLimit is no limit but an eviction, with about 1 s of grace and so without a final snapshot: alert on \
              ghostsync_volume_used_ratio instead",
        find: size_limit,
    },
    Rule {
        id: "ephemeral-storage-limit",
        severity: Severity::Problem,
        why: "what a container writes into an emptyDir counts as its ephemeral storage, and exceeding the limit is an eviction \
              with about 1 s of grace: request storage, do not limit it",
        find: ephemeral_storage_limit,
    },
    Rule {
        id: "content-in-memory",
        severity: Severity::Warning,
        why: "a directory in memory counts as the memory of the containers that write it, and is gone after a reboot with all \
              that was not uploaded",
        find: content_in_memory,
    },
    Rule {
        id: "content-not-mounted",
        severity: Severity::Problem,
        why: "ghostsync keeps a directory of its own container, which the app never sees",
        find: content_not_mounted,
    },
    Rule {
        id: "content-volumes-differ",
        severity: Severity::Problem,
        why: "restore fills one volume and the sidecar follows another",
        find: content_volumes_differ,
    },
    Rule {
        id: "restore-cannot-write",
        severity: Severity::Problem,
        why: "restore writes the directory",
        find: restore_cannot_write,
    },
    Rule {
        id: "sync-can-write",
        severity: Severity::Note,
        why: "the sidecar only reads the directory: mounted read-only, no fault of ours can touch the content under a running app",
        find: sync_can_write,
    },
    Rule {
        id: "state-not-mounted",
        severity: Severity::Problem,
        why: "restore leaves the receipt in its own container, where the sidecar does not find it: nothing is published \
              without a receipt",
        find: state_not_mounted,
    },
    Rule {
        id: "state-volumes-differ",
        severity: Severity::Problem,
        why: "restore leaves the receipt in one volume and the sidecar looks for it in another: nothing is published without \
              a receipt",
        find: state_volumes_differ,
    },
    Rule {
        id: "state-read-only",
        severity: Severity::Problem,
        why: "the receipt, the control socket and the cache are written there",
        find: state_read_only,
    },
    Rule {
        id: "state-in-content",
        severity: Severity::Problem,
        why: "the receipt, the control socket and the cache would lie among the content, in the app's reach, and the app's tools \
              would delete or copy them",
        find: state_in_content,
    },
    Rule {
        id: "state-gone-before-content",
        severity: Severity::Problem,
        why: "a claim outlives the pod and an emptyDir does not: each new pod finds a full directory without a receipt, and \
              restore refuses to write into it",
        find: state_gone_before_content,
    },
    Rule {
        id: "content-sub-path",
        severity: Severity::Problem,
        why: "a subPath is resolved once, when the container starts: it goes on showing the old folder when a restore has put \
              another in its place",
        find: content_sub_path,
    },
    Rule {
        id: "content-not-used",
        severity: Severity::Warning,
        why: "no container of the app mounts the volume that ghostsync keeps: what the app writes lies elsewhere and is lost",
        find: content_not_used,
    },
];

/// The volumes that containers of ghostsync use, with the name that each has in the pod.
fn kept_volumes<'a>(pod: &Pod<'a>) -> Vec<Node<'a>> {
    let mut volumes: Vec<Node<'a>> = Vec::new();
    for container in pod.ghostsync() {
        for mount in [container.content_mount(), container.state_mount()].into_iter().flatten() {
            let volume = mount.get("name").text().and_then(|name| pod.volume(name));
            volumes.extend(volume.filter(|volume| volumes.iter().all(|known| known.path != volume.path)));
        }
    }
    volumes
}

fn size_limit(pod: &Pod<'_>) -> Vec<Hit> {
    let limits = kept_volumes(pod).into_iter().map(|volume| volume.at(&["emptyDir", "sizeLimit"]));
    let limits = limits.filter(Node::exists);
    limits.map(|limit| Hit::new(&limit, limit.text().unwrap_or("a limit"), vec![Op::remove(&limit)])).collect()
}

fn ephemeral_storage_limit(pod: &Pod<'_>) -> Vec<Hit> {
    let users = pod.ghostsync().chain(pod.consumers());
    let limits = users.map(|user| user.node.at(&["resources", "limits", "ephemeral-storage"])).filter(Node::exists);
    limits.map(|limit| Hit::new(&limit, limit.text().unwrap_or("a limit"), vec![Op::remove(&limit)])).collect()
}

fn content_in_memory(pod: &Pod<'_>) -> Vec<Hit> {
    let media = kept_volumes(pod).into_iter().map(|volume| volume.at(&["emptyDir", "medium"]));
    let memory = media.filter(|medium| medium.text() == Some("Memory"));
    memory.map(|medium| Hit::new(&medium, "Memory", vec![Op::remove(&medium)])).collect()
}

/// The volume that the others of the pod take for the content: another container's of ghostsync, else the app's.
fn content_of_others<'a>(pod: &Pod<'a>, container: &Container<'a>) -> Option<&'a str> {
    let others = pod.ghostsync().filter(|other| other.node.path != container.node.path);
    let of_ghostsync = others.filter_map(Container::content_volume).next();
    of_ghostsync.or_else(|| {
        let apps = pod.containers.iter().filter(|other| other.role.is_none() && other.list == List::Main);
        apps.flat_map(Container::mounts).find_map(|mount| mount.get("name").text())
    })
}

fn content_not_mounted(pod: &Pod<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for container in pod.ghostsync() {
        let Some(directory) = container.directory() else { continue };
        if container.content_mount().is_some() {
            continue;
        }
        let mut mount = json!({"name": content_of_others(pod, container).unwrap_or("content"), "mountPath": directory});
        if container.role == Some(Role::Sync) {
            mount["readOnly"] = json!(true);
        }
        let mounts = container.node.get("volumeMounts");
        hits.push(Hit::new(&mounts, format!("no volume at {directory}"), vec![mounts.push(mount)]));
    }
    hits
}

/// Holds the volumes against each other that restore and sync mount at one place.
fn differ<'a>(pod: &Pod<'a>, mount_of: impl Fn(&Container<'a>) -> Option<Node<'a>>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for sync in pod.syncs() {
        let Some(restore) = pod.restore_for(sync) else { continue };
        let (Some(ours), Some(theirs)) = (mount_of(sync), mount_of(restore)) else { continue };
        let (ours, theirs) = (ours.get("name"), theirs.get("name"));
        if let (Some(at_sync), Some(at_restore)) = (ours.text(), theirs.text())
            && at_sync != at_restore
        {
            let found = format!("{at_sync} in {}, {at_restore} in {}", sync.name(), restore.name());
            hits.push(Hit::new(&ours, found, vec![ours.put(json!(at_restore))]));
        }
    }
    hits
}

fn content_volumes_differ(pod: &Pod<'_>) -> Vec<Hit> {
    differ(pod, Container::content_mount)
}

fn state_volumes_differ(pod: &Pod<'_>) -> Vec<Hit> {
    differ(pod, Container::state_mount)
}

fn restore_cannot_write(pod: &Pod<'_>) -> Vec<Hit> {
    read_only(pod.restores().filter_map(Container::content_mount))
}

fn state_read_only(pod: &Pod<'_>) -> Vec<Hit> {
    // Where the state lies in the content, that is what must change.
    let state = pod.ghostsync().filter(|container| {
        let content = container.content_mount().map(|mount| mount.path);
        container.state_mount().is_some_and(|mount| Some(mount.path) != content)
    });
    read_only(state.filter_map(Container::state_mount))
}

fn read_only<'a>(mounts: impl Iterator<Item = Node<'a>>) -> Vec<Hit> {
    let marks = mounts.map(|mount| mount.get("readOnly")).filter(|mark| mark.is(true));
    marks.map(|mark| Hit::new(&mark, "mounted read-only", vec![Op::remove(&mark)])).collect()
}

fn sync_can_write(pod: &Pod<'_>) -> Vec<Hit> {
    let marks = pod.syncs().filter_map(Container::content_mount).map(|mount| mount.get("readOnly"));
    let writable = marks.filter(|mark| !mark.is(true));
    writable.map(|mark| Hit::new(&mark, "mounted for writing", vec![mark.put(json!(true))])).collect()
}

fn state_not_mounted(pod: &Pod<'_>) -> Vec<Hit> {
    if pod.syncs().next().is_none() {
        return Vec::new();
    }
    let mut hits = Vec::new();
    for container in pod.ghostsync().filter(|container| container.state_mount().is_none()) {
        let directory = container.state_directory();
        let others = pod.ghostsync().filter_map(Container::state_mount).find_map(|mount| mount.get("name").text());
        let volume = others.unwrap_or(STATE_VOLUME);
        let mounts = container.node.get("volumeMounts");
        let mut patch = vec![mounts.push(json!({"name": volume, "mountPath": directory}))];
        if pod.volume(volume).is_none() {
            patch.push(pod.spec.get("volumes").push(json!({"name": volume, "emptyDir": {}})));
        }
        hits.push(Hit::new(&mounts, format!("no volume at {directory}"), patch));
    }
    hits
}

fn state_in_content(pod: &Pod<'_>) -> Vec<Hit> {
    // One patch for all containers: with another volume in one of them alone they would not meet any more.
    let mut patch = Vec::new();
    let mut places = Vec::new();
    for container in pod.ghostsync() {
        let (Some(content), Some(state)) = (container.content_mount(), container.state_mount()) else { continue };
        let (volume, of_state) = (content.get("name"), state.get("name"));
        let inside = container.directory().is_some_and(|directory| lies_in(container.state_directory(), directory));
        // Two subPaths of one claim are two folders.
        let apart = content.get("subPath").text() != state.get("subPath").text();
        if !inside && (volume.text() != of_state.text() || apart) {
            continue;
        }
        if state.path == content.path || inside {
            let mount = json!({"name": STATE_VOLUME, "mountPath": crate::lint::pod::STATE_DIR});
            patch.push(container.node.get("volumeMounts").push(mount));
            if let Some(entry) = container.env("GHOSTSYNC_STATE_DIR") {
                patch.push(entry.get("value").put(json!(crate::lint::pod::STATE_DIR)));
            }
        } else {
            patch.push(of_state.put(json!(STATE_VOLUME)));
        }
        places.push((state, container.state_directory()));
    }
    let Some((place, directory)) = places.first() else { return Vec::new() };
    if pod.volume(STATE_VOLUME).is_none() {
        patch.push(pod.spec.get("volumes").push(json!({"name": STATE_VOLUME, "emptyDir": {}})));
    }
    vec![Hit::new(place, format!("{directory} lies in the volume of the content"), patch)]
}

/// Whether a volume is a disk of its own, which outlives the pod.
fn claim_of<'a>(pod: &Pod<'a>, volume: &str) -> Option<Node<'a>> {
    let templates = pod.root.at(&["spec", "volumeClaimTemplates"]).items();
    let of_template = templates.into_iter().find(|claim| claim.at(&["metadata", "name"]).text() == Some(volume));
    of_template.or_else(|| Some(pod.volume(volume)?.get("persistentVolumeClaim")).filter(Node::exists))
}

fn state_gone_before_content(pod: &Pod<'_>) -> Vec<Hit> {
    let Some(content) = pod.ghostsync().find_map(Container::content_volume) else { return Vec::new() };
    let Some(claim) = claim_of(pod, content) else { return Vec::new() };
    let states = pod.ghostsync().filter_map(Container::state_mount).find_map(|mount| mount.get("name").text());
    let Some(state) = states.and_then(|name| pod.volume(name)).filter(|volume| volume.get("emptyDir").exists()) else {
        return Vec::new();
    };
    let patch = match claim.get("claimName").text() {
        Some(name) => {
            let source = json!({"claimName": format!("{name}-ghostsync-state")});
            vec![Op::remove(&state.get("emptyDir")), state.get("persistentVolumeClaim").put(source)]
        }
        None => {
            let mut template = claim.value.cloned().unwrap_or_default();
            template["metadata"]["name"] = json!(state.get("name").text());
            vec![Op::remove(&state), pod.root.at(&["spec", "volumeClaimTemplates"]).push(template)]
        }
    };
    vec![Hit::new(&state, format!("an emptyDir beside the claim {content}"), patch)]
}

fn content_sub_path(pod: &Pod<'_>) -> Vec<Hit> {
    let volumes: Vec<&str> = pod.ghostsync().filter_map(Container::content_volume).collect();
    let mut hits = Vec::new();
    for mount in pod.consumers().flat_map(Container::mounts) {
        if mount.get("name").text().is_none_or(|name| !volumes.contains(&name)) {
            continue;
        }
        for key in ["subPath", "subPathExpr"] {
            let sub_path = mount.get(key);
            if let Some(text) = sub_path.text() {
                hits.push(Hit::new(&sub_path, text, vec![Op::remove(&sub_path)]));
            }
        }
    }
    hits
}

fn content_not_used(pod: &Pod<'_>) -> Vec<Hit> {
    if pod.apps().next().is_some() {
        return Vec::new();
    }
    let mut others = pod.containers.iter().filter(|container| container.role.is_none() && container.list == List::Main);
    let (Some(app), Some(volume)) = (others.next(), pod.ghostsync().find_map(Container::content_volume)) else {
        return Vec::new();
    };
    let directory = pod.ghostsync().find_map(Container::directory).unwrap_or("/data");
    let mounts = app.node.get("volumeMounts");
    let patch = vec![mounts.push(json!({"name": volume, "mountPath": directory}))];
    vec![Hit::new(&mounts, format!("no container mounts {volume}"), patch)]
}
