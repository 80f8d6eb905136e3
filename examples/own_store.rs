//! Brings a store of its own: any `ObjectStore` will do. This one counts what goes through it.
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use ghostsync_core::backup::{BackupOptions, backup};
use ghostsync_core::observer::NoObserver;
use ghostsync_core::repository::{CreateOptions, OpenOptions, Repository};
use ghostsync_core::store::Store;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

#[derive(Debug, Default)]
struct Metered {
    inner: InMemory,
    bytes: AtomicU64,
}

impl fmt::Display for Metered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metered({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Metered {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.bytes.fetch_add(payload.content_length() as u64, Ordering::Relaxed);
        self.inner.put_opts(location, payload, options).await
    }
    async fn put_multipart_opts(&self, at: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }
    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn Error>> {
    let source = std::env::args_os().nth(1).ok_or("usage: own_store SOURCE")?;
    let metered = Arc::new(Metered::default());
    let store = Store::new(metered.clone(), "my own store");
    // Memory keeps its promises: there is nothing to probe.
    let create = CreateOptions { skip_probe: true, ..CreateOptions::default() };
    let repository = Repository::create(store, create, OpenOptions::default()).await?;
    let report = backup(&repository, source.as_ref(), BackupOptions::default(), Arc::new(NoObserver)).await?;
    let stored = metered.bytes.load(Ordering::Relaxed);
    println!("{} bytes in {} entries became {stored} bytes in the store", report.bytes, report.entries);
    Ok(())
}
