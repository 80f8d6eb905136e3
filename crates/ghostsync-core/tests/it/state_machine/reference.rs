//! What must come of each step, as naively as it can be said.

use std::collections::BTreeMap;

use ghostsync_core::ErrorKind;
use ghostsync_core::history::judge::Overtaken;
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;
use proptest::strategy::BoxedStrategy;

/// Names of files; each can have one of a few contents.
pub(super) const FILES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// Which of its contents each file of a directory has.
pub(super) type Tree = BTreeMap<&'static str, u8>;

/// Who writes: two without an owner's name, and two holders with receipts.
pub(super) const WRITERS: [&str; 4] = ["plain", "other", "pod-a", "pod-b"];
const FIRST_POD: usize = 2;

/// The owner that a writer is, if it is one.
pub(super) fn owner(writer: usize) -> Option<&'static str> {
    (writer >= FIRST_POD).then(|| WRITERS[writer])
}

/// How a writer has the repository open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handle {
    Fresh,
    /// Since the beginning.
    Kept,
    /// Opened again, with what this writer has cached.
    Cached,
}

/// Files that are written, with one of their contents, or removed.
pub(super) type Edits = Vec<(usize, Option<u8>)>;

/// How a directory is backed up.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    pub(super) exclusive: bool,
    pub(super) release: bool,
    pub(super) quarantine: bool,
    pub(super) handle: Handle,
}

/// Something that somebody does. Snapshots are numbered from the first, forgotten ones too.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Everything in a writer's directory is lost.
    Empty(usize),
    /// A writer edits its directory, and backs it up.
    BackUp(usize, Edits, How),
    /// Makes a writer's directory equal to the head; that of a pod with a receipt.
    Restore(usize),
    Claim(usize),
    Release(usize),
    Tag(usize, bool),
    Hold(usize, bool),
    Promote(usize),
    Forget {
        last: u32,
        all: bool,
        tagged: bool,
    },
    Prune,
    Check,
    /// A month goes by.
    Month,
    /// The second is done in the moment in which the first is about to commit.
    Raced(Box<Step>, Box<Step>),
}

impl Step {
    /// The step with numbers of snapshots that there are: shorter histories have fewer of them.
    pub(super) fn resolved(&self, snapshots: usize) -> Self {
        match self {
            Self::Tag(number, set) => Self::Tag(number % snapshots, *set),
            Self::Hold(number, set) => Self::Hold(number % snapshots, *set),
            Self::Promote(number) => Self::Promote(number % snapshots),
            Self::Raced(step, intruder) => {
                Self::Raced(Box::new(step.resolved(snapshots)), Box::new(intruder.resolved(snapshots)))
            }
            other => other.clone(),
        }
    }
}

/// What somebody was told.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Told {
    Nothing,
    Made(usize),
    Unchanged(usize),
    Forked(usize, Overtaken),
    Quarantined(usize),
    Restored(usize),
    Claimed { fenced: Option<String>, head: usize, forks: Vec<usize> },
    Changed(bool),
    Promoted(usize),
    Forgotten(Vec<usize>),
    Failed(ErrorKind),
}

/// Which branch a snapshot is on.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Branch {
    Main,
    /// Of this writer, beside main.
    Fork(usize),
    Quarantine,
}

#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) branch: Branch,
    pub(super) tree: Tree,
    pub(super) parent: Option<usize>,
    pub(super) promoted: Option<usize>,
    pub(super) is_held: bool,
    pub(super) is_tagged: bool,
    pub(super) is_forgotten: bool,
    month: u32,
}

#[derive(Debug, Clone)]
struct Receipt {
    epoch: u32,
    snapshot: usize,
    quarantined: Option<usize>,
    /// How often main had been claimed then.
    quarantined_under: Option<u32>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Writer {
    pub(super) tree: Tree,
    receipt: Option<Receipt>,
}

#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) detect: bool,
    pub(super) writers: [Writer; 4],
    pub(super) snapshots: Vec<Snapshot>,
    pub(super) head: usize,
    /// How often main was claimed or promoted to.
    pub(super) epoch: u32,
    /// How often it was claimed.
    claims: u32,
    /// Who claimed main last, and whether it has released it.
    pub(super) holder: Option<(usize, bool)>,
    pub(super) month: u32,
    /// What came of the last step, in the order of what ended first.
    pub(super) told: Vec<Told>,
    /// How many commits it made, prunes apart.
    pub(super) commits: u64,
}

/// What a backup goes on from.
struct Parent {
    snapshot: Option<usize>,
    epoch: u32,
    /// How often main has been claimed, if that is still the epoch.
    claims: Option<u32>,
    holds: bool,
    overtaken: Option<Overtaken>,
}

/// Why a tree is kept beside the branch.
#[derive(Clone, Copy, PartialEq)]
enum Aside {
    Fork(Overtaken),
    Quarantine,
}

/// What is done in the moment of a commit, once.
type Intruder<'a> = Option<&'a Step>;

impl Model {
    /// One snapshot of what both plain writers have.
    pub(super) fn new(detect: bool) -> Self {
        let tree: Tree = FILES[..5].iter().map(|name| (*name, 0)).collect();
        let plain = Writer { tree: tree.clone(), receipt: None };
        let first = Snapshot {
            branch: Branch::Main,
            tree,
            parent: None,
            promoted: None,
            is_held: false,
            is_tagged: false,
            is_forgotten: false,
            month: 0,
        };
        Self {
            detect,
            writers: [plain.clone(), plain, Writer::default(), Writer::default()],
            snapshots: vec![first],
            head: 0,
            epoch: 0,
            claims: 0,
            holder: None,
            month: 0,
            told: Vec::new(),
            commits: 0,
        }
    }

    /// Takes a step, and says what must come of it.
    pub(super) fn take(&mut self, step: &Step) {
        self.told.clear();
        self.commits = 0;
        let told = match step.resolved(self.snapshots.len()) {
            Step::Raced(step, intruder) => self.act(&step, Some(&intruder)),
            step => self.act(&step, None),
        };
        self.told.push(told);
    }

    fn act(&mut self, step: &Step, mut intruder: Intruder<'_>) -> Told {
        // A change is a function of the state that it is built on: who comes first changes what it does, and no more.
        if !matches!(step, Step::BackUp(..)) && self.would_commit(step) {
            self.is_raced(&mut intruder);
        }
        match step {
            Step::Empty(writer) => {
                self.writers[*writer].tree.clear();
                Told::Nothing
            }
            Step::Month => {
                self.month += 1;
                Told::Nothing
            }
            Step::BackUp(writer, edits, how) => {
                for (file, content) in edits {
                    match content {
                        Some(content) => self.writers[*writer].tree.insert(FILES[*file], *content),
                        None => self.writers[*writer].tree.remove(FILES[*file]),
                    };
                }
                self.back_up(*writer, *how, intruder, false)
            }
            Step::Restore(writer) => self.restore(*writer),
            Step::Claim(writer) => self.claim(*writer),
            Step::Release(writer) => self.release(*writer).map_or_else(Told::Failed, Told::Changed),
            Step::Tag(snapshot, is_tagged) => self.mark(*snapshot, |snapshot| &mut snapshot.is_tagged, *is_tagged),
            Step::Hold(snapshot, is_held) => self.mark(*snapshot, |snapshot| &mut snapshot.is_held, *is_held),
            Step::Promote(snapshot) => self.promote(*snapshot),
            Step::Forget { last, all, tagged } => self.forget(*last as usize, *all, *tagged),
            Step::Prune | Step::Check => Told::Nothing,
            Step::Raced(step, _) => self.act(step, intruder),
        }
    }

    /// Lets the intruder in, and tells whether there was one.
    fn is_raced(&mut self, intruder: &mut Intruder<'_>) -> bool {
        let Some(step) = intruder.take() else { return false };
        let told = self.act(step, None);
        self.told.push(told);
        true
    }

    fn would_commit(&self, step: &Step) -> bool {
        let mut then = self.clone();
        then.act_alone(step);
        then.commits > self.commits
    }

    fn act_alone(&mut self, step: &Step) {
        match step {
            Step::Claim(writer) => drop(self.claim(*writer)),
            Step::Release(writer) => drop(self.release(*writer)),
            Step::Tag(snapshot, set) => drop(self.mark(*snapshot, |snapshot| &mut snapshot.is_tagged, *set)),
            Step::Hold(snapshot, set) => drop(self.mark(*snapshot, |snapshot| &mut snapshot.is_held, *set)),
            Step::Promote(snapshot) => drop(self.promote(*snapshot)),
            Step::Forget { last, all, tagged } => drop(self.forget(*last as usize, *all, *tagged)),
            _ => {}
        }
    }

    // Backups.

    fn back_up(&mut self, writer: usize, how: How, mut intruder: Intruder<'_>, again: bool) -> Told {
        let Some(parent) = self.parent(writer, how, again) else { return Told::Failed(ErrorKind::Refused) };
        let tree = self.writers[writer].tree.clone();
        let before = parent.snapshot.map(|parent| &self.snapshots[parent].tree);
        let is_refused = before.is_some_and(|before| refuses(before, &tree));
        if is_refused {
            return match how.quarantine {
                true => self.keep(writer, how, &parent, Aside::Quarantine, intruder),
                false => Told::Failed(ErrorKind::Refused),
            };
        }
        if let Some(snapshot) = parent.snapshot.filter(|_| before == Some(&tree)) {
            if parent.overtaken.is_some() {
                return Told::Failed(ErrorKind::Conflict);
            }
            if how.release && parent.holds {
                self.is_raced(&mut intruder);
                if let Err(kind) = self.release(writer) {
                    return Told::Failed(kind);
                }
            }
            self.keep_receipt(writer, parent.epoch, snapshot);
            return Told::Unchanged(snapshot);
        }
        match parent.overtaken {
            Some(overtaken) => self.keep(writer, how, &parent, Aside::Fork(overtaken), intruder),
            None => self.on_branch(writer, how, &parent, intruder),
        }
    }

    /// `None`: the receipt does not hold.
    fn parent(&self, writer: usize, how: How, again: bool) -> Option<Parent> {
        let holder = self.unreleased();
        let holds = holder == Some(writer);
        let overtaken = match holder {
            Some(_) if !holds => Some(Overtaken::Held),
            None if how.exclusive && owner(writer).is_some() => Some(Overtaken::NotHeld),
            _ => None,
        };
        if owner(writer).is_none() {
            let (epoch, claims) = (self.epoch, None);
            return Some(Parent { snapshot: Some(self.head), epoch, claims, holds, overtaken });
        }
        let receipt = self.writers[writer].receipt.as_ref()?;
        let promoted = self.snapshots[self.head].promoted;
        let is_same_claim = receipt.quarantined_under == Some(self.claims);
        let is_adopted = promoted.is_some() && promoted == receipt.quarantined && is_same_claim;
        let is_head = is_adopted || self.head == receipt.snapshot;
        let is_retained = !self.snapshots[receipt.snapshot].is_forgotten;
        let snapshot = match is_head {
            true => Some(self.head),
            false if !is_retained && !again => return None,
            false => Some(receipt.snapshot).filter(|_| is_retained),
        };
        let epoch = if holds && !is_adopted { receipt.epoch } else { self.epoch };
        let claims = Some(self.claims).filter(|_| epoch == self.epoch);
        let overtaken = overtaken.or((!is_head).then_some(Overtaken::OtherHead));
        Some(Parent { snapshot, epoch, claims, holds, overtaken })
    }

    fn unreleased(&self) -> Option<usize> {
        self.holder.filter(|(_, is_released)| !is_released).map(|(holder, _)| holder)
    }

    fn is_forgotten(&self, parent: &Parent) -> bool {
        parent.snapshot.is_some_and(|parent| self.snapshots[parent].is_forgotten)
    }

    fn on_branch(&mut self, writer: usize, how: How, parent: &Parent, mut intruder: Intruder<'_>) -> Told {
        let tree = self.writers[writer].tree.clone();
        let has_receipt = owner(writer).is_some();
        loop {
            if self.is_forgotten(parent) {
                return self.back_up(writer, how, intruder, true);
            }
            let (holder, is_other_head) = (self.unreleased(), Some(self.head) != parent.snapshot);
            let overtaken = match () {
                () if self.epoch != parent.epoch => Some(Overtaken::NewEpoch),
                () if holder.is_some() && !parent.holds => Some(Overtaken::Held),
                () if has_receipt && is_other_head && !(parent.holds && holder.is_some()) => Some(Overtaken::OtherHead),
                () => None,
            };
            if let Some(overtaken) = overtaken {
                return self.keep(writer, how, parent, Aside::Fork(overtaken), intruder);
            }
            if is_other_head {
                let newest = &self.snapshots[self.head].tree;
                if *newest == tree {
                    return Told::Unchanged(self.head);
                }
                if refuses(newest, &tree) {
                    return match how.quarantine {
                        true => self.keep(writer, how, parent, Aside::Quarantine, intruder),
                        false => Told::Failed(ErrorKind::Refused),
                    };
                }
            }
            if self.is_raced(&mut intruder) {
                continue;
            }
            let made = self.add(Branch::Main, tree, Some(self.head), None, false);
            if let (true, Some((holder, is_released))) = (how.release, &mut self.holder) {
                *is_released |= *holder == writer;
            }
            self.keep_receipt(writer, parent.epoch, made);
            return Told::Made(made);
        }
    }

    /// Keeps a tree beside main, unless the newest that is kept there is the same.
    fn keep(&mut self, writer: usize, how: How, parent: &Parent, aside: Aside, mut intruder: Intruder<'_>) -> Told {
        let tree = self.writers[writer].tree.clone();
        let branch = match aside {
            Aside::Fork(_) => Branch::Fork(writer),
            Aside::Quarantine => Branch::Quarantine,
        };
        let kept = loop {
            if self.is_forgotten(parent) {
                return self.back_up(writer, how, intruder, true);
            }
            let newest = self.retained().rfind(|(_, snapshot)| snapshot.branch == branch);
            if let Some((number, _)) = newest.filter(|(_, snapshot)| snapshot.tree == tree) {
                break number;
            }
            if !self.is_raced(&mut intruder) {
                break self.add(branch, tree, parent.snapshot, None, false);
            }
        };
        match aside {
            Aside::Fork(overtaken) => Told::Forked(kept, overtaken),
            Aside::Quarantine => {
                if let Some(receipt) = &mut self.writers[writer].receipt {
                    (receipt.quarantined, receipt.quarantined_under) = (Some(kept), parent.claims);
                }
                Told::Quarantined(kept)
            }
        }
    }

    fn keep_receipt(&mut self, writer: usize, epoch: u32, snapshot: usize) {
        if let Some(receipt) = &mut self.writers[writer].receipt {
            *receipt = Receipt { epoch, snapshot, quarantined: None, quarantined_under: None };
        }
    }

    /// Adds a snapshot, which is the head of its branch.
    fn add(
        &mut self,
        branch: Branch,
        tree: Tree,
        parent: Option<usize>,
        promoted: Option<usize>,
        is_tagged: bool,
    ) -> usize {
        let number = self.snapshots.len();
        if branch == Branch::Main {
            self.head = number;
        }
        // The library takes promotions for as old as they are by its own clock, which stands still here.
        let month = if promoted.is_some() { 0 } else { self.month };
        let (is_held, is_forgotten) = (false, false);
        self.snapshots.push(Snapshot { branch, tree, parent, promoted, is_held, is_tagged, is_forgotten, month });
        self.commits += 1;
        number
    }

    // Everything else.

    fn restore(&mut self, writer: usize) -> Told {
        self.writers[writer].tree = self.snapshots[self.head].tree.clone();
        let (epoch, snapshot) = (self.epoch, self.head);
        let receipt = Receipt { epoch, snapshot, quarantined: None, quarantined_under: None };
        self.writers[writer].receipt = owner(writer).map(|_| receipt);
        Told::Restored(self.head)
    }

    fn claim(&mut self, writer: usize) -> Told {
        let fenced = self.unreleased().map(|holder| WRITERS[holder].to_owned());
        self.holder = Some((writer, false));
        (self.epoch, self.claims) = (self.epoch + 1, self.claims + 1);
        self.commits += 1;
        let is_late =
            |snapshot: &Snapshot| matches!(snapshot.branch, Branch::Fork(_)) && snapshot.parent == Some(self.head);
        let forks = self.retained().filter(|(_, snapshot)| is_late(snapshot)).map(|(number, _)| number).collect();
        Told::Claimed { fenced, head: self.head, forks }
    }

    fn release(&mut self, writer: usize) -> Result<bool, ErrorKind> {
        match &mut self.holder {
            Some((holder, is_released)) if *holder == writer => {
                let was_released = std::mem::replace(is_released, true);
                self.commits += u64::from(!was_released);
                Ok(!was_released)
            }
            _ => Err(ErrorKind::Conflict),
        }
    }

    fn mark(&mut self, number: usize, mark: impl Fn(&mut Snapshot) -> &mut bool, set: bool) -> Told {
        let snapshot = &mut self.snapshots[number];
        if snapshot.is_forgotten {
            return Told::Failed(ErrorKind::NotFound);
        }
        let changes = std::mem::replace(mark(snapshot), set) != set;
        self.commits += u64::from(changes);
        Told::Changed(changes)
    }

    fn promote(&mut self, number: usize) -> Told {
        let source = self.snapshots[number].clone();
        if source.is_forgotten {
            return Told::Failed(ErrorKind::NotFound);
        }
        if source.tree == self.snapshots[self.head].tree {
            return Told::Failed(ErrorKind::Invalid);
        }
        self.epoch += 1;
        Told::Promoted(self.add(Branch::Main, source.tree, Some(self.head), Some(number), source.is_tagged))
    }

    pub(super) fn retained(&self) -> impl DoubleEndedIterator<Item = (usize, &Snapshot)> {
        self.snapshots.iter().enumerate().filter(|(_, snapshot)| !snapshot.is_forgotten)
    }

    fn forget(&mut self, last: usize, all: bool, tagged: bool) -> Told {
        if last == 0 && !tagged {
            return Told::Failed(ErrorKind::Invalid);
        }
        let main: Vec<usize> = self.retained().filter(|(_, of)| of.branch == Branch::Main).map(|(at, _)| at).collect();
        // What has fewer than half the files of the last one that is not in doubt is in doubt itself, for a month.
        let mut undoubted: Vec<usize> = Vec::new();
        for number in &main {
            let snapshot = &self.snapshots[*number];
            let is_doubted = undoubted
                .last()
                .map(|before| &self.snapshots[*before])
                .is_some_and(|before| snapshot.tree.len() * 2 < before.tree.len() && snapshot.month <= before.month);
            undoubted.extend((!is_doubted).then_some(*number));
        }
        let newest = |of: &[usize], count: usize| of.iter().rev().take(count).copied().collect::<Vec<_>>();
        let mut kept = [newest(&main, last), newest(&undoubted, last.max(1)), vec![self.head]].concat();
        let is_marked = |snapshot: &Snapshot| snapshot.is_held || tagged && snapshot.is_tagged;
        kept.extend(self.retained().filter(|(_, snapshot)| is_marked(snapshot)).map(|(number, _)| number));
        // A branch beside main ends when main has gone on for a month.
        let has_ended = |snapshot: &Snapshot| all && self.snapshots[self.head].month > snapshot.month;
        let beside = self.retained().filter(|(_, snapshot)| snapshot.branch != Branch::Main);
        let stays = beside.filter(|(number, snapshot)| kept.contains(number) || !has_ended(snapshot));
        let beside: Vec<usize> = stays.map(|(number, _)| number).collect();
        kept.extend(&beside);
        // Every head is kept, and its parent: those beside main are heads.
        let heads = beside.iter().chain([&self.head]);
        kept.extend(heads.filter_map(|head| self.snapshots[*head].parent).collect::<Vec<_>>());
        let dropped: Vec<usize> =
            self.retained().map(|(number, _)| number).filter(|number| !kept.contains(number)).collect();
        for number in &dropped {
            self.snapshots[*number].is_forgotten = true;
        }
        self.commits += u64::from(!dropped.is_empty());
        Told::Forgotten(dropped)
    }
}

/// The guard: an empty directory follows none that is not, and no more than half of the files go at once.
fn refuses(before: &Tree, now: &Tree) -> bool {
    let removed = before.keys().filter(|name| !now.contains_key(*name)).count();
    let is_allowed = before.len() < 10 && removed <= 1 || removed * 2 <= before.len();
    now.is_empty() && !before.is_empty() || !is_allowed
}

// What is tried.

pub(super) fn steps(model: &Model) -> BoxedStrategy<Step> {
    let back_up = back_up(model).boxed();
    let alone = alone(back_up.clone());
    if model.detect {
        return alone.boxed();
    }
    let raced = prop_oneof![6 => back_up.clone(), 1 => changes()];
    let intruder = prop_oneof![2 => back_up, 2 => changes(), 1 => Just(Step::Prune)];
    // A directory is not backed up twice at once.
    let raced = (raced, intruder).prop_filter_map("the same writer twice", |both| match both {
        (Step::BackUp(one, ..), Step::BackUp(other, ..)) if one == other => None,
        (step, intruder) => Some(Step::Raced(Box::new(step), Box::new(intruder))),
    });
    prop_oneof![2 => alone, 1 => raced].boxed()
}

fn alone(back_up: BoxedStrategy<Step>) -> impl Strategy<Value = Step> {
    let (writer, pod) = (|| 0..WRITERS.len(), FIRST_POD..WRITERS.len());
    prop_oneof![
        1 => writer().prop_map(Step::Empty),
        10 => back_up,
        3 => pod.prop_map(Step::Restore),
        1 => writer().prop_map(Step::Restore),
        6 => changes(),
        2 => Just(Step::Prune),
        1 => Just(Step::Check),
        1 => Just(Step::Month),
    ]
}

fn back_up(model: &Model) -> impl Strategy<Value = Step> + use<> {
    // Pods that were never restored are refused, which need not be seen often.
    let is_ready = |writer: &usize| owner(*writer).is_none() || model.writers[*writer].receipt.is_some();
    let ready: Vec<usize> = (0..WRITERS.len()).filter(is_ready).collect();
    let writer = prop_oneof![12 => select(ready), 1 => 0..WRITERS.len()];
    let edits = vec((0..FILES.len(), weighted(0.6, 0..4_u8)), 0..4);
    let handle = prop_oneof![Just(Handle::Fresh), Just(Handle::Kept), Just(Handle::Cached)];
    let how = (any::<bool>(), proptest::bool::weighted(0.2), any::<bool>(), handle);
    let how = how.prop_map(|(exclusive, release, quarantine, handle)| How { exclusive, release, quarantine, handle });
    (writer, edits, how).prop_map(|(writer, edits, how)| Step::BackUp(writer, edits, how))
}

/// Commits of no directory.
fn changes() -> impl Strategy<Value = Step> {
    let (pod, snapshot) = (|| FIRST_POD..WRITERS.len(), || 0..20_usize);
    prop_oneof![
        2 => pod().prop_map(Step::Claim),
        1 => pod().prop_map(Step::Release),
        1 => (snapshot(), any::<bool>()).prop_map(|(snapshot, set)| Step::Tag(snapshot, set)),
        1 => (snapshot(), any::<bool>()).prop_map(|(snapshot, set)| Step::Hold(snapshot, set)),
        2 => snapshot().prop_map(Step::Promote),
        3 => (0..3_u32, any::<bool>(), any::<bool>())
            .prop_map(|(last, all, tagged)| Step::Forget { last, all, tagged }),
    ]
}
