//! The log of commits: find the head, judge what may be built on it, make a commit.

mod branch;
mod cache;
mod chain;
mod commit;
mod head;
pub mod judge;
mod side;

pub(crate) use branch::{
    claimed, give_back, holder_of, promoted, released, situation, with_hold, with_snapshot, with_tags,
    without_snapshots,
};
pub(crate) use cache::HeadCache;
pub(crate) use chain::check_log;
pub(crate) use commit::{Attempt, Session, attempt, change};
pub use head::State;
pub(crate) use head::find_head;
pub use side::SideKind;
pub(crate) use side::side_of;
