//! What the snapshot lacks: counted in a survey, removed when it is done, by the same walk.
//!
//! Links are removed, never followed. What is excluded or protected stays, and so do the directories that hold it.

use std::sync::Arc;

use rustix::fs::FileType;

use super::destination::Directory;
use super::metadata::{User, open_to_change};
use super::selection::Selection;
use super::tally::Tally;
use crate::error::{Error, Result};
use crate::guard::MAX_REFUSAL_PATHS;
use crate::interrupt::Interrupt;
use crate::temporary;
use crate::tree_path::TreePath;

/// What would go, for the cap. Directories do not count.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Files, links and special files that are there, in what is restored.
    pub(super) there: u64,
    /// Those of them that would be removed.
    pub(super) removed: u64,
    /// The first of these.
    pub(super) paths: Vec<TreePath>,
}

impl Losses {
    /// One more that is there.
    pub(super) fn see(&mut self) {
        self.there += 1;
    }

    /// One more that goes.
    pub(super) fn lose(&mut self, path: &TreePath) {
        self.removed += 1;
        if self.paths.len() < MAX_REFUSAL_PATHS {
            self.paths.push(path.clone());
        }
    }
}

/// Removes, or counts, what stands under a name and whatever lies below it.
#[derive(Debug)]
pub(super) struct Removal<'a> {
    pub(super) selection: &'a Selection,
    pub(super) user: &'a User,
    pub(super) interrupt: &'a Interrupt,
    /// Removes, and does not only count.
    pub(super) act: bool,
    pub(super) losses: &'a mut Losses,
    pub(super) tally: &'a mut Tally,
}

/// A directory that is being emptied.
struct Branch {
    parent: Arc<Directory>,
    name: Box<[u8]>,
    path: TreePath,
    directory: Arc<Directory>,
    names: std::vec::IntoIter<Box<[u8]>>,
    something_stays: bool,
}

enum Visited {
    Gone,
    Stays,
    Entered(Branch),
}

impl Removal<'_> {
    /// Returns whether nothing is left under the name, or, in a survey, would be.
    pub(super) fn remove(&mut self, parent: &Arc<Directory>, name: &[u8], path: TreePath) -> Result<bool> {
        let mut branches = match self.visit(parent, name, path)? {
            Visited::Gone => return Ok(true),
            Visited::Stays => return Ok(false),
            Visited::Entered(branch) => vec![branch],
        };
        loop {
            let Some(branch) = branches.last_mut() else { return Ok(true) };
            let stays = if let Some(name) = branch.names.next() {
                let (directory, path) = (Arc::clone(&branch.directory), branch.path.join(&name));
                // A path too long for any snapshot can only be left alone.
                match path.map(|path| self.visit(&directory, &name, path)).unwrap_or(Ok(Visited::Stays))? {
                    Visited::Gone => continue,
                    Visited::Stays => true,
                    Visited::Entered(branch) => {
                        branches.push(branch);
                        continue;
                    }
                }
            } else {
                let Some(branch) = branches.pop() else { return Ok(true) };
                let stays = branch.something_stays || !self.remove_emptied(&branch)?;
                if branches.is_empty() {
                    return Ok(!stays);
                }
                stays
            };
            if let Some(branch) = branches.last_mut() {
                branch.something_stays |= stays;
            }
        }
    }

    fn visit(&mut self, parent: &Arc<Directory>, name: &[u8], path: TreePath) -> Result<Visited> {
        self.interrupt.check()?;
        let there = match parent.look(name) {
            Ok(Some(there)) => there,
            Ok(None) => return Ok(Visited::Gone),
            Err(error) => return self.tally.failed("look at", &path, error).map(|()| Visited::Stays),
        };
        let is_directory = there.kind == FileType::Directory;
        let is_lost_and_found = is_directory && path.as_bytes() == b"lost+found";
        if self.selection.hides(&path, is_directory) || is_lost_and_found {
            return Ok(Visited::Stays);
        }
        if !is_directory {
            return self.remove_leaf(parent, name, &path);
        }
        let opened = if self.act { open_to_change(parent, name, &there, self.user) } else { parent.open(name) };
        match opened.and_then(|directory| directory.names().map(|names| (directory, names))) {
            Ok((directory, names)) => Ok(Visited::Entered(Branch {
                parent: Arc::clone(parent),
                name: name.into(),
                path,
                directory,
                names: names.into_iter(),
                something_stays: false,
            })),
            // What cannot be counted cannot be held against a cap.
            Err(error) if !self.act => Err(Error::local("list", path, error)),
            Err(error) => self.tally.failed("list", &path, error).map(|()| Visited::Stays),
        }
    }

    fn remove_leaf(&mut self, parent: &Arc<Directory>, name: &[u8], path: &TreePath) -> Result<Visited> {
        // What a cut run left behind was never anybody's.
        let is_ours = temporary::is_temporary(name);
        if !is_ours {
            self.losses.see();
            self.losses.lose(path);
        }
        if self.act
            && let Err(error) = parent.unlink(name)
        {
            return self.tally.failed("remove", path, error).map(|()| Visited::Stays);
        }
        self.tally.deleted += u64::from(!is_ours);
        Ok(Visited::Gone)
    }

    fn remove_emptied(&mut self, branch: &Branch) -> Result<bool> {
        if self.act
            && let Err(error) = branch.parent.remove(&branch.name)
        {
            return self.tally.failed("remove", &branch.path, error).map(|()| false);
        }
        self.tally.deleted += 1;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::restore::tests::temporary_root;

    fn remove(root: &Arc<Directory>, at: &Path, exclude: &[&str], name: &str, act: bool) -> (bool, Losses, Tally) {
        let exclude: Vec<String> = exclude.iter().map(|line| (*line).to_owned()).collect();
        let selection = Selection::new(Vec::new(), &exclude, &[], at).expect("good patterns");
        let (mut losses, mut tally) = (Losses::default(), Tally::default());
        let (user, interrupt) = (User::current(), Interrupt::default());
        let mut removal = Removal {
            selection: &selection,
            user: &user,
            interrupt: &interrupt,
            act,
            losses: &mut losses,
            tally: &mut tally,
        };
        let path = TreePath::parse(name).expect("a path");
        let gone = removal.remove(root, name.as_bytes(), path).expect("removes");
        (gone, losses, tally)
    }

    #[test]
    fn a_survey_counts_what_the_removal_then_does() {
        let (folder, root) = temporary_root();
        let at = folder.path();
        let outside = tempfile::tempdir().expect("a folder");
        std::fs::write(outside.path().join("kept"), b"x").expect("writes");
        std::fs::create_dir_all(at.join("a/b/c")).expect("makes");
        std::fs::write(at.join("a/1"), b"x").expect("writes");
        std::fs::write(at.join("a/b/2"), b"x").expect("writes");
        std::fs::write(at.join("a/b/.ghostsync-0123456789abcdef.tmp"), b"x").expect("writes");
        std::os::unix::fs::symlink(outside.path(), at.join("a/b/c/link")).expect("links");
        for act in [false, true] {
            let (gone, losses, tally) = remove(&root, at, &[], "a", act);
            assert!(gone);
            assert_eq!((losses.there, losses.removed, tally.deleted), (3, 3, 6));
            let paths: Vec<_> = losses.paths.iter().map(ToString::to_string).collect();
            assert_eq!(paths, ["a/1", "a/b/2", "a/b/c/link"]);
            assert_eq!(at.join("a").exists(), !act);
        }
        assert!(outside.path().join("kept").exists(), "links are not followed");
        assert!(remove(&root, at, &[], "a", true).0, "absent is as good as removed");
    }

    #[test]
    fn what_is_excluded_stays_with_its_directories() {
        let (folder, root) = temporary_root();
        let at = folder.path();
        std::fs::create_dir_all(at.join("a/b")).expect("makes");
        std::fs::create_dir_all(at.join("a/c")).expect("makes");
        for name in ["a/1", "a/b/keep.log", "a/b/2", "a/c/3"] {
            std::fs::write(at.join(name), b"x").expect("writes");
        }
        for act in [false, true] {
            let (gone, losses, tally) = remove(&root, at, &["*.log"], "a", act);
            assert!(!gone);
            assert_eq!((losses.there, losses.removed, tally.deleted), (3, 3, 4));
        }
        assert!(at.join("a/b/keep.log").exists() && !at.join("a/b/2").exists() && !at.join("a/c").exists());
    }

    #[test]
    fn lost_and_found_belongs_to_the_file_system() {
        let (folder, root) = temporary_root();
        std::fs::create_dir(folder.path().join("lost+found")).expect("makes");
        assert!(!remove(&root, folder.path(), &[], "lost+found", true).0);
        assert!(folder.path().join("lost+found").exists());
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_removed() {
        let (folder, root) = temporary_root();
        let mut directory = Arc::clone(&root);
        for _ in 0..3000 {
            directory = directory.create(b"down").expect("makes");
        }
        drop(directory);
        let (gone, _, tally) = remove(&root, folder.path(), &[], "down", true);
        assert!(gone);
        assert_eq!(tally.deleted, 3000);
    }
}
