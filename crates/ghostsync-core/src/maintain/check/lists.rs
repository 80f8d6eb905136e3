//! The pages of the lists of large files' chunks: each copy is read once, whichever files refer to it.

use std::collections::HashMap;

use super::print::Print;
use crate::format::page::{ChunkPlacement, ListChild};
use crate::id::ChunkId;

/// What a list page holds, all in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ListSums {
    pub(super) chunks: u64,
    pub(super) bytes: u64,
    last: ChunkId,
}

/// List page copies that were read; `None`: what such a page holds cannot all be read.
pub(super) type Lists = HashMap<Print, Option<ListSums>>;

impl ListSums {
    /// Counts a page of chunks; `None` for an empty one.
    pub(super) fn of_chunks(chunks: &[(ChunkId, ChunkPlacement)]) -> Option<Self> {
        let bytes = chunks.iter().map(|(_, placement)| u64::from(placement.bytes)).sum();
        chunks.last().map(|(last, _)| Self { chunks: chunks.len() as u64, bytes, last: *last })
    }

    /// Adds up pages that are known; `Ok(None)` if one of them cannot be read.
    pub(super) fn of_children(children: &[ListChild], lists: &Lists) -> Result<Option<Self>, String> {
        let mut sums: Option<Self> = None;
        for child in children {
            let Some(Some(real)) = lists.get(&Print::of_page(&child.page)) else { return Ok(None) };
            if *real != (Self { chunks: child.chunks, bytes: child.bytes, last: child.last }) {
                return Err(format!("it says other things of page {} below it than that page", child.page.page));
            }
            let before = sums.map_or((0, 0), |sums| (sums.chunks, sums.bytes));
            sums = Some(Self {
                chunks: before.0.saturating_add(real.chunks),
                bytes: before.1.saturating_add(real.bytes),
                last: real.last,
            });
        }
        Ok(sums)
    }
}
