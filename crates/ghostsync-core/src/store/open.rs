//! From a URL and settings to a store. Reads no environment: the caller passes the variables that count.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::limit::LimitStore;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use tokio::sync::Semaphore;
use url::Url;

use super::cloud::{self, Clients};
use super::limit::RateLimitedStore;
use super::split::SplitStore;
use super::{Store, local, webdav};
use crate::error::{Error, Result};

/// How a store is reached.
#[derive(Clone)]
pub struct StoreSettings {
    /// Variables as each cloud's own tools expect them: `AWS_*`, `GOOGLE_*`, `AZURE_*`; and `WEBDAV_USERNAME`,
    /// `WEBDAV_PASSWORD`, `WEBDAV_ALLOW_HTTP`. Others are ignored.
    pub variables: Vec<(String, String)>,
    /// The most requests in flight; default 8.
    pub connections: usize,
    /// How long an unreachable store is tried; default 60 s. One attempt may be silent for half of it, but never
    /// for less than 5 s nor for more than a minute.
    pub retry_time: Duration,
    /// The most bytes per second that are sent.
    pub limit_upload: Option<u64>,
    /// The most bytes per second that are received.
    pub limit_download: Option<u64>,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            variables: Vec::new(),
            connections: 8,
            retry_time: Duration::from_secs(60),
            limit_upload: None,
            limit_download: None,
        }
    }
}

/// Shows the names of the variables alone: their values are secrets.
impl std::fmt::Debug for StoreSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.variables.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("StoreSettings")
            .field("variables", &names)
            .field("connections", &self.connections)
            .field("retry_time", &self.retry_time)
            .field("limit_upload", &self.limit_upload)
            .field("limit_download", &self.limit_download)
            .finish()
    }
}

const SUPPORTED: &str = "s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, https://host/path (WebDAV), \
     file:///path or a path";

/// What a URL means.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    S3 { bucket: String, prefix: Key },
    Gcs { bucket: String, prefix: Key },
    Azure { container: String, prefix: Key },
    WebDav { server: Url, prefix: Key },
    Folder(PathBuf),
    Memory,
}

/// Opens the store of a repository URL: `s3://bucket/prefix`, `gs://…`, `az://container/prefix`, `https://host/path`
/// (WebDAV), `file:///path`, `memory:` (for tests of one process; each call opens another, empty one), or a plain path. Makes no request, and
/// creates nothing but the folder of a local store when `create` is set.
///
/// # Errors
/// `Invalid` for a wrong scheme, URL or variable, `NotFound` for a local folder that is not there, `Denied` where no
/// credentials are given and none may be looked for.
pub fn open_url(url: &str, settings: &StoreSettings, create: bool) -> Result<Store> {
    if settings.connections == 0 {
        return Err(Error::invalid("at least one connection is needed"));
    }
    if settings.limit_upload == Some(0) || settings.limit_download == Some(0) {
        return Err(Error::invalid("a rate limit of 0 would never end"));
    }
    match parse(url)? {
        Place::S3 { bucket, prefix } => {
            let location = location("s3", &bucket, &prefix);
            Ok(remote(cloud::s3(&bucket, settings, &location)?, &prefix, settings, location))
        }
        Place::Gcs { bucket, prefix } => {
            let location = location("gs", &bucket, &prefix);
            Ok(remote(cloud::gcs(&bucket, settings, &location)?, &prefix, settings, location))
        }
        Place::Azure { container, prefix } => {
            let location = location("az", &container, &prefix);
            Ok(remote(cloud::azure(&container, settings, &location)?, &prefix, settings, location))
        }
        Place::WebDav { server, prefix } => {
            let location = format!("{server}{prefix}");
            Ok(remote(webdav::webdav(&server, settings, &location)?, &prefix, settings, location))
        }
        Place::Folder(path) => {
            let (store, folder) = local::folder(&path, create)?;
            let location = folder.display().to_string();
            let store: Arc<dyn ObjectStore> = Arc::new(store);
            Ok(Store::new(limited(Arc::clone(&store), settings), location).with_commit_handle(store).in_folder(folder))
        }
        Place::Memory => Ok(Store::new(limited(Arc::new(InMemory::new()), settings), "memory:").known_as(None)),
    }
}

fn parse(text: &str) -> Result<Place> {
    let Some((scheme, rest)) = text.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) else {
        return if text.is_empty() {
            Err(Error::invalid(format!("no repository is given; supported: {SUPPORTED}")))
        } else {
            Ok(Place::Folder(PathBuf::from(text)))
        };
    };
    let scheme = scheme.to_ascii_lowercase();
    match scheme.as_str() {
        "memory" if rest.is_empty() || rest == "//" => Ok(Place::Memory),
        "file" => parse_file(text),
        "s3" => parse_bucket(text).map(|(bucket, prefix)| Place::S3 { bucket, prefix }),
        "gs" => parse_bucket(text).map(|(bucket, prefix)| Place::Gcs { bucket, prefix }),
        "az" => parse_bucket(text).map(|(container, prefix)| Place::Azure { container, prefix }),
        "http" | "https" => parse_webdav(text),
        // A name with a colon in it, such as `backups:old/x`, is a path; with `//` it was meant to be a URL.
        _ if rest.starts_with("//") => {
            Err(Error::invalid(format!("the scheme {scheme:?} is not supported; supported: {SUPPORTED}")))
        }
        _ => Ok(Place::Folder(PathBuf::from(text))),
    }
}

fn is_scheme(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// Parses a URL that has nothing but a scheme, a host and a path. Never repeats the text: it might hold a secret.
fn parse_plain(text: &str) -> Result<Url> {
    let url = parse_url(text)?;
    if url.port().is_some() {
        return Err(Error::invalid("a repository URL has no port, unless it is of WebDAV"));
    }
    Ok(url)
}

fn parse_url(text: &str) -> Result<Url> {
    let url = Url::parse(text).map_err(|error| Error::invalid(format!("not a repository URL: {error}")))?;
    if !url.username().is_empty() || url.password().is_some() {
        let instead = if url.scheme().starts_with("http") { "; set WEBDAV_USERNAME and WEBDAV_PASSWORD" } else { "" };
        let reason = "credentials do not belong in a repository URL: it is shown in messages";
        return Err(Error::invalid(format!("{reason}{instead}")));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Error::invalid("a repository URL has no query and no fragment"));
    }
    Ok(url)
}

fn parse_prefix(url: &Url) -> Result<Key> {
    Key::from_url_path(url.path())
        .map_err(|error| Error::invalid(format!("not a prefix that an object key can begin with: {error}")))
}

fn parse_webdav(text: &str) -> Result<Place> {
    let mut server = parse_url(text)?;
    let prefix = parse_prefix(&server)?;
    server.set_path("");
    Ok(Place::WebDav { server, prefix })
}

fn parse_bucket(text: &str) -> Result<(String, Key)> {
    let url = parse_plain(text)?;
    let Some(bucket) = url.host_str().filter(|host| !host.is_empty()) else {
        return Err(Error::invalid(format!("the URL names no bucket; supported: {SUPPORTED}")));
    };
    let prefix = parse_prefix(&url)?;
    Ok((bucket.to_owned(), prefix))
}

fn parse_file(text: &str) -> Result<Place> {
    let url = parse_plain(text)?;
    let path = url.to_file_path().map_err(|()| Error::invalid("a file URL has no host: file:///path"))?;
    Ok(Place::Folder(path))
}

fn location(scheme: &str, bucket: &str, prefix: &Key) -> String {
    let slash = if prefix.as_ref().is_empty() { "" } else { "/" };
    format!("{scheme}://{bucket}{slash}{prefix}")
}

fn remote(clients: Clients, prefix: &Key, settings: &StoreSettings, location: String) -> Store {
    let Clients { reads, writes, commits } = clients;
    let objects =
        limited(Arc::new(SplitStore { reads, writes, ask_after: cloud::silent_time(settings) / 2 }), settings);
    let identity = identity(&location, settings);
    Store::new(below(prefix, objects), location)
        .with_commit_handle(below(prefix, commits))
        .known_as(Some(identity))
        .with_settle_time(settings.retry_time)
}

/// The location together with the variables that say where it is: endpoints and account names, nothing secret.
fn identity(location: &str, settings: &StoreSettings) -> String {
    let says_where = |name: &str| {
        let name = name.to_ascii_lowercase();
        name == "azure_storage_account"
            || ["endpoint", "account_name", "storage_url", "use_emulator"].iter().any(|part| name.contains(part))
    };
    let mut places: Vec<_> = settings.variables.iter().filter(|(name, _)| says_where(name)).collect();
    places.sort();
    places.iter().fold(location.to_owned(), |identity, (name, value)| format!("{identity}\n{name}={value}"))
}

fn below(prefix: &Key, store: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
    if prefix.as_ref().is_empty() { store } else { Arc::new(PrefixStore::new(store, prefix.clone())) }
}

/// A commit passes by these limits: it is small, one at a time, and what all the rest was done for.
fn limited(store: Arc<dyn ObjectStore>, settings: &StoreSettings) -> Arc<dyn ObjectStore> {
    let store = Arc::new(LimitStore::new(store, settings.connections.min(Semaphore::MAX_PERMITS)));
    if settings.limit_upload.is_none() && settings.limit_download.is_none() {
        return store;
    }
    Arc::new(RateLimitedStore::new(store, settings.limit_upload, settings.limit_download))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn urls_mean_places() {
        let s3 = |bucket: &str, prefix: &str| Place::S3 { bucket: bucket.into(), prefix: Key::from(prefix) };
        let webdav = |server: &str, prefix: &str| Place::WebDav {
            server: Url::parse(server).unwrap(),
            prefix: Key::from(prefix),
        };
        for (url, place) in [
            ("s3://bucket", s3("bucket", "")),
            ("s3://bucket/", s3("bucket", "")),
            ("S3://Bucket_1/a/b/", s3("Bucket_1", "a/b")),
            ("s3://bucket/a%20b", s3("bucket", "a b")),
            ("gs://b/p", Place::Gcs { bucket: "b".into(), prefix: Key::from("p") }),
            ("az://c/p", Place::Azure { container: "c".into(), prefix: Key::from("p") }),
            ("https://host/a/b/", webdav("https://host/", "a/b")),
            ("http://127.0.0.1:81", webdav("http://127.0.0.1:81/", "")),
            ("file:///a/b%20c", Place::Folder("/a/b c".into())),
            ("/a/b", Place::Folder("/a/b".into())),
            ("relative", Place::Folder("relative".into())),
            ("./s3://x", Place::Folder("./s3://x".into())),
            ("backups:old", Place::Folder("backups:old".into())),
            ("memory:", Place::Memory),
        ] {
            assert_eq!(parse(url).unwrap(), place, "{url}");
        }
    }

    #[test]
    fn wrong_urls_are_refused_and_no_secret_is_repeated() {
        for (url, says) in [
            ("", "no repository is given"),
            ("ftp://host/p", "\"ftp\" is not supported; supported: s3://"),
            ("https://u:SECRET@host/p", "set WEBDAV_USERNAME"),
            ("https://host/p?SECRET", "no query"),
            ("https:///", "not a repository URL"),
            ("s3:bucket/p", "names no bucket"),
            ("s3:///p", "names no bucket"),
            ("s3://key:SECRET@bucket/p", "credentials do not belong"),
            ("s3://bucket/p?sig=SECRET", "no query"),
            ("s3://bucket:99/p", "no port"),
            ("s3://bucket/p#x", "no fragment"),
            ("s3://bucket/a//b", "prefix"),
            ("s3://bu cket/p", "not a repository URL"),
            ("file://host/p", "file URL has no host"),
            ("file:///p?x", "no query"),
        ] {
            let error = parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
            let text = format!("{error} {error:?}");
            assert!(text.contains(says), "{url}: {text}");
            assert!(!text.contains("SECRET"), "{text}");
        }
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        for settings in [
            StoreSettings { connections: 0, ..StoreSettings::default() },
            StoreSettings { limit_upload: Some(0), ..StoreSettings::default() },
            StoreSettings { limit_download: Some(0), ..StoreSettings::default() },
        ] {
            assert_eq!(open_url("memory:", &settings, false).unwrap_err().kind(), ErrorKind::Invalid);
        }
    }

    #[test]
    fn settings_show_no_secret() {
        let variables = vec![("AWS_SECRET_ACCESS_KEY".to_owned(), "hunter2".to_owned())];
        let text = format!("{:?}", StoreSettings { variables, ..StoreSettings::default() });
        assert!(text.contains("AWS_SECRET_ACCESS_KEY") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn a_store_is_shown_by_its_place() {
        let variables =
            [("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        let settings = StoreSettings { variables: variables.to_vec(), ..StoreSettings::default() };
        assert_eq!(open_url("s3://b/p/q/", &settings, false).unwrap().location(), "s3://b/p/q");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        let store = open_url(path.to_str().unwrap(), &settings, true).unwrap();
        assert_eq!(store.folder(), Some(std::fs::canonicalize(&path).unwrap().as_path()));
    }
}
