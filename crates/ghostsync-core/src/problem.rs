//! What went wrong with an entry without stopping the whole.

use crate::tree_path::TreePath;

/// Something that went wrong with one entry, or with several of the same kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The entry.
    pub path: TreePath,
    /// What happened, and what was done about it.
    pub message: String,
    /// Whether the snapshot or the restore lacks something because of it; otherwise it is only worth knowing.
    pub incomplete: bool,
}
