//! The probe against stores that break one promise each: the negative controls of the real ones.

use std::sync::Arc;

use ghostsync_core::format::config::CommitMode;
use ghostsync_core::store::{ProbeReport, Store, probe};
use ghostsync_core::testing::fault::{Failure, Fault, FaultStore, Operation};
use ghostsync_core::{ErrorKind, Result};
use object_store::ObjectStore;
use object_store::memory::InMemory;

/// Probes a store in which every call of a kind goes wrong in one way.
async fn probe_with(operation: Operation, fault: Fault) -> Result<Vec<String>> {
    let memory = Arc::new(InMemory::new());
    let faulty = FaultStore::new(memory, move |call| (call.operation == operation).then_some(fault));
    let report = probe(&Store::new(Arc::new(faulty), "test")).await?;
    let is_about_creating = operation == Operation::Create;
    assert_eq!(report.allows(CommitMode::Detect), is_about_creating, "{report:?}");
    assert!(!report.allows(CommitMode::Atomic), "{report:?}");
    Ok([report.broken, report.unusable].concat())
}

#[tokio::test]
async fn an_honest_store_passes_and_is_left_empty() {
    let memory = Arc::new(InMemory::new());
    let store = Store::new(Arc::clone(&memory) as Arc<dyn ObjectStore>, "test");
    assert_eq!(probe(&store).await.unwrap(), ProbeReport::default());
    assert!(futures::StreamExt::next(&mut memory.list(None)).await.is_none());
}

#[tokio::test]
async fn every_broken_promise_is_found() {
    for (operation, fault, begins) in [
        (Operation::Create, Fault::Overwrite, "create twice: expected the second to fail and to change nothing"),
        (Operation::Create, Fault::Race, "race on small keys of 100 bytes: expected exactly one of 8 writers"),
        (Operation::Create, Fault::Before(Failure::Exists), "create: expected a new key"),
        (Operation::Create, Fault::Before(Failure::Denied), "create: expected to be possible"),
        (Operation::List, Fault::ShortList, "list after write: expected all 70 keys; 1 are not listed"),
        (Operation::Delete, Fault::Before(Failure::NotFound), "read after delete"),
    ] {
        let broken = probe_with(operation, fault).await.unwrap();
        assert!(broken.first().is_some_and(|line| line.starts_with(begins)), "{operation:?} {fault:?}: {broken:?}");
    }
}

#[tokio::test]
async fn a_race_is_found_in_both_sizes_and_counted() {
    let raced = probe_with(Operation::Create, Fault::Race).await.unwrap();
    assert_eq!(raced.len(), 2, "{raced:?}");
    assert!(raced[0].ends_with("on 64 of 64 keys several did, up to 8 of 8"), "{raced:?}");
    assert!(raced[1].ends_with("on 4 of 4 keys several did, up to 8 of 8"), "{raced:?}");
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_is_no_finding() {
    for (operation, failure, kind) in [
        (Operation::Create, Failure::Timeout, ErrorKind::Unavailable),
        (Operation::Get, Failure::Server, ErrorKind::Unavailable),
        (Operation::Get, Failure::Denied, ErrorKind::Denied),
        (Operation::Put, Failure::Denied, ErrorKind::Denied),
    ] {
        let error = probe_with(operation, Fault::Before(failure)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{operation:?} {failure:?}");
    }
}
