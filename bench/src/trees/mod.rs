//! The trees that are backed up. Each is the same on every run, from a seed or from pinned packages.

pub mod copy;
mod db;
mod docs;
mod media;
mod source;
pub mod wide;

use std::path::Path;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::failure::Outcome;

/// What all made trees are made from.
pub const SEED: u64 = 20_261_125;

/// A tree by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tree {
    /// The Rust documentation: about 50,000 small text files
    Docs,
    /// 1,500 files of random bytes, 20 KB to 8 MB
    Media,
    /// One SQLite database of 1.1 GB
    Db,
    /// The sources of all crates that the product locks
    Source,
    /// A million tiny files
    Wide,
}

impl Tree {
    /// Its name, as it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docs => "docs",
            Self::Media => "media",
            Self::Db => "db",
            Self::Source => "source",
            Self::Wide => "wide",
        }
    }

    /// What the report says of it.
    pub fn describes(self) -> &'static str {
        match self {
            Self::Docs => "the Rust documentation, as rustup installs it",
            Self::Media => "files of random bytes, 20 KB to 8 MB: nothing in them can be compressed or found twice",
            Self::Db => "one SQLite database; rows of about 22 KB, a bit more than half of them text",
            Self::Source => "the sources of all crates in `Cargo.lock`, as `cargo vendor` lays them out",
            Self::Wide => "tiny files, 1,000 to a folder",
        }
    }
}

/// Makes `tree` in `folder`, which does not exist yet, at `scale` of its size.
pub fn make(tree: Tree, folder: &Path, scale: f64, project: &Path, scratch: &Path) -> Outcome<()> {
    match tree {
        Tree::Docs => docs::make(folder, scale),
        Tree::Media => media::make(folder, scale),
        Tree::Db => db::make(folder, scale),
        Tree::Source => source::make(folder, scale, project, scratch),
        Tree::Wide => wide::make(folder, (1_000_000.0 * scale) as u64),
    }
}

/// Changes 1 % of the files of `tree`, of the database 0.2 % of the rows; another `generation`, other ones.
pub fn change(tree: Tree, folder: &Path, generation: u64) -> Outcome<()> {
    match tree {
        Tree::Db => db::change(folder, generation),
        _ => crate::changes::change(folder, generation),
    }
}
