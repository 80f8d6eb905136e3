//! Pruning where the store cannot create an object at most once: alone, and with an eye on what lies beside the head.

use std::time::SystemTime;

use ghostsync_core::guard::{Cap, Guard, Policy};
use ghostsync_core::id::PackName;
use ghostsync_core::maintain::{ForgetOptions, KeepRules, PruneReport, forget, plan_forget};
use ghostsync_core::store::{StoreSettings, open_url};
use ghostsync_core::testing::tree::noise;
use object_store::local::LocalFileSystem;
use proptest::prelude::Just;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use super::*;
use crate::pruning::support::{packs_in, reachable};

fn at_once() -> PruneOptions {
    let exclusive = true;
    PruneOptions { grace: Duration::ZERO, session_idle: Duration::ZERO, exclusive, ..PruneOptions::default() }
}

async fn pruned(repository: &Repository) -> PruneReport {
    prune(repository, at_once(), std::sync::Arc::new(NoObserver)).await.expect("a prune")
}

async fn keys_of(memory: &Arc<InMemory>) -> Vec<Key> {
    let listed = memory.list(None).try_collect::<Vec<_>>().await.expect("listed");
    listed.into_iter().map(|object| object.location).collect()
}

/// Puts a pack there that a session left behind which had begun at this number.
async fn litter(memory: &Arc<InMemory>, begin: u64) -> Key {
    let key = keys::data_pack(format!("{begin:020}-{}/000001", SessionId::random()).parse().expect("a name"));
    memory.put(&key, "nobody needs this".into()).await.expect("written");
    key
}

/// What lies there is just what the state needs.
async fn assert_nothing_unreachable(memory: &Arc<InMemory>) {
    let objects: Arc<dyn ObjectStore> = memory.clone();
    let state = open(memory).await.state().await.expect("a state");
    assert_eq!(packs_in(&objects).await, reachable(&objects, &state).await);
}

/// Puts the commit after the newest, made by hand: quicker than one that lists and waits.
async fn append(memory: &Arc<InMemory>, change: impl FnOnce(&mut Commit)) -> TipName {
    let base = open(memory).await.state().await.expect("a state");
    let (seq, session) = (base.commit.seq + 1, SessionId::random());
    let (begin, op) = (Some(base.commit.seq), json!({"kind": "by hand"}));
    let mut commit = Commit { seq, prev: base.hash, session, begin, op, ..base.commit };
    change(&mut commit);
    let name = TipName { seq, session };
    memory.put(&keys::tip(name), commit.encode().expect("encodes").into()).await.expect("written");
    name
}

/// Drops all snapshots of the newest state but heads and these.
async fn forget_all_but(memory: &Arc<InMemory>, kept: &[SnapshotId]) {
    append(memory, |commit| {
        let heads: Vec<_> = commit.branches.values().filter_map(|branch| branch.head).collect();
        let is_kept = |id: SnapshotId, was: Option<SnapshotId>| {
            heads.contains(&id) || kept.contains(&id) || was.is_some_and(|was| kept.contains(&was))
        };
        commit.snapshots.retain(|snapshot| is_kept(snapshot.id, snapshot.was));
    })
    .await;
}

async fn stored(memory: &Arc<InMemory>, name: TipName) -> bytes::Bytes {
    memory.get(&keys::tip(name)).await.expect("there").bytes().await.expect("read")
}

async fn is_stub(memory: &Arc<InMemory>, name: TipName) -> bool {
    matches!(decode_log_entry(&stored(memory, name).await), Ok(LogEntry::Emptied(_)))
}

fn refused_by(error: &ghostsync_core::Error) -> Option<Guard> {
    error.refusal().map(|refusal| refusal.guard)
}

#[tokio::test]
async fn without_the_promise_to_be_alone_nothing_is_pruned_or_forgotten() {
    let memory = Arc::new(InMemory::new());
    let repository = create(&memory).await;
    for content in ["a", "bb", "ccc"] {
        let _ = back_up(&repository, content).await;
    }
    let garbage = litter(&memory, 0).await;
    let before = keys_of(&memory).await;
    let error =
        prune(&repository, PruneOptions { exclusive: false, ..at_once() }, std::sync::Arc::new(NoObserver)).await;
    let error = error.expect_err("refused");
    assert_eq!((error.kind(), refused_by(&error)), (ErrorKind::Refused, Some(Guard::Exclusive)), "{error}");
    assert!(error.to_string().contains("no other process writes"), "{error}");
    let keep = KeepRules { last: 1, ..KeepRules::default() };
    let mut options = ForgetOptions { keep, protect: Duration::ZERO, ..ForgetOptions::default() };
    let error = forget(&repository, &options).await.expect_err("refused");
    assert_eq!(refused_by(&error), Some(Guard::Exclusive), "{error}");
    // Nobody has to be stopped for a look.
    assert_eq!(plan_forget(&repository, &options).await.expect("a plan").dropped().count(), 1);
    let dry = PruneOptions { exclusive: false, dry_run: true, ..at_once() };
    let planned = prune(&repository, dry, std::sync::Arc::new(NoObserver)).await.expect("a plan");
    assert_eq!((planned.deleted_packs, planned.session_floor, planned.commit), (1, 4, Some(4)));
    assert_eq!(keys_of(&memory).await, before);

    options.exclusive = true;
    assert_eq!(forget(&repository, &options).await.expect("forgets").commit, Some(4));
    let report = pruned(&repository).await;
    assert_eq!((report.commit, report.session_floor), (Some(5), 5), "the floor is the number of its commit");
    assert!(report.deleted_packs > 1 && !keys_of(&memory).await.contains(&garbage), "{report:?}");
    assert_nothing_unreachable(&memory).await;
    let again = pruned(&repository).await;
    assert_eq!((again.commit, again.deleted_packs), (None, 0), "nothing comes of another commit");
    assert!(checked(&repository).await.damage.is_empty());
}

/// A commit that lost a race is needed, although nobody has merged it yet.
#[tokio::test]
async fn what_an_unmerged_tip_reaches_is_kept() {
    let memory = Arc::new(InMemory::new());
    let repository = create(&memory).await;
    let _ = back_up(&repository, "base").await;
    let elsewhere = copy(&memory).await;
    let beside = back_up(&open(&elsewhere).await, "beside the rest").await.snapshot.expect("made");
    for content in ["one", "two", "three of them"] {
        let _ = back_up(&repository, content).await;
    }
    let _ = litter(&memory, 1).await;
    pour(&elsewhere, &memory).await;
    let before = commit(&memory, head(&repository).await).await;
    assert!(!before.snapshots.iter().any(|one| one.id == beside || one.was == Some(beside)), "nobody has merged it");

    let report = pruned(&repository).await;
    assert_eq!((report.deleted_packs, report.commit), (1, Some(before.seq + 1)), "the litter alone");
    assert_eq!(content_of(&open(&memory).await, beside).await, "beside the rest");
    // The log itself says it from now on, not only what a reader makes of it.
    let now = commit(&memory, head(&repository).await).await;
    assert!(now.snapshots.iter().any(|one| one.was == Some(beside)) && now.session_floor == now.seq);
    assert_nothing_unreachable(&memory).await;
    let report = checked(&open(&memory).await).await;
    assert!(report.damage.is_empty() && report.void.is_empty(), "{report:?}");
}

/// What a writer that has died has sent lands when its packs have been deleted: it is void, also where its session is
/// the smaller one.
#[tokio::test]
async fn a_void_tip_is_never_the_head() {
    let mut smaller = [0, 0];
    while smaller.contains(&0) {
        assert!(smaller[0] + smaller[1] < 64, "always the same one was smaller: {smaller:?}");
        let memory = Arc::new(InMemory::new());
        let repository = create(&memory).await;
        let base = back_up(&repository, "base").await.snapshot.expect("made");
        let elsewhere = copy(&memory).await;
        let late = back_up(&open(&elsewhere).await, "late").await.snapshot.expect("made");
        let late_name = head(&open(&elsewhere).await).await;
        for key in keys_of(&elsewhere).await.into_iter().filter(|key| key.as_ref().starts_with("packs/")) {
            let bytes = elsewhere.get(&key).await.expect("there").bytes().await.expect("read");
            memory.put(&key, bytes.into()).await.expect("written");
        }
        let report = pruned(&repository).await;
        assert_eq!((report.commit, report.deleted_packs), (Some(2), 2), "{report:?}");
        let floor_name = head(&open(&memory).await).await;
        assert_eq!(late_name.seq, floor_name.seq);
        smaller[usize::from(late_name.session < floor_name.session)] += 1;

        let bytes = stored(&elsewhere, late_name).await;
        memory.put(&keys::tip(late_name), bytes.into()).await.expect("landed");
        assert_eq!(head(&open(&memory).await).await, floor_name);
        let report = checked(&open(&memory).await).await;
        assert!(report.damage.is_empty(), "{report:?}");
        let void: Vec<_> = report.void.iter().map(|(void, _)| void.clone()).collect();
        assert_eq!(void, [keys::tip(late_name).to_string()]);

        // It stays so, and what it left behind goes.
        pour(&elsewhere, &memory).await;
        let next = back_up(&open(&memory).await, "and on").await;
        assert_eq!(next.outcome, BackupOutcome::Done);
        assert_eq!(pruned(&repository).await.deleted_packs, 2);
        let state = open(&memory).await.state().await.expect("a state").commit;
        assert!(state.snapshot(base).is_some() && state.snapshot(late).is_none());
        assert_nothing_unreachable(&memory).await;
        assert!(checked(&open(&memory).await).await.damage.is_empty());
    }
}

/// The promise was not kept, or what a dead writer sent arrived in that moment: which of the two cannot be told.
/// A prune's floor voids such a commit already; should a move ever come without one, this is the second line of defence.
#[tokio::test]
async fn what_refers_to_pages_that_were_moved_is_void() {
    let memory = Arc::new(InMemory::new());
    let repository = create(&memory).await;
    let _ = back_up(&repository, "base").await;
    let elsewhere = copy(&memory).await;
    let late = back_up(&open(&elsewhere).await, "late").await.snapshot.expect("made");
    let late_name = head(&open(&elsewhere).await).await;
    let there: PackName = format!("{:020}-{}/000000", 1, SessionId::random()).parse().expect("a name");
    let base = repository.state().await.expect("a state").commit.snapshots[0].clone();
    memory.copy(&keys::meta_pack(base.tree.pack), &keys::meta_pack(there)).await.expect("moved");
    let _ = append(&memory, |commit| commit.snapshots[0].tree.pack = there).await;
    let _ = append(&memory, |_| {}).await;
    pour(&elsewhere, &memory).await;

    assert!(repository.state().await.expect("a state").commit.snapshot(late).is_none());
    let report = checked(&open(&memory).await).await;
    let void: Vec<_> = report.void.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(void, [keys::tip(late_name).to_string()]);
    assert!(report.damage.is_empty(), "{report:?}");
    assert_eq!(content_of(&repository, base.id).await, "base");
}

#[tokio::test]
async fn a_prune_that_is_not_alone_deletes_nothing_and_says_so() {
    let memory = Arc::new(InMemory::new());
    let _ = back_up(&create(&memory).await, "base").await;
    let elsewhere = copy(&memory).await;
    let _ = back_up(&open(&elsewhere).await, "late").await;
    litter(&memory, 0).await;
    let mut before = packs_in(&(memory.clone() as Arc<dyn ObjectStore>)).await;
    before.extend(packs_in(&(elsewhere.clone() as Arc<dyn ObjectStore>)).await);
    let landing = open_while_landing(&memory, &elsewhere).await;
    let error = prune(&landing, at_once(), std::sync::Arc::new(NoObserver)).await.expect_err("not alone");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(packs_in(&(memory.clone() as Arc<dyn ObjectStore>)).await, before);
    assert!(checked(&open(&memory).await).await.damage.is_empty());
    // Alone, it completes.
    assert_eq!(pruned(&open(&memory).await).await.deleted_packs, 3);
    assert_nothing_unreachable(&memory).await;
}

#[tokio::test]
async fn while_the_outcome_is_unknown_nothing_is_deleted_and_the_promise_goes_on() {
    let memory = Arc::new(InMemory::new());
    let _ = back_up(&create(&memory).await, "base").await;
    let garbage = litter(&memory, 0).await;
    for fault in [Fault::Before(Failure::Timeout), Fault::After(Failure::Timeout)] {
        let lost = std::sync::atomic::AtomicBool::new(false);
        let faulty = FaultStore::new(memory.clone(), move |call| {
            let is_log = call.key.to_string().starts_with("log/0");
            let put = is_log && call.operation == Operation::Put;
            let lost = lost.fetch_or(put, std::sync::atomic::Ordering::SeqCst) || put;
            (lost && is_log).then_some(if put { fault } else { Fault::Before(Failure::Timeout) })
        });
        let faulty = Store::new(Arc::new(faulty), "memory").with_settle_time(Duration::from_millis(100));
        let repository = Repository::open(faulty, OpenOptions::default()).await.expect("a repository");
        let error = prune(&repository, at_once(), std::sync::Arc::new(NoObserver)).await.expect_err("lost");
        assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
        assert!(error.to_string().contains("nobody may write until a prune has ended"), "{error}");
        assert!(keys_of(&memory).await.contains(&garbage));
    }
    let report = pruned(&open(&memory).await).await;
    assert_eq!((report.commit, report.deleted_packs), (None, 1), "the floor had landed");
    assert_nothing_unreachable(&memory).await;
}

/// A floor below its own number does not hold: what was on its way could take the place of the commit that has it.
#[tokio::test]
async fn packs_go_by_no_commit_that_another_could_displace() {
    let memory = Arc::new(InMemory::new());
    let repository = create(&memory).await;
    let _ = back_up(&repository, "base").await;
    let _ = litter(&memory, 0).await;
    assert_eq!(pruned(&repository).await.commit, Some(2));
    let _ = back_up(&repository, "and on").await;
    let elsewhere = copy(&memory).await;
    // Both follow number 3: one drops what the other has kept.
    let other = back_up(&open(&elsewhere).await, "on its way").await;
    let dropping = loop {
        let here = copy(&memory).await;
        forget_all_but(&here, &[]).await;
        let name = head(&open(&here).await).await;
        if name.session > head(&open(&elsewhere).await).await.session {
            break here;
        }
    };
    pour(&dropping, &memory).await;
    // What was needed until then lies below the floor of 2, and no other commit has to be made for that.
    assert_eq!(pruned(&open(&memory).await).await.session_floor, 5);
    pour(&elsewhere, &memory).await;
    let state = open(&memory).await.state().await.expect("a state").commit;
    assert_eq!((state.seq, state.snapshot(other.snapshot.expect("made")).map(|one| one.id)), (5, None));
    assert!(checked(&open(&memory).await).await.damage.is_empty());
}

#[tokio::test]
async fn old_commits_are_emptied_but_for_unmerged_ones_and_an_old_cache_finds_the_head() {
    let memory = Arc::new(InMemory::new());
    let repository = create(&memory).await;
    let _ = back_up(&repository, "base").await;
    let many = async |count| {
        for _ in 0..count {
            append(&memory, |_| {}).await;
        }
    };
    many(9).await;
    // Number 11 has two, and the next one has merged the other.
    let elsewhere = copy(&memory).await;
    let loser = back_up(&open(&elsewhere).await, "merged").await;
    let mut of_eleven = vec![head(&open(&elsewhere).await).await];
    of_eleven.push(append(&memory, |_| {}).await);
    pour(&elsewhere, &memory).await;
    many(8).await;
    // Number 20 has one more, which comes when a floor is above it: nobody ever merges it.
    let elsewhere = copy(&memory).await;
    let void = append(&elsewhere, |_| {}).await;
    many(5).await;
    let _ = litter(&memory, 3).await;
    assert_eq!(pruned(&repository).await.commit, Some(25));
    pour(&elsewhere, &memory).await;
    assert_eq!(void.seq, 20);

    let cache = tempfile::tempdir().expect("a folder");
    let cached = || async {
        let options = OpenOptions { cache_dir: Some(cache.path().to_owned()) };
        Repository::open(store(&memory), options).await.expect("opens")
    };
    assert_eq!(cached().await.state().await.expect("a state").commit.seq, 25);
    many(80).await;
    let whole = stored(&memory, void).await;
    let report = pruned(&repository).await;
    assert_eq!((report.commit, report.emptied_commits), (None, 25), "all numbers below the floor, 11 twice");
    assert_eq!(stored(&memory, void).await, whole, "what nobody has merged stays as it is");
    for name in of_eleven {
        assert!(is_stub(&memory, name).await, "{name:?}");
    }
    assert_eq!(pruned(&repository).await.emptied_commits, 0, "once is enough");

    assert_eq!(cached().await.state().await.expect("a state").commit.seq, 105);
    let kept = loser.snapshot.expect("made");
    assert_eq!(content_of(&cached().await, kept).await, "merged");
    let report = checked(&cached().await).await;
    assert!(report.damage.is_empty(), "{report:?}");
}

#[tokio::test]
async fn deletions_wait_until_a_state_without_them_has_been_seen_for_a_while() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = folder.path().join("repository");
    let store = || open_url(url.to_str().expect("UTF-8"), &StoreSettings::default(), true).expect("a store");
    let create = CreateOptions { commit_mode: CommitMode::Detect, skip_probe: true, ..CreateOptions::default() };
    let repository = Repository::create(store(), create, OpenOptions::default()).await.expect("a new repository");
    let objects = LocalFileSystem::new_with_prefix(store().folder().expect("a folder")).expect("a folder");
    let objects: Arc<dyn ObjectStore> = Arc::new(objects);
    let age = |hours: u64| {
        let then = SystemTime::now() - Duration::from_secs(hours * 3600 + 60);
        for entry in fs::read_dir(url.join("log")).expect("a folder") {
            let path = entry.expect("an entry").path();
            fs::File::open(&path).and_then(|file| file.set_modified(then)).expect("aged");
        }
    };
    let polite = async || {
        let options = PruneOptions { exclusive: true, ..PruneOptions::default() };
        prune(&repository, options, std::sync::Arc::new(NoObserver)).await.expect("a prune")
    };
    let forget_one = async || {
        let keep = KeepRules { last: 1, ..KeepRules::default() };
        let options = ForgetOptions { keep, protect: Duration::ZERO, exclusive: true, ..ForgetOptions::default() };
        assert_eq!(forget(&repository, &options).await.expect("forgets").plan.dropped().count(), 1);
    };
    for content in ["1", "22", "333"] {
        let _ = back_up(&repository, content).await;
    }
    forget_one().await;
    age(25);
    let report = polite().await;
    assert_eq!((report.commit, report.session_floor), (Some(5), 5));
    assert_eq!((report.deleted_packs, report.waiting_packs), (0, 2), "the state with the floor is too young");
    age(2);
    let _ = back_up(&repository, "4444").await;
    forget_one().await;
    let report = polite().await;
    // A grace period ago the second snapshot was needed still, and could be read.
    assert_eq!((report.deleted_packs, report.waiting_packs), (2, 2));
    age(2);
    let report = polite().await;
    assert_eq!((report.commit, report.deleted_packs, report.waiting_packs), (None, 2, 0));
    let state = repository.state().await.expect("a state");
    assert_eq!(packs_in(&objects).await, reachable(&objects, &state).await);
    assert!(checked(&repository).await.damage.is_empty());
}

/// What happens to a repository that several write to.
#[derive(Debug, Clone)]
enum Event {
    /// A backup that is acknowledged.
    BackUp,
    /// A writer uploads, and is gone; what it sent as its commit arrives later.
    Stall,
    /// What was on its way arrives.
    Land,
    /// All but heads and what was acknowledged last is forgotten.
    Forget,
    Prune,
}

#[test]
fn whatever_lands_late_all_that_was_acknowledged_is_kept_and_nothing_else() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let event = proptest::prop_oneof![
        4 => Just(Event::BackUp),
        3 => Just(Event::Stall),
        2 => Just(Event::Land),
        1 => Just(Event::Forget),
        2 => Just(Event::Prune),
    ];
    let events = proptest::collection::vec(event, 4..14);
    let mut runner = TestRunner::new(Config { cases: 12, ..Config::default() });
    let result = runner.run(&events, |events| {
        runtime.block_on(live(events));
        Ok(())
    });
    result.expect("every history is pruned right");
}

async fn live(events: Vec<Event>) {
    let memory = Arc::new(InMemory::new());
    let repository = create(&memory).await;
    let mut acknowledged: Vec<(SnapshotId, String)> = Vec::new();
    let mut on_their_way: Vec<(TipName, bytes::Bytes)> = Vec::new();
    let all = [Event::BackUp].into_iter().chain(events);
    for (number, event) in all.chain([Event::Land, Event::Forget, Event::Prune]).enumerate() {
        // Each has content of its own, some of which does not change.
        let content = |writer: &str| format!("{writer} {number}");
        match event {
            Event::BackUp => {
                let report = back_up_two(&repository, &content("here")).await;
                assert_eq!(report.outcome, BackupOutcome::Done);
                acknowledged.push((report.snapshot.expect("made"), content("here")));
            }
            Event::Stall => {
                let elsewhere = copy(&memory).await;
                let _ = back_up_two(&open(&elsewhere).await, &content("late")).await;
                let name = head(&open(&elsewhere).await).await;
                on_their_way.push((name, stored(&elsewhere, name).await));
                elsewhere.delete(&keys::tip(name)).await.expect("deleted");
                pour(&elsewhere, &memory).await;
            }
            Event::Land => {
                for (name, bytes) in on_their_way.drain(..) {
                    memory.put(&keys::tip(name), bytes.into()).await.expect("landed");
                }
            }
            Event::Forget => {
                acknowledged = acknowledged.split_off(acknowledged.len().saturating_sub(2));
                let kept: Vec<_> = acknowledged.iter().map(|(id, _)| *id).collect();
                forget_all_but(&memory, &kept).await;
            }
            Event::Prune => {
                let _ = pruned(&repository).await;
                assert_nothing_unreachable(&memory).await;
            }
        }
        let repository = open(&memory).await;
        let state = repository.state().await.expect("a state").commit;
        for (id, content) in &acknowledged {
            assert!(state.snapshot(*id).is_some(), "{content} is gone");
        }
        let report = checked(&repository).await;
        assert!(report.damage.is_empty(), "{report:?}");
    }
    for (id, content) in acknowledged {
        assert_eq!(content_of(&repository, id).await, content);
    }
}

/// Backs up a file with this content, and beside it one that is always the same.
async fn back_up_two(repository: &Repository, content: &str) -> BackupReport {
    let source = tempfile::tempdir().expect("a folder");
    fs::write(source.path().join("file"), content).expect("written");
    fs::write(source.path().join("same"), noise(1, 5000)).expect("written");
    let policy = Policy { max_delete: Cap::Percent(100), ..Policy::default() };
    let options = BackupOptions { writer: "pod".into(), policy, ..BackupOptions::default() };
    backup(repository, source.path(), options, Arc::new(NoObserver)).await.expect("a backup")
}
