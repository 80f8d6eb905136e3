//! What a rule finds, and what becomes of it.

use serde::Serialize;
use serde_json::Value;

use super::node::{Node, Op, Path};
use super::pod::Pod;

/// How bad it is, in the words of `doctor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Goes wrong in a situation that comes sooner or later.
    Warning,
    /// Loses state or an outage of the store becomes one of the app.
    Problem,
}

impl Severity {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// One trap, and how a manifest shows that it is open.
pub(crate) struct Rule {
    /// Stable; scripts may name it.
    pub(crate) id: &'static str,
    pub(crate) severity: Severity,
    /// What happens, in one sentence.
    pub(crate) why: &'static str,
    pub(crate) find: fn(&Pod<'_>) -> Vec<Hit>,
}

/// One place where a rule found something.
pub(crate) struct Hit {
    file: String,
    document: usize,
    item: Option<usize>,
    kind: String,
    name: String,
    path: Path,
    found: String,
    patch: Vec<Op>,
}

impl Hit {
    /// `found` says what stands at `node`; every operation of `patch` is about the object of `node`.
    pub(crate) fn new(node: &Node<'_>, found: impl Into<String>, patch: Vec<Op>) -> Self {
        let object = node.object;
        Self {
            file: object.file.clone(),
            document: object.document,
            item: object.item,
            kind: object.kind().to_owned(),
            name: object.name().to_owned(),
            path: node.path.clone(),
            found: found.into(),
            patch,
        }
    }
}

/// What a manifest has against it.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// The rule, stable.
    pub rule: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The file as it was named.
    pub file: String,
    /// Which document of the file; the first is 1, and empty ones do not count.
    pub document: usize,
    /// Which item of a list object; the first is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<usize>,
    /// The object's kind.
    pub kind: String,
    /// The object's name.
    pub name: String,
    /// The place in the object.
    pub path: String,
    /// What stands there.
    pub found: String,
    /// What happens because of it.
    pub why: &'static str,
    /// A JSON patch (RFC 6902) of the object.
    pub patch: Vec<Value>,
}

impl Finding {
    /// Guards each operation on a container with a test of the container's name: the patch is kept in a repository of
    /// manifests for long, and must fail rather than change another container.
    pub(crate) fn new(rule: &Rule, hit: Hit, pod: &Pod<'_>) -> Self {
        let here = (hit.file.as_str(), hit.document, hit.item);
        let same_object = |node: &Node<'_>| (node.object.file.as_str(), node.object.document, node.object.item) == here;
        let mut patch: Vec<Value> = Vec::new();
        for op in &hit.patch {
            let touches = |container: &Node<'_>| {
                let root = container.path.pointer();
                let mut places = ["path", "from"].iter().filter_map(|key| op.value()[key].as_str());
                places.any(|at| at.strip_prefix(&root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
            };
            let touched = pod.containers.iter().map(|container| &container.node).find(|node| touches(node));
            if let Some(container) = touched.filter(|node| same_object(node) && node.get("name").exists()) {
                let test = Op::test(&container.get("name"));
                if !patch.contains(test.value()) {
                    patch.push(test.value().clone());
                }
            }
            patch.push(op.value().clone());
        }
        Self {
            rule: rule.id,
            severity: rule.severity,
            file: hit.file,
            document: hit.document,
            item: hit.item,
            kind: hit.kind,
            name: hit.name,
            path: hit.path.to_string(),
            found: hit.found,
            why: rule.why,
            patch,
        }
    }
}
