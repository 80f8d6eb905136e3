//! What a store's client sends, seen from the other end: how often it tries, and how it names itself.

use std::sync::atomic::{AtomicUsize, Ordering};

use ghostsync_core::ErrorKind;
use ghostsync_core::store::{ProbeReport, Store, StoreSettings, open_url, probe};
use ghostsync_core::testing::loopback;

use crate::gcs_stub::{BUCKET, Deed, GcsStub};
use crate::http_stub::Asked;

const BUSY: Deed = Deed::Refuse(503, "<Error><Code>SlowDown</Code></Error>");

fn open(stub: &GcsStub) -> Store {
    open_url(&format!("gs://{BUCKET}/p"), &settings(stub), false).unwrap()
}

fn settings(stub: &GcsStub) -> StoreSettings {
    loopback::settings("gs", &stub.variables()).unwrap()
}

fn count(stub: &GcsStub, what: impl Fn(&Asked) -> bool) -> usize {
    stub.asked().iter().filter(|asked| what(asked)).count()
}

#[tokio::test]
async fn a_create_is_one_request_and_never_repeated_by_the_client() {
    let stub = GcsStub::doing(|asked| if asked.creates() { BUSY } else { Deed::Answer });
    let store = open(&stub);
    let error = probe(&store).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("busy"), "{error}");
    // The probe itself tries a few times, and every try is one request.
    assert_eq!(count(&stub, Asked::creates) as u64, store.requests().put);
    assert!(count(&stub, Asked::creates) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_else_is_repeated_while_the_store_is_busy() {
    let requests = AtomicUsize::new(0);
    let stub = GcsStub::doing(move |asked| {
        let busy = !asked.creates() && requests.fetch_add(1, Ordering::SeqCst).is_multiple_of(20);
        if busy { BUSY } else { Deed::Answer }
    });
    assert_eq!(probe(&open(&stub)).await.unwrap(), ProbeReport::default());
}

#[tokio::test]
async fn a_create_that_is_not_possible_is_a_broken_promise() {
    let stub = GcsStub::doing(|asked| if asked.creates() { Deed::Refuse(501, "") } else { Deed::Answer });
    let report = probe(&open(&stub)).await.unwrap();
    assert_eq!(report.broken.len(), 1);
    assert!(report.broken[0].contains("status 501"), "{report:?}");
}

#[tokio::test]
async fn a_wrong_clock_is_named() {
    let stub = GcsStub::doing(|_| Deed::Refuse(403, "<Error><Code>RequestTimeTooSkewed</Code></Error>"));
    let error = probe(&open(&stub)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("clock"), "{error}");
}

#[tokio::test]
async fn a_client_names_itself_and_its_version() {
    let stub = GcsStub::start();
    probe(&open(&stub)).await.unwrap();
    let expected = format!("ghostsync/{}", env!("CARGO_PKG_VERSION"));
    assert!(stub.asked().iter().all(|asked| asked.header("user-agent") == Some(&expected)));
}
