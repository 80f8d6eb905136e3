//! A damaged tree, leaf by leaf, with what was found elsewhere in the place of what is gone.
//!
//! A page or chunk is *looked at* if the look at the repository reached it by references alone: of it is known whether
//! it is damaged. What lies below a page that was found elsewhere is not, and is believed only when it was read.
//! Everything comes in the order of the tree, each page once: what is out of order is lost.

use std::sync::Arc;

use super::super::check::{Look, is_damage};
use super::Loss;
use super::copies::{Copies, is_a_list};
use crate::entry::ChunkList;
use crate::error::Result;
use crate::format::commit::Snapshot;
use crate::format::page::{Child, ChunkPlacement, Page, PageRef, Placed, Placement};
use crate::id::ChunkId;
use crate::interrupt::Interrupt;
use crate::store::keys;
use crate::tree::{Access, ChunkReader, Pages};
use crate::tree_path::TreePath;

const LONE: &str = "and there is no good copy of it";

/// The next piece of a tree.
pub(super) enum Leaf {
    /// Entries of one page.
    Entries(Vec<Judged>),
    /// A page with so many entries below it is beyond help.
    Lost(Loss),
}

/// An entry, and what is to become of its content.
pub(super) struct Judged {
    pub(super) placed: Placed,
    pub(super) content: Content,
}

/// What is to become of a content.
pub(super) enum Content {
    /// It stays where it is.
    Stays,
    /// All of it is there, some of it elsewhere than the entry's page says.
    Moves(Vec<(ChunkId, Place)>),
    /// It is beyond help.
    Lost(Loss),
}

/// Where a good copy of a chunk lies.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// In a pack that retained snapshots refer to: it may be referred to.
    Here(ChunkPlacement),
    /// In another pack, which a prune may delete at any time: it is to be copied.
    Elsewhere(ChunkPlacement),
}

/// A page that is still to be visited.
struct Ahead {
    page: PageRef,
    is_looked_at: bool,
    /// The last path that it must have.
    last: Option<TreePath>,
    entries: u64,
}

/// The list of a large file's chunks.
struct List {
    chunks: Vec<(ChunkId, ChunkPlacement, bool)>,
    stays: bool,
}

pub(super) struct Walk<'a> {
    pages: &'a Arc<Pages>,
    look: &'a Look,
    pub(super) copies: &'a mut Copies,
    interrupt: &'a Interrupt,
    stack: Vec<Ahead>,
    previous: Option<TreePath>,
    /// Good page copies that may be referred to.
    pub(super) kept: Vec<PageRef>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        pages: &'a Arc<Pages>,
        look: &'a Look,
        copies: &'a mut Copies,
        interrupt: &'a Interrupt,
        snapshot: &Snapshot,
    ) -> Self {
        let root = Ahead { page: snapshot.tree.root(), is_looked_at: true, last: None, entries: snapshot.entries };
        Self { pages, look, copies, interrupt, stack: vec![root], previous: None, kept: Vec::new() }
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// The store's; damage is none.
    pub(super) async fn next(&mut self) -> Result<Option<Leaf>> {
        while let Some(ahead) = self.stack.pop() {
            self.interrupt.check()?;
            if ahead.last.is_some() && ahead.last <= self.previous {
                return Ok(Some(lost(ahead, "the tree is out of order there")));
            }
            let (page, is_looked_at) = match self.load(&ahead.page, ahead.is_looked_at, false).await? {
                Ok(loaded) => loaded,
                Err(message) => return Ok(Some(lost(ahead, &message))),
            };
            match page {
                Page::Children(children) => {
                    if ahead.last.is_some() && children.last().map(|child| &child.last) != ahead.last.as_ref() {
                        return Ok(Some(lost(ahead, "it ends with another path than the page above says")));
                    }
                    let below =
                        |Child { last, page, entries, .. }| Ahead { page, is_looked_at, last: Some(last), entries };
                    self.stack.extend(children.into_iter().rev().map(below));
                }
                Page::Entries(entries) => {
                    let last = entries.last().map(|placed| placed.entry.path.clone());
                    if ahead.last.is_some() && last != ahead.last {
                        return Ok(Some(lost(ahead, "it ends with another path than the page above says")));
                    }
                    self.previous = last;
                    let mut judged = Vec::with_capacity(entries.len());
                    for placed in entries {
                        let content = self.content(&placed, &ahead.page, is_looked_at).await?;
                        judged.push(Judged { placed, content });
                    }
                    return Ok(Some(Leaf::Entries(judged)));
                }
                Page::Chunks(_) | Page::ListChildren(_) => {}
            }
        }
        Ok(None)
    }

    /// A page where its reference says, or wherever else; or why there is none.
    async fn load(
        &mut self,
        page: &PageRef,
        is_looked_at: bool,
        is_list: bool,
    ) -> Result<std::result::Result<(Page, bool), String>> {
        let message = match self.pages.load(page, Access::Scan).await {
            Ok(loaded) if is_a_list(&loaded) == is_list => {
                self.keep(page);
                return Ok(Ok((loaded, is_looked_at)));
            }
            Ok(_) => "it is of another kind than what refers to it says".to_owned(),
            Err(error) if is_damage(&error) => error.to_string(),
            Err(error) => return Err(error),
        };
        Ok(match self.copies.page(page.page, page.level, is_list).await? {
            Some((loaded, found)) => {
                self.keep(&found);
                Ok((loaded, false))
            }
            None => Err(format!("{message}, {LONE}")),
        })
    }

    fn keep(&mut self, page: &PageRef) {
        if self.look.refers_to(page.placement.pack, false) {
            self.kept.push(*page);
        }
    }

    async fn content(&mut self, placed: &Placed, leaf: &PageRef, is_looked_at: bool) -> Result<Content> {
        let Some(content) = placed.entry.content() else { return Ok(Content::Stays) };
        let loss = |object: String, message: String| {
            Content::Lost(Loss { path: placed.entry.path.clone(), entries: 1, object, message })
        };
        if is_looked_at && let Some(message) = self.look.content_flaw(placed) {
            return Ok(loss(keys::meta_pack(leaf.placement.pack).to_string(), message.to_owned()));
        }
        let list = match (&placed.content, &content.chunks) {
            (Placement::List(root), ChunkList::Pages { count, .. }) => {
                let list = match self.list(root, is_looked_at, *count).await? {
                    Ok(list) => list,
                    Err(message) => return Ok(loss(keys::meta_pack(root.placement.pack).to_string(), message)),
                };
                let bytes: u64 = list.chunks.iter().map(|(_, placement, _)| u64::from(placement.bytes)).sum();
                if (list.chunks.len() as u64, bytes) != (*count, content.data_bytes()) {
                    let message = "the list of its chunks is not as long as its entry says".to_owned();
                    return Ok(loss(keys::meta_pack(root.placement.pack).to_string(), message));
                }
                list
            }
            _ => {
                let chunks = ChunkReader::new(Arc::clone(self.pages), placed).next_chunks().await?.unwrap_or_default();
                let chunks = chunks.into_iter().map(|(id, placement)| (id, placement, is_looked_at)).collect();
                List { chunks, stays: true }
            }
        };
        let mut stays = list.stays;
        let mut places = Vec::with_capacity(list.chunks.len());
        for (id, placement, is_looked_at) in list.chunks {
            self.interrupt.check()?;
            match self.place(id, &placement, is_looked_at).await? {
                Ok(place) => {
                    stays &= matches!(place, Place::Here(found) if found == placement);
                    places.push((id, place));
                }
                Err((object, message)) => return Ok(loss(object, format!("{message}, {LONE}"))),
            }
        }
        Ok(if stays { Content::Stays } else { Content::Moves(places) })
    }

    /// Where a good copy of a chunk lies; or what is wrong with the one that its page names.
    async fn place(
        &mut self,
        id: ChunkId,
        placement: &ChunkPlacement,
        is_looked_at: bool,
    ) -> Result<std::result::Result<Place, (String, String)>> {
        let flaw = if is_looked_at {
            match self.look.chunk_flaw(id, placement) {
                None => return Ok(Ok(Place::Here(*placement))),
                flaw => flaw,
            }
        } else {
            None
        };
        let found = match self.copies.chunk(id).await? {
            // Its own place is as good as any that a table tells.
            None if flaw.is_none() => self.copies.read(id, placement).await?.map(|_| *placement),
            found => found,
        };
        let missing = || (keys::data_pack(placement.pack).to_string(), "it does not hold the chunk".to_owned());
        Ok(match found {
            Some(found) if self.look.refers_to(found.pack, true) => Ok(Place::Here(found)),
            Some(found) => Ok(Place::Elsewhere(found)),
            None => Err(flaw.unwrap_or_else(missing)),
        })
    }

    /// The chunks of a large file; or why they are not known.
    async fn list(
        &mut self,
        root: &PageRef,
        is_looked_at: bool,
        count: u64,
    ) -> Result<std::result::Result<List, String>> {
        let mut list = List { chunks: Vec::new(), stays: true };
        let mut stack = vec![(*root, is_looked_at)];
        while let Some((page, is_looked_at)) = stack.pop() {
            self.interrupt.check()?;
            let (loaded, is_still_looked_at) = match self.load(&page, is_looked_at, true).await? {
                Ok(loaded) => loaded,
                Err(message) => return Ok(Err(message)),
            };
            list.stays &= is_still_looked_at;
            match loaded {
                Page::Chunks(chunks) => {
                    list.chunks.extend(chunks.into_iter().map(|(id, at)| (id, at, is_still_looked_at)));
                }
                Page::ListChildren(children) => {
                    stack.extend(children.into_iter().rev().map(|child| (child.page, is_still_looked_at)));
                }
                Page::Entries(_) | Page::Children(_) => {}
            }
            if list.chunks.len() as u64 > count {
                break;
            }
        }
        Ok(Ok(list))
    }
}

fn lost(ahead: Ahead, message: &str) -> Leaf {
    let object = keys::meta_pack(ahead.page.placement.pack).to_string();
    let path = ahead.last.unwrap_or_default();
    Leaf::Lost(Loss { path, entries: ahead.entries, object, message: message.to_owned() })
}
