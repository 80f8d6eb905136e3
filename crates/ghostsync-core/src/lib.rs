//! Keeps a directory in an object store as guarded, content-addressed snapshots, and brings it back.
//!
//! ```text
//! backup:   walk -> compare -> guard -> read+chunk -> block+pack -> upload -> guard again -> pages -> commit
//! restore:  head -> plan -> fetch -> verify -> write -> make durable -> receipt
//! ```

#![deny(missing_docs)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)
)]
#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_macros, clippy::type_complexity))]

// Floor 1: kinds of failure, names of things, time, progress.
pub mod clock;
pub mod error;
pub mod id;
pub mod interrupt;
pub mod observer;
mod recycled;
mod rooms;
mod temporary;
// Floor 2: the words of the domain as data.
pub mod entry;
pub mod guard;
pub mod problem;
pub mod receipt;
pub mod tree_path;
mod xattr;
// Floor 3: the store, bytes, and the directory.
pub mod format;
pub mod source;
pub mod store;
// Floor 4: trees, packs, history.
pub mod history;
mod pack;
pub mod tree;
// Floor 5: the repository.
pub mod repository;
// Floor 6: the stories.
pub mod backup;
pub mod diff;
pub mod maintain;
pub mod restore;
#[cfg(feature = "testing")]
pub mod testing;

pub use error::{Error, ErrorKind, Result};
