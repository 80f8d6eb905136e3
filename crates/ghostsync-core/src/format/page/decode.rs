//! Decodes pages: untrusted bytes in, typed and checked values out.

use serde::Deserialize;

use super::lines::{
    ChildLine, ChunkLine, ChunkRow, Header, Kind, ListChildLine, PageRow, decode_entry_line, tree_path,
};
use super::{
    Child, ChunkPlacement, ListChild, MAX_ENTRY_BYTES, MAX_LEVEL, MAX_PAGE_CONTENT_BYTES, MAX_PAGE_FRAME_BYTES,
    MAX_PAGE_LINES, Page, PagePlacement, PageRef, Placed, Placement, WHAT, broken, json, plain,
};
use crate::entry::ChunkList;
use crate::format::pack::{MAX_BLOCK_BYTES, MAX_BLOCK_FRAME_BYTES, MAX_PACK_BYTES};
use crate::format::{FormatError, frame};
use crate::id::{ChunkId, FrameHash, IdMap, PackName, PageId};

#[derive(Deserialize)]
pub(super) struct PlacementsIn {
    pub(super) chunks: IdMap<ChunkId, ChunkRow>,
    pages: IdMap<PageId, PageRow>,
}

fn decode_placements(line: &[u8]) -> Result<PlacementsIn, FormatError> {
    match plain::decode_placements(line) {
        Some(chunks) => Ok(PlacementsIn { chunks, pages: IdMap::default() }),
        None => parse_placements(line),
    }
}

pub(super) fn parse_placements(line: &[u8]) -> Result<PlacementsIn, FormatError> {
    serde_json::from_slice(line).map_err(json)
}

/// Decodes a page that a reference names, from its frame.
///
/// # Errors
/// [`FormatError`] if the frame or the id does not match the reference, or a rule of the format is broken.
pub fn decode(reference: &PageRef, stored: &[u8]) -> Result<Page, FormatError> {
    if FrameHash::of(stored) != reference.placement.frame {
        return Err(broken("its frame does not match its hash"));
    }
    let (page, id, level) = decode_unverified(stored)?;
    if id != reference.page || level != reference.level {
        return Err(broken(format!("page {} of level {} found where {} was expected", id, level, reference.page)));
    }
    Ok(page)
}

/// Decodes a page of which no reference is at hand, and tells its id and level: for repair, and for fuzzing.
///
/// # Errors
/// What is wrong with the bytes.
pub fn decode_unverified(stored: &[u8]) -> Result<(Page, PageId, u8), FormatError> {
    let content = frame::decompress(WHAT, stored, MAX_PAGE_CONTENT_BYTES)?;
    let body = content.strip_suffix(b"\n").ok_or_else(|| broken("no line end at its end"))?;
    let header_end = body.iter().position(|byte| *byte == b'\n').ok_or_else(|| broken("no header"))?;
    let lines_end = body.iter().rposition(|byte| *byte == b'\n').ok_or_else(|| broken("no placements"))?;
    let header: Header = serde_json::from_slice(&body[..header_end]).map_err(json)?;
    if header.level > MAX_LEVEL {
        return Err(broken(format!("level {} is over {MAX_LEVEL}", header.level)));
    }
    // `header_end == lines_end` means: no entry lines at all.
    let lines = &content[header_end + 1..=lines_end.max(header_end)];
    let placements = decode_placements(&body[lines_end + 1..])?;
    let placements = Placements { packs: header.packs, chunks: placements.chunks, pages: placements.pages };
    let text = std::str::from_utf8(lines).map_err(|_| broken("its lines are no text"))?;
    let count = memchr::memchr_iter(b'\n', lines).count();
    if count > MAX_PAGE_LINES {
        return Err(broken(format!("over {MAX_PAGE_LINES} lines")));
    }
    let below = header.level.wrapping_sub(1);
    let page = match (header.kind, header.level) {
        (Kind::Tree, 0) => Page::Entries(decode_lines(text, count, |line| placements.entry(line))?),
        (Kind::Tree, _) => Page::Children(decode_lines(text, count, |line| placements.child(line, below))?),
        (Kind::List, 0) => Page::Chunks(decode_lines(text, count, |line| placements.chunk_line(line))?),
        (Kind::List, _) => Page::ListChildren(decode_lines(text, count, |line| placements.list_child(line, below))?),
    };
    match &page {
        Page::Entries(entries) if !entries.is_sorted_by(|a, b| a.entry.path < b.entry.path) => {
            return Err(broken("its entries are not in order"));
        }
        Page::Children(children) if !children.is_sorted_by(|a, b| a.last < b.last) => {
            return Err(broken("its children are not in order"));
        }
        Page::Entries(entries) if entries.is_empty() => return Err(broken("no entries")),
        Page::Children(children) if children.is_empty() => return Err(broken("no children")),
        Page::ListChildren(children) if children.is_empty() => return Err(broken("no children")),
        Page::Chunks(chunks) if chunks.is_empty() => return Err(broken("an empty list of chunks")),
        _ => {}
    }
    Ok((page, PageId::of(lines), header.level))
}

/// Decodes each line, of which there are so many.
fn decode_lines<'a, T>(
    text: &'a str,
    count: usize,
    decode: impl Fn(&'a str) -> Result<T, FormatError>,
) -> Result<Vec<T>, FormatError> {
    let mut decoded = Vec::with_capacity(count);
    for line in text.split_inclusive('\n') {
        decoded.push(decode(line)?);
    }
    Ok(decoded)
}

struct Placements {
    packs: Vec<PackName>,
    chunks: IdMap<ChunkId, ChunkRow>,
    pages: IdMap<PageId, PageRow>,
}

impl Placements {
    fn pack(&self, number: u32) -> Result<PackName, FormatError> {
        usize::try_from(number)
            .ok()
            .and_then(|number| self.packs.get(number))
            .copied()
            .ok_or_else(|| broken("a placement names a pack that the header lacks"))
    }

    fn chunk(&self, chunk: ChunkId) -> Result<ChunkPlacement, FormatError> {
        let Some(&(pack, frame_offset, frame_bytes, offset, bytes)) = self.chunks.get(&chunk) else {
            return Err(broken(format!("chunk {chunk} has no placement")));
        };
        let fits = bytes > 0
            && u64::from(offset) + u64::from(bytes) <= MAX_BLOCK_BYTES
            && u64::from(frame_bytes) <= MAX_BLOCK_FRAME_BYTES
            && frame_offset.saturating_add(u64::from(frame_bytes)) <= MAX_PACK_BYTES;
        if !fits {
            return Err(broken(format!("the placement of chunk {chunk} is out of range")));
        }
        Ok(ChunkPlacement { pack: self.pack(pack)?, frame_offset, frame_bytes, offset, bytes })
    }

    fn page(&self, page: PageId, level: u8) -> Result<PageRef, FormatError> {
        let Some(&(pack, offset, bytes, frame)) = self.pages.get(&page) else {
            return Err(broken(format!("page {page} has no placement")));
        };
        if u64::from(bytes) > MAX_PAGE_FRAME_BYTES || offset.saturating_add(u64::from(bytes)) > MAX_PACK_BYTES {
            return Err(broken(format!("the placement of page {page} is out of range")));
        }
        Ok(PageRef { page, level, placement: PagePlacement { pack: self.pack(pack)?, offset, bytes, frame } })
    }

    fn entry(&self, line: &str) -> Result<Placed, FormatError> {
        if line.len() > MAX_ENTRY_BYTES {
            return Err(FormatError::TooLarge { what: "entry", limit: MAX_ENTRY_BYTES as u64 });
        }
        let entry = decode_entry_line(line.as_bytes())?;
        let content = match entry.content() {
            None => Placement::Chunks(Vec::new()),
            Some(content) => {
                let placement = match &content.chunks {
                    ChunkList::None => Placement::Chunks(Vec::new()),
                    ChunkList::Whole => Placement::Chunks(vec![self.chunk(ChunkId::of_whole(content.hash))?]),
                    ChunkList::Inline(chunks) => {
                        Placement::Chunks(chunks.iter().map(|chunk| self.chunk(*chunk)).collect::<Result<_, _>>()?)
                    }
                    ChunkList::Pages { root, level, .. } => Placement::List(Box::new(self.page(*root, *level)?)),
                };
                if let Placement::Chunks(chunks) = &placement {
                    let bytes: u64 = chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
                    if bytes != content.data_bytes() {
                        return Err(broken(format!("the chunks of {:?} do not add up to its size", entry.path)));
                    }
                }
                placement
            }
        };
        Ok(Placed { entry, content })
    }

    fn child(&self, line: &str, level: u8) -> Result<Child, FormatError> {
        let line: ChildLine = serde_json::from_str(line).map_err(json)?;
        Ok(Child {
            last: tree_path(line.last, line.last_b64)?,
            page: self.page(line.page, level)?,
            entries: line.entries,
            bytes: line.bytes,
        })
    }

    fn chunk_line(&self, line: &str) -> Result<(ChunkId, ChunkPlacement), FormatError> {
        let line: ChunkLine = serde_json::from_str(line).map_err(json)?;
        let placement = self.chunk(line.chunk)?;
        if placement.bytes != line.bytes {
            return Err(broken(format!("chunk {} has two lengths", line.chunk)));
        }
        Ok((line.chunk, placement))
    }

    fn list_child(&self, line: &str, level: u8) -> Result<ListChild, FormatError> {
        let line: ListChildLine = serde_json::from_str(line).map_err(json)?;
        Ok(ListChild {
            last: line.last_chunk,
            page: self.page(line.page, level)?,
            chunks: line.chunks,
            bytes: line.bytes,
        })
    }
}
