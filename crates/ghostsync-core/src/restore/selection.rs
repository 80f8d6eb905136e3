//! Which entries of the snapshot a restore is about, in tree order, each after the directories that hold it.

use std::collections::VecDeque;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::scout::Seen;
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::Snapshot;
use crate::format::page::Placed;
use crate::source::{Excludes, Matcher};
use crate::tree::{Pages, TreeReader};
use crate::tree_path::TreePath;

/// What is neither written nor deleted, and what alone is restored.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    include: Vec<TreePath>,
    exclude: Matcher,
    never: Vec<TreePath>,
}

/// An entry of the snapshot that is selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selected {
    pub(super) placed: Placed,
    /// Not selected itself, but the directory of something that is.
    pub(super) on_the_way: bool,
    /// What a scout has seen in its place.
    pub(super) seen: Option<Seen>,
}

impl Selection {
    /// Takes the user's lists; `never` are absolute paths, those outside the destination mean nothing.
    ///
    /// # Errors
    /// `Invalid` for a line that is no pattern.
    pub(super) fn new(
        mut include: Vec<TreePath>,
        exclude: &[String],
        never: &[PathBuf],
        destination: &Path,
    ) -> Result<Self> {
        include.sort_unstable();
        // In tree order whatever lies below a path follows right after it.
        include.dedup_by(|below, above| below.starts_with(above));
        Ok(Self {
            include,
            exclude: Matcher::new(&Excludes { patterns: exclude.to_vec(), ..Excludes::default() })?,
            never: never.iter().flat_map(|path| below_destination(path, destination)).collect(),
        })
    }

    /// Tells whether everything that is not excluded is selected.
    pub(super) fn is_everything(&self) -> bool {
        self.include.first().is_none_or(TreePath::is_root)
    }

    /// Tells whether this very entry is left alone; what lies below it then is too.
    pub(super) fn hides(&self, path: &TreePath, is_directory: bool) -> bool {
        self.never.iter().any(|never| path.starts_with(never)) || self.excludes(path, is_directory)
    }

    /// Tells whether it is left alone because the excludes say so.
    pub(super) fn excludes(&self, path: &TreePath, is_directory: bool) -> bool {
        self.exclude.excludes(path, is_directory)
    }
}

/// Where an absolute path lies in the destination, both as it is spelled and where links lead.
fn below_destination(path: &Path, destination: &Path) -> impl Iterator<Item = TreePath> {
    let spellings = [
        (std::path::absolute(path).ok(), std::path::absolute(destination).ok()),
        (real(path), real(destination)),
        // A link to the receipt is protected under its own name too.
        (path.parent().and_then(real).zip(path.file_name()).map(|(parent, name)| parent.join(name)), real(destination)),
    ];
    spellings.into_iter().filter_map(|(path, destination)| {
        let below = path?.strip_prefix(destination?).ok()?.to_owned();
        TreePath::parse(below.into_os_string().into_vec()).ok().filter(|path| !path.is_root())
    })
}

/// Where a path leads; what is not there yet lies where its nearest directory leads.
fn real(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    path.ancestors().find_map(|existing| {
        let rest = path.strip_prefix(existing).ok()?;
        existing.canonicalize().ok().map(|existing| existing.join(rest))
    })
}

/// The selected entries of a snapshot, a page at a time.
#[derive(Debug)]
pub(super) struct SelectedEntries {
    pages: Arc<Pages>,
    snapshot: Arc<Snapshot>,
    sources: VecDeque<Source>,
    reader: Option<TreeReader>,
}

#[derive(Debug)]
enum Source {
    /// A directory alone.
    OnTheWay(TreePath),
    /// A path and everything below it.
    Whole(TreePath),
}

impl SelectedEntries {
    pub(super) fn new(pages: &Arc<Pages>, snapshot: &Arc<Snapshot>, selection: &Selection) -> Self {
        Self {
            pages: Arc::clone(pages),
            snapshot: Arc::clone(snapshot),
            sources: sources(&selection.include),
            reader: None,
        }
    }

    /// Makes sure that every path that is asked for is there.
    ///
    /// # Errors
    /// `NotFound` with the first that is not.
    pub(super) async fn check(&self) -> Result<()> {
        for source in &self.sources {
            if let Source::Whole(path) = source
                && !path.is_root()
            {
                self.first(path).await?;
            }
        }
        Ok(())
    }

    async fn first(&self, path: &TreePath) -> Result<Placed> {
        let page = self.reader_below(path).next_page().await?;
        let first = page.and_then(|entries| entries.into_iter().next());
        first.filter(|placed| placed.entry.path == *path).ok_or_else(|| {
            let id = self.snapshot.id;
            Error::new(ErrorKind::NotFound, format!("snapshot {id:.12} has no entry {path}"))
        })
    }

    fn reader_below(&self, path: &TreePath) -> TreeReader {
        TreeReader::new(Arc::clone(&self.pages), &self.snapshot.tree, path.clone())
    }

    /// The next entries; `None` at the end. After an error the next call goes on behind the damage.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Selected>>> {
        loop {
            if let Some(reader) = &mut self.reader {
                if let Some(page) = reader.next_page().await? {
                    let whole = |placed| Selected { placed, on_the_way: false, seen: None };
                    return Ok(Some(page.into_iter().map(whole).collect()));
                }
                self.reader = None;
            }
            match self.sources.pop_front() {
                None => return Ok(None),
                Some(Source::Whole(path)) => self.reader = Some(self.reader_below(&path)),
                Some(Source::OnTheWay(path)) => {
                    let placed = self.first(&path).await?;
                    return Ok(Some(vec![Selected { placed, on_the_way: true, seen: None }]));
                }
            }
        }
    }
}

fn sources(include: &[TreePath]) -> VecDeque<Source> {
    if include.is_empty() {
        return VecDeque::from([Source::Whole(TreePath::root())]);
    }
    let mut sources = VecDeque::new();
    let mut previous: Option<&TreePath> = None;
    for path in include {
        let mut parents = Vec::new();
        let mut parent = path.parent();
        while let Some(directory) = parent.filter(|parent| previous.is_none_or(|path| !path.starts_with(parent))) {
            parent = directory.parent();
            parents.push(Source::OnTheWay(directory));
        }
        sources.extend(parents.into_iter().rev());
        sources.push_back(Source::Whole(path.clone()));
        previous = Some(path);
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).expect("a path")
    }

    fn selection(include: &[&str], exclude: &[&str], never: &[&str]) -> Selection {
        let include = include.iter().map(|text| path(text)).collect();
        let exclude: Vec<String> = exclude.iter().map(|line| (*line).to_owned()).collect();
        let never: Vec<PathBuf> = never.iter().map(PathBuf::from).collect();
        Selection::new(include, &exclude, &never, Path::new("/no/such/destination")).expect("good patterns")
    }

    #[test]
    fn included_paths_bring_the_directories_that_hold_them_once() {
        let shown = |include: &[&str]| -> Vec<String> {
            let selection = selection(include, &[], &[]);
            let name = |source: &Source| match source {
                Source::OnTheWay(path) => format!("({path})"),
                Source::Whole(path) => path.to_string(),
            };
            sources(&selection.include).iter().map(name).collect()
        };
        assert_eq!(shown(&[]), [""]);
        assert_eq!(shown(&[""]), [""]);
        assert_eq!(shown(&["a", ""]), [""]);
        assert_eq!(shown(&["a"]), ["()", "a"]);
        assert_eq!(shown(&["a/b/c", "a/b/d", "a/e", "a-b"]), ["()", "(a)", "(a/b)", "a/b/c", "a/b/d", "a/e", "a-b"]);
        assert_eq!(shown(&["a/b", "a/b/c", "a", "a"]), ["()", "a"]);
        assert_eq!(shown(&["b/a", "a/b"]), ["()", "(a)", "a/b", "(b)", "b/a"]);
        assert!(selection(&[], &[], &[]).is_everything() && !selection(&["a"], &[], &[]).is_everything());
    }

    #[test]
    fn excluded_and_protected_paths_are_left_alone() {
        let selection = selection(
            &[],
            &["*.log", "/cache/", "!keep.log"],
            &["/no/such/destination/.state/receipt.json", "/elsewhere/x", "/no/such/destination"],
        );
        for (text, is_directory, hidden) in [
            ("a.log", false, true),
            ("deep/a.log", false, true),
            ("keep.log", false, false),
            ("cache", true, true),
            ("cache", false, false),
            (".state", true, false),
            (".state/receipt.json", false, true),
            (".state/other", false, false),
            ("x", false, false),
            ("", true, false),
        ] {
            assert_eq!(selection.hides(&path(text), is_directory), hidden, "{text}");
        }
        let bad = Selection::new(Vec::new(), &["[z-a]".to_owned()], &[], Path::new("/"));
        assert_eq!(bad.expect_err("no pattern").kind(), ErrorKind::Invalid);
    }

    #[test]
    fn a_protected_path_is_found_through_links() {
        let folder = tempfile::tempdir().expect("a folder");
        let real = folder.path().join("real");
        std::fs::create_dir(&real).expect("a folder");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&real, &link).expect("links");
        for (never, destination) in [(&link, &real), (&real, &link), (&link, &link)] {
            let never = [never.join("receipt"), never.join("cache/not/there/yet")];
            let selection = Selection::new(Vec::new(), &[], &never, destination).expect("good");
            assert!(selection.hides(&path("receipt"), false), "{never:?} {destination:?}");
            assert!(selection.hides(&path("cache/not/there/yet"), true), "{never:?} {destination:?}");
        }
    }
}
