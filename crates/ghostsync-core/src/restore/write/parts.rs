//! A file whose parts are written in any order, by any thread, each as soon as it is decoded: one that was cut in windows
//! of a fixed length, as databases are.
//!
//! Its chunks are not compared with their ids: the hash of the whole, put together from those of its parts, is the proof
//! for every byte, and the file gets its name only with that.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::unfinished::{Proof, write_all_at};
use super::{Blocks, FileJob, Piece, Stop, Writer};
use crate::entry::{Entry, FileContent, Hole};
use crate::error::Error;
use crate::format::page::ChunkPlacement;
use crate::id::{ChunkId, ContentHash, PART_BYTES, PartHash, Parts};
use crate::pack::{BlockRef, Mismatch};
use crate::restore::tally::Tally;

type Chunk = (ChunkId, ChunkPlacement);

/// A file of more holes is written in order.
const MAX_HOLES: usize = 16;

/// Neighbouring chunks of a file that lie side by side in one block.
struct Run<'a> {
    chunks: &'a [Chunk],
    content: &'a FileContent,
    /// Where their bytes belong in the file: more than one place if there are holes between.
    places: Vec<Range<u64>>,
}

/// The runs of chunks, the first of which begins at an offset of the file's data.
fn runs<'a>(content: &'a FileContent, mut offset: u64, chunks: &'a [Chunk]) -> impl Iterator<Item = Run<'a>> {
    let is_next = |(_, one): &Chunk, (_, next): &Chunk| {
        BlockRef::of(one) == BlockRef::of(next) && one.offset.checked_add(one.bytes) == Some(next.offset)
    };
    chunks.chunk_by(is_next).map(move |chunks| {
        let bytes = chunks.iter().map(|(_, placement)| u64::from(placement.bytes)).sum();
        let run = Run { chunks, content, places: places(&content.holes, offset, bytes) };
        offset = offset.saturating_add(bytes);
        run
    })
}

/// Where so many bytes at an offset of a file's data belong in the file, between its holes.
fn places(holes: &[Hole], offset: u64, bytes: u64) -> Vec<Range<u64>> {
    let (mut places, mut begin, mut left) = (Vec::new(), offset, bytes);
    for hole in holes {
        let before = hole.offset.saturating_sub(begin).min(left);
        if before > 0 {
            places.push(begin..begin + before);
            left -= before;
        }
        if left == 0 {
            return places;
        }
        begin = begin.max(hole.offset).saturating_add(hole.length);
    }
    places.push(begin..begin.saturating_add(left));
    places
}

impl Run<'_> {
    /// Where the first byte belongs, and where the last one ends.
    fn range(&self) -> Range<u64> {
        let places = self.places.first().zip(self.places.last());
        places.map_or(0..0, |(first, last)| first.start..last.end)
    }

    /// The parts of the file that they are in, if those hold nothing else.
    fn parts(&self) -> Option<impl Iterator<Item = Range<u64>> + use<>> {
        let (range, size, part_bytes) = (self.range(), self.content.size, PART_BYTES as u64);
        let begin = range.start - range.start % part_bytes;
        let end = range.end.checked_next_multiple_of(part_bytes)?.min(size);
        let is_hole = |range: Range<u64>| {
            let holds = |hole: &Hole| hole.offset <= range.start && hole.offset + hole.length >= range.end;
            range.is_empty() || self.content.holes.iter().any(holds)
        };
        let is_alone = range.end <= size && is_hole(begin..range.start) && is_hole(range.end..end);
        let part = move |begin: u64| begin..end.min(begin + part_bytes);
        is_alone.then(|| (begin..end).step_by(PART_BYTES).map(part))
    }

    /// The hash of a part of the file that these bytes are in.
    fn hash(&self, part: Range<u64>, data: &[u8]) -> Option<PartHash> {
        if let [only] = &self.places[..]
            && only.start <= part.start
            && only.end >= part.end
        {
            let begin = usize::try_from(part.start - only.start).ok()?;
            return PartHash::of(part.start, data.get(begin..begin + usize::try_from(part.end - part.start).ok()?)?);
        }
        // Zeros where there is a hole.
        let mut bytes = vec![0; usize::try_from(part.end - part.start).ok()?];
        for (place, data) in self.pieces(data) {
            let (begin, end) = (place.start.max(part.start), place.end.min(part.end));
            if begin < end {
                let at = |from: u64, to: u64| usize::try_from(to - from).ok();
                let data = data.get(at(place.start, begin)?..at(place.start, end)?)?;
                bytes.get_mut(at(part.start, begin)?..at(part.start, end)?)?.copy_from_slice(data);
            }
        }
        PartHash::of(part.start, &bytes)
    }

    /// Cuts the bytes to their places.
    fn pieces<'d>(&self, mut data: &'d [u8]) -> impl Iterator<Item = (Range<u64>, &'d [u8])> {
        self.places.iter().map(move |place| {
            let bytes = usize::try_from(place.end - place.start).unwrap_or(usize::MAX);
            let (now, later) = data.split_at(bytes.min(data.len()));
            data = later;
            (place.clone(), now)
        })
    }
}

/// How far a file in parts has come.
#[derive(Debug)]
pub(super) struct InParts {
    hashes: Parts,
    /// Not all of it came in whole parts: what was written is read again.
    is_read_again: bool,
    pieces: u32,
    /// How many there will be, once the last one has come.
    all_pieces: Option<u32>,
}

impl InParts {
    fn begin(content: &FileContent) -> Result<Proof, Stop> {
        let hashes = Parts::new(content.size).ok_or(Mismatch::TooLong)?;
        Ok(Proof::InParts(Self { hashes, is_read_again: false, pieces: 0, all_pieces: None }))
    }

    /// A piece is written: `None` for one that was not made of whole parts. Tells whether it was the last to come.
    fn add(&mut self, piece: &Piece, hashes: Option<Vec<PartHash>>) -> bool {
        self.is_read_again |= hashes.is_none();
        hashes.into_iter().flatten().for_each(|hash| self.hashes.add(hash));
        self.pieces += 1;
        self.all_pieces = self.all_pieces.or(piece.last.then_some(piece.number + 1));
        self.all_pieces == Some(self.pieces)
    }

    /// Checks the whole.
    pub(super) fn finish(&mut self, entry: &Entry, file: &OwnedFd) -> Result<(), Stop> {
        let content = entry.content().ok_or_else(|| Stop::Ended(Error::internal("not a regular file")))?;
        let hash = if self.is_read_again {
            hash_of(file).map_err(|error| Stop::Io("read", error))?
        } else {
            self.hashes.finish().ok_or(Mismatch::TooShort)?
        };
        if hash == content.hash { Ok(()) } else { Err(Mismatch::Hash.into()) }
    }
}

fn hash_of(file: &OwnedFd) -> io::Result<ContentHash> {
    let (mut hasher, mut buffer, mut offset) = (blake3::Hasher::new(), vec![0; 1 << 20], 0);
    loop {
        match rustix::io::pread(file, &mut buffer[..], offset) {
            Ok(0) => return Ok(ContentHash::from_hasher(&hasher)),
            Ok(bytes) => {
                hasher.update(&buffer[..bytes]);
                offset += bytes as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

impl FileJob {
    /// Whether the file, which begins with these chunks, is to be written in parts.
    pub(in crate::restore) fn comes_in_parts(&self, first: &[Chunk]) -> bool {
        let part_bytes = PART_BYTES as u64;
        self.entry.content().is_some_and(|content| {
            // A part without any data would be nobody's.
            let has_data = |hole: &Hole| {
                let (begin, end) = (hole.offset, hole.offset + hole.length);
                let part = begin - begin % part_bytes;
                let part = part..content.size.min(part + part_bytes);
                end <= part.end && (begin > part.start || end < part.end)
            };
            content.size > part_bytes
                && first.len() > 1
                && content.holes.len() <= MAX_HOLES
                && content.holes.iter().all(has_data)
                && runs(content, 0, first).all(|run| run.parts().is_some())
        })
    }
}

impl Writer {
    /// Writes a piece that begins at an offset of its file, and finishes the file if it is the last to come.
    pub(super) fn write_in_parts(
        &self,
        piece: &Piece,
        offset: u64,
        blocks: &Blocks,
        tally: &mut Tally,
    ) -> Result<(), Stop> {
        piece.look_at_blocks(blocks).map_err(Stop::Damage)?;
        let job = &piece.job;
        let content = job.entry.content().ok_or_else(|| Stop::Ended(Error::internal("not a regular file")))?;
        let file = job.with_file(InParts::begin, |file| Ok(Arc::clone(&file.handle)))?;
        let mut hashes = Some(Vec::new());
        for run in runs(content, offset, &piece.chunks) {
            if run.range().end > content.size {
                return Err(Mismatch::TooLong.into());
            }
            let block = self.block(run.chunks, blocks)?;
            let data = block.unverified(run.chunks).map_err(Stop::Damage)?;
            match (&mut hashes, run.parts()) {
                (Some(hashes), Some(parts)) => hashes.extend(parts.filter_map(|part| run.hash(part, data))),
                _ => hashes = None,
            }
            for (place, data) in run.pieces(data) {
                write_all_at(&*file, data, place.start).map_err(|error| Stop::Io("write", error))?;
            }
            self.step(data.len() as u64)?;
        }
        let is_last = job.with_file(InParts::begin, |file| match &mut file.proof {
            Proof::InParts(parts) => Ok(parts.add(piece, hashes)),
            Proof::InOrder(_) => Err(Stop::Ended(Error::internal("a file in order is written in parts"))),
        })?;
        if is_last {
            job.take()?.finish(&job.entry, &self.user, &mut tally.unsettable, &|bytes| self.step(bytes))?;
            job.written();
            tally.written += 1;
            self.advance(1, 0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_names, file_job, put, write, writer};
    use super::super::{Afterwards, Window};
    use bytes::Bytes;

    use super::*;
    use crate::entry::{EntryKind, Hole};
    use crate::error::{ErrorKind, Result};
    use crate::pack::Damage;
    use crate::restore::links::Original;
    use crate::restore::tests::{file, temporary_root};
    use crate::store::StoredRange;
    use crate::testing::tree::noise;
    use crate::tree_path::TreePath;

    /// Blocks of some windows each, and one that is no window.
    const BLOCKS: [usize; 6] = [8, 1, 3, 8, 2, 5];
    const LAST_BYTES: usize = 1000;

    /// The content of each block.
    fn contents() -> Vec<Vec<u8>> {
        let block = |(number, windows): (usize, &usize)| {
            noise(number as u64, windows * PART_BYTES + if number + 1 == BLOCKS.len() { LAST_BYTES } else { 0 })
        };
        BLOCKS.iter().enumerate().map(block).collect()
    }

    /// A window for each block, all of one file, after `spoil`; and a link to it.
    fn restored(spoil: impl Fn(&mut Vec<Window>), keep_going: bool) -> (tempfile::TempDir, Result<Tally>) {
        let (folder, root) = temporary_root();
        let contents = contents();
        let job = file_job(&root, file("a", &contents.concat()));
        let mut windows = Vec::new();
        let mut offset = 0;
        for (number, content) in contents.iter().enumerate() {
            let mut window = Window::default();
            let chunks = put(&mut window.blocks, number as u32, &content.chunks(PART_BYTES).collect::<Vec<_>>());
            let (job, last) = (Arc::clone(&job), number + 1 == contents.len());
            window.pieces.push(Piece { job, number: number as u32, chunks, offset: Some(offset), last, damage: None });
            offset += content.len() as u64;
            windows.push(window);
        }
        spoil(&mut windows);
        let path = TreePath::parse("link").expect("a path");
        let link = Afterwards::Link { original: Original::Job(job), path, directory: root };
        windows.push(Window { afterwards: vec![link], ..Window::default() });
        let result = write(&writer(keep_going), windows);
        (folder, result)
    }

    /// Gives a window this content, in two blocks that hold no whole part.
    fn cut_oddly(window: &mut Window, content: &[u8]) {
        let chunks = [&content[..7], &content[7..]].into_iter().zip(50..);
        let chunks = chunks.map(|(part, number)| put(&mut window.blocks, number, &[part]));
        window.pieces[0].chunks = chunks.collect::<Vec<_>>().concat();
    }

    #[test]
    fn a_file_in_parts_is_whole_whichever_thread_is_first() {
        for _ in 0..30 {
            let (folder, result) = restored(|_| (), false);
            assert_eq!(result.expect("writes").written, 2);
            assert_names(&folder, &["a", "link"]);
            assert!(std::fs::read(folder.path().join("link")).expect("is there") == contents().concat());
        }
    }

    #[test]
    fn what_comes_in_no_whole_parts_is_read_again() {
        let odd = |windows: &mut Vec<Window>| {
            cut_oddly(&mut windows[1], &contents()[1]);
        };
        let (folder, result) = restored(odd, false);
        assert_eq!(result.expect("writes").written, 2);
        assert!(std::fs::read(folder.path().join("a")).expect("is there") == contents().concat());
    }

    #[test]
    fn anything_but_the_promised_content_gets_no_name_and_one_complaint() {
        type Spoil = fn(&mut Vec<Window>);
        let spoils: [(&str, &str, Spoil); 8] = [
            ("another block", "does not match its hash", |windows| {
                windows[3].pieces[0].chunks = put(&mut windows[3].blocks, 50, &[&noise(99, 8 * PART_BYTES)]);
            }),
            ("another block in no parts", "does not match its hash", |windows| {
                cut_oddly(&mut windows[1], &noise(99, PART_BYTES));
            }),
            ("no frame", "block at byte 0", |windows| {
                windows[2]
                    .blocks
                    .values_mut()
                    .for_each(|block| *block = Ok(StoredRange::Received(Bytes::from_static(b"no frame"))));
            }),
            ("a block that ends early", "ends before its chunks do", |windows| {
                windows[2].pieces[0].chunks.iter_mut().for_each(|(_, placement)| placement.offset += 1);
            }),
            ("chunks too few", "shorter than its size", |windows| windows[5].pieces[0].chunks.truncate(2)),
            ("chunks too many", "longer than its size", |windows| {
                let again = windows[5].pieces[0].chunks[0];
                windows[5].pieces[0].chunks.push(again);
            }),
            ("a lost list", "lost", |windows| {
                let damage = Damage { object: "list".into(), reason: "lost".into(), missing: false };
                windows[4].pieces[0].damage = Some(damage);
            }),
            ("two lost blocks", "gone", |windows| {
                let damage = Damage { object: "pack".into(), reason: "gone".into(), missing: true };
                for window in &mut windows[2..4] {
                    window.blocks.values_mut().for_each(|block| *block = Err(damage.clone()));
                }
            }),
        ];
        for (what, reason, spoil) in spoils {
            for _ in 0..5 {
                let (folder, result) = restored(spoil, true);
                let tally = result.expect(what);
                assert!(tally.damaged && tally.written == 0, "{what}");
                // The file's, and that of the link to it.
                assert_eq!(tally.problems.len(), 2, "{what}: {:?}", tally.problems);
                assert!(format!("{:?}", tally.problems).contains(reason), "{what}: {:?}", tally.problems);
                assert_names(&folder, &[]);
                let (folder, result) = restored(spoil, false);
                assert_eq!(result.expect_err(what).kind(), ErrorKind::Corrupt, "{what}");
                assert_names(&folder, &[]);
            }
        }
    }

    #[test]
    fn only_what_is_cut_in_windows_comes_in_parts() {
        let (_folder, root) = temporary_root();
        let mut blocks = Blocks::new();
        let content = noise(1, 3 * PART_BYTES + 5);
        // Each list of ends is a block.
        let mut cut = |ends: &[&[usize]]| {
            let (mut begin, mut chunks) = (0, Vec::new());
            for (number, ends) in ends.iter().enumerate() {
                let parts = ends.iter().map(|end| &content[std::mem::replace(&mut begin, *end)..*end]);
                chunks.extend(put(&mut blocks, number as u32, &parts.collect::<Vec<_>>()));
            }
            chunks
        };
        let job = file_job(&root, file("a", &content));
        let (size, windows) = (content.len(), cut(&[&[PART_BYTES, 2 * PART_BYTES], &[3 * PART_BYTES, content.len()]]));
        assert!(job.comes_in_parts(&windows) && job.comes_in_parts(&windows[..3]));
        // Smaller ones that are side by side are as good; for themselves they are not.
        let halves = cut(&[&[PART_BYTES / 2, PART_BYTES], &[size]]);
        assert!(job.comes_in_parts(&halves) && !job.comes_in_parts(&halves[1..]));
        assert!(job.comes_in_parts(&cut(&[&[5, 7, size]])), "one block, whatever it is cut in");
        assert!(!job.comes_in_parts(&cut(&[&[5], &[7, size]])));
        assert!(!job.comes_in_parts(&cut(&[&[size]])) && !job.comes_in_parts(&[]));
        // Of a single part the whole is the only hash, however it was cut.
        for (size, expected) in [(100, false), (PART_BYTES, false), (PART_BYTES + 1, true)] {
            let job = file_job(&root, file("a", &content[..size]));
            assert_eq!(job.comes_in_parts(&cut(&[&[50, size]])), expected, "{size} bytes");
        }
        let sparse = |holes: &[(u64, u64)]| {
            let mut entry = file("a", &content);
            if let EntryKind::File(file) = &mut entry.kind {
                file.holes = holes.iter().map(|(begin, end)| Hole { offset: *begin, length: end - begin }).collect();
            }
            file_job(&root, entry)
        };
        let (part, size) = (PART_BYTES as u64, size as u64);
        // The data of the first two parts, less what is a hole of them.
        let less = cut(&[&[PART_BYTES - 5, 2 * PART_BYTES - 5]]);
        for hole in [(0, 5), (7, 12), (part - 5, part)] {
            assert!(sparse(&[hole]).comes_in_parts(&less), "{hole:?}");
            assert!(!sparse(&[hole]).comes_in_parts(&windows), "{hole:?}");
        }
        for hole in [(part, 2 * part), (part - 1, part + 4), (3 * part, size)] {
            assert!(!sparse(&[hole]).comes_in_parts(&less[..1]), "{hole:?}");
        }
        let many: Vec<(u64, u64)> = (0..17).map(|number| (2 * part + 3 * number, 2 * part + 3 * number + 1)).collect();
        assert!(sparse(&many[1..]).comes_in_parts(&windows[..2]) && !sparse(&many).comes_in_parts(&windows[..2]));
    }

    #[test]
    fn holes_in_parts_stay_holes() {
        const PARTS: usize = 20;
        let part = PART_BYTES as u64;
        let size = PARTS as u64 * part - 30_000;
        let holes = [(0, 4096), (5 * part + 4096, 5 * part + 8192), (10 * part - 8192, 10 * part), (size - 8192, size)];
        let mut content = noise(1, size as usize);
        holes.iter().for_each(|(begin, end)| content[*begin as usize..*end as usize].fill(0));
        let mut entry = file("a", &content);
        if let EntryKind::File(file) = &mut entry.kind {
            file.holes = holes.iter().map(|(begin, end)| Hole { offset: *begin, length: end - begin }).collect();
        }
        let is_data = |at: usize| !holes.iter().any(|(begin, end)| (*begin..*end).contains(&(at as u64)));
        let window = |number: usize| -> Vec<u8> {
            let range = number * PART_BYTES..content.len().min((number + 1) * PART_BYTES);
            range.filter(|at| is_data(*at)).map(|at| content[at]).collect()
        };
        for wrong in [None, Some(0), Some(5), Some(19)] {
            let (folder, root) = temporary_root();
            let job = file_job(&root, entry.clone());
            let (mut windows, mut offset) = (Vec::new(), 0);
            for (number, first) in (0..PARTS).step_by(3).enumerate() {
                let mut parts: Vec<Vec<u8>> = (first..PARTS.min(first + 3)).map(window).collect();
                if let Some(wrong) = wrong.filter(|wrong| (first..first + 3).contains(wrong)) {
                    parts[wrong - first][17] ^= 1;
                }
                let mut restored = Window::default();
                let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
                let chunks = put(&mut restored.blocks, number as u32, &parts);
                assert!(number > 0 || job.comes_in_parts(&chunks));
                let (job, last) = (Arc::clone(&job), first + 3 >= PARTS);
                restored.pieces.push(Piece {
                    job,
                    number: number as u32,
                    chunks,
                    offset: Some(offset),
                    last,
                    damage: None,
                });
                offset += parts.iter().map(|part| part.len() as u64).sum::<u64>();
                windows.push(restored);
            }
            let result = write(&writer(false), windows);
            if wrong.is_some() {
                assert!(result.expect_err("another content").to_string().contains("does not match its hash"));
                assert_names(&folder, &[]);
            } else {
                assert_eq!(result.expect("writes").written, 1);
                let path = folder.path().join("a");
                assert!(std::fs::read(&path).expect("is there") == content);
                let kept = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&path).expect("is there")) * 512;
                assert!(kept < size, "{kept} of {size} bytes");
            }
        }
    }
}
