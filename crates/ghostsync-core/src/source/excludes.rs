//! What is left out of a snapshot: gitignore patterns, decided for one path at a time and without I/O.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::error::{Error, ErrorKind, Result};
use crate::tree_path::TreePath;

/// How a snapshot records [`Excludes::caches`].
const CACHES_RULE: &str = "--exclude-caches";

/// How a snapshot records [`Excludes::one_file_system`].
const ONE_FILE_SYSTEM_RULE: &str = "--one-file-system";

/// What is left out of a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Excludes {
    /// Lines of gitignore syntax, relative to the source; the last that matches wins.
    ///
    /// Blank lines and comments (`#`) are allowed. As in git, nothing below an excluded directory can be taken
    /// back in by a later `!` line. Beyond gitignore, `{a,b}` means either, and an unclosed `[` is an error.
    pub patterns: Vec<String>,
    /// Leaves out the content of directories with a valid `CACHEDIR.TAG`; the tag itself is kept.
    pub caches: bool,
    /// Leaves out the content of directories that are mount points of another file system.
    pub one_file_system: bool,
    /// Absolute paths that are never content: the receipt, the cache, a repository inside the source.
    pub never: Vec<PathBuf>,
}

impl Excludes {
    /// The excludes that a snapshot records, but for the paths that are never content.
    #[must_use]
    pub fn from_rules(rules: &[String]) -> Self {
        let (switches, patterns): (Vec<_>, Vec<_>) =
            rules.iter().cloned().partition(|rule| rule == CACHES_RULE || rule == ONE_FILE_SYSTEM_RULE);
        let given = |name: &str| switches.iter().any(|rule| rule == name);
        Self { caches: given(CACHES_RULE), one_file_system: given(ONE_FILE_SYSTEM_RULE), patterns, never: Vec::new() }
    }
}

/// A line of an exclude list that is not a pattern.
#[derive(Debug, thiserror::Error)]
#[error("cannot understand the exclude pattern {line:?}")]
struct BadPattern {
    line: String,
    source: ignore::Error,
}

/// The patterns of an exclude list, ready to be asked.
#[derive(Debug, Clone)]
pub(crate) struct Matcher {
    patterns: Gitignore,
}

impl Matcher {
    /// Compiles the patterns.
    ///
    /// # Errors
    /// `Invalid` with the line that is not a pattern.
    pub(crate) fn new(excludes: &Excludes) -> Result<Self> {
        let bad = |line: &str, source| {
            Error::new(ErrorKind::Invalid, BadPattern { line: line.chars().take(200).collect(), source })
        };
        let mut builder = GitignoreBuilder::new("");
        // Taking "[abc" literally would hide a typing error, and with it files that were to be left out.
        builder.allow_unclosed_class(false);
        for line in &excludes.patterns {
            builder.add_line(None, line).map_err(|error| bad(line, error))?;
        }
        let patterns = builder.build().map_err(|error| bad("", error))?;
        Ok(Self { patterns })
    }

    /// Tells whether this very entry is excluded, whatever happened to the directories above it.
    ///
    /// The root is never excluded.
    pub(crate) fn excludes(&self, path: &TreePath, is_directory: bool) -> bool {
        self.excludes_bytes(path.as_bytes(), is_directory)
    }

    /// Tells whether the entry or any directory above it is excluded: for entries that no walk leads to.
    pub(crate) fn excludes_below(&self, path: &TreePath, is_directory: bool) -> bool {
        let bytes = path.as_bytes();
        let parents =
            bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/').filter_map(|(end, _)| bytes.get(..end));
        parents.into_iter().any(|parent| self.excludes_bytes(parent, true)) || self.excludes(path, is_directory)
    }

    fn excludes_bytes(&self, path: &[u8], is_directory: bool) -> bool {
        !path.is_empty() && self.patterns.matched(Path::new(OsStr::from_bytes(path)), is_directory).is_ignore()
    }
}

/// What a snapshot records of an exclude list: its patterns, and the switches by the names of their options.
///
/// Blank lines and comments are left out, so that a snapshot made after editing a comment has the same rules;
/// `never` is no rule, it follows from where the receipt and the cache happen to be.
pub(crate) fn rules(excludes: &Excludes) -> Vec<String> {
    let patterns = excludes.patterns.iter().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).cloned();
    let switches = [(excludes.caches, CACHES_RULE), (excludes.one_file_system, ONE_FILE_SYSTEM_RULE)];
    patterns.chain(switches.into_iter().filter(|(on, _)| *on).map(|(_, name)| name.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excludes(patterns: &[&str]) -> Excludes {
        Excludes { patterns: patterns.iter().map(|line| (*line).to_owned()).collect(), ..Excludes::default() }
    }

    fn path(bytes: &[u8]) -> TreePath {
        TreePath::parse(bytes).expect("a valid path")
    }

    #[test]
    fn patterns_follow_gitignore() {
        let table: &[(&[&str], &[u8], bool, bool)] = &[
            (&["*.log"], b"a.log", false, true),
            (&["*.log"], b"deep/er/a.log", false, true),
            (&["*.log"], b"a.log.txt", false, false),
            (&["/top"], b"top", false, true),
            (&["/top"], b"a/top", false, false),
            (&["a/b"], b"a/b", false, true),
            (&["a/b"], b"x/a/b", false, false),
            (&["**/a/b"], b"x/a/b", false, true),
            (&["cache/"], b"cache", true, true),
            (&["cache/"], b"cache", false, false),
            (&["cache/**"], b"cache", true, false),
            (&["cache/**"], b"cache/x/y", false, true),
            (&["*", "!keep"], b"keep", false, false),
            (&["*", "!keep"], b"other", false, true),
            (&["!keep", "*"], b"keep", false, true),
            (&["# comment", "", "  "], b"# comment", false, false),
            (&["\\#x"], b"#x", false, true),
            (&["*"], b"new\nline", false, true),
            (&["x*"], b"x\xff\xfe", false, true),
            (&["x?y"], b"x\xffy", false, true),
            (&["[!a]"], b"\xff", false, true),
            (&["caf\u{e9}"], "caf\u{e9}".as_bytes(), false, true),
            (&["-"], b"-", false, true),
            (&["dot."], b"dot.", false, true),
            (&["*"], b"", true, false),
        ];
        for (patterns, bytes, is_directory, expected) in table {
            let matcher = Matcher::new(&excludes(patterns)).expect("good patterns");
            let path = path(bytes);
            assert_eq!(matcher.excludes(&path, *is_directory), *expected, "{patterns:?} {path:?} {is_directory}");
        }
    }

    #[test]
    fn what_lies_below_an_excluded_directory_cannot_be_taken_back_in() {
        let matcher = Matcher::new(&excludes(&["build/", "!build/keep"])).expect("good patterns");
        assert!(!matcher.excludes(&path(b"build/keep"), false), "this very entry is taken back in");
        assert!(matcher.excludes_below(&path(b"build/keep"), false), "but its directory is gone");
        assert!(matcher.excludes_below(&path(b"a/build/b/c"), false));
        assert!(matcher.excludes_below(&path(b"build"), true));
        assert!(!matcher.excludes_below(&path(b"build"), false), "a file of that name is not meant");
        assert!(!matcher.excludes_below(&path(b"building/x"), false));
    }

    #[test]
    fn a_bad_pattern_is_named() {
        for line in ["a[", "{a", "[z-a]"] {
            let error = Matcher::new(&excludes(&["fine", line])).expect_err(line);
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(line), "{error}");
        }
    }

    #[test]
    fn rules_are_what_has_an_effect() {
        let excludes = Excludes {
            caches: true,
            one_file_system: true,
            never: vec!["/receipt".into()],
            ..excludes(&["# why", "*.tmp", "", "!a b"])
        };
        assert_eq!(rules(&excludes), ["*.tmp", "!a b", "--exclude-caches", "--one-file-system"]);
        assert!(rules(&Excludes::default()).is_empty());
        let again = Excludes::from_rules(&rules(&excludes));
        assert!(again.caches && again.one_file_system && again.patterns == ["*.tmp", "!a b"]);
    }
}
