//! Copies chunks out of packs that may be deleted into packs of an own session.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Acknowledged, DataPacks, PackNames, SealedBlock, Uploader};
use crate::error::{Error, Result};
use crate::format::frame;
use crate::format::pack::TableOfContents;
use crate::format::page::ChunkPlacement;
use crate::id::{ChunkId, PackName};

/// A block is sealed when its content has reached so many bytes, as in a backup.
const BLOCK_BYTES: usize = 512 << 10;

/// Chunks that were copied, each once. Memory: one block, and 90 bytes a chunk.
#[derive(Debug)]
pub(crate) struct ChunkCopies {
    data: DataPacks,
    content: Vec<u8>,
    chunks: Vec<(ChunkId, u32)>,
    /// `None` while the block is not sealed.
    placed: HashMap<ChunkId, Option<ChunkPlacement>>,
}

impl ChunkCopies {
    pub(crate) fn new(names: PackNames) -> Self {
        let data = DataPacks::new(names, Arc::new(Nobody));
        Self { data, content: Vec::new(), chunks: Vec::new(), placed: HashMap::new() }
    }

    /// Whether it was added.
    pub(crate) fn has(&self, chunk: ChunkId) -> bool {
        self.placed.contains_key(&chunk)
    }

    /// Where a copy lies, once its block is sealed.
    pub(crate) fn placement(&self, chunk: ChunkId) -> Option<ChunkPlacement> {
        self.placed.get(&chunk).copied().flatten()
    }

    /// Adds a chunk that was verified.
    ///
    /// # Errors
    /// The uploader's.
    pub(crate) fn add(&mut self, chunk: ChunkId, bytes: &[u8], uploader: &mut Uploader) -> Result<()> {
        if !self.content.is_empty() && self.content.len() + bytes.len() > BLOCK_BYTES {
            self.seal(uploader)?;
        }
        let length = u32::try_from(bytes.len()).map_err(|_| Error::internal("a chunk of over 4 GiB"))?;
        self.content.extend_from_slice(bytes);
        self.chunks.push((chunk, length));
        self.placed.insert(chunk, None);
        Ok(())
    }

    /// Seals the block that is being filled.
    ///
    /// # Errors
    /// The uploader's.
    pub(crate) fn seal(&mut self, uploader: &mut Uploader) -> Result<()> {
        if self.chunks.is_empty() {
            return Ok(());
        }
        let frame = vec![frame::compress("block", &std::mem::take(&mut self.content))?.into()];
        let chunks = std::mem::take(&mut self.chunks);
        let placements = self.data.push(SealedBlock { frame, chunks: chunks.clone() }, uploader)?;
        self.placed.extend(chunks.iter().zip(placements).map(|((chunk, _), placement)| (*chunk, Some(placement))));
        Ok(())
    }

    /// Sends what is left.
    ///
    /// # Errors
    /// The uploader's.
    pub(crate) fn finish(mut self, uploader: &mut Uploader) -> Result<()> {
        self.seal(uploader)?;
        self.data.finish(uploader)
    }
}

/// Nobody goes on where copying was cut short: it is begun anew.
#[derive(Debug)]
struct Nobody;

impl Acknowledged for Nobody {
    fn acknowledged(&self, _pack: PackName, _table: &TableOfContents) {}
}
