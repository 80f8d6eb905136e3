//! Where a sparse file has no data.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;

use rustix::fs::{SeekFrom, Stat, seek};
use rustix::io::Errno;

use super::found::size_of;
use crate::entry::Hole;
use crate::error::Result;
use crate::interrupt::Interrupt;

/// The most holes that are recorded of one file; of more, the largest. The others are data, read as zeros.
pub(super) const MAX_HOLES: usize = 1024;

/// Finds the ranges of a file without data, sorted, up to the size that the stat tells.
///
/// None where the file system does not know; runs of zeros that were written are data. Moves the file's position.
///
/// # Errors
/// `Interrupted` alone: a file system that fails to tell has no holes.
pub(super) fn find(file: &File, stat: &Stat, interrupt: &Interrupt) -> Result<Vec<Hole>> {
    let size = size_of(stat);
    // Without fewer blocks than bytes there is nothing to look for, which saves nearly every file the calls.
    if u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) >= size {
        return Ok(Vec::new());
    }
    let mut largest = BinaryHeap::new();
    let mut offset = 0;
    while offset < size {
        interrupt.check()?;
        let Some((begin, end)) = next_hole(file, offset, size) else { break };
        largest.push(Reverse((end - begin, begin)));
        if largest.len() > MAX_HOLES {
            largest.pop();
        }
        offset = end;
    }
    let mut holes: Vec<_> = largest.into_iter().map(|Reverse((length, offset))| Hole { offset, length }).collect();
    holes.sort_unstable_by_key(|hole| hole.offset);
    Ok(holes)
}

/// The next hole at or after an offset; `None` at the end, and where the system does not tell or tells nonsense.
fn next_hole(file: &File, offset: u64, size: u64) -> Option<(u64, u64)> {
    let begin = seek(file, SeekFrom::Hole(offset)).ok().filter(|begin| (offset..size).contains(begin))?;
    match seek(file, SeekFrom::Data(begin)) {
        Ok(end) if end > begin => Some((begin, end.min(size))),
        // No data after this: a hole up to the end.
        Err(Errno::NXIO) => Some((begin, size)),
        _ => None,
    }
}
