//! The chunks of one piece of a file in order, those of a large piece decoded and verified by a thread of its own while
//! what came before them is written.

use std::sync::mpsc::sync_channel;

use super::Stop;
use crate::error::Error;
use crate::format::page::ChunkPlacement;
use crate::id::ChunkId;
use crate::pack::{BlockRef, VerifiedChunks};

/// Decoded bytes of a piece that wait to be written, about; more, if two blocks have more.
const AHEAD_BYTES: u64 = 8 << 20;

/// A piece of fewer blocks is not worth a thread.
const MIN_BLOCKS: usize = 4;

/// Neighbouring chunks of one block.
type Group = [(ChunkId, ChunkPlacement)];

/// Hands the chunks to `write`, one after the other; `decode` gets those that lie in one block together.
pub(super) fn each_chunk(
    chunks: &Group,
    decode: impl Fn(&Group) -> Result<VerifiedChunks, Stop> + Sync,
    mut write: impl FnMut(ChunkId, &[u8]) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let mut write_all = |verified: VerifiedChunks| verified.iter().try_for_each(|(id, chunk)| write(id, chunk));
    if groups(chunks).count() < MIN_BLOCKS {
        return groups(chunks).try_for_each(|group| write_all(decode(group)?));
    }
    std::thread::scope(|scope| {
        let (sender, decoded) = sync_channel(blocks_ahead(chunks));
        scope.spawn(|| {
            // Owned here, so that the other side sees the end of it.
            let sender = sender;
            for group in groups(chunks) {
                let verified = decode(group);
                let is_last = verified.is_err();
                if sender.send(verified).is_err() || is_last {
                    return;
                }
            }
        });
        for _ in groups(chunks) {
            write_all(decoded.recv().map_err(|_| Stop::Ended(Error::internal("the decoding thread ended")))??)?;
        }
        // Whatever ends this early drops the receiver, which ends the thread.
        Ok(())
    })
}

/// So many blocks wait at most.
fn blocks_ahead(chunks: &Group) -> usize {
    let bytes = |group: &Group| group.iter().map(|(_, placement)| u64::from(placement.bytes)).sum::<u64>();
    let largest = groups(chunks).map(bytes).max().unwrap_or(0);
    usize::try_from(AHEAD_BYTES / largest.max(1)).unwrap_or(usize::MAX).clamp(2, groups(chunks).count())
}

fn groups(chunks: &Group) -> impl Iterator<Item = &Group> {
    chunks.chunk_by(|(_, one), (_, other)| BlockRef::of(one) == BlockRef::of(other))
}
