//! Looking after a repository.

mod check;
mod prune;
pub use check::{CheckOptions, CheckReport, Damage, ReadData, check};
pub use prune::{PruneOptions, PruneReport, prune};
