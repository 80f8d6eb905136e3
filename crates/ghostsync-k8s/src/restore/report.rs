//! What `restore` leaves for `sync` to tell: the metrics of a process that is gone when they are asked for.

use std::path::Path;

use ghostsync_core::id::SnapshotId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::log;

/// What a restore did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Restored {
    /// The snapshot that the directory holds.
    pub snapshot: Option<SnapshotId>,
    /// How long it took; `None` if there was nothing to do.
    pub seconds: Option<f64>,
    /// When it was done.
    pub time: Option<Timestamp>,
    /// Whether the last holder had not released the branch.
    pub predecessor_unclean: bool,
}

impl Restored {
    /// Writes it down; that it cannot is no reason to fail.
    pub(super) fn write(&self, state_dir: &Path) {
        let written = serde_json::to_vec(self).map_err(std::io::Error::other);
        if let Err(error) = written.and_then(|bytes| std::fs::write(file(state_dir), bytes)) {
            log::warn(&format!("cannot write what was restored to {}: {error}", file(state_dir).display()));
        }
    }

    /// Reads it; what cannot be read is not known.
    #[must_use]
    pub fn load(state_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(file(state_dir)).ok()?).ok()
    }
}

fn file(state_dir: &Path) -> std::path::PathBuf {
    state_dir.join("restored.json")
}
