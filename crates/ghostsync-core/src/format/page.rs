//! Pages: a tree's sorted entries, cut where the names say, each one zstd frame of JSON lines.
//!
//! ```text
//! {"kind":"tree","level":0,"packs":["<begin>-<session>/<n>", ...]}      header
//! {"path":"a","kind":"file","mode":420, ...}                            entry lines: their BLAKE3 is the id
//! {"chunks":{"<id>":[pack,frame offset,frame length,offset,length]},"pages":{...}}   placements
//! ```
//! Levels above 0 hold one line a child page. Lists of the chunks of large files are pages too. The id leaves
//! out where things lie, so equal content has equal ids in any repository; the frame hash in the reference to a
//! page covers everything.

use std::collections::HashMap;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::pack::{MAX_BLOCK_BYTES, MAX_BLOCK_FRAME_BYTES, MAX_PACK_BYTES};
use super::{FormatError, frame, from_base64, from_text_or_base64, to_base64, to_text_or_base64};
use crate::entry::{ChunkList, DeviceNumber, Entry, EntryKind, FileContent, FileTime, Hole, MAX_INLINE_CHUNKS, Xattr};
use crate::id::{ChunkId, ContentHash, FrameHash, PackName, PageId};
use crate::tree_path::TreePath;

/// The most lines of a page.
pub const MAX_PAGE_LINES: usize = 4096;
/// The most bytes of entry lines in a page of more than one line.
pub const MAX_PAGE_BYTES: usize = 1 << 20;
/// The most bytes of a single entry line, which then stands alone on its page.
pub const MAX_ENTRY_BYTES: usize = 16 << 20;
/// The most bytes of a page before compression, placements included.
pub const MAX_PAGE_CONTENT_BYTES: u64 = 48 << 20;
/// The most bytes of a page's frame.
pub const MAX_PAGE_FRAME_BYTES: u64 = 48 << 20;
/// The highest level that a reader follows; pages of two lines each would hold 2^32 entries.
pub const MAX_LEVEL: u8 = 32;

const WHAT: &str = "page";

/// Where a chunk lies: a range of the content of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkPlacement {
    /// The data pack.
    pub pack: PackName,
    /// Where the block's frame begins in the pack, in bytes.
    pub frame_offset: u64,
    /// The frame's length in bytes.
    pub frame_bytes: u32,
    /// Where the chunk begins in the block's content, in bytes.
    pub offset: u32,
    /// The chunk's length in bytes.
    pub bytes: u32,
}

/// Where a page lies, and what its frame must hash to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PagePlacement {
    /// The meta pack.
    pub pack: PackName,
    /// Where its frame begins in the pack, in bytes.
    pub offset: u64,
    /// The frame's length in bytes.
    pub bytes: u32,
    /// The hash of the frame.
    pub frame: FrameHash,
}

/// A page: what it is, and where a copy of it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRef {
    /// What it is.
    pub page: PageId,
    /// Its level.
    pub level: u8,
    /// Where it lies.
    pub placement: PagePlacement,
}

/// An entry together with where its content lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The entry.
    pub entry: Entry,
    /// Where its content lies.
    pub content: Placement,
}

/// Where an entry's content lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// Its chunks, one by one in order; empty for an entry without data.
    Chunks(Vec<ChunkPlacement>),
    /// Its list of chunks is in pages of its own.
    List(PageRef),
}

/// One line of a page above the leaves of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// The last path in that child.
    pub last: TreePath,
    /// The child.
    pub page: PageRef,
    /// Entries below it, without the root and sockets.
    pub entries: u64,
    /// Bytes of content below it.
    pub bytes: u64,
}

/// One line of a page above the leaves of a list of chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListChild {
    /// The last chunk in that child.
    pub last: ChunkId,
    /// The child.
    pub page: PageRef,
    /// Chunks below it.
    pub chunks: u64,
    /// Bytes below it.
    pub bytes: u64,
}

/// A decoded page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    /// Level 0 of a tree.
    Entries(Vec<Placed>),
    /// A level above.
    Children(Vec<Child>),
    /// Level 0 of a list of chunks.
    Chunks(Vec<(ChunkId, ChunkPlacement)>),
    /// A level above.
    ListChildren(Vec<ListChild>),
}

/// A page ready to be stored.
#[derive(Debug, Clone)]
pub struct EncodedPage {
    /// Its id.
    pub page: PageId,
    /// Its frame.
    pub frame: Vec<u8>,
}

/// Tells whether a page of a tree ends after the entry or child with this (last) path.
///
/// One path in 512 ends a leaf; a higher level looks at other bits of the same hash.
#[must_use]
pub fn ends_tree_page(level: u8, path: &TreePath) -> bool {
    ends_page(level, blake3::hash(&path.key()).as_bytes())
}

/// Tells whether a list page ends after this (last) chunk.
#[must_use]
pub fn ends_list_page(level: u8, chunk: ChunkId) -> bool {
    ends_page(level, chunk.as_bytes())
}

fn ends_page(level: u8, hash: &[u8; 32]) -> bool {
    const BITS: usize = 9;
    let begin = usize::from(level) * BITS % (256 - BITS);
    (begin..begin + BITS).all(|bit| hash[bit / 8] >> (bit % 8) & 1 == 0)
}

/// Collects the lines of one page.
#[derive(Debug)]
pub struct PageBuilder {
    kind: Kind,
    level: u8,
    lines: Vec<u8>,
    count: usize,
    packs: Vec<PackName>,
    pack_numbers: HashMap<PackName, u32>,
    chunks: Table<ChunkId, ChunkRow>,
    pages: Table<PageId, PageRow>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Tree,
    List,
}

type ChunkRow = (u32, u64, u32, u32, u32);
type PageRow = (u32, u64, u32, FrameHash);

/// A map that keeps the order of its first insertions.
#[derive(Debug)]
struct Table<K, V> {
    rows: Vec<(K, V)>,
    known: std::collections::HashSet<K>,
}

impl<K: Copy + Eq + std::hash::Hash, V> Table<K, V> {
    fn new() -> Self {
        Self { rows: Vec::new(), known: std::collections::HashSet::new() }
    }

    fn is_new(&self, key: &K) -> bool {
        !self.known.contains(key)
    }

    fn insert(&mut self, key: K, value: V) {
        if self.known.insert(key) {
            self.rows.push((key, value));
        }
    }
}

impl<K: Serialize, V: Serialize> Serialize for Table<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.rows.len()))?;
        for (key, value) in &self.rows {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl PageBuilder {
    /// Begins a page of a tree.
    #[must_use]
    pub fn tree(level: u8) -> Self {
        Self::new(Kind::Tree, level)
    }

    /// Begins a page of a list of chunks.
    #[must_use]
    pub fn list(level: u8) -> Self {
        Self::new(Kind::List, level)
    }

    fn new(kind: Kind, level: u8) -> Self {
        Self {
            kind,
            level,
            lines: Vec::new(),
            count: 0,
            packs: Vec::new(),
            pack_numbers: HashMap::new(),
            chunks: Table::new(),
            pages: Table::new(),
        }
    }

    /// The number of lines so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Tells whether this page must end before another line of so many bytes.
    #[must_use]
    pub fn is_full_for(&self, line_bytes: usize) -> bool {
        self.count >= MAX_PAGE_LINES || (self.count > 0 && self.lines.len() + line_bytes > MAX_PAGE_BYTES)
    }

    /// Adds the line of an entry, as [`entry_line`] made it, and where its content lies.
    pub fn push_entry(&mut self, line: &[u8], placed: &Placed) {
        self.lines.extend_from_slice(line);
        self.count += 1;
        match (&placed.content, placed.entry.content()) {
            (Placement::List(list), _) => self.place_page(list),
            (Placement::Chunks(placements), Some(content)) => match &content.chunks {
                ChunkList::Whole => {
                    if let [placement] = placements[..] {
                        self.place_chunk(ChunkId::of_whole(content.hash), placement);
                    }
                }
                ChunkList::Inline(chunks) => {
                    for (chunk, placement) in chunks.iter().zip(placements) {
                        self.place_chunk(*chunk, *placement);
                    }
                }
                ChunkList::None | ChunkList::Pages { .. } => {}
            },
            (Placement::Chunks(_), None) => {}
        }
    }

    /// Adds the line of a child page.
    ///
    /// # Errors
    /// Never in practice.
    pub fn push_child(&mut self, child: &Child) -> Result<(), FormatError> {
        self.push_line(&ChildLine::new(child))?;
        self.place_page(&child.page);
        Ok(())
    }

    /// Adds the line of a chunk to a list page.
    ///
    /// # Errors
    /// Never in practice.
    pub fn push_chunk(&mut self, chunk: ChunkId, placement: ChunkPlacement) -> Result<(), FormatError> {
        self.push_line(&ChunkLine { chunk, bytes: placement.bytes })?;
        self.place_chunk(chunk, placement);
        Ok(())
    }

    /// Adds the line of a child of a list page.
    ///
    /// # Errors
    /// Never in practice.
    pub fn push_list_child(&mut self, child: &ListChild) -> Result<(), FormatError> {
        let line =
            ListChildLine { last_chunk: child.last, page: child.page.page, chunks: child.chunks, bytes: child.bytes };
        self.push_line(&line)?;
        self.place_page(&child.page);
        Ok(())
    }

    fn push_line<T: Serialize>(&mut self, line: &T) -> Result<(), FormatError> {
        serde_json::to_writer(&mut self.lines, line).map_err(json)?;
        self.lines.push(b'\n');
        self.count += 1;
        Ok(())
    }

    fn place_chunk(&mut self, chunk: ChunkId, placement: ChunkPlacement) {
        // The first placement of a chunk counts; the header names no pack for the sake of another.
        if self.chunks.is_new(&chunk) {
            let pack = self.pack_number(placement.pack);
            let row = (pack, placement.frame_offset, placement.frame_bytes, placement.offset, placement.bytes);
            self.chunks.insert(chunk, row);
        }
    }

    fn place_page(&mut self, page: &PageRef) {
        if self.pages.is_new(&page.page) {
            let placement = page.placement;
            let pack = self.pack_number(placement.pack);
            self.pages.insert(page.page, (pack, placement.offset, placement.bytes, placement.frame));
        }
    }

    fn pack_number(&mut self, pack: PackName) -> u32 {
        // A page has at most MAX_PAGE_LINES * MAX_INLINE_CHUNKS chunks, so the number fits.
        let next = u32::try_from(self.packs.len()).unwrap_or(u32::MAX);
        *self.pack_numbers.entry(pack).or_insert_with(|| {
            self.packs.push(pack);
            next
        })
    }

    /// The id that the page has with the lines so far.
    #[must_use]
    pub fn id(&self) -> PageId {
        PageId::of(&self.lines)
    }

    /// Encodes the page.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] if the page is over its limits.
    pub fn encode(&self) -> Result<EncodedPage, FormatError> {
        let mut content = Vec::with_capacity(self.lines.len() * 2);
        let header = Header { kind: self.kind, level: self.level, packs: self.packs.clone() };
        serde_json::to_writer(&mut content, &header).map_err(json)?;
        content.push(b'\n');
        content.extend_from_slice(&self.lines);
        let placements = PlacementsOut { chunks: &self.chunks, pages: &self.pages };
        serde_json::to_writer(&mut content, &placements).map_err(json)?;
        content.push(b'\n');
        if content.len() as u64 > MAX_PAGE_CONTENT_BYTES {
            return Err(FormatError::TooLarge { what: WHAT, limit: MAX_PAGE_CONTENT_BYTES });
        }
        Ok(EncodedPage { page: self.id(), frame: frame::compress(WHAT, &content)? })
    }
}

fn json(source: serde_json::Error) -> FormatError {
    FormatError::Json { what: WHAT, source }
}

fn broken(rule: impl Into<String>) -> FormatError {
    FormatError::rule(WHAT, rule)
}

#[derive(Serialize, Deserialize)]
struct Header {
    kind: Kind,
    level: u8,
    packs: Vec<PackName>,
}

#[derive(Serialize)]
struct PlacementsOut<'a> {
    chunks: &'a Table<ChunkId, ChunkRow>,
    pages: &'a Table<PageId, PageRow>,
}

#[derive(Deserialize)]
struct PlacementsIn {
    chunks: HashMap<ChunkId, ChunkRow>,
    pages: HashMap<PageId, PageRow>,
}

#[derive(Serialize, Deserialize)]
struct ChildLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_b64: Option<String>,
    page: PageId,
    entries: u64,
    bytes: u64,
}

impl ChildLine {
    fn new(child: &Child) -> Self {
        let (last, last_b64) = to_text_or_base64(child.last.as_bytes());
        Self { last, last_b64, page: child.page.page, entries: child.entries, bytes: child.bytes }
    }
}

/// The length in bytes of the line of a child page, with its line end.
///
/// # Errors
/// Never in practice.
pub fn child_line_bytes(child: &Child) -> Result<usize, FormatError> {
    Ok(serde_json::to_vec(&ChildLine::new(child)).map_err(json)?.len() + 1)
}

#[derive(Serialize, Deserialize)]
struct ChunkLine {
    chunk: ChunkId,
    bytes: u32,
}

#[derive(Serialize, Deserialize)]
struct ListChildLine {
    last_chunk: ChunkId,
    page: PageId,
    chunks: u64,
    bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct EntryLine {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_b64: Option<String>,
    kind: String,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, u32),
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<ContentHash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chunks: Option<Vec<ChunkId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chunk_list: Option<ChunkListLine>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    holes: Vec<(u64, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_b64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<(u32, u32)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    xattrs: Vec<XattrLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link_b64: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    unread: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    unstable: bool,
}

#[derive(Serialize, Deserialize)]
struct ChunkListLine {
    page: PageId,
    level: u8,
    count: u64,
}

#[derive(Serialize, Deserialize)]
struct XattrLine {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name_b64: Option<String>,
    value: String,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference
fn is_false(value: &bool) -> bool {
    !value
}

/// Encodes the line of an entry, with its line end.
///
/// # Errors
/// [`FormatError::TooLarge`] if it is over [`MAX_ENTRY_BYTES`], which only extended attributes can make it.
pub fn entry_line(entry: &Entry) -> Result<Vec<u8>, FormatError> {
    let (path, path_b64) = to_text_or_base64(entry.path.as_bytes());
    let (link, link_b64) = match &entry.link {
        Some(link) => to_text_or_base64(link.as_bytes()),
        None => (None, None),
    };
    let mut line = EntryLine {
        path,
        path_b64,
        kind: entry.kind.name().to_owned(),
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: (entry.mtime.seconds, entry.mtime.nanoseconds),
        size: None,
        hash: None,
        chunks: None,
        chunk_list: None,
        holes: Vec::new(),
        target: None,
        target_b64: None,
        device: None,
        xattrs: entry
            .xattrs
            .iter()
            .map(|xattr| {
                let (name, name_b64) = to_text_or_base64(&xattr.name);
                XattrLine { name, name_b64, value: to_base64(&xattr.value) }
            })
            .collect(),
        link,
        link_b64,
        unread: entry.unread,
        unstable: entry.unstable,
    };
    match &entry.kind {
        EntryKind::File(content) => {
            line.size = Some(content.size);
            line.hash = Some(content.hash);
            line.holes = content.holes.iter().map(|hole| (hole.offset, hole.length)).collect();
            match &content.chunks {
                ChunkList::None | ChunkList::Whole => {}
                ChunkList::Inline(chunks) => line.chunks = Some(chunks.clone()),
                ChunkList::Pages { root, level, count } => {
                    line.chunk_list = Some(ChunkListLine { page: *root, level: *level, count: *count });
                }
            }
        }
        EntryKind::Symlink { target } => (line.target, line.target_b64) = to_text_or_base64(target),
        EntryKind::CharDevice(device) | EntryKind::BlockDevice(device) => {
            line.device = Some((device.major, device.minor));
        }
        EntryKind::Directory | EntryKind::Fifo | EntryKind::Socket => {}
    }
    let mut bytes = serde_json::to_vec(&line).map_err(json)?;
    bytes.push(b'\n');
    if bytes.len() > MAX_ENTRY_BYTES {
        return Err(FormatError::TooLarge { what: "entry", limit: MAX_ENTRY_BYTES as u64 });
    }
    Ok(bytes)
}

/// Decodes the line of an entry without its placements; a line end is allowed.
///
/// # Errors
/// What is wrong with it.
pub fn decode_entry_line(line: &[u8]) -> Result<Entry, FormatError> {
    let line: EntryLine = serde_json::from_slice(line).map_err(json)?;
    let path = tree_path(line.path, line.path_b64)?;
    let at = |rule: &str| broken(format!("entry {path:?}: {rule}"));
    let kind = match line.kind.as_str() {
        "file" => {
            let (Some(size), Some(hash)) = (line.size, line.hash) else {
                return Err(at("a file needs size and hash"));
            };
            let holes: Vec<Hole> =
                line.holes.iter().map(|(offset, length)| Hole { offset: *offset, length: *length }).collect();
            let data_bytes =
                size.checked_sub(check_holes(&holes, size).ok_or_else(|| at("holes out of order or range"))?);
            let chunks = match (line.chunks, line.chunk_list) {
                (None, None) if data_bytes == Some(0) => ChunkList::None,
                (None, None) if holes.is_empty() => ChunkList::Whole,
                (Some(chunks), None) if !chunks.is_empty() && chunks.len() <= MAX_INLINE_CHUNKS => {
                    ChunkList::Inline(chunks)
                }
                (None, Some(list)) if list.level <= MAX_LEVEL && list.count > 0 => {
                    ChunkList::Pages { root: list.page, level: list.level, count: list.count }
                }
                _ => return Err(at("bad list of chunks")),
            };
            EntryKind::File(FileContent { size, hash, chunks, holes })
        }
        "dir" => EntryKind::Directory,
        "symlink" => {
            let target = from_text_or_base64("link target", line.target, line.target_b64)?;
            if target.is_empty() || target.contains(&0) || target.len() > crate::tree_path::MAX_PATH_BYTES {
                return Err(at("bad link target"));
            }
            EntryKind::Symlink { target }
        }
        "fifo" => EntryKind::Fifo,
        "socket" => EntryKind::Socket,
        "char" | "block" => {
            let (major, minor) = line.device.ok_or_else(|| at("a device needs its number"))?;
            let device = DeviceNumber { major, minor };
            if line.kind == "char" { EntryKind::CharDevice(device) } else { EntryKind::BlockDevice(device) }
        }
        _ => return Err(FormatError::Unsupported(format!("entry {path:?} has the unknown kind {:?}", line.kind))),
    };
    if line.mode > 0o7777 || line.mtime.1 >= 1_000_000_000 {
        return Err(at("mode or time out of range"));
    }
    if path.is_root() && !matches!(kind, EntryKind::Directory) {
        return Err(at("the root is not a directory"));
    }
    let link = match (line.link, line.link_b64) {
        (None, None) => None,
        (text, base64) => {
            let link = tree_path(text, base64)?;
            if link > path || link.is_root() || matches!(kind, EntryKind::Directory) {
                return Err(at("bad hard-link group"));
            }
            Some(link)
        }
    };
    let mut xattrs = Vec::with_capacity(line.xattrs.len());
    for xattr in line.xattrs {
        let name = from_text_or_base64("attribute name", xattr.name, xattr.name_b64)?;
        if name.is_empty() || name.contains(&0) {
            return Err(at("bad attribute name"));
        }
        xattrs.push(Xattr { name, value: from_base64("attribute value", &xattr.value)? });
    }
    Ok(Entry {
        path,
        kind,
        mode: line.mode,
        uid: line.uid,
        gid: line.gid,
        mtime: FileTime { seconds: line.mtime.0, nanoseconds: line.mtime.1 },
        xattrs,
        link,
        unread: line.unread,
        unstable: line.unstable,
    })
}

fn tree_path(text: Option<String>, base64: Option<String>) -> Result<TreePath, FormatError> {
    TreePath::parse(from_text_or_base64("path", text, base64)?).map_err(|error| broken(error.to_string()))
}

/// Checks holes and returns how many bytes they are together.
fn check_holes(holes: &[Hole], size: u64) -> Option<u64> {
    let mut end = 0;
    let mut sum = 0;
    for (number, hole) in holes.iter().enumerate() {
        // Two that touch would be one, and one content would have two lines.
        if hole.length == 0 || hole.offset < end || (number > 0 && hole.offset == end) {
            return None;
        }
        end = hole.offset.checked_add(hole.length).filter(|end| *end <= size)?;
        sum += hole.length;
    }
    Some(sum)
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
    let placements: PlacementsIn = serde_json::from_slice(&body[lines_end + 1..]).map_err(json)?;
    let placements = Placements { packs: header.packs, chunks: placements.chunks, pages: placements.pages };
    let split = || lines.split_inclusive(|byte| *byte == b'\n');
    if split().nth(MAX_PAGE_LINES).is_some() {
        return Err(broken(format!("over {MAX_PAGE_LINES} lines")));
    }
    let below = header.level.wrapping_sub(1);
    let page = match (header.kind, header.level) {
        (Kind::Tree, 0) => Page::Entries(split().map(|line| placements.entry(line)).collect::<Result<_, _>>()?),
        (Kind::Tree, _) => Page::Children(split().map(|line| placements.child(line, below)).collect::<Result<_, _>>()?),
        (Kind::List, 0) => Page::Chunks(split().map(|line| placements.chunk_line(line)).collect::<Result<_, _>>()?),
        (Kind::List, _) => {
            Page::ListChildren(split().map(|line| placements.list_child(line, below)).collect::<Result<_, _>>()?)
        }
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

struct Placements {
    packs: Vec<PackName>,
    chunks: HashMap<ChunkId, ChunkRow>,
    pages: HashMap<PageId, PageRow>,
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

    fn entry(&self, line: &[u8]) -> Result<Placed, FormatError> {
        if line.len() > MAX_ENTRY_BYTES {
            return Err(FormatError::TooLarge { what: "entry", limit: MAX_ENTRY_BYTES as u64 });
        }
        let entry = decode_entry_line(line)?;
        let content = match entry.content() {
            None => Placement::Chunks(Vec::new()),
            Some(content) => {
                let placement = match &content.chunks {
                    ChunkList::None => Placement::Chunks(Vec::new()),
                    ChunkList::Whole => Placement::Chunks(vec![self.chunk(ChunkId::of_whole(content.hash))?]),
                    ChunkList::Inline(chunks) => {
                        Placement::Chunks(chunks.iter().map(|chunk| self.chunk(*chunk)).collect::<Result<_, _>>()?)
                    }
                    ChunkList::Pages { root, level, .. } => Placement::List(self.page(*root, *level)?),
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

    fn child(&self, line: &[u8], level: u8) -> Result<Child, FormatError> {
        let line: ChildLine = serde_json::from_slice(line).map_err(json)?;
        Ok(Child {
            last: tree_path(line.last, line.last_b64)?,
            page: self.page(line.page, level)?,
            entries: line.entries,
            bytes: line.bytes,
        })
    }

    fn chunk_line(&self, line: &[u8]) -> Result<(ChunkId, ChunkPlacement), FormatError> {
        let line: ChunkLine = serde_json::from_slice(line).map_err(json)?;
        let placement = self.chunk(line.chunk)?;
        if placement.bytes != line.bytes {
            return Err(broken(format!("chunk {} has two lengths", line.chunk)));
        }
        Ok((line.chunk, placement))
    }

    fn list_child(&self, line: &[u8], level: u8) -> Result<ListChild, FormatError> {
        let line: ListChildLine = serde_json::from_slice(line).map_err(json)?;
        Ok(ListChild {
            last: line.last_chunk,
            page: self.page(line.page, level)?,
            chunks: line.chunks,
            bytes: line.bytes,
        })
    }
}
