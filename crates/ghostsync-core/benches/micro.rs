//! Where the time of a backup and of a restore goes, one part at a time; `just micro` runs it, `bench/` measures whole
//! commands. Parts that only the crate itself can call are measured through the story that is little else:
//!
//! - walk and compare: the backup of a tree that did not change
//! - cut, hash and pack: the first backup of one large file that cannot be compressed
//! - read, compress and pack: the first backup of many small files
//! - fetch, verify and write: a restore
//!
//! The store is in memory, the directories are in `/dev/shm` where there is one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ghostsync_core::backup::{BackupOptions, backup};
use ghostsync_core::format::frame::{compress, decompress};
use ghostsync_core::format::page::{EncodedPage, PageBuilder, Placed, decode_unverified, entry_line};
use ghostsync_core::observer::NoObserver;
use ghostsync_core::repository::{CreateOptions, OpenOptions, Repository, Selector};
use ghostsync_core::restore::{RestoreOptions, restore};
use ghostsync_core::store::Store;
use ghostsync_core::tree_path::TreePath;
use object_store::memory::InMemory;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const SMALL_FILES: usize = 2000;
const LARGE_BYTES: usize = 32 << 20;
const BLOCK_BYTES: usize = 512 << 10;

/// The same bytes on every run: no compressor makes them smaller.
fn noise(bytes: usize) -> Vec<u8> {
    let mut output = vec![0; bytes];
    blake3::Hasher::new_derive_key("ghostsync micro-benchmarks").finalize_xof().fill(&mut output);
    output
}

/// Text that compresses about as a program does.
fn text(bytes: usize) -> Vec<u8> {
    let words = noise(bytes);
    let names = ["let", "path", "entry", "return", "the", "=", "chunk", "self.store", "\n", "Ok(())", "?;", "// why"];
    let mut text = Vec::with_capacity(bytes);
    for word in words {
        text.extend_from_slice(names[usize::from(word) % names.len()].as_bytes());
        text.push(b' ');
        if text.len() >= bytes {
            break;
        }
    }
    text.truncate(bytes);
    text
}

fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() }
}

/// Small files of text, 40 to a folder, 1 to 20 KiB.
fn small_files(root: &Path) {
    let text = text(20 << 10);
    for number in 0..SMALL_FILES {
        let within = root.join(format!("{:03}", number / 40));
        fs::create_dir_all(&within).unwrap();
        fs::write(within.join(format!("{number}.rs")), &text[number % 7..1024 + (number * 7919) % (19 << 10)]).unwrap();
    }
}

async fn repository() -> Repository {
    let store = Store::new(Arc::new(InMemory::new()), "memory");
    let create = CreateOptions { skip_probe: true, ..CreateOptions::default() };
    Repository::create(store, create, OpenOptions::default()).await.unwrap()
}

async fn back_up(repository: &Repository, source: &Path) {
    let report = backup(repository, source, BackupOptions::default(), Arc::new(NoObserver)).await.unwrap();
    assert!(report.problems.is_empty());
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame of 512 KiB");
    group.throughput(Throughput::Bytes(BLOCK_BYTES as u64));
    for (name, content) in [("text", text(BLOCK_BYTES)), ("noise", noise(BLOCK_BYTES))] {
        let frame = compress("block", &content).unwrap();
        group.bench_function(format!("compress {name}"), |bencher| {
            bencher.iter(|| compress("block", &content).unwrap())
        });
        group.bench_function(format!("decompress {name}"), |bencher| {
            bencher.iter(|| decompress("block", &frame, BLOCK_BYTES as u64).unwrap());
        });
    }
    group.finish();
}

fn pages(criterion: &mut Criterion, entries: &[Placed]) {
    let mut group = criterion.benchmark_group("page");
    group.throughput(Throughput::Elements(entries.len() as u64));
    let encoded = encode(entries);
    group.bench_function("encode", |bencher| bencher.iter(|| encode(entries)));
    group.bench_function("decode", |bencher| bencher.iter(|| decode_unverified(&encoded.frame).unwrap()));
    group.finish();
}

fn encode(entries: &[Placed]) -> EncodedPage {
    let mut page = PageBuilder::tree(0);
    for placed in entries {
        page.push_entry(&entry_line(&placed.entry).unwrap(), placed);
    }
    page.encode().unwrap()
}

/// The entries of the first page of the newest snapshot.
async fn first_page(repository: &Repository) -> Vec<Placed> {
    let state = repository.state().await.unwrap();
    let snapshot = state.select("main", &Selector::Latest(0)).unwrap();
    repository.entries(snapshot, &TreePath::root()).next_page().await.unwrap().unwrap()
}

fn first_backup(criterion: &mut Criterion, runtime: &Runtime, name: &str, source: &Path, bytes: u64) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes(bytes)).sample_size(10);
    group.bench_function("first backup", |bencher| {
        let empty = || runtime.block_on(repository());
        bencher.iter_batched(
            empty,
            |repository| runtime.block_on(back_up(&repository, source)),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn stories(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let base = folder();
    let large = base.path().join("large");
    fs::create_dir(&large).unwrap();
    fs::write(large.join("film"), noise(LARGE_BYTES)).unwrap();
    first_backup(criterion, &runtime, "cut, hash and pack 32 MiB", &large, LARGE_BYTES as u64);

    let small = base.path().join("small");
    small_files(&small);
    let bytes: u64 = folder_bytes(&small);
    first_backup(criterion, &runtime, "read, compress and pack 2,000 files", &small, bytes);

    let repository = runtime.block_on(repository());
    runtime.block_on(back_up(&repository, &small));
    pages(criterion, &runtime.block_on(first_page(&repository)));

    let mut group = criterion.benchmark_group("2,000 files");
    group.throughput(Throughput::Elements(SMALL_FILES as u64)).sample_size(20);
    group.bench_function("walk and compare", |bencher| bencher.iter(|| runtime.block_on(back_up(&repository, &small))));
    let mut number = 0;
    group.bench_function("fetch, verify and write", |bencher| {
        let place = || {
            number += 1;
            base.path().join(format!("restored-{number}"))
        };
        let write = |place: PathBuf| {
            fs::create_dir(&place).unwrap();
            let restored = restore(&repository, &place, RestoreOptions::default(), Arc::new(NoObserver));
            assert!(runtime.block_on(restored).unwrap().problems.is_empty());
            Restored(place)
        };
        bencher.iter_batched(place, write, BatchSize::PerIteration);
    });
    group.finish();
}

/// A restored tree, removed after its time was taken.
struct Restored(PathBuf);

impl Drop for Restored {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn folder_bytes(root: &Path) -> u64 {
    let entries = fs::read_dir(root).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.metadata().unwrap() {
            metadata if metadata.is_dir() => folder_bytes(&entry.path()),
            metadata => metadata.len(),
        })
        .sum()
}

criterion_group!(micro, frames, stories);
criterion_main!(micro);
