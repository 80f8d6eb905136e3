//! What a prune would do: pure functions of what lies in the store and of what snapshots need.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use object_store::ObjectMeta;
use object_store::path::Path as Key;

use super::reach::Needed;
use crate::format::commit::{Commit, TipName};
use crate::format::config::CommitMode;
use crate::id::{PackName, SessionId};
use crate::store::keys;

/// A time of the store's clock, in milliseconds since 1970.
pub(super) type Millis = i64;

/// A pack, by name and kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Pack {
    pub(super) name: PackName,
    is_meta: bool,
}

impl Pack {
    pub(super) fn data(name: PackName) -> Self {
        Self { name, is_meta: false }
    }

    pub(super) fn meta(name: PackName) -> Self {
        Self { name, is_meta: true }
    }

    pub(super) fn key(self) -> Key {
        if self.is_meta { keys::meta_pack(self.name) } else { keys::data_pack(self.name) }
    }

    /// The pack that a key names; `None` for what somebody else put there.
    fn of(key: &Key) -> Option<Self> {
        let name = key.as_ref().strip_prefix("packs/")?;
        match (name.strip_suffix(".data"), name.strip_suffix(".meta")) {
            (Some(name), _) => name.parse().ok().map(Self::data),
            (_, Some(name)) => name.parse().ok().map(Self::meta),
            (None, None) => None,
        }
    }
}

/// A pack that lies in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ListedPack {
    pub(super) pack: Pack,
    pub(super) bytes: u64,
    pub(super) modified: Millis,
}

/// A commit, or its stub, that lies in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ListedCommit {
    pub(super) seq: u64,
    /// In commit mode `detect`, where several commits may have one number.
    pub(super) session: Option<SessionId>,
    pub(super) bytes: u64,
    pub(super) modified: Millis,
}

pub(super) fn modified(object: &ObjectMeta) -> Millis {
    object.last_modified.timestamp_millis()
}

/// The packs of a listing; what has another name is not touched.
pub(super) fn packs(listed: &[ObjectMeta]) -> Vec<ListedPack> {
    let of = |object: &ObjectMeta| {
        Some(ListedPack { pack: Pack::of(&object.location)?, bytes: object.size, modified: modified(object) })
    };
    listed.iter().filter_map(of).collect()
}

impl ListedCommit {
    pub(super) fn key(&self) -> Key {
        self.name().map_or_else(|| keys::commit(self.seq), keys::tip)
    }

    /// Its name in commit mode `detect`.
    pub(super) fn name(&self) -> Option<TipName> {
        self.session.map(|session| TipName { seq: self.seq, session })
    }
}

/// The commits of a listing, oldest first.
pub(super) fn commits(listed: &[ObjectMeta], mode: CommitMode) -> Vec<ListedCommit> {
    let of = |object: &ObjectMeta| {
        let (seq, session) = match mode {
            CommitMode::Atomic => (keys::commit_number(&object.location)?, None),
            CommitMode::Detect => keys::tip_name(&object.location).map(|name| (name.seq, Some(name.session)))?,
        };
        Some(ListedCommit { seq, session, bytes: object.size, modified: modified(object) })
    };
    let mut commits: Vec<_> = listed.iter().filter_map(of).collect();
    commits.sort_unstable_by_key(|commit| (commit.seq, commit.session));
    commits
}

/// Tells whether so much time has passed since then; no time at all always has.
pub(super) fn has_passed(since: Millis, now: Millis, wait: Duration) -> bool {
    let wait = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
    wait == 0 || now.saturating_sub(since) >= wait
}

/// What lies in the store, and when it was looked at.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) now: Millis,
    pub(super) packs: Vec<ListedPack>,
    pub(super) commits: Vec<ListedCommit>,
}

/// What the next commit says, if one is needed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) session_floor: u64,
    pub(super) draining: Vec<PackName>,
    /// Bytes that are alive in draining packs.
    pub(super) draining_bytes: u64,
    /// Packs that this prune should move out of, since no backup will.
    pub(super) moving: HashSet<Pack>,
    /// Bytes that are alive in them.
    pub(super) moving_bytes: u64,
    /// Something comes of that commit, also where nothing moves.
    pub(super) needs_commit: bool,
}

/// Decides what the commit after `base` says.
pub(super) fn plan(
    base: &Commit,
    listed: &Listed,
    needed: &HashMap<Pack, Needed>,
    idle: Duration,
    max_rewrite: u64,
) -> Plan {
    let floor = session_floor(base, listed, idle);
    let Emptiest { draining, draining_bytes, moving, moving_bytes } =
        emptiest(base, &listed.packs, needed, max_rewrite);
    let garbage = || garbage(&listed.packs, needed, u64::MAX);
    let frees = garbage().any(|pack| (base.session_floor..floor).contains(&pack.pack.name.begin));
    // No floor that is not above the head is above what began at the head: any commit makes the next one possible.
    let is_stuck = |pack: ListedPack| {
        let begin = pack.pack.name.begin;
        begin == base.seq && begin >= floor && has_passed(pack.modified, listed.now, idle)
    };
    let waits_for_a_commit = garbage().any(is_stuck);
    let needs_commit = frees || waits_for_a_commit || draining != base.draining;
    // What is moved out of goes by the floor of this very commit.
    let session_floor = if frees || !moving.is_empty() { floor } else { base.session_floor };
    Plan { session_floor, draining, draining_bytes, moving, moving_bytes, needs_commit }
}

/// Decides the same in commit mode `detect`, for a prune that has the repository to itself.
///
/// Packs go only by a state whose floor is its own number: nothing that was on its way before can take its place as the
/// head. No session is waited for there, since none is at work.
pub(super) fn plan_alone(base: &Commit, listed: &Listed, needed: &HashMap<Pack, Needed>, max_rewrite: u64) -> Plan {
    let next = base.seq + 1;
    let is_firm = base.session_floor == base.seq;
    let lowest = if is_firm { base.session_floor } else { 0 };
    let Emptiest { draining, draining_bytes, moving, moving_bytes } =
        emptiest(base, &listed.packs, needed, max_rewrite);
    let frees = garbage(&listed.packs, needed, next).any(|pack| pack.pack.name.begin >= lowest);
    let needs_commit = frees || draining != base.draining || !moving.is_empty();
    let session_floor = if needs_commit { next } else { base.session_floor };
    Plan { session_floor, draining, draining_bytes, moving, moving_bytes, needs_commit }
}

/// The highest floor such that no session below it has shown activity for so long, but never lower than it was, nor
/// above the number of the commit that carries it.
///
/// A session shows activity by its packs. One that has none yet began before the commit with its floor's number was
/// made, so that commit must be as old.
fn session_floor(base: &Commit, listed: &Listed, idle: Duration) -> u64 {
    let next = base.seq + 1;
    if idle.is_zero() {
        return next.max(base.session_floor);
    }
    let is_idle = |modified| has_passed(modified, listed.now, idle);
    let oldest_active =
        listed.packs.iter().filter(|listed| !is_idle(listed.modified)).map(|listed| listed.pack.name.begin);
    let newest_old = listed.commits.iter().filter(|commit| is_idle(commit.modified)).map(|commit| commit.seq).max();
    let floor = oldest_active.min().unwrap_or(next).min(newest_old.unwrap_or(0)).min(next);
    floor.max(base.session_floor)
}

/// The rule: packs that no snapshot needs, of sessions that began below the floor.
pub(super) fn garbage<'a, T>(
    packs: &'a [ListedPack],
    needed: &'a HashMap<Pack, T>,
    floor: u64,
) -> impl Iterator<Item = ListedPack> + 'a {
    packs.iter().filter(move |listed| listed.pack.name.begin < floor && !needed.contains_key(&listed.pack)).copied()
}

/// What is to be moved, and by whom.
#[derive(Debug, Default, PartialEq, Eq)]
struct Emptiest {
    draining: Vec<PackName>,
    draining_bytes: u64,
    moving: HashSet<Pack>,
    moving_bytes: u64,
}

/// Data packs that a head may be spread over, beyond one for so many bytes.
const SPREAD_PACKS: usize = 32;
const SPREAD_BYTES: u64 = 64 << 20;

/// So many of them are named at once: every commit until the next prune carries the names.
const MOST_SPREAD: usize = 500;

/// The packs to empty: those that are less than half alive, then the emptiest of the others, as long as more than a
/// fifth of what is kept is dead, and then what a head is [`spread`] over. Backups move out of those that heads refer to, this prune out of the others. Those that
/// free the most for each byte that is moved come first, as long as what is alive in them fits the budget.
///
/// What is alive in a pack is an estimate. Beyond half of it, only what is certainly dead counts: or else packs that are
/// wholly alive would be moved at every prune.
fn emptiest(base: &Commit, packs: &[ListedPack], needed: &HashMap<Pack, Needed>, budget: u64) -> Emptiest {
    let of = |listed: &ListedPack| Some((*listed, *needed.get(&listed.pack)?));
    let mut emptiest: Vec<_> = packs.iter().filter_map(of).collect();
    let per_mille = |alive: u64, listed: &ListedPack| alive * 1000 / listed.bytes.max(1);
    emptiest.sort_unstable_by_key(|(listed, needed)| (per_mille(needed.alive_bytes, listed), listed.pack));
    let (sparse, mut others): (Vec<_>, Vec<_>) =
        emptiest.into_iter().partition(|(listed, needed)| needed.alive_bytes < listed.bytes / 2);
    others.sort_by_key(|(listed, needed)| per_mille(needed.most_alive_bytes, listed));
    let dead = |(listed, needed): &(ListedPack, Needed)| listed.bytes.saturating_sub(needed.most_alive_bytes);
    let alive: u64 = sparse.iter().chain(&others).map(|(_, needed)| needed.alive_bytes).sum();
    let mut left: u64 = others.iter().map(dead).sum();

    let mut of = Emptiest::default();
    for pack in sparse {
        of.take(pack, budget);
    }
    for pack in others {
        if left <= alive / 5 {
            break;
        }
        if of.take(pack, budget) {
            left -= dead(&pack);
        }
    }
    for pack in spread(base, packs, needed, &of) {
        of.take(pack, budget);
    }
    of.draining.sort_unstable();
    of
}

/// If heads are spread over many data packs that no older snapshot needs, the smallest of those: a restore reads from each
/// of them a bit here and a bit there. Half of what is allowed stays, so that each time many small ones become a large one;
/// what older snapshots need as well would be there twice. Then what was draining and that no head needs any more, since
/// a backup has stored it again: whoever still does, its parent first, needs little that the head has not.
fn spread(
    base: &Commit,
    packs: &[ListedPack],
    needed: &HashMap<Pack, Needed>,
    taken: &Emptiest,
) -> impl Iterator<Item = (ListedPack, Needed)> + use<> {
    let of = |listed: &ListedPack| Some((*listed, *needed.get(&listed.pack)?));
    let is_left = |(listed, _): &(ListedPack, Needed)| {
        let is_taken = taken.draining.contains(&listed.pack.name) || taken.moving.contains(&listed.pack);
        !listed.pack.is_meta && !is_taken
    };
    let (mut read, mut left): (Vec<_>, Vec<_>) =
        packs.iter().filter_map(of).filter(is_left).partition(|(_, needed)| needed.whose.heads);
    read.retain(|(_, needed)| !needed.whose.others);
    read.sort_unstable_by_key(|(listed, needed)| (needed.alive_bytes, listed.pack));
    let bytes: u64 = read.iter().map(|(_, needed)| needed.alive_bytes).sum();
    let large = usize::try_from(bytes / SPREAD_BYTES).unwrap_or(usize::MAX);
    let is_spread = read.len() > large.saturating_add(SPREAD_PACKS);
    let surplus = if is_spread { read.len() - large - SPREAD_PACKS / 2 } else { 0 };
    read.truncate(surplus.min(MOST_SPREAD));
    left.retain(|(listed, _)| base.draining.contains(&listed.pack.name));
    read.into_iter().chain(left)
}

impl Emptiest {
    /// Takes a pack if what is alive in it fits the budget.
    fn take(&mut self, (listed, needed): (ListedPack, Needed), budget: u64) -> bool {
        let fits = self.draining_bytes + self.moving_bytes + needed.alive_bytes <= budget;
        if fits && needed.whose.heads {
            self.draining_bytes += needed.alive_bytes;
            self.draining.push(listed.pack.name);
        } else if fits {
            self.moving_bytes += needed.alive_bytes;
            self.moving.insert(listed.pack);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{CommitHash, SessionId};
    use crate::maintain::prune::reach::Whose;

    const HOUR: Duration = Duration::from_secs(3600);

    fn minutes(minutes: i64) -> Millis {
        minutes * 60_000
    }

    fn pack(begin: u64, number: u32) -> Pack {
        Pack::data(PackName { begin, session: SessionId::from_bytes([1; 16]), number })
    }

    fn lies(pack: Pack, bytes: u64, modified: Millis) -> ListedPack {
        ListedPack { pack, bytes, modified }
    }

    /// A head's, or somebody else's.
    fn whose(heads: bool) -> Whose {
        Whose { heads, others: !heads }
    }

    fn base(seq: u64, session_floor: u64) -> Commit {
        Commit { seq, session_floor, ..Commit::empty(CommitHash::of(b"config")) }
    }

    /// Commits that were made once an hour, from hour 1 on.
    fn listed(now: Millis, packs: Vec<ListedPack>, newest: u64) -> Listed {
        let commits = (1..=newest)
            .map(|seq| ListedCommit { seq, session: None, bytes: 1, modified: minutes(60 * seq as i64) })
            .collect();
        Listed { now, packs, commits }
    }

    #[test]
    fn the_floor_passes_only_sessions_that_have_long_been_silent() {
        let floor = |packs: &[(u64, i64)], idle, floor| {
            let packs = packs.iter().map(|(begin, at)| lies(pack(*begin, 0), 1, minutes(*at))).collect();
            session_floor(&base(10, floor), &listed(minutes(630), packs, 10), idle)
        };
        assert_eq!(floor(&[], HOUR, 0), 9, "a session without packs began before commit 9 was made, 90 minutes ago");
        assert_eq!(floor(&[(3, 500), (4, 570)], HOUR, 0), 9);
        assert_eq!(floor(&[(3, 500), (4, 571)], HOUR, 0), 4, "session 4 was active 59 minutes ago");
        assert_eq!(floor(&[(3, 500), (4, 571)], HOUR, 7), 7, "it never sinks");
        assert_eq!(floor(&[(10, 630)], Duration::ZERO, 0), 11, "everybody counts as idle, also who wrote just now");
        assert_eq!(floor(&[], HOUR * 24, 0), 0);
        assert_eq!(session_floor(&base(0, 0), &listed(0, Vec::new(), 0), Duration::ZERO), 1);
        assert_eq!(session_floor(&base(5, 0), &listed(minutes(999), Vec::new(), 9), HOUR), 6, "not above its commit");
    }

    #[test]
    fn garbage_is_what_nobody_needs_and_nobody_may_commit_any_more() {
        let packs = [lies(pack(1, 0), 1, 0), lies(pack(1, 1), 1, 0), lies(pack(2, 0), 1, 0)];
        let needed = HashMap::from([(pack(1, 1), ())]);
        let below = |floor| garbage(&packs, &needed, floor).map(|listed| listed.pack).collect::<Vec<_>>();
        assert_eq!(below(1), []);
        assert_eq!(below(2), [pack(1, 0)]);
        assert_eq!(below(3), [pack(1, 0), pack(2, 0)]);
        let same_name = HashMap::from([(Pack::meta(pack(1, 0).name), ())]);
        assert_eq!(garbage(&packs[..1], &same_name, 2).count(), 1, "the kind is part of the name");
    }

    #[test]
    fn a_commit_is_made_only_if_something_comes_of_it() {
        let needs = |packs: &[(u64, i64)], floor: u64, idle| {
            let packs = packs.iter().map(|(begin, at)| lies(pack(*begin, 0), 1, minutes(*at))).collect();
            let plan = plan(&base(10, floor), &listed(minutes(999), packs, 10), &HashMap::new(), idle, 0);
            (plan.needs_commit, plan.session_floor)
        };
        assert_eq!(needs(&[], 3, HOUR), (false, 3));
        assert_eq!(needs(&[(2, 0)], 3, HOUR), (false, 3), "it lies below the floor already");
        assert_eq!(needs(&[(4, 0)], 3, HOUR), (true, 10));
        assert_eq!(needs(&[(10, 0)], 3, HOUR), (true, 3), "no floor could be above it: the next one can");
        assert_eq!(needs(&[(10, 990)], 3, HOUR), (false, 3));
        assert_eq!(needs(&[(10, 990)], 3, Duration::ZERO), (true, 11));
    }

    #[test]
    fn alone_a_floor_is_the_number_of_its_commit_and_one_that_is_the_heads_serves_again() {
        let plan = |packs: &[u64], floor: u64| {
            let packs = packs.iter().map(|begin| lies(pack(*begin, 0), 1, minutes(999))).collect();
            let plan = plan_alone(&base(10, floor), &listed(minutes(999), packs, 10), &HashMap::new(), 0);
            (plan.needs_commit, plan.session_floor)
        };
        assert_eq!(plan(&[], 3), (false, 3), "nothing comes of it");
        assert_eq!(plan(&[4], 3), (true, 11), "however young");
        assert_eq!(plan(&[2], 3), (true, 11), "the head could still be displaced, and its floor with it");
        assert_eq!(plan(&[9], 10), (false, 10), "the head is a prune's");
        assert_eq!(plan(&[10], 10), (true, 11), "it began at that very head");
        assert_eq!(plan(&[11], 3), (false, 3), "no floor could be above it");
    }

    #[test]
    fn packs_that_are_mostly_dead_are_moved_by_backups_or_by_the_prune_within_one_budget() {
        let packs: Vec<_> = (0..5).map(|number| lies(pack(1, number), 100, 0)).collect();
        let need = |alive_bytes, of_head| Needed { alive_bytes, most_alive_bytes: 100, whose: whose(of_head) };
        let needed = HashMap::from([
            (pack(1, 0), need(49, true)),
            (pack(1, 1), need(10, true)),
            (pack(1, 2), need(50, true)),
            // Backups move only what their parent refers to.
            (pack(1, 3), need(2, false)),
        ]);
        let names = |budget| {
            let of = emptiest(&base(9, 0), &packs, &needed, budget);
            let draining: Vec<_> = of.draining.iter().map(|name| name.number).collect();
            let moving: Vec<_> = of.moving.iter().map(|pack| pack.name.number).collect();
            ((draining, of.draining_bytes), (moving, of.moving_bytes))
        };
        assert_eq!(names(1000), ((vec![0, 1], 59), (vec![3], 2)));
        assert_eq!(names(60), ((vec![1], 10), (vec![3], 2)));
        assert_eq!(names(9), ((vec![], 0), (vec![3], 2)));
        assert_eq!(names(1), ((vec![], 0), (vec![], 0)));
    }

    #[test]
    fn a_head_that_is_spread_over_many_packs_is_put_together_again() {
        let count = SPREAD_PACKS as u32 + 1;
        let draining = |packs: &[ListedPack], needed: &HashMap<Pack, Needed>, budget| {
            let of = emptiest(&base(9, 0), packs, needed, budget);
            assert!(of.moving.is_empty());
            of.draining.iter().map(|name| name.number).collect::<Vec<_>>()
        };
        let packs: Vec<_> = (0..count).map(|number| lies(pack(1, number), 1000 + u64::from(number), 0)).collect();
        let need = |whose| {
            move |listed: &ListedPack| {
                (listed.pack, Needed { alive_bytes: listed.bytes, most_alive_bytes: listed.bytes, whose })
            }
        };
        let mut needed: HashMap<_, _> = packs.iter().map(need(whose(true))).collect();
        let smallest: Vec<u32> = (0..count - SPREAD_PACKS as u32 / 2).collect();
        assert_eq!(draining(&packs, &needed, u64::MAX), smallest);
        assert_eq!(draining(&packs, &needed, 2100), [0, 1], "as the budget allows");
        assert_eq!(draining(&packs[1..], &needed, u64::MAX), [] as [u32; 0], "as many as are allowed");
        let very_many: Vec<_> = (0..2000).map(|number| lies(pack(2, number), 1000, 0)).collect();
        let needs_all = very_many.iter().map(need(whose(true))).collect();
        assert_eq!(draining(&very_many, &needs_all, u64::MAX).len(), MOST_SPREAD, "commits stay small");
        // What older snapshots need would be there twice; what only they need is not read from.
        needed.extend(packs[..1].iter().map(need(Whose { heads: true, others: true })));
        assert_eq!(draining(&packs, &needed, u64::MAX), [] as [u32; 0]);
        needed.extend(packs[..5].iter().map(need(whose(false))));
        assert_eq!(draining(&packs, &needed, u64::MAX), [] as [u32; 0]);
        // What a backup has stored again, and what was never draining.
        let after = Commit { draining: packs[..20].iter().map(|listed| listed.pack.name).collect(), ..base(9, 0) };
        let needed: HashMap<_, _> = packs.iter().map(need(whose(false))).collect();
        let of = emptiest(&after, &packs, &needed, u64::MAX);
        assert_eq!((of.draining, of.moving), (vec![], packs[..20].iter().map(|listed| listed.pack).collect()));
        // A large head takes many packs; pages are not what is meant.
        let large: Vec<_> = (0..count).map(|number| lies(pack(1, number), SPREAD_BYTES, 0)).collect();
        let needed = large.iter().map(need(whose(true))).collect();
        assert_eq!(draining(&large, &needed, u64::MAX), [] as [u32; 0]);
        let meta: Vec<_> = packs.iter().map(|listed| lies(Pack::meta(listed.pack.name), listed.bytes, 0)).collect();
        let needed = meta.iter().map(need(whose(true))).collect();
        assert_eq!(draining(&meta, &needed, u64::MAX), [] as [u32; 0]);
    }

    #[test]
    fn what_is_moved_out_of_goes_by_the_floor_of_the_same_commit() {
        let packs = vec![lies(pack(7, 0), 100, 0)];
        let needed = Needed { alive_bytes: 10, most_alive_bytes: 10, whose: whose(false) };
        let plan = plan(
            &base(10, 3),
            &listed(minutes(999), packs, 10),
            &HashMap::from([(pack(7, 0), needed)]),
            Duration::ZERO,
            100,
        );
        assert_eq!((plan.session_floor, plan.moving.len(), plan.needs_commit), (11, 1, false));
    }

    #[test]
    fn of_packs_that_are_mostly_alive_the_emptiest_are_moved_while_a_fifth_of_all_is_dead() {
        let packs: Vec<_> = (0..4).map(|number| lies(pack(1, number), 100, 0)).collect();
        let moving = |alive: [u64; 4]| {
            let of = |(number, alive): (u32, u64)| {
                (pack(1, number), Needed { alive_bytes: alive, most_alive_bytes: alive, whose: whose(false) })
            };
            let of = emptiest(&base(9, 0), &packs, &(0..).zip(alive).map(of).collect(), 1000);
            let mut numbers: Vec<_> = of.moving.iter().map(|pack| pack.name.number).collect();
            numbers.sort_unstable();
            numbers
        };
        assert_eq!(moving([90, 80, 80, 85]), vec![] as Vec<u32>, "65 of 335");
        assert_eq!(moving([90, 80, 60, 85]), vec![2], "85 of 315");
        assert_eq!(moving([60, 60, 60, 60]), vec![0, 1, 2], "160 of 240");
        assert_eq!(moving([100, 10, 60, 100]), vec![1], "40 of 270 without it");
    }

    #[test]
    fn names_of_others_are_no_packs() {
        for (key, is_pack) in [
            ("packs/00000000000000000001-01010101010101010101010101010101/000000.data", true),
            ("packs/00000000000000000001-01010101010101010101010101010101/000000.meta", true),
            ("packs/00000000000000000001-01010101010101010101010101010101/000000.txt", false),
            ("packs/00000000000000000001-01010101010101010101010101010101/0.data", false),
            ("packs/notes.data", false),
        ] {
            let parsed = Pack::of(&Key::from(key));
            assert_eq!(parsed.map(|pack| pack.key() == Key::from(key)), is_pack.then_some(true), "{key}");
        }
    }
}
