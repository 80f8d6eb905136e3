//! Strategies for trees and for changes; they shrink to few nodes with plain names.

use std::ops::Range;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{Change, Node, NodeKind, Piece, TreeModel};
use crate::entry::FileTime;

/// Random names: plain ones that often collide, any bytes, and the ones that programs trip over.
pub fn names() -> impl Strategy<Value = Vec<u8>> {
    let odd: Vec<Vec<u8>> = [
        &b"-rf"[..],
        b" ",
        b" x ",
        b"new\nline",
        b"\xff\xfe",
        b"caf\xc3\xa9",
        b"cafe\xcc\x81",
        b"a\\b",
        b"*",
        b"[x]",
        b"...",
        b"~",
        b"a!",
        b"a-b",
        b"a.b",
        b"\x01",
        b"\x7f",
        b"CACHEDIR.TAG",
        b".hidden",
        b"'\"",
        b"$(x)",
        b"%s",
        b"#c",
    ]
    .iter()
    .map(|name| name.to_vec())
    .chain([vec![b'n'; 255], vec![0xf0; 255]])
    .collect();
    let any = vec(any::<u8>(), 1..12).prop_map(|mut name| {
        name.iter_mut().filter(|byte| matches!(**byte, 0 | b'/')).for_each(|byte| *byte = b'_');
        if name.iter().all(|byte| *byte == b'.') { b"dots".to_vec() } else { name }
    });
    prop_oneof![4 => "[a-d]{1,2}".prop_map(String::into_bytes), 1 => any, 2 => select(odd)]
}

/// Random times, before 1970 and after 2038 among them, in the range that common file systems store.
fn times() -> impl Strategy<Value = FileTime> {
    let seconds = prop_oneof![
        3 => 1_500_000_000_i64..1_800_000_000,
        1 => -2_000_000_000_i64..0,
        1 => (1_i64 << 31)..(1_i64 << 33),
    ];
    let nanoseconds = prop_oneof![4 => 0_u32..1_000_000_000, 1 => Just(0)];
    (seconds, nanoseconds).prop_map(|(seconds, nanoseconds)| FileTime { seconds, nanoseconds })
}

/// Few seeds, so that equal content turns up under several names.
fn pieces() -> impl Strategy<Value = Piece> {
    prop_oneof![
        6 => (0_u64..6, 1_usize..200).prop_map(|(seed, bytes)| Piece::Data { seed, bytes }),
        3 => (0_u64..6, 200_usize..20_000).prop_map(|(seed, bytes)| Piece::Data { seed, bytes }),
        2 => (1_u64..32).prop_map(|blocks| Piece::Hole { bytes: blocks * 4096 }),
        1 => (1_u64..10_000).prop_map(|bytes| Piece::Hole { bytes }),
    ]
}

fn contents() -> impl Strategy<Value = Vec<Piece>> {
    let large = (0_u64..3, 1_000_000_usize..3_000_000).prop_map(|(seed, bytes)| vec![Piece::Data { seed, bytes }]);
    prop_oneof![40 => vec(pieces(), 0..4), 1 => large]
}

fn targets() -> impl Strategy<Value = Vec<u8>> {
    let odd =
        [&b"/nowhere/at/all"[..], b"/etc/hostname", b"..", ".".as_bytes(), b"../../..", b"new\nline", b"\xff", b"-"];
    prop_oneof![names(), select(odd.map(<[u8]>::to_vec).to_vec()), Just(vec![b't'; 4000])]
}

fn kinds() -> impl Strategy<Value = NodeKind> {
    prop_oneof![
        6 => contents().prop_map(NodeKind::File),
        3 => Just(NodeKind::Directory),
        1 => targets().prop_map(NodeKind::Symlink),
        1 => Just(NodeKind::Fifo),
    ]
}

/// The modes that let the owner go on working, so that a normal user can run the tests.
fn mode(is_directory: bool) -> impl Strategy<Value = u32> {
    let directory = vec![0o755, 0o700, 0o777, 0o1777, 0o2770, 0o711];
    let other = vec![0o644, 0o600, 0o755, 0o666, 0o4755, 0o2755, 0o1644, 0o6711];
    select(if is_directory { directory } else { other })
}

/// Random nodes.
pub fn nodes() -> impl Strategy<Value = Node> {
    (kinds(), times(), option::weighted(0.2, vec(any::<u8>(), 0..40))).prop_flat_map(|(kind, mtime, attribute)| {
        let has_attribute = matches!(kind, NodeKind::File(_) | NodeKind::Directory);
        mode(kind == NodeKind::Directory).prop_map(move |mode| Node {
            kind: kind.clone(),
            mode,
            mtime: Some(mtime),
            attribute: attribute.clone().filter(|_| has_attribute),
        })
    })
}

/// Random trees of about so many names, with hard links among them.
pub fn tree(size: Range<usize>) -> impl Strategy<Value = TreeModel> {
    let links = size.end / 8 + 1;
    let made = vec((any::<Index>(), names(), nodes()), size);
    let linked = vec((any::<Index>(), any::<Index>(), names()), 0..links);
    (made, linked).prop_map(|(made, linked)| {
        let mut tree = TreeModel::default();
        for (parent, name, node) in made {
            let change = Change::Add { parent, name, node };
            change.change(&mut tree);
        }
        for (file, parent, name) in linked {
            Change::Link { file, parent, name }.change(&mut tree);
        }
        tree
    })
}

/// Random changes; each fits any tree, and does nothing where there is nothing to do it to.
pub fn changes(count: Range<usize>) -> impl Strategy<Value = Vec<Change>> {
    let at = any::<Index>;
    let change = prop_oneof![
        3 => (at(), names(), nodes()).prop_map(|(parent, name, node)| Change::Add { parent, name, node }),
        3 => (at(), contents()).prop_map(|(file, pieces)| Change::Rewrite { file, pieces }),
        2 => (at(), pieces()).prop_map(|(file, piece)| Change::Grow { file, piece }),
        2 => (at(), 0_u8..100).prop_map(|(file, percent)| Change::Truncate { file, percent }),
        2 => at().prop_map(|node| Change::Delete { node }),
        3 => (at(), at(), names()).prop_map(|(node, parent, name)| Change::Rename { node, parent, name }),
        1 => (at(), mode(true)).prop_map(|(node, mode)| Change::Chmod { node, mode }),
        1 => (at(), times()).prop_map(|(node, mtime)| Change::Touch { node, mtime }),
        1 => (at(), vec(any::<u8>(), 0..40)).prop_map(|(node, value)| Change::Attribute { node, value }),
        2 => (at(), nodes()).prop_map(|(node, by)| Change::Replace { node, by }),
        1 => (at(), at(), names()).prop_map(|(file, parent, name)| Change::Link { file, parent, name }),
    ];
    vec(change, count)
}
