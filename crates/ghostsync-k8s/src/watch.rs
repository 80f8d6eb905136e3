//! Watches the directory for changes, as a hint alone: what it misses is found by the next pass over everything.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{ErrorKind, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// Changes that come together are told as one.
const TOGETHER: Duration = Duration::from_millis(50);

/// What a watch has seen since somebody asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// Something changed.
    Changed,
    /// Something was lost.
    Overflowed,
    /// A new folder cannot be watched: the system has no watches left.
    NoMoreWatches,
}

#[derive(Debug, Default)]
struct Seen {
    changed: AtomicBool,
    overflowed: AtomicBool,
    no_more_watches: AtomicBool,
    news: Notify,
}

impl Seen {
    fn take_in(&self, event: &notify::Result<notify::Event>, never: &[PathBuf]) {
        match event {
            Ok(event) if event.need_rescan() => self.overflowed.store(true, Ordering::SeqCst),
            Ok(event) if is_change(event, never) => {}
            Ok(_) => return,
            Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => {
                self.no_more_watches.store(true, Ordering::SeqCst);
            }
            // It may have been about anything.
            Err(_) => self.overflowed.store(true, Ordering::SeqCst),
        }
        if !self.changed.swap(true, Ordering::SeqCst) {
            self.news.notify_one();
        }
    }
}

/// A watch on a directory, for as long as it lives.
pub(crate) struct Watch {
    seen: Arc<Seen>,
    /// Ends with it.
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Begins to watch everything below a directory, but what is never content.
    ///
    /// # Errors
    /// The system's, such as too few watches for so many directories.
    pub(crate) fn start(directory: &Path, never: Vec<PathBuf>) -> notify::Result<Self> {
        let seen = Arc::new(Seen::default());
        let told = Arc::clone(&seen);
        let mut watcher = notify::recommended_watcher(move |event| told.take_in(&event, &never))?;
        watcher.watch(directory, RecursiveMode::Recursive)?;
        Ok(Self { seen, _watcher: watcher })
    }

    /// Waits for news. What was seen is not lost when this is dropped before.
    pub(crate) async fn news(&self) -> News {
        while !self.seen.changed.load(Ordering::SeqCst) {
            self.seen.news.notified().await;
        }
        tokio::time::sleep(TOGETHER).await;
        self.seen.changed.store(false, Ordering::SeqCst);
        if self.seen.no_more_watches.swap(false, Ordering::SeqCst) {
            return News::NoMoreWatches;
        }
        if self.seen.overflowed.swap(false, Ordering::SeqCst) { News::Overflowed } else { News::Changed }
    }
}

/// Reading changes nothing, neither ours nor the app's.
fn is_change(event: &notify::Event, never: &[PathBuf]) -> bool {
    let is_reading = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        EventKind::Access(_) => true,
        _ => false,
    };
    let is_content = |path: &PathBuf| !never.iter().any(|never| path.starts_with(never));
    !is_reading && (event.paths.is_empty() || event.paths.iter().any(is_content))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn news(watch: &Watch) -> Option<News> {
        tokio::time::timeout(Duration::from_secs(10), watch.news()).await.ok()
    }

    #[tokio::test]
    async fn changes_are_seen_in_folders_that_are_made_later_too_and_reading_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, never) = (folder.path().join("file"), folder.path().join("never"));
        std::fs::write(&file, "1").expect("writes");
        std::fs::create_dir(&never).expect("a folder");
        let watch = Watch::start(folder.path(), vec![never.clone()]).expect("watches");
        std::fs::read(&file).expect("reads");
        std::fs::write(never.join("own"), "1").expect("writes");
        std::fs::read_dir(folder.path()).expect("lists").count();
        assert!(tokio::time::timeout(Duration::from_millis(300), watch.news()).await.is_err());
        std::fs::create_dir(folder.path().join("new")).expect("a folder");
        assert_eq!(news(&watch).await, Some(News::Changed));
        std::fs::write(folder.path().join("new/file"), "2").expect("writes");
        assert_eq!(news(&watch).await, Some(News::Changed));
    }

    #[test]
    fn what_was_lost_is_told() {
        let seen = Seen::default();
        let lost = notify::Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
        seen.take_in(&Ok(lost), &[]);
        assert!(seen.overflowed.load(Ordering::SeqCst) && seen.changed.load(Ordering::SeqCst));
    }
}
