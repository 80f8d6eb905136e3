//! Reads trees: pages by reference, verified, through a cache of meta packs; a tree as a stream of entries.

use std::sync::Arc;

use crate::error::Result;
use crate::format::commit::TreeRef;
use crate::format::page::{ChunkPlacement, Page, PageRef, Placed};
use crate::id::ChunkId;
use crate::store::Store;
use crate::tree_path::TreePath;

/// Fetches and verifies pages.
#[derive(Debug)]
pub(crate) struct Pages {
    store: Store,
}

impl Pages {
    /// Reads one page.
    pub(crate) async fn load(&self, page: &PageRef) -> Result<Arc<Page>> {
        let _ = (page, &self.store);
        unimplemented!()
    }
}

/// Streams the entries of a tree, in order, at and below a path.
#[derive(Debug)]
pub(crate) struct TreeReader {}

impl TreeReader {
    pub(crate) fn new(pages: Arc<Pages>, tree: &TreeRef, below: TreePath) -> Self {
        let _ = (pages, tree, below);
        unimplemented!()
    }

    /// The next entries; `None` at the end.
    pub(crate) async fn next_page(&mut self) -> Result<Option<Vec<Placed>>> {
        unimplemented!()
    }
}

/// Streams the chunks of one file, in order, wherever they are listed.
#[derive(Debug)]
pub(crate) struct ChunkReader {}

impl ChunkReader {
    pub(crate) fn new(pages: Arc<Pages>, placed: &Placed) -> Self {
        let _ = (pages, placed);
        unimplemented!()
    }

    /// The next chunks; `None` at the end. Their lengths add up to the file's data, which is checked at the end.
    pub(crate) async fn next_chunks(&mut self) -> Result<Option<Vec<(ChunkId, ChunkPlacement)>>> {
        unimplemented!()
    }
}
