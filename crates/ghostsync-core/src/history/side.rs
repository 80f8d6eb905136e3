//! Branches beside those that people back up to: what was overtaken, refused, or not finished yet.
//!
//! Their names say what they are and which branch they were meant for (`docs/format.md`).

/// What a branch beside another is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SideKind {
    /// What a fenced or late writer had.
    Fork,
    /// What a guard refused.
    Quarantine,
    /// The steps of a session that lasts long.
    Wip,
}

impl SideKind {
    /// The first part of the branch's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fork => "fork",
            Self::Quarantine => "quarantine",
            Self::Wip => "wip",
        }
    }
}

/// Tells what a branch beside another is for, and which other: `fork/main/pod-1` is beside `main`. `None` for a branch
/// that people back up to, which one with only two parts is too, whatever it is called.
pub(crate) fn side_of(branch: &str) -> Option<(SideKind, &str)> {
    let (first, rest) = branch.split_once('/')?;
    let kind = [SideKind::Fork, SideKind::Quarantine, SideKind::Wip].into_iter().find(|kind| kind.name() == first)?;
    let (onto, _) = rest.rsplit_once('/')?;
    Some((kind, onto))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_a_branch_is_beside() {
        let table = [
            ("main", None),
            ("forks/main/x", None),
            ("wip", None),
            ("fork/main/pod-00ff", Some((SideKind::Fork, "main"))),
            ("quarantine/team/blog/00ff", Some((SideKind::Quarantine, "team/blog"))),
            ("wip/main/pod", Some((SideKind::Wip, "main"))),
            ("fork/x", None),
        ];
        for (name, side) in table {
            assert_eq!(side_of(name), side, "{name}");
        }
    }
}
