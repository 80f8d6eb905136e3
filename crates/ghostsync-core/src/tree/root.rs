//! The reference to a tree that a record carries: its root page, and the length of the pack that holds it, so that whoever
//! reads a small one needs a single request.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::format::commit::TreeRef;
use crate::format::page::PageRef;
use crate::id::PackName;
use crate::interrupt::Waiter;
use crate::store::{Store, keys};

/// Refers to a root. Its pack was made just now (`made` has the lengths), or is that of a tree that is at hand; else it
/// holds a page that used to be further down in one of them, and the store is asked.
///
/// # Errors
/// `Corrupt` if the pack is gone; the store's.
pub(crate) fn refer_to<'a>(
    root: &PageRef,
    made: &HashMap<PackName, u64>,
    at_hand: impl IntoIterator<Item = &'a TreeRef>,
    store: &Store,
    waiter: &Waiter,
) -> Result<TreeRef> {
    let pack = root.placement.pack;
    let known = || at_hand.into_iter().find(|tree| tree.pack == pack).map(|tree| tree.pack_length);
    let pack_length = match made.get(&pack).copied().or_else(known) {
        Some(length) => length,
        None => {
            let key = keys::meta_pack(pack);
            waiter.wait(store.size(&key))?.ok_or_else(|| Error::corrupt(format!("pack {key} is gone")))?
        }
    };
    Ok(TreeRef::to_root(root, pack_length))
}
