//! Lines that are slow, break or lead nowhere, and a store that is busy: a stub of one, and the real command.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::gcs_stub::{BUCKET, Deed, GcsStub};
use crate::http_stub::Asked;
use crate::sandbox::{Ran, Sandbox};

/// A repository on a stub that does as it is told once it is asked to.
struct OnStub {
    sandbox: Sandbox,
    stub: GcsStub,
    begun: Arc<AtomicBool>,
}

impl OnStub {
    /// A repository with a snapshot of one file.
    fn new(file: &[u8], deed: impl Fn(&Asked) -> Deed + Send + Sync + 'static) -> Self {
        let begun = Arc::new(AtomicBool::new(false));
        let has_begun = Arc::clone(&begun);
        let stub =
            GcsStub::doing(move |asked| if has_begun.load(Ordering::SeqCst) { deed(asked) } else { Deed::Answer });
        let on_stub = Self { sandbox: Sandbox::new(), stub, begun };
        on_stub.sandbox.write("source/file", file);
        for args in [&["init", "--skip-probe"][..], &["backup", "source"]] {
            let ran = on_stub.run(args);
            assert_eq!(ran.code, 0, "{}", ran.stderr);
        }
        on_stub.begun.store(true, Ordering::SeqCst);
        on_stub
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.sandbox.on_store(&format!("gs://{BUCKET}/r"), &self.stub.variables(), args)
    }

    fn reads_of_packs(&self) -> usize {
        self.stub.asked().iter().filter(|asked| is_pack(asked) && asked.method == "GET").count()
    }
}

/// What a restore of one file reads: its content; the page is in the cache.
const READS_OF_PACKS: usize = 1;

/// Content that does not compress.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

fn is_pack(asked: &Asked) -> bool {
    asked.key().contains("/packs/")
}

#[test]
fn a_store_that_never_answers_is_given_up_in_the_time_for_which_it_is_tried() {
    let store = OnStub::new(b"x", |_| Deed::Stall);
    let begun = Instant::now();
    let ran = store.run(&["snapshots", "--retry-time", "1s"]);
    assert_eq!(ran.code, 13, "{}", ran.stderr);
    assert!(ran.stderr.contains("in gs://stubbed/r: the store could not be reached"), "{}", ran.stderr);
    assert!(ran.stderr.contains("--retry-time says how long to try"), "{}", ran.stderr);
    // A silent answer is waited for at least 5 s, and the rest is the machine's.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn a_store_that_dies_while_a_pack_is_written_is_given_up_too() {
    let dead = AtomicBool::new(false);
    let store = OnStub::new(b"x", move |asked| {
        if asked.method == "PUT" && is_pack(asked) {
            dead.store(true, Ordering::SeqCst);
        }
        if dead.load(Ordering::SeqCst) { Deed::Stall } else { Deed::Answer }
    });
    let before = store.stub.keys();
    store.sandbox.write("source/new", noise(100_000));
    let begun = Instant::now();
    let ran = store.run(&["backup", "source", "--retry-time", "1s"]);
    assert_eq!(ran.code, 13, "{}", ran.stderr);
    assert!(ran.stderr.contains("the store could not be reached"), "{}", ran.stderr);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert_eq!(store.stub.keys(), before, "nothing was published");
}

#[test]
fn a_busy_store_is_asked_again() {
    let busy = AtomicUsize::new(3);
    let store = OnStub::new(b"x", move |_| {
        let left = busy.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() { Deed::Refuse(503, "<Error><Code>SlowDown</Code></Error>") } else { Deed::Answer }
    });
    let asked_before = store.stub.asked().len();
    let ran = store.run(&["snapshots", "--retry-time", "10s"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.stdout.lines().count(), 2, "{}", ran.stdout);
    assert!(store.stub.asked().len() > asked_before + 3);
}

#[test]
fn a_busy_store_that_stays_so_is_given_up() {
    let store = OnStub::new(b"x", |_| Deed::Refuse(503, "<Error><Code>SlowDown</Code></Error>"));
    let ran = store.run(&["snapshots", "--retry-time", "1s"]);
    assert_eq!(ran.code, 13, "{}", ran.stderr);
    assert!(ran.stderr.contains("the store is busy or failing (SlowDown)"), "{}", ran.stderr);
}

#[test]
fn a_slow_line_is_not_cut_while_something_comes() {
    // Eight seconds: longer than the store is tried, and than it may be silent.
    let content = noise(400_000);
    let store = OnStub::new(&content, |asked| if is_pack(asked) { Deed::AnswerSlowly(50_000) } else { Deed::Answer });
    let ran = store.run(&["restore", "back", "--retry-time", "0"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(store.sandbox.tree("back") == store.sandbox.tree("source"));
    assert_eq!(store.reads_of_packs(), READS_OF_PACKS, "one that was cut would be followed by another");
}

#[test]
fn a_line_that_breaks_again_and_again_is_followed_to_the_end() {
    let content = noise(400_000);
    let store = OnStub::new(&content, |asked| if is_pack(asked) { Deed::BreakAfter(100_000) } else { Deed::Answer });
    // The client itself tries no second time.
    let ran = store.run(&["restore", "back", "--retry-time", "0"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(store.sandbox.tree("back") == store.sandbox.tree("source"));
    assert_eq!(store.reads_of_packs(), READS_OF_PACKS + 4, "pieces of 100,000 bytes");
}
