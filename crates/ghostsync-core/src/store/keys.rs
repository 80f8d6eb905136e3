//! Every object key of a repository, in one place. Keys use `[a-z0-9/._-]` alone.

use object_store::path::Path as Key;

use crate::format::commit::TipName;
use crate::id::{PackName, SessionId};

/// The configuration, written once.
#[must_use]
pub fn config() -> Key {
    Key::from("config.json")
}

/// The hint at the newest commit.
#[must_use]
pub fn head() -> Key {
    Key::from("head.json")
}

/// The folder of all commits.
#[must_use]
pub fn log() -> Key {
    Key::from("log")
}

/// The commit with a number.
#[must_use]
pub fn commit(seq: u64) -> Key {
    Key::from(format!("log/{seq:020}.json.zst"))
}

/// The number of the commit that has a key; `None` for any other key.
pub(crate) fn commit_number(key: &Key) -> Option<u64> {
    let seq = key.as_ref().strip_prefix("log/")?.strip_suffix(".json.zst")?.parse().ok()?;
    (commit(seq) == *key).then_some(seq)
}

/// The commit with a name, in a repository whose commit mode is `detect`.
#[must_use]
pub fn tip(name: TipName) -> Key {
    Key::from(format!("log/{:020}.{}.json.zst", name.seq, name.session))
}

/// The name of the commit that has a key, in commit mode `detect`; `None` for any other key.
pub(crate) fn tip_name(key: &Key) -> Option<TipName> {
    let (seq, session) = key.as_ref().strip_prefix("log/")?.strip_suffix(".json.zst")?.split_once('.')?;
    let name = TipName { seq: seq.parse().ok()?, session: session.parse().ok()? };
    (tip(name) == *key).then_some(name)
}

/// The number of the commit that has a key, in either commit mode.
pub(crate) fn log_number(key: &Key) -> Option<u64> {
    commit_number(key).or_else(|| tip_name(key).map(|name| name.seq))
}

/// The folder of all packs.
#[must_use]
pub fn packs() -> Key {
    Key::from("packs")
}

/// A pack of file content.
#[must_use]
pub fn data_pack(pack: PackName) -> Key {
    Key::from(format!("packs/{pack}.data"))
}

/// A pack of pages.
#[must_use]
pub fn meta_pack(pack: PackName) -> Key {
    Key::from(format!("packs/{pack}.meta"))
}

/// The pack that has a key, and whether it is one of file content; `None` for any other key.
pub(crate) fn pack_name(key: &Key) -> Option<(PackName, bool)> {
    let name = key.as_ref().strip_prefix("packs/")?;
    match (name.strip_suffix(".data"), name.strip_suffix(".meta")) {
        (Some(name), _) => Some((name.parse().ok()?, true)),
        (_, Some(name)) => Some((name.parse().ok()?, false)),
        _ => None,
    }
}

/// The folder of all probes.
#[must_use]
pub fn probes() -> Key {
    Key::from("probe")
}

/// The folder of one probe.
pub(crate) fn probe_folder(session: SessionId) -> Key {
    Key::from(format!("probe/{session}"))
}

/// A key of the probe.
#[must_use]
pub fn probe(session: SessionId, name: &str) -> Key {
    Key::from(format!("probe/{session}/{name}"))
}
