//! Documents: the fields that scripts read.
//!
//! A path that is not UTF-8 appears as readable text under its usual name, and exactly, in base64, under the same
//! name with `_b64`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ghostsync_core::entry::{Entry, EntryKind, FileTime};
use ghostsync_core::format::commit::Snapshot;
use ghostsync_core::guard::Refusal;
use ghostsync_core::id::{PageId, SnapshotId};
use ghostsync_core::maintain::Damage;
use ghostsync_core::problem::Problem;
use ghostsync_core::restore::Unstable;
use ghostsync_core::tree_path::TreePath;
use jiff::Timestamp;
use serde::Serialize;
use serde::ser::SerializeMap;

/// Text, and base64 where the text is not exact.
fn text_and_base64(bytes: &[u8]) -> (String, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (String::from_utf8_lossy(bytes).into_owned(), Some(STANDARD.encode(bytes))),
    }
}

/// A path in fields of its own; flatten it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PathFields {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_b64: Option<String>,
}

impl From<&TreePath> for PathFields {
    fn from(path: &TreePath) -> Self {
        let (path, path_b64) = text_and_base64(path.as_bytes());
        Self { path, path_b64 }
    }
}

/// A problem with one entry.
#[derive(Debug, Serialize)]
pub(crate) struct ProblemFields {
    #[serde(flatten)]
    path: PathFields,
    message: String,
    incomplete: bool,
}

impl From<&Problem> for ProblemFields {
    fn from(problem: &Problem) -> Self {
        Self { path: (&problem.path).into(), message: problem.message.clone(), incomplete: problem.incomplete }
    }
}

/// Restored files that changed while the snapshot was made.
#[derive(Debug, Serialize)]
pub(crate) struct UnstableFields {
    count: u64,
    paths: Vec<PathFields>,
}

impl From<&Unstable> for UnstableFields {
    fn from(unstable: &Unstable) -> Self {
        Self { count: unstable.count, paths: unstable.paths.iter().map(PathFields::from).collect() }
    }
}

/// What a guard said.
#[derive(Debug, Serialize)]
pub(crate) struct RefusalFields {
    guard: &'static str,
    reason: String,
    limit: Option<String>,
    actual: Option<u64>,
    paths: Vec<String>,
    /// As long as `paths`, null where the text is exact; left out if it is everywhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    paths_b64: Vec<Option<String>>,
}

impl From<&Refusal> for RefusalFields {
    fn from(refusal: &Refusal) -> Self {
        let (paths, mut paths_b64): (_, Vec<_>) =
            refusal.paths.iter().map(|path| text_and_base64(path.as_bytes())).unzip();
        if paths_b64.iter().all(Option::is_none) {
            paths_b64.clear();
        }
        Self {
            guard: refusal.guard.name(),
            reason: refusal.reason.clone(),
            limit: refusal.limit.clone(),
            actual: refusal.actual,
            paths,
            paths_b64,
        }
    }
}

/// A damaged object, and what it affects.
#[derive(Debug, Serialize)]
pub(crate) struct DamageFields<'a> {
    object: &'a str,
    message: &'a str,
    snapshots: &'a [SnapshotId],
    paths: Vec<PathFields>,
    affected: u64,
}

impl<'a> From<&'a Damage> for DamageFields<'a> {
    fn from(damage: &'a Damage) -> Self {
        Self {
            object: &damage.object,
            message: &damage.message,
            snapshots: &damage.snapshots,
            paths: damage.paths.iter().map(PathFields::from).collect(),
            affected: damage.affected,
        }
    }
}

/// An error.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ErrorFields {
    pub(crate) kind: &'static str,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// One snapshot of a list.
#[derive(Debug, Serialize)]
pub(crate) struct SnapshotFields<'a> {
    id: SnapshotId,
    branch: &'a str,
    head: bool,
    onto: Option<&'a str>,
    parent: Option<SnapshotId>,
    time: Timestamp,
    source: &'a str,
    excludes: &'a [String],
    tree: PageId,
    entries: u64,
    bytes: u64,
    added: u64,
    changed: u64,
    removed: u64,
    moved: u64,
    complete: bool,
    tags: &'a BTreeMap<String, String>,
    hold: Option<&'a str>,
}

impl<'a> SnapshotFields<'a> {
    /// The fields of a snapshot; `head` if it is the head of its branch.
    pub(crate) fn new(snapshot: &'a Snapshot, head: bool) -> Self {
        Self {
            id: snapshot.id,
            branch: &snapshot.branch,
            head,
            onto: snapshot.onto.as_deref(),
            parent: snapshot.parent,
            time: snapshot.time,
            source: &snapshot.source,
            excludes: &snapshot.excludes,
            tree: snapshot.tree.page,
            entries: snapshot.entries,
            bytes: snapshot.bytes,
            added: snapshot.changes.added,
            changed: snapshot.changes.changed,
            removed: snapshot.changes.removed,
            moved: snapshot.changes.moved,
            complete: snapshot.complete,
            tags: &snapshot.tags,
            hold: snapshot.hold.as_deref(),
        }
    }
}

/// One entry of a tree.
#[derive(Debug)]
pub(crate) struct EntryFields<'a>(pub(crate) &'a Entry);

impl Serialize for EntryFields<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entry = self.0;
        let mut fields = serializer.serialize_map(None)?;
        bytes_field(&mut fields, ["path", "path_b64"], entry.path.as_bytes())?;
        fields.serialize_entry("kind", entry.kind.name())?;
        fields.serialize_entry("mode", &entry.mode)?;
        fields.serialize_entry("uid", &entry.uid)?;
        fields.serialize_entry("gid", &entry.gid)?;
        fields.serialize_entry("mtime", &file_time(entry.mtime))?;
        match &entry.kind {
            EntryKind::File(content) => {
                fields.serialize_entry("size", &content.size)?;
                fields.serialize_entry("hash", &content.hash)?;
            }
            EntryKind::Symlink { target } => bytes_field(&mut fields, ["target", "target_b64"], target)?,
            EntryKind::CharDevice(device) | EntryKind::BlockDevice(device) => {
                fields.serialize_entry("device", &(device.major, device.minor))?;
            }
            EntryKind::Directory | EntryKind::Fifo | EntryKind::Socket => {}
        }
        if let Some(link) = &entry.link {
            bytes_field(&mut fields, ["link", "link_b64"], link.as_bytes())?;
        }
        if !entry.xattrs.is_empty() {
            fields.serialize_entry("xattrs", &entry.xattrs.iter().map(XattrFields::from).collect::<Vec<_>>())?;
        }
        fields.serialize_entry("unread", &entry.unread)?;
        fields.serialize_entry("unstable", &entry.unstable)?;
        fields.end()
    }
}

#[derive(Serialize)]
struct XattrFields {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_b64: Option<String>,
    value_b64: String,
}

impl From<&ghostsync_core::entry::Xattr> for XattrFields {
    fn from(xattr: &ghostsync_core::entry::Xattr) -> Self {
        let (name, name_b64) = text_and_base64(&xattr.name);
        Self { name, name_b64, value_b64: STANDARD.encode(&xattr.value) }
    }
}

fn bytes_field<S: SerializeMap>(fields: &mut S, names: [&'static str; 2], bytes: &[u8]) -> Result<(), S::Error> {
    let (text, base64) = text_and_base64(bytes);
    fields.serialize_entry(names[0], &text)?;
    match base64 {
        Some(base64) => fields.serialize_entry(names[1], &base64),
        None => Ok(()),
    }
}

/// RFC 3339 with nanoseconds; seconds since 1970 for a time that no calendar has.
fn file_time(time: FileTime) -> String {
    let nanoseconds = i32::try_from(time.nanoseconds).unwrap_or(0);
    match Timestamp::new(time.seconds, nanoseconds) {
        // Timestamps take negative seconds with positive nanoseconds as they are meant: added up.
        Ok(timestamp) => timestamp.to_string(),
        Err(_) => format!("@{}.{:09}", time.seconds, time.nanoseconds),
    }
}

#[cfg(test)]
mod tests {
    use ghostsync_core::guard::Guard;

    use super::*;

    #[test]
    fn paths_are_lossless() {
        let fields = |bytes: &[u8]| {
            let path = TreePath::parse(bytes).expect("valid");
            serde_json::to_string(&PathFields::from(&path)).expect("encodes")
        };
        assert_eq!(fields("ä\n".as_bytes()), r#"{"path":"ä\n"}"#);
        assert_eq!(fields(b"a\xff"), "{\"path\":\"a\u{fffd}\",\"path_b64\":\"Yf8=\"}");
    }

    #[test]
    fn a_refusal_lists_exact_paths() {
        let path = |bytes: &[u8]| TreePath::parse(bytes).expect("valid");
        let mut refusal = Refusal {
            guard: Guard::MaxDelete,
            reason: "x".into(),
            limit: Some("50%".into()),
            actual: Some(2),
            paths: vec![path(b"a"), path(b"\xff")],
            plan: None,
        };
        let json = serde_json::to_value(RefusalFields::from(&refusal)).expect("encodes");
        assert_eq!(json["guard"], "max-delete");
        assert_eq!(json["paths"], serde_json::json!(["a", "\u{fffd}"]));
        assert_eq!(json["paths_b64"], serde_json::json!([null, "/w=="]));
        refusal.paths.pop();
        let json = serde_json::to_value(RefusalFields::from(&refusal)).expect("encodes");
        assert!(json.get("paths_b64").is_none());
    }

    #[test]
    fn times_before_1970() {
        let time = FileTime { seconds: -2, nanoseconds: 500_000_000 };
        assert_eq!(file_time(time), "1969-12-31T23:59:58.5Z");
    }
}
