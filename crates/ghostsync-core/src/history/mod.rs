//! The log of commits: find the head, judge what may be built on it, make a commit.

mod branch;
mod cache;
mod chain;
mod commit;
mod head;
pub mod judge;
mod log;
mod side;
mod tips;

pub(crate) use branch::{
    claimed, fork_owner, give_back, holder_of, is_step, promoted, released, situation, with_hold, with_note,
    with_repaired, with_snapshot, with_step, with_tags, without_snapshots, without_steps,
};
pub(crate) use cache::HeadCache;
pub(crate) use commit::{Attempt, Session};
pub use head::State;
pub(crate) use head::{HeadHint, read_hint};
pub(crate) use log::Log;
pub use side::SideKind;
pub(crate) use side::side_of;
