//! A directory in a pod: restored before the app starts, followed while it runs, saved at the end.
//!
//! ```text
//! restore:  wait for the predecessor -> claim -> head and directory compared -> restored -> receipt
//! sync:     events -> lifecycle (pure) -> actions: a pass, a look at the head, the end
//! ```
//! The program is thin: what makes a snapshot, refuses one or fences a writer is in `ghostsync-core`.

pub mod args;
pub mod control;
pub mod ctl;
pub mod environment;
pub mod health;
mod heartbeat;
mod hint;
pub mod lifecycle;
pub mod lint;
pub mod log;
mod maintain;
pub mod manifest;
pub mod memory;
pub mod pod;
pub mod restore;
pub mod run;
mod serve;
mod shared;
mod status;
mod terminate;
pub mod wait_app;
mod watch;
mod work;
