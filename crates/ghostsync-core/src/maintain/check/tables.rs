//! The tables of contents at the ends of packs, which only a repair would need.

use std::collections::BTreeMap;

use futures::StreamExt;
use object_store::path::Path as Key;

use super::find::{Pack, is_damage};
use crate::error::Result;
use crate::format::pack::{FOOTER_BYTES, TableOfContents};
use crate::interrupt::Interrupt;
use crate::store::{Store, keys};

/// Reads in flight.
const READS: usize = 4;
/// Most tables are shorter, and come in one read with the footer that says so.
const TAIL_BYTES: u64 = 64 << 10;

/// Reads the tables of packs that are there; tells by key which are damaged, and how.
pub(super) async fn check(
    store: &Store,
    packs: &BTreeMap<Pack, Option<u64>>,
    interrupt: &Interrupt,
) -> Result<Vec<(String, String)>> {
    let mut damaged = Vec::new();
    let there = packs.iter().filter_map(|((pack, is_data), size)| {
        let key = if *is_data { keys::data_pack(*pack) } else { keys::meta_pack(*pack) };
        // A pack that is missing is told of by what needs it.
        Some((key, (*size)?))
    });
    let mut tables = futures::stream::iter(there)
        .map(|(key, size)| async move { (read_table(store, &key, size).await, key) })
        .buffered(READS);
    while let Some((table, key)) = tables.next().await {
        interrupt.check()?;
        match table {
            Ok(_) => {}
            Err(error) if is_damage(&error) => {
                damaged.push((key.to_string(), format!("only a repair would need it, but {error}")));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(damaged)
}

/// Reads the table of a pack of so many bytes.
///
/// # Errors
/// Those that [`is_damage`] tells, if there is none; the store's.
pub(in crate::maintain) async fn read_table(store: &Store, key: &Key, size: u64) -> Result<TableOfContents> {
    let mut tail = store.get_range(key, size.saturating_sub(TAIL_BYTES)..size).await?;
    let footer = tail.len().saturating_sub(FOOTER_BYTES);
    let length = TableOfContents::length_from_footer(tail.get(footer..).unwrap_or_default())?;
    if length > tail.len() as u64 {
        // A length that the pack does not have finds no table either.
        tail = store.get_range(key, size.saturating_sub(length)..size).await?;
    }
    Ok(TableOfContents::decode(&tail)?)
}
