//! The second pass of a check, when something is bad: which snapshots and paths need it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Damage;
use super::find::{Bad, PageAt};
use crate::error::{ErrorKind, Result};
use crate::format::commit::Snapshot;
use crate::format::page::{ChunkPlacement, Page, PageRef, Placed};
use crate::id::{ChunkId, SnapshotId};
use crate::interrupt::Interrupt;
use crate::pack::BlockRef;
use crate::store::keys;
use crate::tree::{Access, ChunkReader, Pages};
use crate::tree_path::TreePath;

/// Paths that are named one by one.
const MAX_PATHS: usize = 20;

/// Names each bad object and what needs it, sorted by key.
pub(super) async fn affected(
    pages: &Arc<Pages>,
    snapshots: &[Snapshot],
    bad: &Bad,
    interrupt: &Interrupt,
) -> Result<Vec<Damage>> {
    let mut tracer = Tracer { pages, bad, damage: BTreeMap::new() };
    for snapshot in snapshots {
        if let Some(message) = bad.records.get(&snapshot.id) {
            tracer.note(format!("snapshot {}", snapshot.id), message, snapshot.id, None);
        }
        let mut stack = vec![(snapshot.tree.root(), TreePath::root())];
        while let Some((page, last)) = stack.pop() {
            interrupt.check()?;
            if let Some(message) = bad.pages.get(&at(&page)) {
                // The last path below the page is all that is known of what it held.
                tracer.note(keys::meta_pack(page.placement.pack).to_string(), message, snapshot.id, Some(&last));
            }
            match pages.load(&page, Access::Scan).await {
                Ok(Page::Children(children)) => {
                    stack.extend(children.into_iter().rev().map(|child| (child.page, child.last)));
                }
                Ok(Page::Entries(entries)) => {
                    for placed in &entries {
                        tracer.entry(placed, snapshot.id).await?;
                    }
                }
                Ok(Page::Chunks(_) | Page::ListChildren(_)) => {}
                Err(error) if bad.pages.contains_key(&at(&page)) => drop(error),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(tracer.damage.into_values().collect())
}

struct Tracer<'a> {
    pages: &'a Arc<Pages>,
    bad: &'a Bad,
    damage: BTreeMap<(String, String), Damage>,
}

impl Tracer<'_> {
    async fn entry(&mut self, placed: &Placed, snapshot: SnapshotId) -> Result<()> {
        let path = &placed.entry.path;
        let mut reader = ChunkReader::new(Arc::clone(self.pages), placed);
        let mut noted = false;
        loop {
            let next = reader.next_chunks().await;
            for page in reader.take_visited() {
                if let Some(message) = self.bad.pages.get(&at(&page)) {
                    self.note(keys::meta_pack(page.placement.pack).to_string(), message, snapshot, Some(path));
                }
            }
            match next {
                Ok(Some(chunks)) if !noted => {
                    for (chunk, placement) in chunks {
                        if let Some((object, message)) = self.bad_chunk(chunk, &placement) {
                            // One bad chunk is enough for a file.
                            self.note(object, &message, snapshot, Some(path));
                            noted = true;
                            break;
                        }
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn bad_chunk(&self, chunk: ChunkId, placement: &ChunkPlacement) -> Option<(String, String)> {
        let object = || keys::data_pack(placement.pack).to_string();
        let end = placement.frame_offset + u64::from(placement.frame_bytes);
        match self.bad.packs.get(&placement.pack) {
            Some(None) => return Some((object(), "it is missing".into())),
            Some(Some(size)) if *size < end => {
                return Some((object(), format!("it is cut short: it has {size} bytes, pages refer to more")));
            }
            _ => {}
        }
        let (chunks, message) = self.bad.blocks.get(&BlockRef::of(placement))?;
        chunks.as_ref().is_none_or(|chunks| chunks.contains(&chunk)).then(|| (object(), message.clone()))
    }

    fn note(&mut self, object: String, message: &str, snapshot: SnapshotId, path: Option<&TreePath>) {
        let damage = self.damage.entry((object.clone(), message.to_owned())).or_insert_with(|| Damage {
            object,
            message: message.to_owned(),
            snapshots: Vec::new(),
            paths: Vec::new(),
            affected: 0,
        });
        if damage.snapshots.last() != Some(&snapshot) {
            damage.snapshots.push(snapshot);
        }
        let Some(path) = path else { return };
        damage.affected += 1;
        if damage.paths.len() < MAX_PATHS && !damage.paths.contains(path) {
            damage.paths.push(path.clone());
        }
    }
}

fn at(page: &PageRef) -> PageAt {
    (page.placement.pack, page.placement.offset)
}
