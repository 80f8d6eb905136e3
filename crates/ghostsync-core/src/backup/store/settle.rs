//! From what has been read to the tree: an entry waits until the blocks of its chunks lie in a pack.

use super::{Assembly, MAX_WAITING, ReadFile, Waiting};
use crate::backup::decide::file_entry;
use crate::backup::dedup::Location;
use crate::backup::seen::SeenEntry;
use crate::entry::{Entry, FileContent};
use crate::error::{Error, Result};
use crate::format::page::{Placed, Placement};
use crate::id::ChunkId;
use crate::source::Found;
use crate::tree::{LeafEntry, write_chunk_list};

impl Assembly<'_, '_> {
    /// Puts compressed blocks into packs.
    pub(super) fn pump(&mut self, mut wait: bool) -> Result<()> {
        while let Some(block) = self.blocks.next(std::mem::take(&mut wait))? {
            let placements = self.data.push(block, self.meta.uploader())?;
            self.dedup.seal(&placements)?;
        }
        Ok(())
    }

    /// Writes what no longer waits into the tree; with `all`, everything.
    pub(super) fn settle(&mut self, all: bool) -> Result<()> {
        if all || self.waiting.len() > MAX_WAITING {
            self.blocks.seal()?;
            while self.blocks.in_flight() > 0 {
                self.pump(true)?;
            }
        } else {
            self.pump(false)?;
        }
        while let Some(front) = self.waiting.front() {
            if let Waiting::File(file) = front
                && let Some(last) = file.locations.iter().rev().find(|location| matches!(location, Location::Ours(_)))
                && self.dedup.resolve(*last)?.is_none()
            {
                return Ok(());
            }
            match self.waiting.pop_front() {
                Some(Waiting::Entry(mut placed, seen)) => {
                    if placed.entry.unread {
                        let mut carried = Placed::clone(&placed);
                        carried.entry.link = self.groups.of_carried(&placed.entry);
                        placed = carried.into();
                    }
                    self.note(&placed, seen.as_ref().map(|seen| &seen.found));
                    self.tree.push_kept(&placed, &mut self.meta)?;
                }
                Some(Waiting::File(file)) => self.write_file(*file)?,
                Some(Waiting::Link { seen, old }) => self.write_link(&seen, old)?,
                None => {}
            }
        }
        Ok(())
    }

    fn write_file(&mut self, file: ReadFile) -> Result<()> {
        let ReadFile { seen, old, content, locations, unstable } = file;
        let mut chunks = Vec::with_capacity(locations.len());
        for ((chunk, bytes), location) in content.chunks.iter().zip(locations) {
            let placement =
                self.dedup.resolve(location)?.ok_or_else(|| Error::internal("a chunk without a placement"))?;
            if placement.bytes != *bytes {
                return Err(Error::internal(format!("chunk {chunk} has two lengths")));
            }
            self.dedup.reach(&placement);
            chunks.push((*chunk, placement));
        }
        let whole = content.holes.is_empty();
        if whole
            && let [(only, _)] = chunks[..]
            && only != ChunkId::of_whole(content.hash)
        {
            return Err(Error::internal("the only chunk of a file is not its content"));
        }
        let (list, placement) = write_chunk_list(&chunks, whole, &mut self.meta)?;
        let file = FileContent { size: content.size, hash: content.hash, chunks: list, holes: content.holes };
        if unstable {
            let message = "it changed while it was read, as often as it was tried: its content may mix several states";
            self.tally.problem(&seen.found.path, message.to_owned(), false);
        }
        self.write_content(&seen, old.as_deref(), file, placement, unstable)
    }

    fn write_link(&mut self, seen: &SeenEntry, old: Option<LeafEntry>) -> Result<()> {
        let content = seen.link.as_ref().and_then(|first| self.groups.contents.get(first)).cloned();
        let (file, placement, unstable) = content.ok_or_else(|| Error::internal("a hard link without its content"))?;
        self.write_content(seen, old.as_deref(), file, placement, unstable)
    }

    fn write_content(
        &mut self,
        seen: &SeenEntry,
        old: Option<&Placed>,
        file: FileContent,
        placement: Placement,
        unstable: bool,
    ) -> Result<()> {
        let old = old.map(|old| &old.entry);
        let placed = file_entry(seen, file, placement, old, unstable);
        self.count(&placed.entry);
        self.compare(&placed.entry, old)?;
        self.note(&placed, (!seen.racy && !unstable).then_some(&seen.found));
        self.tree.push(&placed, &mut self.meta)
    }

    /// Counts a file against the parent's entry, now that its content is known.
    fn compare(&mut self, new: &Entry, old: Option<&Entry>) -> Result<()> {
        let Some(content) = new.content() else { return Ok(()) };
        if let Some(old) = old {
            self.tally.parent(old);
        }
        match old.map(|old| (old, old.content())) {
            Some((old, Some(before))) if content.size == 0 && before.size > 0 => self.tally.removed(old)?,
            Some((_, Some(before))) if content.hash != before.hash => self.tally.changed(&new.path),
            Some((old, Some(_))) if new != old => self.tally.touched(),
            Some((_, Some(_))) => {}
            Some((old, None)) => {
                self.tally.removed(old)?;
                self.add(content);
            }
            None => self.add(content),
        }
        Ok(())
    }

    fn add(&mut self, content: &FileContent) {
        self.tally.added(true);
        if self.removed_sizes.contains(&content.size) {
            self.added.push(content.size, content.hash);
        }
    }

    /// Notes what later entries, the next run and the pages want to know of one that goes into the tree.
    fn note(&mut self, placed: &Placed, found: Option<&Found>) {
        let entry = &placed.entry;
        if entry.link.as_ref() == Some(&entry.path)
            && let Some(content) = entry.content()
        {
            let content = (content.clone(), placed.content.clone(), entry.unstable);
            self.groups.contents.insert(entry.path.clone(), content);
        }
        if let Some(found) = found {
            self.known.push(found);
        }
        if self.dedup.has_moved() {
            self.meta.note_moved();
        }
    }
}
