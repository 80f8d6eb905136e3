//! Every decoder on the seeds of the fuzzer, and on random changes of them: some of what fuzzing finds, everywhere.

use std::fs;
use std::path::{Path, PathBuf};

use ghostsync_core::id::{PageId, RepositoryId, SessionId, SnapshotId};
use ghostsync_core::receipt::{DirectoryId, DirectoryMark, Receipt};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

#[allow(unreachable_pub, reason = "it is a library of its own there")]
#[path = "../../../../fuzz/src/lib.rs"]
mod checks;

/// Which golden files are the seeds of which target; text gives lines of its own.
const SEEDS: &[(&str, &[&str])] = &[
    ("config", &["repository/config.json"]),
    (
        "commit",
        &[
            "content/commit-1.json",
            "content/commit-3.json",
            "repository/log/00000000000000000001.json.zst",
            "repository/log/00000000000000000002.json.zst",
        ],
    ),
    ("page", &["content/meta-1.jsonl", "content/meta-2.jsonl", "content/meta-3.jsonl", "content/meta-5.jsonl"]),
    ("table", &["content/meta-table.json", PACK]),
    ("frame", &["repository/log/00000000000000000002.json.zst"]),
];

const PACK: &str = "repository/packs/00000000000000000001-22222222222222222222222222222222/000001.meta";

const NAMES: &[&str] = &["", "a", "a/hello.txt", "a!", "../a", "main", "fork/main/pod-1", "a//b", "\u{2028}"];

const TEXTS: &[&str] = &[
    "latest",
    "latest~3",
    "@2026-01-02T03:04:05+01:00",
    "9eba117a",
    "50%",
    "10",
    "0123456789abcdef",
    "00000000000000000007-01010101010101010101010101010101/000003",
    "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
];

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

fn receipt() -> Receipt {
    Receipt {
        repository: RepositoryId::from_bytes([1; 16]),
        branch: "main".into(),
        epoch: 1,
        snapshot: Some(SnapshotId::from_bytes([2; 32])),
        tree: Some(PageId::from_bytes([3; 32])),
        entries: 22,
        bytes: 6592,
        directory: DirectoryMark { id: DirectoryId { device: 4, inode: 5 }, born: None },
        finished: "2026-01-02T03:04:05Z".parse().expect("a time"),
        quarantined: None,
        quarantined_under: None,
        pending: Some(SessionId::from_bytes([6; 16])),
        unsettled: Vec::new(),
    }
}

/// The seeds as they should be, made from the golden files.
fn golden_seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let read = |name: &str| fs::read(golden.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut seeds = Vec::new();
    for (target, names) in SEEDS {
        for name in *names {
            seeds.push((*target, name.rsplit('/').next().expect("a name").to_owned(), read(name)));
        }
    }
    seeds.push(("receipt", "0".into(), receipt().encode().expect("encodes")));
    let leaf = read("content/meta-3.jsonl");
    let lines: Vec<_> = leaf.split_inclusive(|byte| *byte == b'\n').collect();
    for (number, line) in lines[1..lines.len() - 1].iter().enumerate() {
        seeds.push(("entry_line", number.to_string(), line.to_vec()));
    }
    for (target, texts) in [("names", NAMES), ("text", TEXTS)] {
        for (number, text) in texts.iter().enumerate() {
            seeds.push((target, number.to_string(), text.as_bytes().to_vec()));
        }
    }
    seeds
}

#[test]
fn the_seeds_are_made_from_the_golden_files() {
    for (target, name, bytes) in golden_seeds() {
        let path = corpus(target).join(name);
        if std::env::var_os("WRITE_GOLDEN").is_some() {
            fs::create_dir_all(corpus(target)).expect("made");
            fs::write(&path, &bytes).expect("written");
        }
        let seed = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(seed == bytes, "{} is not what the golden files give: write it with WRITE_GOLDEN=1", path.display());
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = fs::read_dir(corpus(target)).unwrap_or_else(|error| panic!("seeds of {target}: {error}"));
    let mut paths: Vec<_> = folder.map(|item| item.expect("a seed").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("a seed")).collect()
}

#[test]
fn every_decoder_takes_its_seeds() {
    for (target, check) in checks::DECODERS {
        let seeds = seeds(target);
        assert!(!seeds.is_empty(), "{target} has no seeds");
        seeds.iter().for_each(|seed| check(seed));
    }
}

/// One random change of bytes: where, as a part of 65,536, and what.
#[derive(Debug, Clone)]
enum Change {
    Set(u16, u8),
    Remove(u16, u8),
    Insert(u16, Vec<u8>),
    Repeat(u16, u8),
    CutOff(u16),
    /// A number or a word in place of the next one, where JSON has such.
    Replace(u16, &'static str),
}

fn change() -> impl Strategy<Value = Change> {
    let words = prop::sample::select(vec![
        "0",
        "-1",
        "1.5",
        "4294967296",
        "18446744073709551615",
        "1e999",
        "null",
        "true",
        "\"\"",
        "[]",
        "{}",
        "\"\\u0000\"",
    ]);
    prop_oneof![
        (any::<u16>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<u16>(), any::<u8>()).prop_map(|(at, count)| Change::Remove(at, count)),
        (any::<u16>(), prop::collection::vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (any::<u16>(), any::<u8>()).prop_map(|(at, count)| Change::Repeat(at, count)),
        any::<u16>().prop_map(Change::CutOff),
        (any::<u16>(), words).prop_map(|(at, word)| Change::Replace(at, word)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    let at = |part: u16| bytes.len() * usize::from(part) / 65_536;
    match change {
        Change::Set(part, byte) => {
            let at = at(*part);
            if let Some(place) = bytes.get_mut(at) {
                *place = *byte;
            }
        }
        Change::Remove(part, count) => {
            let at = at(*part);
            let end = (at + usize::from(*count)).min(bytes.len());
            bytes.drain(at..end);
        }
        Change::Insert(part, more) => {
            let at = at(*part);
            bytes.splice(at..at, more.iter().copied());
        }
        Change::Repeat(part, count) => {
            let at = at(*part);
            let end = (at + usize::from(*count)).min(bytes.len());
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        Change::CutOff(part) => bytes.truncate(at(*part)),
        Change::Replace(part, word) => {
            let is_value = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'"' | b'-');
            let begin = bytes.iter().skip(at(*part)).position(|byte| *byte == b':').map(|found| at(*part) + found + 1);
            if let Some(begin) = begin {
                let end = begin + bytes[begin..].iter().take_while(|byte| is_value(byte)).count();
                bytes.splice(begin..end, word.bytes());
            }
        }
    }
}

#[test]
fn no_change_of_a_seed_makes_a_decoder_panic() {
    for (target, check) in checks::DECODERS {
        let seed = prop::sample::select(seeds(target));
        let changes = prop::collection::vec(change(), 1..6);
        let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
        let run = TestRunner::new(config).run(&(seed, changes), |(mut bytes, changes)| {
            changes.iter().for_each(|change| apply(&mut bytes, change));
            check(&bytes);
            Ok(())
        });
        run.unwrap_or_else(|error| panic!("{target}: {error}"));
    }
}
