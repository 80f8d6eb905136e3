//! Both passes over the snapshots of a state: what is damaged, what that affects, and which packs are referred to.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::find::{Finder, Found, Pack};
use super::print::Print;
use super::{CheckOptions, Damage, trace};
use crate::error::Result;
use crate::format::commit::Snapshot;
use crate::format::page::{ChunkPlacement, Placed};
use crate::id::{ChunkId, PackName};
use crate::observer::Observer;
use crate::store::Store;
use crate::tree::Pages;

/// What a look at snapshots found.
pub(in crate::maintain) struct Look {
    found: Found,
    packs: BTreeMap<Pack, Option<u64>>,
    /// What is damaged, and what needs it; sorted by object.
    pub(in crate::maintain) damage: Vec<Damage>,
}

/// Looks at snapshots, and at all that they refer to. Nothing comes from a cache.
///
/// # Errors
/// The store's; damage is none.
pub(in crate::maintain) async fn look(
    store: &Store,
    pages: &Arc<Pages>,
    snapshots: &[Snapshot],
    options: &CheckOptions,
    observer: &dyn Observer,
) -> Result<Look> {
    let mut finder = Finder::new(store, pages, options, observer).await?;
    for snapshot in snapshots {
        finder.snapshot(snapshot).await?;
    }
    let (found, packs) = finder.finish().await?;
    let damage = if found.bad.is_empty() {
        Vec::new()
    } else {
        trace::affected(pages, snapshots, &found.bad, &options.interrupt).await?
    };
    Ok(Look { found, packs, damage })
}

impl Look {
    pub(super) fn pages(&self) -> u64 {
        self.found.pages
    }

    pub(super) fn read_bytes(&self) -> u64 {
        self.found.read_bytes
    }

    pub(super) fn packs(&self) -> &BTreeMap<Pack, Option<u64>> {
        &self.packs
    }

    /// Tells whether a page that was read refers to this pack; `is_data` for one of file content.
    pub(in crate::maintain) fn refers_to(&self, pack: PackName, is_data: bool) -> bool {
        self.packs.contains_key(&(pack, is_data))
    }

    /// What is wrong with the copy of a chunk that a page which was read names: the object, and why.
    pub(in crate::maintain) fn chunk_flaw(
        &self,
        chunk: ChunkId,
        placement: &ChunkPlacement,
    ) -> Option<(String, String)> {
        self.found.bad.chunk_flaw(chunk, placement)
    }

    /// Why the content of an entry of a page that was read is not what the entry says, though its chunks are sound.
    pub(in crate::maintain) fn content_flaw(&self, placed: &Placed) -> Option<&str> {
        self.found.bad.contents.get(&Print::of_content(placed)?).map(String::as_str)
    }
}
