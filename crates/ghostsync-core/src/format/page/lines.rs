//! The JSON lines of a page, and an entry as such a line.

use serde::{Deserialize, Serialize};

use super::{Child, MAX_ENTRY_BYTES, MAX_LEVEL, broken, json, plain};
use crate::entry::{
    ChunkList, DeviceNumber, Entry, EntryKind, FileContent, FileTime, Hole, MAX_FILE_BYTES, MAX_INLINE_CHUNKS, Xattr,
};
use crate::format::{FormatError, from_base64, from_text_or_base64, to_base64, to_text_or_base64};
use crate::id::{ChunkId, ContentHash, FrameHash, PackName, PageId};
use crate::tree_path::TreePath;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Tree,
    List,
}

pub(super) type ChunkRow = (u32, u64, u32, u32, u32);
pub(super) type PageRow = (u32, u64, u32, FrameHash);

#[derive(Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) level: u8,
    pub(super) packs: Vec<PackName>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ChildLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last_b64: Option<String>,
    pub(super) page: PageId,
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

impl ChildLine {
    pub(super) fn new(child: &Child) -> Self {
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
pub(super) struct ChunkLine {
    pub(super) chunk: ChunkId,
    pub(super) bytes: u32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ListChildLine {
    pub(super) last_chunk: ChunkId,
    pub(super) page: PageId,
    pub(super) chunks: u64,
    pub(super) bytes: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct EntryLine {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) path_b64: Option<String>,
    pub(super) kind: String,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) hash: Option<ContentHash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) chunks: Option<Vec<ChunkId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) chunk_list: Option<ChunkListLine>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) holes: Vec<(u64, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) target: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) target_b64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) device: Option<(u32, u32)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) xattrs: Vec<XattrLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) link: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) link_b64: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) unread: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) unstable: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ChunkListLine {
    pub(super) page: PageId,
    pub(super) level: u8,
    pub(super) count: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct XattrLine {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name_b64: Option<String>,
    pub(super) value: String,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference
fn is_false(value: &bool) -> bool {
    !value
}

/// Encodes the line of an entry, with its line end.
///
/// # Errors
/// [`FormatError::TooLarge`] if it is over [`MAX_ENTRY_BYTES`], which only extended attributes can make it, or the
/// file over [`MAX_FILE_BYTES`].
pub fn entry_line(entry: &Entry) -> Result<Vec<u8>, FormatError> {
    let mut line = Vec::new();
    put_entry_line(entry, &mut line)?;
    Ok(line)
}

/// The same, in the place of whatever `line` holds.
///
/// # Errors
/// As of [`entry_line`].
pub(crate) fn put_entry_line(entry: &Entry, line: &mut Vec<u8>) -> Result<(), FormatError> {
    line.clear();
    if plain::encode(entry, line).is_none() {
        *line = serialize_entry_line(entry)?;
    }
    Ok(())
}

/// The same for every entry, plain or not.
pub(super) fn serialize_entry_line(entry: &Entry) -> Result<Vec<u8>, FormatError> {
    if entry.size() > MAX_FILE_BYTES {
        return Err(FormatError::TooLarge { what: "file", limit: MAX_FILE_BYTES });
    }
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
    match std::str::from_utf8(line).ok().and_then(plain::decode) {
        Some(entry) => Ok(entry),
        None => parse_entry_line(line),
    }
}

/// The same for every line, plain or not.
pub(super) fn parse_entry_line(line: &[u8]) -> Result<Entry, FormatError> {
    let line: EntryLine = serde_json::from_slice(line).map_err(json)?;
    let path = tree_path(line.path, line.path_b64)?;
    let at = |rule: &str| broken(format!("entry {path:?}: {rule}"));
    let kind = match line.kind.as_str() {
        "file" => {
            let (Some(size), Some(hash)) = (line.size, line.hash) else {
                return Err(at("a file needs size and hash"));
            };
            if size > MAX_FILE_BYTES {
                return Err(at("larger than a file can be"));
            }
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

pub(super) fn tree_path(text: Option<String>, base64: Option<String>) -> Result<TreePath, FormatError> {
    TreePath::parse(from_text_or_base64("path", text, base64)?).map_err(|error| broken(error.to_string()))
}

/// Checks holes and returns how many bytes they are together.
pub(super) fn check_holes(holes: &[Hole], size: u64) -> Option<u64> {
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
