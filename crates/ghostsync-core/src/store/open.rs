//! From a URL and settings to a store. Reads no environment: the caller passes the variables that count.

use std::time::Duration;

use super::Store;
use crate::error::Result;

/// How a store is reached.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// Variables as each cloud's own tools expect them: `AWS_*`, `GOOGLE_*`, `AZURE_*`; others are ignored.
    pub variables: Vec<(String, String)>,
    /// The most requests in flight; default 8.
    pub connections: usize,
    /// How long an unreachable store is tried; default 60 s.
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

/// Opens the store of a repository URL: `s3://bucket/prefix`, `gs://…`, `az://container/prefix`, `file:///path`,
/// `memory:` (for tests of one process), or a plain path. Makes no request, and creates nothing but the folder
/// of a local store when `create` is set.
///
/// # Errors
/// `Invalid` for a wrong scheme or URL, `NotFound` for a local folder that is not there.
pub fn open_url(url: &str, settings: &StoreSettings, create: bool) -> Result<Store> {
    let _ = (url, settings, create);
    unimplemented!()
}
