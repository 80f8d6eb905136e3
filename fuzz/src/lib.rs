//! What must hold for every decoder and any bytes: it never panics, and what it accepts can be encoded and decoded
//! again to the same value.
//!
//! The fuzzer calls these functions, and so does a plain test of the library (`tests/it/decoders.rs`) on the seeds
//! and on random changes of them.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use ghostsync_core::format::commit::{LogEntry, check_branch_name, decode_log_entry};
use ghostsync_core::format::config::Config;
use ghostsync_core::format::frame as frames;
use ghostsync_core::format::pack::TableOfContents;
use ghostsync_core::format::page::{self as pages, Page, PageBuilder, decode_entry_line, decode_unverified};
use ghostsync_core::guard::{Cap, PlanId};
use ghostsync_core::id::{ChunkId, ContentHash, PackName, SessionId};
use ghostsync_core::receipt::Receipt;
use ghostsync_core::repository::Selector;
use ghostsync_core::tree_path::TreePath;
use serde_json::Value;

/// Checks what must hold for some bytes; panics if it does not.
pub type Check = fn(&[u8]);

/// Every decoder by the name of its target and of the folder of its seeds.
pub const DECODERS: &[(&str, Check)] = &[
    ("config", config),
    ("commit", commit),
    ("page", page),
    ("table", table),
    ("entry_line", entry_line),
    ("frame", frame),
    ("names", names),
    ("receipt", receipt),
    ("text", text),
];

/// `config.json`.
pub fn config(bytes: &[u8]) {
    let Ok(config) = Config::decode(bytes) else { return };
    let _ = config.check_writable();
    let encoded = config.encode().expect("what was decoded has a form");
    assert_eq!(Config::decode(&encoded).expect("its own form"), config);
}

/// An object under `log/`, as it is stored and as it is before compression.
pub fn commit(bytes: &[u8]) {
    stored_commit(bytes);
    stored_commit(&frames::compress("commit", bytes).expect("compresses"));
}

fn stored_commit(stored: &[u8]) {
    match decode_log_entry(stored) {
        // A fraction has no exact form, so the format has none; here they can still come in unknown fields.
        Ok(LogEntry::Commit(commit)) if !has_fraction(&serde_json::to_value(&commit).expect("a JSON form")) => {
            let encoded = commit.encode().expect("what was decoded has a form");
            assert_eq!(decode_log_entry(&encoded).expect("its own form"), LogEntry::Commit(commit));
        }
        Ok(LogEntry::Emptied(stub)) => {
            let encoded = stub.encode().expect("what was decoded has a form");
            assert_eq!(decode_log_entry(&encoded).expect("its own form"), LogEntry::Emptied(stub));
        }
        Ok(LogEntry::Commit(_)) | Err(_) => {}
    }
}

fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(values) => values.iter().any(has_fraction),
        Value::Object(fields) => fields.values().any(has_fraction),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

/// A page, as it is stored and as it is before compression.
pub fn page(bytes: &[u8]) {
    stored_page(bytes);
    stored_page(&frames::compress("page", bytes).expect("compresses"));
}

fn stored_page(stored: &[u8]) {
    let Ok((page, _, level)) = decode_unverified(stored) else { return };
    let builder = rebuild(&page, level);
    let encoded = builder.encode().expect("what was decoded has a form");
    let (again, id, same_level) = decode_unverified(&encoded.frame).expect("its own form");
    assert_eq!((&again, id, same_level), (&page, encoded.page, level));
    assert_eq!(rebuild(&again, level).encode().expect("a form").frame, encoded.frame);
}

fn rebuild(page: &Page, level: u8) -> PageBuilder {
    let mut builder = match page {
        Page::Entries(_) | Page::Children(_) => PageBuilder::tree(level),
        Page::Chunks(_) | Page::ListChildren(_) => PageBuilder::list(level),
    };
    match page {
        Page::Entries(entries) => {
            for placed in entries {
                builder.push_entry(&pages::entry_line(&placed.entry).expect("a form"), placed);
            }
        }
        Page::Children(children) => {
            children.iter().for_each(|child| builder.push_child(child).expect("a form"));
        }
        Page::Chunks(chunks) => {
            chunks.iter().for_each(|(chunk, placement)| builder.push_chunk(*chunk, *placement).expect("a form"));
        }
        Page::ListChildren(children) => {
            children.iter().for_each(|child| builder.push_list_child(child).expect("a form"));
        }
    }
    builder
}

/// The table of contents at the end of a pack, as it is stored and as it is before compression.
pub fn table(bytes: &[u8]) {
    stored_table(bytes);
    let payload = frames::compress("table of contents", bytes).expect("compresses");
    let length = u32::try_from(payload.len()).expect("small") + 8;
    let header = [0x184D_2A5E_u32.to_le_bytes(), length.to_le_bytes()].concat();
    let footer = [(length + 8).to_le_bytes(), *b"GSt1"].concat();
    stored_table(&[header, payload, footer].concat());
}

fn stored_table(stored: &[u8]) {
    let _ = TableOfContents::length_from_footer(&stored[stored.len().saturating_sub(8)..]);
    let Ok(table) = TableOfContents::decode(stored) else { return };
    let encoded = table.encode().expect("what was decoded has a form").concat();
    assert_eq!(TableOfContents::decode(&encoded).expect("its own form"), table);
}

/// One line of a leaf.
pub fn entry_line(bytes: &[u8]) {
    let Ok(entry) = decode_entry_line(bytes) else { return };
    let encoded = pages::entry_line(&entry).expect("what was decoded has a form");
    let again = decode_entry_line(&encoded).expect("its own form");
    assert_eq!(again, entry);
    assert_eq!(pages::entry_line(&again).expect("a form"), encoded);
}

/// A frame with a limit.
pub fn frame(bytes: &[u8]) {
    const LIMIT: u64 = 64 << 10;
    if let Ok(content) = frames::decompress("frame", bytes, LIMIT) {
        assert!(content.len() as u64 <= LIMIT && content.capacity() as u64 <= 4 * LIMIT);
    }
    let compressed = frames::compress("frame", bytes).expect("compresses");
    if bytes.len() as u64 <= LIMIT {
        assert_eq!(frames::decompress("frame", &compressed, LIMIT).expect("its own form"), bytes);
    }
}

/// Paths in a tree, and names of branches.
pub fn names(bytes: &[u8]) {
    if let Ok(path) = TreePath::parse(bytes) {
        assert_eq!(path.as_bytes(), bytes);
        assert_eq!(path.components().count(), path.depth());
        for name in path.components() {
            assert!(!name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0));
        }
        if let (Some(parent), Some(name)) = (path.parent(), path.name()) {
            assert_eq!(parent.join(name).as_ref(), Ok(&path));
            assert!(parent < path && path.starts_with(&parent) && !parent.starts_with(&path));
        } else {
            assert!(path.is_root());
        }
        assert!(!path.to_string().contains(char::is_control));
    }
    if let Ok(name) = std::str::from_utf8(bytes)
        && check_branch_name(name).is_ok()
    {
        assert!(name.len() <= 200 && TreePath::parse(bytes).is_ok());
        assert!(name.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase() && byte > b' '));
    }
}

/// A receipt, as it is and with the checksum that it should have.
pub fn receipt(bytes: &[u8]) {
    whole_receipt(bytes);
    let Ok(Value::Object(mut fields)) = serde_json::from_slice(bytes) else { return };
    fields.remove("checksum");
    let rest = serde_json::to_vec(&fields).expect("a JSON form");
    fields.insert("checksum".into(), ContentHash::of(&rest).to_string().into());
    whole_receipt(&serde_json::to_vec(&fields).expect("a JSON form"));
}

fn whole_receipt(bytes: &[u8]) {
    let Ok(receipt) = Receipt::decode(bytes) else { return };
    let encoded = receipt.encode().expect("what was decoded has a form");
    assert_eq!(Receipt::decode(&encoded).expect("its own form"), receipt);
}

/// What people and tables write as text: selectors, caps, plans, and names of things.
pub fn text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    same_again::<Selector>(text);
    same_again::<Cap>(text);
    same_again::<PlanId>(text);
    same_again::<PackName>(text);
    same_again::<ChunkId>(text);
    same_again::<SessionId>(text);
}

fn same_again<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    let Ok(value) = text.parse::<T>() else { return };
    let shown = value.to_string();
    match shown.parse::<T>() {
        Ok(again) => assert_eq!(again, value),
        Err(_) => panic!("{text:?} is shown as {shown:?}, which is not one"),
    }
}
