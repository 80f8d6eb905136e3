//! What must hold of everything that ever lay in the store: looked at after every write that is applied.
//!
//! It trusts nothing that the library says about itself: commits are decoded from the stored bytes, and what snapshots
//! need is found by a naive search through the stored pages.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use ghostsync_core::format::commit::{Branch, Commit, LogEntry, Snapshot, decode_log_entry};
use ghostsync_core::format::page::{Page, Placement, decode};
use ghostsync_core::id::{CommitHash, SessionId, SnapshotId};
use ghostsync_core::store::keys;
use object_store::path::Path as Key;

use super::actors::Writer;
use super::store::Objects;

/// A rule that does not hold, and where.
pub(super) type Checked = Result<(), String>;

/// The files of a directory: of each, by its name, which content it has.
pub(super) type Content = BTreeMap<String, u64>;

/// So many commits stay whole, the newest among them.
const WHOLE_COMMITS: u64 = 64;

#[derive(Default)]
pub(super) struct Ledger {
    config: Option<CommitHash>,
    pub(super) commits: Vec<(Commit, CommitHash)>,
    /// The packs that each snapshot needs.
    needs: HashMap<SnapshotId, BTreeSet<Key>>,
    /// What the directory of each snapshot held.
    pub(super) contents: HashMap<SnapshotId, Content>,
    /// The actor whose directory that was.
    origins: HashMap<SnapshotId, usize>,
    written: HashMap<Key, blake3::Hash>,
    deleted: BTreeSet<Key>,
    sessions: HashMap<SessionId, Session>,
    pub(super) deletions: u64,
    /// How often a prune said that a snapshot lies elsewhere.
    pub(super) moves: u64,
}

struct Session {
    writer: Writer,
    /// From the names of its packs.
    begin: Option<u64>,
    /// The newest commit that its process had read when it sent its first pack.
    has_read: Option<u64>,
    has_committed: bool,
    /// Its process has ended, and did not say that the outcome is unknown.
    is_closed: bool,
    /// A later process of the same actor has settled what its journal notes.
    is_settled: bool,
}

impl Ledger {
    pub(super) fn newest(&self) -> Commit {
        let config = self.config.unwrap_or_else(|| CommitHash::of(b""));
        self.commits.last().map_or_else(|| Commit::empty(config), |(commit, _)| commit.clone())
    }

    /// A process asks for a commit or a pack: whose session that is.
    pub(super) fn note_request(&mut self, key: &Key, bytes: &Bytes, writer: &Writer, newest_read: u64) {
        let begin = session_of_pack(key);
        let commit = match decode_log_entry(bytes) {
            Ok(LogEntry::Commit(commit)) if is_log(key) => Some(commit.session),
            _ => None,
        };
        let Some(id) = begin.map(|(_, session)| session).or(commit) else { return };
        let new = || Session {
            writer: writer.clone(),
            begin: None,
            has_read: None,
            has_committed: false,
            is_closed: false,
            is_settled: false,
        };
        let session = self.sessions.entry(id).or_insert_with(new);
        if let Some((begin, _)) = begin {
            session.begin = Some(begin);
            session.has_read.get_or_insert(newest_read);
        }
    }

    /// The commits that sessions of a process made.
    pub(super) fn commits_of(&self, process: usize) -> impl Iterator<Item = &Commit> {
        let of = move |session: &SessionId| self.sessions.get(session).map(|session| session.writer.process);
        self.commits.iter().map(|(commit, _)| commit).filter(move |commit| of(&commit.session) == Some(process))
    }

    /// How many sessions of a process uploaded something.
    pub(super) fn sessions_with_packs(&self, process: usize) -> usize {
        let of_process = |session: &&Session| session.writer.process == process && session.begin.is_some();
        self.sessions.values().filter(of_process).count()
    }

    /// What these sessions have not committed by now, they never will.
    pub(super) fn close(&mut self, these: impl Fn(&Writer) -> bool) {
        for session in self.sessions.values_mut().filter(|session| these(&session.writer)) {
            session.is_closed = true;
        }
    }

    /// What the journal notes of these sessions they have committed by now, or never will.
    pub(super) fn settle(&mut self, these: impl Fn(&Writer) -> bool) {
        for session in self.sessions.values_mut().filter(|session| these(&session.writer)) {
            session.is_settled = true;
        }
    }

    /// I2, and all the rules for commits.
    pub(super) fn put(&mut self, objects: &Objects, key: &Key, bytes: &Bytes, is_new: bool) -> Checked {
        let hash = blake3::hash(bytes);
        let is_hint = *key == keys::head() || key.as_ref().starts_with("probe/");
        if let Some(before) = self.written.insert(key.clone(), hash)
            && before != hash
            && !is_hint
        {
            return self.emptied(key, bytes);
        }
        if *key == keys::config() {
            self.config = Some(CommitHash::of(bytes));
        }
        if is_log(key) && is_new { self.commit(objects, key, bytes) } else { Ok(()) }
    }

    /// I2: nothing is written with two contents, but that an old commit is replaced by a stub which keeps its hash.
    fn emptied(&self, key: &Key, bytes: &Bytes) -> Checked {
        let Ok(LogEntry::Emptied(stub)) = decode_log_entry(bytes) else {
            return Err(format!("I2: {key} was written with two contents"));
        };
        let of_number = stub.seq.checked_sub(1).and_then(|at| self.commits.get(at as usize));
        let is_its = of_number.is_some_and(|(commit, hash)| {
            keys::commit(stub.seq) == *key && (stub.hash, stub.prev) == (*hash, commit.prev)
        });
        require(is_its, || format!("I2: {key} was replaced by a stub of another commit"))?;
        require(stub.seq + WHOLE_COMMITS <= self.newest().seq, || format!("I1: {key} was emptied, which is not old"))
    }

    /// I4, at the time of the deletion.
    pub(super) fn delete(&mut self, key: &Key) -> Checked {
        if key.as_ref().starts_with("probe/") {
            return Ok(());
        }
        if !key.as_ref().starts_with("packs/") {
            return Err(format!("{key} was deleted"));
        }
        if let Some(snapshot) = self.who_needs(key) {
            return Err(format!("I4: {key} was deleted, which snapshot {snapshot} needs"));
        }
        self.deletions += u64::from(self.deleted.insert(key.clone()));
        Ok(())
    }

    fn who_needs(&self, key: &Key) -> Option<SnapshotId> {
        let newest = &self.commits.last()?.0;
        let needs = |snapshot: &&Snapshot| self.needs.get(&snapshot.id).is_some_and(|needs| needs.contains(key));
        newest.snapshots.iter().find(needs).map(|snapshot| snapshot.id)
    }

    /// Every pack that the newest state needs.
    pub(super) fn all_needs(&self) -> BTreeSet<Key> {
        self.newest().snapshots.iter().flat_map(|snapshot| self.needs[&snapshot.id].clone()).collect()
    }

    fn commit(&mut self, objects: &Objects, key: &Key, bytes: &Bytes) -> Checked {
        let Ok(LogEntry::Commit(commit)) = decode_log_entry(bytes) else { return Err(format!("{key} is no commit")) };
        let before = self.newest();
        let before_hash = self.commits.last().map(|(_, hash)| *hash).or(self.config);
        let seq = before.seq + 1;
        require(commit.seq == seq && *key == keys::commit(seq), || format!("the log has a gap before {key}"))?;
        require(Some(commit.prev) == before_hash, || format!("{key} does not follow the commit before it"))?;
        require(commit.session_floor >= before.session_floor, || format!("the floor sinks in {key}"))?;
        require(commit.session_floor <= seq, || format!("the floor is ahead of {key}"))?;

        let session = self.sessions.get_mut(&commit.session).ok_or("a commit of nobody")?;
        // A backup that finds nothing to do and gives its branch back makes a commit that no journal notes.
        let is_closed = session.is_closed || session.is_settled && op(&commit, "kind") != "release";
        require(!is_closed, || format!("I3, I6: {key} appears, and was said not to be"))?;
        require(!session.has_committed, || format!("session {} commits twice, in {key}", commit.session))?;
        session.has_committed = true;
        let (writer, begin, has_read) = (session.writer.clone(), session.begin, session.has_read);
        require(begin.is_none_or(|begin| before.session_floor <= begin), || {
            format!("I5: {key} is of a session that began at {begin:?}, below the floor {}", before.session_floor)
        })?;

        self.branches(&before, &commit)?;
        self.dropped(&before, &commit)?;
        let known: HashSet<_> = before.snapshots.iter().map(|snapshot| snapshot.id).collect();
        let added: Vec<_> = commit.snapshots.iter().filter(|snapshot| !known.contains(&snapshot.id)).collect();
        require(added.len() <= 1, || format!("{key} adds {} snapshots", added.len()))?;
        for snapshot in added {
            let is_head = commit.head(&snapshot.branch).map(|head| head.id) == Some(snapshot.id);
            require(is_head, || format!("{key} adds a snapshot that is no head"))?;
            match op(&commit, "kind") {
                "backup" => self.moved(&before, snapshot, &writer, has_read)?,
                "fork" => forked(&before, snapshot, &writer)?,
                "promote" => {}
                "wip" => step(&before, snapshot)?,
                kind => return Err(format!("{key} adds a snapshot by a {kind}")),
            }
            self.remember(objects, snapshot, &writer)?;
        }
        for snapshot in &commit.snapshots {
            if let Some(then) = before.snapshot(snapshot.id).filter(|then| then.tree != snapshot.tree) {
                let is_aside = ["fork/", "quarantine/"].iter().any(|side| snapshot.branch.starts_with(side));
                let is_head = commit.branches.values().any(|branch| branch.head == Some(snapshot.id));
                let may_move = is_aside || !is_head && !snapshot.branch.starts_with("wip/");
                let is_same = then.tree.page == snapshot.tree.page && op(&commit, "kind") == "prune";
                require(is_same && may_move, || format!("{key} moves snapshot {}", snapshot.id))?;
                self.moves += 1;
                self.needs.insert(snapshot.id, needs(objects, snapshot)?.0);
            }
            let needs = self.needs.get(&snapshot.id).ok_or("a snapshot of nobody")?;
            if let Some(lost) = needs.iter().find(|key| !objects.contains(key)) {
                return Err(format!("I1: {key} retains snapshot {}, which needs {lost}: it is gone", snapshot.id));
            }
            if let Some(deleted) = needs.iter().find(|key| self.deleted.contains(*key)) {
                return Err(format!("I4: {key} needs {deleted}, which was deleted before"));
            }
        }
        self.commits.push((*commit, CommitHash::of(bytes)));
        Ok(())
    }

    /// Epochs never sink, are the numbers of their commits, and only change with a claim or a promotion.
    fn branches(&self, before: &Commit, commit: &Commit) -> Checked {
        let kind = op(commit, "kind");
        for (name, branch) in &before.branches {
            let Some(now) = commit.branches.get(name) else {
                let is_forgotten = kind == "forget" && name.starts_with("fork/") || drops_steps(commit, name);
                require(is_forgotten, || format!("branch {name} is gone in commit {}", commit.seq))?;
                continue;
            };
            let claims = matches!(kind, "claim" | "promote") && op(commit, "branch") == name;
            let epoch = if claims { commit.seq } else { branch.epoch };
            require(now.epoch == epoch, || format!("the epoch of {name} is {} in commit {}", now.epoch, commit.seq))?;
            let moves = matches!(kind, "backup" | "fork" | "promote" | "wip") && op(commit, "branch") == name;
            require(moves || drops_steps(commit, name) || now.head == branch.head, || {
                format!("a {kind} moves {name} in commit {}", commit.seq)
            })?;
        }
        Ok(())
    }

    /// I1: what is retained stays so until a forget drops it, which never drops what somebody goes on from.
    fn dropped(&self, before: &Commit, commit: &Commit) -> Checked {
        let dropped: BTreeSet<_> =
            before.snapshots.iter().map(|snapshot| snapshot.id).filter(|id| commit.snapshot(*id).is_none()).collect();
        let said: BTreeSet<_> = match commit.op.get("dropped") {
            Some(said) => serde_json::from_value(said.clone()).map_err(|error| error.to_string())?,
            None => BTreeSet::new(),
        };
        if let Some(held) = before.snapshots.iter().find(|held| held.hold.is_some() && dropped.contains(&held.id)) {
            return Err(format!("commit {} drops {}, which is held", commit.seq, held.id));
        }
        require(dropped == said, || format!("I1: commit {} drops {dropped:?}, and says {said:?}", commit.seq))?;
        let forgets = op(commit, "kind") == "forget";
        let is_step = |id: &SnapshotId| before.snapshot(*id).is_some_and(|step| step.branch.starts_with("wip/"));
        require(forgets || dropped.iter().all(is_step), || format!("commit {} drops {dropped:?}", commit.seq))?;
        for (name, branch) in before.branches.iter().filter(|(name, _)| forgets || !name.starts_with("wip/")) {
            let head = before.head(name).filter(|_| commit.branches.contains_key(name));
            let reused = head.filter(|_| name.starts_with("wip/")).map(|head| head.reuses.clone());
            let (head, parent) = (branch.head.filter(|_| head.is_some()), head.and_then(|head| head.parent));
            for id in [head, parent].into_iter().flatten().chain(reused.into_iter().flatten()) {
                require(!dropped.contains(&id), || format!("commit {} drops {id}, that {name} needs", commit.seq))?;
            }
        }
        Ok(())
    }

    /// I5 and I6, for a backup that moves its branch.
    fn moved(&self, before: &Commit, snapshot: &Snapshot, writer: &Writer, has_read: Option<u64>) -> Checked {
        let name = &snapshot.branch;
        let head = before.head(name);
        require(snapshot.parent == head.map(|head| head.id), || {
            format!("I5: snapshot {} does not follow the head of {name}", snapshot.id)
        })?;
        if let Some(head) = head {
            let repeats = head.tree.page == snapshot.tree.page && !writer.may_repeat;
            require(!repeats, || format!("I6: snapshot {} is the head once more", snapshot.id))?;
            self.guarded(head, snapshot, writer)?;
        }
        let Some(branch) = before.branches.get(name) else { return Ok(()) };
        match unreleased(branch) {
            Some(holder) => {
                let may = writer.owner.as_deref() == Some(holder) && writer.receipt_epoch() == Some(branch.epoch);
                require(may, || {
                    format!("I5: {writer:?} moves {name}, which {holder} holds in epoch {}", branch.epoch)
                })?;
            }
            None => {
                let knows = has_read.is_none_or(|seq| self.epoch(seq, name) == branch.epoch);
                require(knows, || format!("I5: {writer:?} moves {name} in an epoch that it never read"))?;
            }
        }
        let Some(receipt) = &writer.receipt else { return Ok(()) };
        let own = head
            .is_none_or(|head| receipt.snapshot == Some(head.id) || self.origins.get(&head.id) == Some(&writer.actor));
        require(own, || format!("I5: {writer:?} moves {name} from a head that it was not restored from"))
    }

    /// No backup moves a branch past the guard: it removes no more of the head that it follows than its cap allows.
    fn guarded(&self, head: &Snapshot, snapshot: &Snapshot, writer: &Writer) -> Checked {
        let (before, now) = (&self.contents[&head.id], &writer.content);
        let has_moved = |version: &u64| now.iter().any(|(name, to)| to == version && before.get(name) != Some(to));
        let is_removed = |(name, version): &(&String, &u64)| !now.contains_key(*name) && !has_moved(version);
        let (removed, all) = (before.iter().filter(is_removed).count(), before.len());
        // In small trees one may always go.
        let is_allowed = all < 10 && removed <= 1 || removed * 100 <= all * writer.cap as usize;
        require(is_allowed, || {
            format!("snapshot {} removes {removed} of the {all} files of the head, past the guard", snapshot.id)
        })
    }

    fn epoch(&self, seq: u64, branch: &str) -> u64 {
        let commit = (seq as usize).checked_sub(1).and_then(|at| self.commits.get(at));
        commit.and_then(|(commit, _)| commit.branches.get(branch)).map_or(0, |branch| branch.epoch)
    }

    /// Notes what a new snapshot needs and holds.
    fn remember(&mut self, objects: &Objects, snapshot: &Snapshot, writer: &Writer) -> Checked {
        let (needs, files) = needs(objects, snapshot)?;
        self.needs.insert(snapshot.id, needs);
        let (mut content, origin) = match snapshot.promoted {
            Some(source) => (self.contents[&source].clone(), usize::MAX),
            None => (writer.content.clone(), writer.actor),
        };
        if snapshot.branch.starts_with("wip/") {
            content.retain(|name, _| files.contains(name));
        }
        self.contents.insert(snapshot.id, content);
        self.origins.insert(snapshot.id, origin);
        Ok(())
    }
}

/// The commit of a snapshot drops the steps to it, and a forget drops what is left of others.
fn drops_steps(commit: &Commit, branch: &str) -> bool {
    branch.starts_with("wip/") && commit.op.get("dropped").is_some()
}

/// A step says that it is no whole directory, and follows those that were there.
fn step(before: &Commit, snapshot: &Snapshot) -> Checked {
    require(!snapshot.complete && snapshot.branch.starts_with("wip/main/"), || format!("{snapshot:?} is no step"))?;
    let mut reused = snapshot.parent.iter().chain(&snapshot.reuses);
    require(reused.all(|id| before.snapshot(*id).is_some()), || {
        format!("step {} refers to what is forgotten", snapshot.id)
    })
}

/// A holder never forks from itself.
fn forked(before: &Commit, snapshot: &Snapshot, writer: &Writer) -> Checked {
    let branch = snapshot.onto.as_ref().and_then(|onto| before.branches.get(onto)).ok_or("a fork of nothing")?;
    let holds = writer.owner.as_deref().is_some_and(|owner| unreleased(branch) == Some(owner));
    let is_current = holds && writer.receipt_epoch() == Some(branch.epoch);
    require(!is_current, || format!("I5: {writer:?} holds the branch, and forks from itself"))
}

fn unreleased(branch: &Branch) -> Option<&str> {
    branch.holder.as_ref().filter(|holder| !holder.released).map(|holder| holder.owner.as_str())
}

fn op<'a>(commit: &'a Commit, field: &str) -> &'a str {
    commit.op[field].as_str().unwrap_or_default()
}

fn require(holds: bool, otherwise: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(otherwise()) }
}

pub(super) fn is_log(key: &Key) -> bool {
    key.as_ref().starts_with("log/")
}

/// The begin and the session in a pack's name.
fn session_of_pack(key: &Key) -> Option<(u64, SessionId)> {
    let (folder, _) = key.as_ref().strip_prefix("packs/")?.split_once('/')?;
    let (begin, session) = folder.split_once('-')?;
    Some((begin.parse().ok()?, session.parse().ok()?))
}

/// I1 for one snapshot: every pack that it needs, by reading every page that it refers to; and the files in it.
fn needs(objects: &Objects, snapshot: &Snapshot) -> Result<(BTreeSet<Key>, BTreeSet<String>), String> {
    let (mut needs, mut files) = (BTreeSet::new(), BTreeSet::new());
    let mut ahead = vec![snapshot.tree.root()];
    while let Some(page) = ahead.pop() {
        let key = keys::meta_pack(page.placement.pack);
        let pack =
            objects.bytes(&key).ok_or_else(|| format!("I1: snapshot {} needs {key}: it is gone", snapshot.id))?;
        let begin = page.placement.offset as usize;
        let frame = pack.get(begin..begin + page.placement.bytes as usize).ok_or("I1: a page behind its pack's end")?;
        needs.insert(key);
        match decode(&page, frame).map_err(|error| format!("I1: a damaged page: {error}"))? {
            Page::Children(children) => ahead.extend(children.iter().map(|child| child.page)),
            Page::ListChildren(children) => ahead.extend(children.iter().map(|child| child.page)),
            Page::Chunks(chunks) => needs.extend(chunks.iter().map(|(_, chunk)| keys::data_pack(chunk.pack))),
            Page::Entries(entries) => {
                for placed in entries {
                    files.insert(placed.entry.path.to_string());
                    match placed.content {
                        Placement::Chunks(chunks) => {
                            needs.extend(chunks.iter().map(|chunk| keys::data_pack(chunk.pack)));
                        }
                        Placement::List(root) => ahead.push(*root),
                    }
                }
            }
        }
    }
    Ok((needs, files))
}
