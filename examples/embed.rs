//! Backs up a directory, restores it next to it, and watches progress: `embed SOURCE REPOSITORY DESTINATION`.
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use ghostsync_core::backup::{BackupOptions, backup};
use ghostsync_core::observer::Progress;
use ghostsync_core::repository::{CreateOptions, OpenOptions, Repository};
use ghostsync_core::restore::{RestoreOptions, restore};
use ghostsync_core::store::{StoreSettings, open_url};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, repository, destination] = &arguments[..] else {
        return Err("usage: embed SOURCE REPOSITORY DESTINATION".into());
    };
    let store = open_url(repository, &StoreSettings::default(), true)?;
    let create = CreateOptions { if_missing: true, ..CreateOptions::default() };
    let repository = Repository::create(store, create, OpenOptions::default()).await?;

    let watch = Arc::new(|progress: Progress| {
        if let Progress::Planned { files, bytes } = progress {
            println!("{files} files, {bytes} bytes to go");
        }
    });
    let report = backup(&repository, Path::new(source), BackupOptions::default(), watch.clone()).await?;
    println!("backup: {:?}, {} entries, {} problems", report.outcome, report.entries, report.problems.len());
    let report = restore(&repository, Path::new(destination), RestoreOptions::default(), watch).await?;
    println!("restore: {} written, {} problems", report.written, report.problems.len());
    Ok(())
}
