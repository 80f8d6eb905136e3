//! May a session commit what it has, and where? Pure functions of what it knew when it began and of the newest commit.
//!
//! They are asked before *every* create of a commit, the first included, with the state that it is built on. The
//! argument for each rule is in `docs/protocol.md`; the model in `model/` runs these very functions against a store
//! that misbehaves.

/// What a session knew when it began, and how it may move its branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing<Id> {
    /// The number of the commit that was the head then.
    pub begin: u64,
    /// The snapshot that its tree was compared with, and whose chunks and pages it refers to, like those of the steps
    /// that it goes on from.
    pub parent: Option<Id>,
    /// The epoch that the branch had then, or that the session's own claim made.
    pub epoch: u64,
    /// It writes as the holder that this epoch belongs to.
    pub holds: bool,
    /// It may follow a head that is not its parent: its tree is a state of its own, not an edit of what was restored.
    pub appends: bool,
}

/// What a commit says about a session's branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Situation<Id> {
    /// Sessions that began below this number may not commit.
    pub floor: u64,
    /// The branch's epoch; 0 while there is no such branch.
    pub epoch: u64,
    /// The branch's head.
    pub head: Option<Id>,
    /// The branch has a holder that has not released it.
    pub is_held: bool,
    /// The session's parent, and every step that it goes on from, is still retained, with its pages where they lay; true
    /// for a session without any.
    pub retains_parent: bool,
}

/// What a session may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Commit on its branch, after the head of the state that it is built on, if the guard approves against that.
    Follow,
    /// Commit on a fork.
    Fork(Overtaken),
    /// Nothing: what it uploaded may be deleted at any time. Begin anew.
    BeginAnew(Stale),
}

/// Why a session may not move its branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Overtaken {
    /// The branch was claimed, promoted, rolled back or repaired since the session began, or since its claim.
    NewEpoch,
    /// The branch belongs to a holder that has not released it.
    Held,
    /// The branch does not belong to the owner who writes only while it does.
    NotHeld,
    /// The head is not the snapshot that the directory was restored from.
    OtherHead,
    /// Other writers were first, as often as it was tried.
    Outrun,
    /// Another writer committed at the same time, and the store could not let one of them be first.
    Raced,
}

/// Why nothing that a session uploaded may be referred to any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stale {
    /// The session began below the floor: a prune takes its packs for garbage.
    BelowFloor,
    /// Its parent, or a step, was forgotten or moved: a prune may have deleted what its tree refers to.
    ParentForgotten,
}

impl std::fmt::Display for Overtaken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NewEpoch => "it was claimed, promoted, rolled back or repaired in the meantime",
            Self::Held => "it belongs to a holder that has not released it",
            Self::NotHeld => "it does not belong to this owner",
            Self::OtherHead => "its head is not the snapshot that the directory was restored from",
            Self::Outrun => "other writers were first, as often as it was tried",
            Self::Raced => "another writer committed at the same time",
        })
    }
}

impl std::fmt::Display for Stale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::BelowFloor => "the session began below the floor that a prune has set",
            Self::ParentForgotten => "a snapshot that this one was built on has been forgotten, or moved by a prune",
        })
    }
}

/// Judges whether what a session uploaded may still be referred to by any commit, on whatever branch.
///
/// # Errors
/// [`Stale`] if not.
pub fn may_refer<Id>(standing: &Standing<Id>, situation: &Situation<Id>) -> Result<(), Stale> {
    if situation.floor > standing.begin {
        return Err(Stale::BelowFloor);
    }
    if !situation.retains_parent {
        return Err(Stale::ParentForgotten);
    }
    Ok(())
}

/// Judges what a session may do on a state.
pub fn judge<Id: PartialEq>(standing: &Standing<Id>, situation: &Situation<Id>) -> Verdict {
    if let Err(stale) = may_refer(standing, situation) {
        return Verdict::BeginAnew(stale);
    }
    if situation.epoch != standing.epoch {
        return Verdict::Fork(Overtaken::NewEpoch);
    }
    if situation.is_held && !standing.holds {
        return Verdict::Fork(Overtaken::Held);
    }
    // In its own epoch a holder alone moves its branch: a head that it does not expect is a commit of its own that
    // landed late, and to fork would be to fork from itself. Once it has released the branch, others move it too.
    let moves_alone = standing.holds && situation.is_held;
    if !standing.appends && !moves_alone && situation.head != standing.parent {
        return Verdict::Fork(Overtaken::OtherHead);
    }
    Verdict::Follow
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Standing<u8> = Standing { begin: 5, parent: Some(1), epoch: 3, holds: false, appends: true };
    const THEN: Situation<u8> = Situation { floor: 5, epoch: 3, head: Some(1), is_held: false, retains_parent: true };

    #[test]
    fn each_rule_decides_alone() {
        let table = [
            (OURS, THEN, Verdict::Follow),
            (OURS, Situation { head: Some(2), ..THEN }, Verdict::Follow),
            (OURS, Situation { floor: 6, ..THEN }, Verdict::BeginAnew(Stale::BelowFloor)),
            (OURS, Situation { retains_parent: false, ..THEN }, Verdict::BeginAnew(Stale::ParentForgotten)),
            (OURS, Situation { epoch: 4, ..THEN }, Verdict::Fork(Overtaken::NewEpoch)),
            (OURS, Situation { epoch: 2, ..THEN }, Verdict::Fork(Overtaken::NewEpoch)),
            (OURS, Situation { is_held: true, ..THEN }, Verdict::Fork(Overtaken::Held)),
            (Standing { holds: true, ..OURS }, Situation { is_held: true, ..THEN }, Verdict::Follow),
            (
                Standing { holds: true, ..OURS },
                Situation { is_held: true, epoch: 4, ..THEN },
                Verdict::Fork(Overtaken::NewEpoch),
            ),
            (
                Standing { appends: false, ..OURS },
                Situation { head: Some(2), ..THEN },
                Verdict::Fork(Overtaken::OtherHead),
            ),
            (
                Standing { appends: false, holds: true, ..OURS },
                Situation { head: Some(2), is_held: true, ..THEN },
                Verdict::Follow,
            ),
            (
                Standing { appends: false, holds: true, ..OURS },
                Situation { head: Some(2), ..THEN },
                Verdict::Fork(Overtaken::OtherHead),
            ),
            (Standing { appends: false, ..OURS }, THEN, Verdict::Follow),
            (Standing { appends: false, parent: None, ..OURS }, Situation { head: None, ..THEN }, Verdict::Follow),
        ];
        for (standing, situation, verdict) in table {
            assert_eq!(judge(&standing, &situation), verdict, "{standing:?} {situation:?}");
        }
    }

    #[test]
    fn what_may_be_deleted_is_never_referred_to_whatever_else_holds() {
        for bits in 0..32_u8 {
            let bit = |n: u8| bits >> n & 1 == 1;
            let standing = Standing { holds: bit(0), appends: bit(1), ..OURS };
            let situation =
                Situation { is_held: bit(2), epoch: 3 + u64::from(bit(3)), head: Some(u8::from(bit(4))), ..THEN };
            for stale in [Situation { floor: 6, ..situation }, Situation { retains_parent: false, ..situation }] {
                assert!(matches!(judge(&standing, &stale), Verdict::BeginAnew(_)), "{standing:?} {stale:?}");
            }
        }
    }
}
