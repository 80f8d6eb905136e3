//! What a manifest says about one pod: its containers, which of them are ghostsync, and what those are told.

use std::time::Duration;

use ghostsync_cli::values::Span;

use serde_json::Value;

use super::document::Object;
use super::node::Node;

/// Where `restore` and `sync` meet, unless they are told otherwise.
pub(crate) const STATE_DIR: &str = "/run/ghostsync";

/// What a container of ghostsync does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Restore,
    Sync,
}

/// The list that a container is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    Init,
    Main,
}

#[derive(Debug, Clone)]
pub(crate) struct Container<'a> {
    pub(crate) node: Node<'a>,
    pub(crate) list: List,
    pub(crate) index: usize,
    /// `None` for the app and whatever else there is.
    pub(crate) role: Option<Role>,
}

/// A setting of a container of ghostsync, and where it stands.
#[derive(Debug)]
pub(crate) enum Setting<'a> {
    Given {
        text: &'a str,
        node: Node<'a>,
    },
    /// Comes from an object that may or may not be in the cluster.
    Elsewhere,
    Missing,
}

/// The pod of a workload that ghostsync has a part in.
#[derive(Debug)]
pub(crate) struct Pod<'a> {
    /// The workload.
    pub(crate) root: Node<'a>,
    /// The pod's `spec`.
    pub(crate) spec: Node<'a>,
    pub(crate) containers: Vec<Container<'a>>,
    /// All objects of the input.
    pub(crate) objects: &'a [Object],
}

impl<'a> Pod<'a> {
    /// The pod that `object` makes; `None` if it makes none, or one without ghostsync.
    pub(crate) fn of(object: &'a Object, objects: &'a [Object]) -> Option<Self> {
        let root = Node::root(object);
        let spec = match object.kind() {
            "Pod" => root.get("spec"),
            "CronJob" => root.at(&["spec", "jobTemplate", "spec", "template", "spec"]),
            "PodTemplate" => root.at(&["template", "spec"]),
            // Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, Rollout, and whatever else embeds a template.
            _ => root.at(&["spec", "template", "spec"]),
        };
        let of_list = |list, key| {
            let nodes = spec.get(key).items().into_iter().enumerate();
            let nodes = nodes.filter(|(_, node)| node.value.is_some_and(Value::is_object));
            nodes.map(move |(index, node)| Container { role: role_of(&node), node, list, index }).collect::<Vec<_>>()
        };
        let mut containers = of_list(List::Init, "initContainers");
        containers.extend(of_list(List::Main, "containers"));
        let pod = Self { root, spec, containers, objects };
        let has_part = pod.ghostsync().next().is_some();
        has_part.then_some(pod)
    }

    pub(crate) fn ghostsync(&self) -> impl Iterator<Item = &Container<'a>> {
        self.containers.iter().filter(|container| container.role.is_some())
    }

    pub(crate) fn syncs(&self) -> impl Iterator<Item = &Container<'a>> {
        self.containers.iter().filter(|container| container.role == Some(Role::Sync))
    }

    pub(crate) fn natives(&self) -> impl Iterator<Item = &Container<'a>> {
        self.syncs().filter(|container| container.list == List::Init)
    }

    pub(crate) fn classics(&self) -> impl Iterator<Item = &Container<'a>> {
        self.syncs().filter(|container| container.list == List::Main)
    }

    pub(crate) fn restores(&self) -> impl Iterator<Item = &Container<'a>> {
        self.containers.iter().filter(|container| container.role == Some(Role::Restore))
    }

    /// The `restore` that prepares what `sync` follows: of the same directory, or the only one.
    pub(crate) fn restore_for(&self, sync: &Container<'a>) -> Option<&Container<'a>> {
        let wanted = sync.directory();
        let mut restores = self.restores();
        let first = restores.next()?;
        Some(restores.find(|restore| wanted.is_some() && restore.directory() == wanted).unwrap_or(first))
    }

    /// Containers, not of ghostsync, that mount the volume that ghostsync keeps.
    pub(crate) fn consumers(&self) -> impl Iterator<Item = &Container<'a>> {
        let volumes: Vec<&str> = self.ghostsync().filter_map(Container::content_volume).collect();
        let others = self.containers.iter().filter(|container| container.role.is_none());
        others.filter(move |container| {
            container.mounts().iter().any(|mount| mount.get("name").text().is_some_and(|name| volumes.contains(&name)))
        })
    }

    /// Consumers that run as long as the pod does.
    pub(crate) fn apps(&self) -> impl Iterator<Item = &Container<'a>> {
        self.consumers().filter(|container| container.list == List::Main)
    }

    pub(crate) fn grace_period(&self) -> Node<'a> {
        self.spec.get("terminationGracePeriodSeconds")
    }

    /// What Kubernetes gives when nothing is said: 30 s.
    pub(crate) fn grace_seconds(&self) -> u64 {
        self.grace_period().number().unwrap_or(30)
    }

    pub(crate) fn volume(&self, name: &str) -> Option<Node<'a>> {
        self.spec.get("volumes").items().into_iter().find(|volume| volume.get("name").text() == Some(name))
    }
}

impl<'a> Container<'a> {
    pub(crate) fn name(&self) -> &'a str {
        self.node.get("name").text().unwrap_or_default()
    }

    /// `command` and `args` together: what is run, the image's own entry point apart.
    pub(crate) fn words(&self) -> Vec<&'a str> {
        words_of(&self.node)
    }

    pub(crate) fn mounts(&self) -> Vec<Node<'a>> {
        self.node.get("volumeMounts").items()
    }

    pub(crate) fn env(&self, name: &str) -> Option<Node<'a>> {
        self.node.get("env").items().into_iter().rfind(|entry| entry.get("name").text() == Some(name))
    }

    /// The value of a setting: a flag counts before the environment.
    pub(crate) fn setting(&self, flag: &str, variable: &str) -> Setting<'a> {
        if let Some((text, node)) = self.flag(flag) {
            return Setting::Given { text, node };
        }
        if let Some(entry) = self.env(variable) {
            let node = entry.get("value");
            return node.text().map_or(Setting::Elsewhere, |text| Setting::Given { text, node });
        }
        let sources = self.node.get("envFrom").items();
        let may_come_from_a_map = sources.iter().any(|source| source.get("configMapRef").exists());
        let has_file = self.flag("--config").is_some() || self.env("GHOSTSYNC_CONFIG").is_some();
        if may_come_from_a_map || has_file { Setting::Elsewhere } else { Setting::Missing }
    }

    /// A flag's value and the word that holds it, for `--flag=value` and `--flag value`.
    pub(crate) fn flag(&self, flag: &str) -> Option<(&'a str, Node<'a>)> {
        for list in ["args", "command"] {
            if let Some(found) = flag_in(&self.node.get(list), flag) {
                return Some(found);
            }
        }
        None
    }

    /// The directory that this container of ghostsync keeps.
    pub(crate) fn directory(&self) -> Option<&'a str> {
        match self.setting("--path", "GHOSTSYNC_PATH") {
            Setting::Given { text, .. } => Some(text),
            Setting::Elsewhere | Setting::Missing => None,
        }
    }

    /// Where this container of ghostsync has its receipt and its socket.
    pub(crate) fn state_directory(&self) -> &'a str {
        match self.setting("--state-dir", "GHOSTSYNC_STATE_DIR") {
            Setting::Given { text, .. } => text,
            Setting::Elsewhere | Setting::Missing => STATE_DIR,
        }
    }

    /// The mount that `path` lies in: the one with the longest common beginning.
    pub(crate) fn mount_of(&self, path: &str) -> Option<Node<'a>> {
        let lies_in = |mount: &Node<'a>| mount.get("mountPath").text().filter(|at| lies_in(path, at)).map(str::len);
        self.mounts().into_iter().filter(|mount| lies_in(mount).is_some()).max_by_key(lies_in)
    }

    pub(crate) fn content_mount(&self) -> Option<Node<'a>> {
        self.mount_of(self.directory()?)
    }

    pub(crate) fn content_volume(&self) -> Option<&'a str> {
        self.role?;
        self.content_mount()?.get("name").text()
    }

    pub(crate) fn state_mount(&self) -> Option<Node<'a>> {
        self.mount_of(self.state_directory())
    }

    pub(crate) fn pre_stop(&self) -> Node<'a> {
        self.node.at(&["lifecycle", "preStop"])
    }

    pub(crate) fn pre_stop_words(&self) -> Vec<&'a str> {
        self.pre_stop().at(&["exec", "command"]).words()
    }

    /// The number of a port that may be given by its name.
    pub(crate) fn port(&self, port: &Node<'a>) -> Option<u64> {
        port.number().or_else(|| {
            let name = port.text()?;
            let ports = self.node.get("ports").items();
            ports.iter().find(|port| port.get("name").text() == Some(name))?.get("containerPort").number()
        })
    }
}

/// The value and the word that holds it, for `--flag=value` and `--flag value`; the last one counts.
pub(crate) fn flag_in<'a>(list: &Node<'a>, flag: &str) -> Option<(&'a str, Node<'a>)> {
    let items = list.items();
    let mut found = None;
    for (index, word) in items.iter().enumerate() {
        let Some(text) = word.text() else { continue };
        if text == flag {
            found = items.get(index + 1).and_then(|next| Some((next.text()?, next.clone())));
        } else if let Some(value) = text.strip_prefix(flag).and_then(|rest| rest.strip_prefix('=')) {
            found = Some((value, word.clone()));
        }
    }
    found
}

/// How a flag's word reads with another value, in the form that it has.
pub(crate) fn word_with(node: &Node<'_>, flag: &str, value: &str) -> String {
    let joined = node.text().is_some_and(|text| text.starts_with(flag));
    if joined { format!("{flag}={value}") } else { value.to_owned() }
}

pub(crate) fn lies_in(path: &str, folder: &str) -> bool {
    let folder = folder.trim_end_matches('/');
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A duration as the command line takes it, such as `90s` or `2m`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    text.parse::<Span>().ok().map(|span| span.0)
}

fn words_of<'a>(container: &Node<'a>) -> Vec<&'a str> {
    let mut words = container.get("command").words();
    words.extend(container.get("args").words());
    words
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn role_of(container: &Node<'_>) -> Option<Role> {
    let words = words_of(container);
    let image = container.get("image").text().unwrap_or_default();
    let image = base(image.split('@').next().unwrap_or(image));
    let variables = container.get("env").items();
    let is_ghostsync = image.contains("ghostsync")
        || words.iter().any(|word| base(word) == "ghostsync-k8s")
        || variables.iter().any(|entry| entry.get("name").text().is_some_and(|name| name.starts_with("GHOSTSYNC_")));
    if !is_ghostsync {
        return None;
    }
    words.iter().find_map(|word| match *word {
        "restore" => Some(Role::Restore),
        "sync" => Some(Role::Sync),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        Object { file: "f".to_owned(), document: 1, item: None, value }
    }

    #[test]
    fn ghostsync_is_known_by_its_image_its_program_or_its_variables() {
        for (container, expected) in [
            (json!({"image": "registry.example/mirror/ghostsync:1", "args": ["sync"]}), Some(Role::Sync)),
            (
                json!({"image": "r.example:5000/x@sha256:00", "command": ["/ghostsync-k8s", "restore"]}),
                Some(Role::Restore),
            ),
            (
                json!({"image": "x", "args": ["sync"], "env": [{"name": "GHOSTSYNC_REPO", "value": ""}]}),
                Some(Role::Sync),
            ),
            (json!({"image": "rclone:1", "args": ["sync"]}), None),
            (json!({"image": "registry.example/ghostsync/site:1", "args": ["serve"]}), None),
        ] {
            let object = object(json!({"containers": [container]}));
            assert_eq!(role_of(&Node::root(&object).get("containers").index(0)), expected);
        }
    }

    #[test]
    fn a_flag_is_found_in_both_forms_and_the_last_one_counts() {
        let object = object(json!({"args": ["sync", "--interval", "5s", "--listen=:1", "--listen=:2"]}));
        let args = Node::root(&object).get("args");
        assert_eq!(flag_in(&args, "--interval").unwrap().0, "5s");
        let (text, node) = flag_in(&args, "--listen").unwrap();
        assert_eq!((text, word_with(&node, "--listen", ":3").as_str()), (":2", "--listen=:3"));
        assert!(flag_in(&args, "--list").is_none());
    }

    #[test]
    fn a_path_lies_in_a_folder_at_whole_names() {
        assert!(lies_in("/data", "/data") && lies_in("/data/x", "/data/") && lies_in("/data", "/"));
        assert!(!lies_in("/data2", "/data"));
    }
}
