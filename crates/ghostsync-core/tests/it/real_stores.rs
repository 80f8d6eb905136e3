//! Every store that is installed, started on loopback: does it do what ghostsync asks, and does the probe tell the
//! honest ones from the others?
//!
//! The servers are started by `scripts/stores`; one that is not installed is skipped, visibly. A single node on
//! loopback proves nothing about a provider.

use std::time::Duration;

use futures::future::join_all;
use ghostsync_core::ErrorKind;
use ghostsync_core::format::config::CommitMode;
use ghostsync_core::store::{ProbeReport, Store, StoreSettings, open_url, probe};
use ghostsync_core::testing::{conformance, loopback};

use crate::gcs_stub::{BUCKET, GcsStub};
use crate::server::Server;

impl Server {
    fn url(&self, bucket: &str) -> String {
        if self.scheme == "http" {
            return format!("{}/some/prefix", self.value("HTTP_URL"));
        }
        format!("{}://{bucket}/some/prefix", self.scheme)
    }

    fn open(&self) -> Store {
        self.open_with(self.value("BUCKET"), &self.variables)
    }

    fn open_with(&self, bucket: &str, variables: &[(String, String)]) -> Store {
        open_url(&self.url(bucket), &loopback::settings(self.scheme, variables).unwrap(), false).unwrap()
    }
}

async fn assert_keeps_every_promise(store: &Store) {
    conformance::run_all(store).await.unwrap_or_else(|failed| panic!("{store:?}\n{failed}"));
    assert_eq!(probe(store).await.unwrap(), ProbeReport::default(), "{store:?}");
}

/// The kind of the error that a probe ends with, and its message.
async fn refusal(store: &Store) -> (ErrorKind, String) {
    let error = probe(store).await.unwrap_err();
    (error.kind(), error.to_string())
}

/// Wrong credentials and a missing bucket are told apart from a store that cannot be reached.
async fn assert_says_what_is_wrong(server: &Server, key: (&str, &str), secret: (&str, &str)) {
    let missing = server.open_with("missing", &server.variables);
    let (kind, text) = refusal(&missing).await;
    assert!(kind == ErrorKind::Denied && text.contains("the bucket does not exist"), "{kind:?} {text}");

    for (name, value) in [key, secret] {
        let store = server.open_with(server.value("BUCKET"), &server.variables_but(name, value));
        let (kind, text) = refusal(&store).await;
        let named = text.contains("key") || text.contains("signature");
        assert!(kind == ErrorKind::Denied && named, "{name}: {kind:?} {text}");
    }
}

const WRONG_KEY: (&str, &str) = ("AWS_ACCESS_KEY_ID", "GK000000000000000000000000");
const WRONG_SECRET: (&str, &str) =
    ("AWS_SECRET_ACCESS_KEY", "0000000000000000000000000000000000000000000000000000000000000000");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_every_promise() {
    assert_keeps_every_promise(&open_url("memory:", &StoreSettings::default(), false).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_keeps_every_promise_and_is_left_empty() {
    let folder = tempfile::tempdir().unwrap();
    let url = url::Url::from_file_path(folder.path().join("a repository")).unwrap();
    let store = open_url(url.as_str(), &StoreSettings::default(), true).unwrap();
    assert_keeps_every_promise(&store).await;
    let left = std::fs::read_dir(store.folder().unwrap()).unwrap().count();
    assert_eq!(left, 0, "no object, no unfinished file and no empty folder is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stub_of_gcs_keeps_every_promise() {
    let stub = GcsStub::start();
    let store =
        open_url(&format!("gs://{BUCKET}/some/prefix"), &loopback::settings("gs", &stub.variables()).unwrap(), false)
            .unwrap();
    assert_keeps_every_promise(&store).await;
    assert!(stub.keys().is_empty());
    assert!(stub.asked().iter().all(|asked| asked.key().is_empty() || asked.key().starts_with("some/prefix/")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts a server (just stores)"]
async fn ceph_keeps_every_promise() {
    let Some(server) = Server::start("ceph", "s3") else { return };
    assert_keeps_every_promise(&server.open()).await;
    assert_says_what_is_wrong(&server, WRONG_KEY, WRONG_SECRET).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts a server (just stores)"]
async fn azurite_keeps_every_promise() {
    let Some(server) = Server::start("azurite", "az") else { return };
    assert_keeps_every_promise(&server.open()).await;
    let secret = ("AZURE_STORAGE_ACCOUNT_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    assert_says_what_is_wrong(&server, secret, secret).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts a server (just stores)"]
async fn garage_overwrites_and_the_probe_says_so() {
    let Some(server) = Server::start("garage", "s3") else { return };
    let store = server.open();
    let report = probe(&store).await.unwrap();
    assert!(report.broken.iter().any(|line| line.contains("the object was overwritten")), "{report:?}");
    assert!(report.broken.iter().any(|line| line.starts_with("race on small keys")), "{report:?}");
    // What has nothing to do with creating works as it should.
    let failed = conformance::run_all(&store).await.unwrap_err();
    assert!(failed.lines().all(|line| line.contains("created") || line.contains("create")), "{failed}");
    assert_says_what_is_wrong(&server, WRONG_KEY, WRONG_SECRET).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts a server (just stores)"]
async fn s3s_races_and_the_probe_says_so() {
    let Some(server) = Server::start("s3s", "s3") else { return };
    let report = probe(&server.open()).await.unwrap();
    assert!(report.broken.iter().any(|line| line.starts_with("race on")), "{report:?}");
    assert!(!report.broken.iter().any(|line| line.starts_with("create twice")), "alone it is honest: {report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts a server (just stores)"]
async fn webdav_cannot_create_once_and_keeps_every_other_promise() {
    let Some(server) = Server::start("webdav", "http") else { return };
    let store = server.open();
    // Eight at once: none of the folders of this key is there yet.
    let outcomes = join_all((0..8).map(|_| probe(&store))).await;
    for report in outcomes {
        let report = report.unwrap();
        assert!(report.broken[0].starts_with("create: expected to be possible, as a plain write is"), "{report:?}");
        assert!(!report.allows(CommitMode::Atomic) && report.allows(CommitMode::Detect), "{report:?}");
    }
    let failed = conformance::run_all(&store).await.unwrap_err();
    assert_eq!(failed.lines().count(), 2, "{failed}");
    assert!(failed.lines().all(|line| line.contains("created once") || line.contains("race to create")), "{failed}");
}

#[tokio::test]
async fn a_store_that_nobody_runs_is_unavailable() {
    // A port that was free a moment ago, on which nothing listens any more.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let variables = [
        ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")),
        ("AWS_ACCESS_KEY_ID", "k".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "s".to_owned()),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
    ];
    let settings = loopback::settings("s3", &variables.map(|(name, value)| (name.to_owned(), value))).unwrap();
    let settings = StoreSettings { retry_time: Duration::ZERO, ..settings };
    let (kind, text) = refusal(&open_url("s3://b/p", &settings, false).unwrap()).await;
    assert_eq!(kind, ErrorKind::Unavailable);
    assert!(text.contains("in s3://b/p: the store could not be reached"), "{text}");
}
