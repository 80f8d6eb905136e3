//! The second pass of a check, when something is bad: which snapshots and paths need it.
//!
//! A leaf or a page of chunks on which nothing is bad is read once, whichever snapshots share it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::Damage;
use super::find::{Bad, Flaw, Reach, is_damage};
use super::print::Print;
use super::shape::wanted_group;
use crate::error::Result;
use crate::format::commit::Snapshot;
use crate::format::page::{ChunkPlacement, Page, PageRef, Placed, Placement};
use crate::id::{ChunkId, SnapshotId};
use crate::interrupt::Interrupt;
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
    let mut tracer = Tracer { pages, bad, interrupt, clean: HashSet::new(), damage: BTreeMap::new(), notes: 0 };
    for snapshot in snapshots {
        if let Some(flaw) = bad.records.get(&snapshot.id) {
            tracer.flaw(format!("snapshot {}", snapshot.id), flaw, snapshot, None);
        }
        let root = snapshot.tree.root();
        let groups = bad.links.get(&Print::of_page(&root));
        let mut stack = vec![(root, TreePath::root(), snapshot.entries)];
        while let Some((page, last, entries)) = stack.pop() {
            interrupt.check()?;
            let print = Print::of_page(&page);
            if tracer.clean.contains(&print) && groups.is_none() {
                continue;
            }
            let notes = tracer.notes;
            if let Some(flaw) = bad.pages.get(&print) {
                tracer.flaw(meta_pack(&page), flaw, snapshot, Some((&last, entries)));
            }
            match pages.load(&page, Access::Scan).await {
                Ok(Page::Children(children)) => {
                    stack.extend(children.into_iter().rev().map(|child| (child.page, child.last, child.entries)));
                }
                Ok(Page::Entries(entries)) => {
                    for placed in &entries {
                        tracer.entry(placed, &page, groups, snapshot.id).await?;
                    }
                    if tracer.notes == notes {
                        tracer.clean.insert(print);
                    }
                }
                Ok(Page::Chunks(_) | Page::ListChildren(_)) => {}
                Err(error) if bad.pages.contains_key(&print) && is_damage(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(tracer.damage.into_values().collect())
}

struct Tracer<'a> {
    pages: &'a Arc<Pages>,
    bad: &'a Bad,
    interrupt: &'a Interrupt,
    /// Page copies on which nothing is bad.
    clean: HashSet<Print>,
    damage: BTreeMap<(String, String), Damage>,
    notes: u64,
}

impl Tracer<'_> {
    async fn entry(
        &mut self,
        placed: &Placed,
        leaf: &PageRef,
        groups: Option<&HashSet<Print>>,
        snapshot: SnapshotId,
    ) -> Result<()> {
        let path = Some((&placed.entry.path, 1));
        if groups.is_some_and(|lost| wanted_group(&placed.entry).is_some_and(|group| lost.contains(&group))) {
            let message = "a hard link has no first member of its content; no restore takes such a tree";
            self.note(meta_pack(leaf), message, snapshot, path);
        }
        if !self.bad.contents.is_empty()
            && let Some(message) = Print::of_content(placed).and_then(|print| self.bad.contents.get(&print))
        {
            self.note(meta_pack(leaf), message, snapshot, path);
        }
        if let Placement::List(root) = &placed.content {
            return self.list(root, snapshot, &placed.entry.path).await;
        }
        let chunks = ChunkReader::new(Arc::clone(self.pages), placed).next_chunks().await?;
        self.chunks(chunks.as_deref().unwrap_or_default(), snapshot, &placed.entry.path);
        Ok(())
    }

    /// Notes what is bad in a list of chunks: each page once, however often the list names it.
    async fn list(&mut self, root: &PageRef, snapshot: SnapshotId, path: &TreePath) -> Result<()> {
        let mut visited = HashSet::new();
        let mut stack = vec![*root];
        while let Some(page) = stack.pop() {
            self.interrupt.check()?;
            let print = Print::of_page(&page);
            if self.clean.contains(&print) || !visited.insert(print) {
                continue;
            }
            let notes = self.notes;
            if let Some(flaw) = self.bad.pages.get(&print) {
                self.note(meta_pack(&page), &flaw.message, snapshot, Some((path, 1)));
            }
            match self.pages.load(&page, Access::Scan).await {
                Ok(Page::Chunks(chunks)) => {
                    if self.chunks(&chunks, snapshot, path) {
                        return Ok(());
                    }
                    if self.notes == notes {
                        self.clean.insert(print);
                    }
                }
                Ok(Page::ListChildren(children)) => stack.extend(children.into_iter().rev().map(|child| child.page)),
                Ok(Page::Entries(_) | Page::Children(_)) => {}
                Err(error) if is_damage(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Notes the first of some chunks that is bad: one is enough for a file.
    fn chunks(&mut self, chunks: &[(ChunkId, ChunkPlacement)], snapshot: SnapshotId, path: &TreePath) -> bool {
        let bad = chunks.iter().find_map(|(chunk, placement)| self.bad.chunk_flaw(*chunk, placement));
        let Some((object, message)) = bad else { return false };
        self.note(object, &message, snapshot, Some((path, 1)));
        true
    }

    /// Notes a flaw, and as many paths as it reaches.
    fn flaw(&mut self, object: String, flaw: &Flaw, snapshot: &Snapshot, below: Option<(&TreePath, u64)>) {
        let root = TreePath::root();
        let path = match flaw.reach {
            // The last path below a page, and how many there are, is all that is known of what it held.
            Reach::Below => below,
            Reach::Snapshot => Some((&root, snapshot.entries)),
            Reach::Figures => None,
        };
        self.note(object, &flaw.message, snapshot.id, path);
    }

    fn note(&mut self, object: String, message: &str, snapshot: SnapshotId, path: Option<(&TreePath, u64)>) {
        self.notes += 1;
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
        let Some((path, entries)) = path else { return };
        damage.affected = damage.affected.saturating_add(entries.max(1));
        if damage.paths.len() < MAX_PATHS && !damage.paths.contains(path) {
            damage.paths.push(path.clone());
        }
    }
}

fn meta_pack(page: &PageRef) -> String {
    keys::meta_pack(page.placement.pack).to_string()
}
