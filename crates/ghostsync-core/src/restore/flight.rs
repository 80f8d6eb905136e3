//! The blocks of one window on their way: asked for at once, and waited for when the window's turn comes.

use std::sync::Arc;

use futures::StreamExt;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::observer::{Observer, Progress};
use crate::pack::{BlockRef, Damage, FetchError, Run, open_run, runs};
use crate::store::{Store, StoredRange};

/// Reads of one window at once: its blocks may lie in several places.
const READS_IN_FLIGHT: usize = 8;

/// What came of a block: what is stored of it, or what is wrong with that.
pub(super) type Fetched = (BlockRef, std::result::Result<StoredRange, Damage>);

/// Everything that a read needs.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) store: Store,
    pub(super) interrupt: Interrupt,
    pub(super) observer: Arc<dyn Observer>,
}

/// Blocks that were asked for. Dropped, nobody waits for them any more.
#[derive(Debug)]
pub(super) struct Flight(JoinHandle<Result<(Vec<Fetched>, u64)>>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Flight {
    /// Asks for blocks.
    pub(super) fn begin(reader: &Reader, blocks: Vec<BlockRef>) -> Self {
        let reader = reader.clone();
        Self(tokio::spawn(async move { reader.fetch(blocks).await }))
    }

    /// Waits for the blocks, and tells how many bytes were received.
    ///
    /// # Errors
    /// `Unavailable`, `Denied` if the store fails; damage is no error here.
    pub(super) async fn land(mut self) -> Result<(Vec<Fetched>, u64)> {
        (&mut self.0).await.map_err(|error| Error::internal(format!("a read ended badly: {error}")))?
    }
}

impl Reader {
    async fn fetch(&self, blocks: Vec<BlockRef>) -> Result<(Vec<Fetched>, u64)> {
        let mut fetched = Vec::with_capacity(blocks.len());
        let mut received = 0;
        let mut again = Vec::new();
        for (run, result) in self.read(runs(blocks), &mut received).await? {
            match result {
                Ok(blocks) => fetched.extend(blocks.into_iter().map(|(block, stored)| (block, Ok(stored)))),
                // A short pack still has its first blocks.
                Err(damage) if !damage.missing && run.blocks.len() > 1 => again.extend(run.split()),
                Err(damage) => fetched.extend(run.blocks.iter().map(|block| (*block, Err(damage.clone())))),
            }
        }
        for (run, result) in self.read(again, &mut received).await? {
            match result {
                Ok(blocks) => fetched.extend(blocks.into_iter().map(|(block, stored)| (block, Ok(stored)))),
                Err(damage) => fetched.extend(run.blocks.iter().map(|block| (*block, Err(damage.clone())))),
            }
        }
        Ok((fetched, received))
    }

    async fn read(
        &self,
        runs: Vec<Run>,
        received: &mut u64,
    ) -> Result<Vec<(Run, std::result::Result<Vec<(BlockRef, StoredRange)>, Damage>)>> {
        let mut reads = futures::stream::iter(runs)
            .map(|run| async move {
                let fetched = open_run(&self.store, &run).await;
                (run, fetched)
            })
            .buffer_unordered(READS_IN_FLIGHT);
        let mut results = Vec::new();
        while let Some((run, fetched)) = self.interrupt.unless_set(async { Ok(reads.next().await) }).await? {
            let result = match fetched {
                Ok(blocks) => {
                    let bytes = run.range.end - run.range.start;
                    *received += bytes;
                    self.observer.progress(Progress::Transferred { bytes });
                    Ok(blocks)
                }
                Err(FetchError::Damage(damage)) => Err(damage),
                Err(FetchError::Store(error)) => return Err(error),
            };
            results.push((run, result));
        }
        Ok(results)
    }
}
