//! What the containers of ghostsync are told, and from which image they are.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::sync::LazyLock;

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue};
use serde_json::{Value, json};

use super::Rule;
use crate::args::Cli;
use crate::environment::{is_injected, known};
use crate::lint::finding::{Hit, Severity};
use crate::lint::node::{Node, Op};
use crate::lint::pod::{Container, Pod, Setting, word_with};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "service-links",
        severity: Severity::Warning,
        why: "a Service called ghostsync makes Kubernetes put GHOSTSYNC_PORT=tcp://… and the like among our own variables",
        find: service_links,
    },
    Rule {
        id: "arguments-refused",
        severity: Severity::Problem,
        why: "the program ends at once with a usage error",
        find: arguments_refused,
    },
    Rule {
        id: "unknown-variable",
        severity: Severity::Problem,
        why: "a variable GHOSTSYNC_* that does not exist is an error, since a misspelt one would silently leave a guard off",
        find: unknown_variable,
    },
    Rule {
        id: "owner-not-the-pod",
        severity: Severity::Problem,
        why: "a pod that is replaced by one of the same name looks like the same writer: its late snapshots are not fenced",
        find: owner_not_the_pod,
    },
    Rule {
        id: "genesis-missing",
        severity: Severity::Warning,
        why: "on an empty branch restore fails the pod unless it is told for which repository this is the first boot",
        find: genesis_missing,
    },
    Rule {
        id: "settings-differ",
        severity: Severity::Problem,
        why: "restore and sync work on different places: the receipt of one is refused by the other",
        find: settings_differ,
    },
    Rule {
        id: "images-differ",
        severity: Severity::Warning,
        why: "two versions of ghostsync share one receipt and one socket",
        find: images_differ,
    },
    Rule {
        id: "image-not-pinned",
        severity: Severity::Note,
        why: "the pod that starts after a node is lost may run another version than the one before it",
        find: image_not_pinned,
    },
    Rule {
        id: "secret-in-manifest",
        severity: Severity::Problem,
        why: "whoever may read the manifest may delete the bucket; and such a value cannot be rotated without a restart",
        find: secret_in_manifest,
    },
    Rule {
        id: "termination-message",
        severity: Severity::Note,
        why: "a restore that fails before it can write its last words leaves none, unless its log is taken in their place",
        find: termination_message,
    },
];

fn service_links(pod: &Pod<'_>) -> Vec<Hit> {
    let flag = pod.spec.get("enableServiceLinks");
    if flag.is(false) {
        return Vec::new();
    }
    vec![Hit::new(&flag, "not false", vec![flag.put(json!(false))])]
}

/// Parses what the containers and their hooks call, as the program itself does; variables and files apart.
fn arguments_refused(pod: &Pod<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for container in pod.ghostsync() {
        let (command, args) = (container.node.get("command"), container.node.get("args"));
        let list = if args.exists() { args } else { command };
        if let Some((problem, word)) = refused(&container.words()) {
            hits.push(Hit::new(&list, problem, without(&list, &word)));
        }
        let hook = container.pre_stop().at(&["exec", "command"]);
        if let Some((problem, word)) = refused(&hook.words()) {
            hits.push(Hit::new(&hook, problem, without(&hook, &word)));
        }
    }
    hits
}

/// The command line without what it requires, and without the variables of this process.
static LENIENT: LazyLock<clap::Command> = LazyLock::new(|| {
    Cli::command().mut_subcommands(|command| command.mut_args(|arg| arg.env(None::<&str>).required(false)))
});

static VARIABLES: LazyLock<BTreeSet<OsString>> = LazyLock::new(|| known(&Cli::command()));

/// What clap has against a command line, and the flag that it names.
fn refused(words: &[&str]) -> Option<(String, String)> {
    let (program, rest) = words.split_first()?;
    let rest = match program.rsplit('/').next() {
        Some("ghostsync-k8s") => rest,
        // The image's own entry point.
        Some("restore" | "sync") => words,
        _ => return None,
    };
    // What Kubernetes fills in is not known here.
    if rest.iter().any(|word| word.contains("$(")) {
        return None;
    }
    // Variables and files may give what is required; a person replaces REPOSITORY-ID.
    let rest: Vec<String> = rest.iter().map(|word| word.replace("REPOSITORY-ID", &"0".repeat(32))).collect();
    let error = LENIENT.clone().try_get_matches_from(std::iter::once("ghostsync-k8s".to_owned()).chain(rest)).err()?;
    let flag = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) => flag.split([' ', '=']).next().unwrap_or_default().to_owned(),
        _ => String::new(),
    };
    let first = error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    Some((first, flag))
}

/// Takes a flag out, with the value that stands in a word of its own.
fn without(list: &Node<'_>, flag: &str) -> Vec<Op> {
    let items = list.items();
    let is_flag = |word: &&Node<'_>| word.text().is_some_and(|text| text.split('=').next() == Some(flag));
    let Some(at) = items.iter().position(|word| is_flag(&word)) else { return Vec::new() };
    let mut patch = Vec::new();
    let alone = items.get(at).and_then(Node::text) == Some(flag);
    // The later one first, so that the earlier one keeps its place.
    patch.extend(
        items
            .get(at + 1)
            .filter(|next| alone && !next.text().is_some_and(|text| text.starts_with('-')))
            .map(Op::remove),
    );
    patch.extend(items.get(at).map(Op::remove));
    patch
}

fn unknown_variable(pod: &Pod<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for container in pod.ghostsync() {
        for entry in container.node.get("env").items() {
            let Some(name) = entry.get("name").text() else { continue };
            if name.starts_with("GHOSTSYNC_") && !is_injected(name) && !VARIABLES.contains(OsStr::new(name)) {
                hits.push(Hit::new(&entry, name, vec![Op::remove(&entry)]));
            }
        }
    }
    hits
}

fn owner_not_the_pod(pod: &Pod<'_>) -> Vec<Hit> {
    let owner = json!({"name": "GHOSTSYNC_OWNER", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}});
    let mut hits = Vec::new();
    for container in pod.ghostsync() {
        if let Some((_, word)) = container.flag("--owner") {
            // A flag may name a variable that Kubernetes fills in.
            if !word.text().is_some_and(|text| text.contains("$(")) {
                hits.push(Hit::new(&word, "a fixed owner", drop_flag(&word, container, &owner)));
            }
            continue;
        }
        match container.env("GHOSTSYNC_OWNER") {
            Some(entry) => {
                let field = entry.at(&["valueFrom", "fieldRef", "fieldPath"]);
                if field.text() != Some("metadata.uid") {
                    hits.push(Hit::new(&entry, "not metadata.uid", vec![entry.put(owner.clone())]));
                }
            }
            None => {
                let env = container.node.get("env");
                hits.push(Hit::new(&env, "no GHOSTSYNC_OWNER", vec![env.push(owner.clone())]));
            }
        }
    }
    hits
}

fn drop_flag(word: &Node<'_>, container: &Container<'_>, owner: &Value) -> Vec<Op> {
    let set = match container.env("GHOSTSYNC_OWNER") {
        Some(entry) => entry.put(owner.clone()),
        None => container.node.get("env").push(owner.clone()),
    };
    vec![set, word.put(json!(word_with(word, "--owner", "$(GHOSTSYNC_OWNER)")))]
}

fn genesis_missing(pod: &Pod<'_>) -> Vec<Hit> {
    if pod.syncs().next().is_none() {
        return Vec::new();
    }
    let untold =
        pod.restores().filter(|restore| matches!(restore.setting("--genesis", "GHOSTSYNC_GENESIS"), Setting::Missing));
    untold
        .map(|restore| {
            let args = restore.node.get("args");
            Hit::new(&restore.node, "no --genesis", vec![args.push(json!("--genesis=REPOSITORY-ID"))])
        })
        .collect()
}

fn settings_differ(pod: &Pod<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for sync in pod.syncs() {
        let Some(restore) = pod.restore_for(sync) else { continue };
        for (flag, variable) in
            [("--repo", "GHOSTSYNC_REPO"), ("--path", "GHOSTSYNC_PATH"), ("--branch", "GHOSTSYNC_BRANCH")]
        {
            let (ours, theirs) = (sync.setting(flag, variable), restore.setting(flag, variable));
            if let (Setting::Given { text: ours, .. }, Setting::Given { text: theirs, node }) = (ours, theirs)
                && ours != theirs
            {
                let found = format!("{theirs} in {}, {ours} in {}", restore.name(), sync.name());
                hits.push(Hit::new(&node, found, vec![node.put(json!(word_with(&node, flag, ours)))]));
            }
        }
    }
    hits
}

fn images_differ(pod: &Pod<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for sync in pod.syncs() {
        let Some(restore) = pod.restore_for(sync) else { continue };
        let (ours, theirs) = (sync.node.get("image"), restore.node.get("image"));
        if let (Some(image), Some(other)) = (ours.text(), theirs.text())
            && image != other
        {
            let found = format!("{other}, and {image} in {}", sync.name());
            hits.push(Hit::new(&theirs, found, vec![theirs.put(json!(image))]));
        }
    }
    hits
}

fn image_not_pinned(pod: &Pod<'_>) -> Vec<Hit> {
    // One patch for all containers, so that they go on running the same version.
    let mut patch = Vec::new();
    let mut places = Vec::new();
    for image in pod.ghostsync().map(|container| container.node.get("image")) {
        let Some(text) = image.text() else { continue };
        let (folder, name) = text.rsplit_once('/').map_or(("", text), |(folder, name)| (folder, name));
        let (base, tag) = name.split_once(':').map_or((name, "latest"), |(base, tag)| (base, tag));
        if tag != "latest" || text.contains('@') {
            continue;
        }
        let slash = if folder.is_empty() { "" } else { "/" };
        let pinned = format!("{folder}{slash}{base}:{}", env!("CARGO_PKG_VERSION"));
        patch.push(image.put(json!(pinned)));
        places.push((image, text));
    }
    let Some((place, text)) = places.first() else { return Vec::new() };
    vec![Hit::new(place, *text, patch)]
}

fn secret_in_manifest(pod: &Pod<'_>) -> Vec<Hit> {
    let secret = format!("{}-s3", pod.root.object.name());
    let mut hits = Vec::new();
    for container in pod.ghostsync() {
        for entry in container.node.get("env").items() {
            let Some(name) = entry.get("name").text() else { continue };
            let is_secret =
                ["SECRET", "PASSWORD", "TOKEN", "ACCOUNT_KEY", "ACCESS_KEY"].iter().any(|part| name.contains(part));
            let given = entry.get("value").text().is_some_and(|value| !value.is_empty());
            // The file of a token is no token, nor is the name of a key.
            if !is_secret || !given || name.ends_with("_FILE") || name.ends_with("_ID") {
                continue;
            }
            let reference = json!({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": name}}});
            hits.push(Hit::new(&entry, name, vec![entry.put(reference)]));
        }
    }
    hits
}

fn termination_message(pod: &Pod<'_>) -> Vec<Hit> {
    let policies = pod.restores().map(|restore| restore.node.get("terminationMessagePolicy"));
    let others = policies.filter(|policy| policy.text() != Some("FallbackToLogsOnError"));
    others
        .map(|policy| {
            let found = policy.text().unwrap_or("missing");
            Hit::new(&policy, found, vec![policy.put(json!("FallbackToLogsOnError"))])
        })
        .collect()
}
