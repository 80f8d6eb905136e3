//! Fetches pages by reference and verifies them, through a cache of meta packs.
//!
//! A scan of a tree gets each meta pack once, as a whole; a look at one path gets single frames. What is cached
//! is checked like what is fetched: a damaged cache costs a request, never a wrong answer.

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures::future::join_all;

use crate::error::{Error, ErrorKind, Result};
use crate::format::page::{self, Page, PagePlacement, PageRef};
use crate::id::{FrameHash, PackName};
use crate::store::{Store, keys};

/// A meta pack up to this size is fetched whole when a tree is scanned.
const MAX_WHOLE_PACK_BYTES: u64 = 64 << 20;
/// Meta packs that are kept in memory, together, where there is no cache folder.
const MEMORY_BYTES: usize = 64 << 20;

/// What a caller is about to do with a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read all of it: packs are fetched whole.
    Scan,
    /// Read one path: single frames are fetched.
    Point,
}

/// Fetches and verifies pages.
#[derive(Debug)]
pub(crate) struct Pages {
    store: Store,
    folder: Option<PathBuf>,
    memory: Mutex<VecDeque<(PackName, Bytes)>>,
}

impl Pages {
    /// Reads pages from a store; meta packs are kept in `folder`, or a bounded number of bytes in memory.
    pub(crate) fn new(store: Store, folder: Option<PathBuf>) -> Self {
        Self { store, folder, memory: Mutex::default() }
    }

    /// Reads one page.
    ///
    /// # Errors
    /// `NotFound` if its pack is gone, `Corrupt` if it does not match its reference, or the store's.
    pub(crate) async fn load(&self, page: &PageRef, access: Access) -> Result<Page> {
        if let Some(frame) = self.cached(&page.placement) {
            return Ok(page::decode(page, &frame)?);
        }
        let frame = self.fetch(&page.placement, access).await?;
        page::decode(page, &frame).map_err(|error| in_pack(page.placement.pack, error.into()))
    }

    /// Fetches the packs of pages that are about to be read, all at once, as far as they are not at hand. What fails
    /// here is asked for again, and told, when it is read.
    pub(crate) async fn fetch_ahead(&self, pages: Vec<PageRef>) {
        let missing = pages.iter().filter(|page| self.cached(&page.placement).is_none());
        join_all(missing.map(|page| self.fetch(&page.placement, Access::Scan))).await;
    }

    /// Keeps a meta pack that is at hand, in any number of pieces.
    pub(crate) fn keep(&self, pack: PackName, pieces: &[Bytes]) {
        match &self.folder {
            // A cache that cannot be written is no failure: the next run fetches again.
            Some(folder) => drop(write_file(folder, pack, pieces)),
            None => {
                let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
                let whole = match pieces {
                    [whole] => whole.clone(),
                    many => many.concat().into(),
                };
                memory.push_back((pack, whole));
                while memory.len() > 1 && memory.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > MEMORY_BYTES {
                    memory.pop_front();
                }
            }
        }
    }

    /// Drops cached packs that `wanted` does not name.
    pub(crate) fn forget_others(&self, wanted: &std::collections::HashSet<PackName>) {
        let Some(folder) = &self.folder else { return };
        let names: std::collections::HashSet<_> = wanted.iter().map(|pack| file_name(*pack)).collect();
        for file in fs::read_dir(folder).into_iter().flatten().flatten() {
            if file.file_name().to_str().is_none_or(|name| !names.contains(name)) {
                drop(fs::remove_file(file.path()));
            }
        }
    }

    fn cached(&self, placement: &PagePlacement) -> Option<Bytes> {
        let frame = match &self.folder {
            Some(folder) => read_file(&folder.join(file_name(placement.pack)), placement).ok()?,
            None => {
                let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
                let (_, pack) = memory.iter().find(|(pack, _)| *pack == placement.pack)?;
                cut(pack, placement)?
            }
        };
        (FrameHash::of(&frame) == placement.frame).then_some(frame)
    }

    async fn fetch(&self, placement: &PagePlacement, access: Access) -> Result<Bytes> {
        let key = keys::meta_pack(placement.pack);
        let end = placement.offset.saturating_add(u64::from(placement.bytes));
        if access == Access::Scan && end <= MAX_WHOLE_PACK_BYTES {
            let pack = self
                .store
                .get(&key, MAX_WHOLE_PACK_BYTES)
                .await?
                .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("pack {key} is not in the store")))?;
            let frame = cut(&pack, placement)
                .ok_or_else(|| Error::corrupt(format!("pack {key} is shorter than what refers to it")))?;
            self.keep(placement.pack, std::slice::from_ref(&pack));
            return Ok(frame);
        }
        self.store.get_range(&key, placement.offset..end).await
    }
}

fn in_pack(pack: PackName, error: Error) -> Error {
    let key = keys::meta_pack(pack);
    Error::new(error.kind(), format!("a page in {key} is damaged: {error}"))
}

fn cut(pack: &Bytes, placement: &PagePlacement) -> Option<Bytes> {
    let begin = usize::try_from(placement.offset).ok()?;
    let end = begin.checked_add(usize::try_from(placement.bytes).ok()?)?;
    (end <= pack.len()).then(|| pack.slice(begin..end))
}

fn file_name(pack: PackName) -> String {
    pack.to_string().replace('/', "-")
}

fn read_file(path: &Path, placement: &PagePlacement) -> std::io::Result<Bytes> {
    let mut file = fs::File::open(path)?;
    if file.metadata()?.len() < placement.offset.saturating_add(u64::from(placement.bytes)) {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let mut frame = vec![0; placement.bytes as usize];
    file.seek(SeekFrom::Start(placement.offset))?;
    file.read_exact(&mut frame)?;
    Ok(frame.into())
}

fn write_file(folder: &Path, pack: PackName, pieces: &[Bytes]) -> std::io::Result<()> {
    use std::io::Write;
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    for piece in pieces {
        file.write_all(piece)?;
    }
    file.persist(folder.join(file_name(pack)))?;
    Ok(())
}
