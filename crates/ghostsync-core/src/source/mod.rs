//! A directory as a stream of entries in tree order, and its files as chunks; links are never followed.
//!
//! In: a directory handle and what is left out. Out: `Walk`, which lists and never reads content, and
//! `read_file`, which reads the content of one file that the walk has found.
//!
//! Everything is reached through directory handles from the root that was opened once, so that a link swapped in
//! on the way leads nowhere. Nothing here decides what a finding means: an entry that cannot be read is reported,
//! never dropped, and never taken for one that is gone.

mod chunk;
mod content;
mod database;
mod excludes;
mod found;
mod handle;
mod holes;
mod names;
mod never;
mod read;
mod walk;
mod xattr;

pub use excludes::Excludes;

pub(crate) use content::Content;
pub(crate) use database::is_transient;
pub(crate) use excludes::{Matcher, rules};
pub(crate) use found::{Found, FoundKind, Walked};
pub(crate) use handle::SourceRoot;
pub(crate) use read::{Desk, ReadEvent, ReadOutcome, racy, read_file};
pub(crate) use walk::Walk;
