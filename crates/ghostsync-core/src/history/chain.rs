//! The whole log, from its newest entry down: for a check, which takes no head for granted.
//!
//! Whoever reads asks for the head alone. Here every entry is listed and read, so that a gap, a lost newest commit
//! or a broken chain has its name, whatever the hint says. Memory: 8 bytes a commit, and a few commits at a time.

use bytes::Bytes;
use futures::StreamExt;

use super::head::{HeadHint, State, read_hint};
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::{Commit, LogEntry, MAX_COMMIT_BYTES, MAX_SEQ, decode_link, decode_log_entry};
use crate::id::CommitHash;
use crate::interrupt::Interrupt;
use crate::store::{Store, keys};

/// Commits that are read ahead.
pub(super) const READS: usize = 4;

/// What a look at the whole log says.
#[derive(Debug, Default)]
pub(crate) struct LogCheck {
    /// What does not hold, by key.
    pub(crate) broken: Vec<(String, String)>,
    /// The newest commit that can be read and follows the one before it; the empty state of an empty log.
    pub(crate) newest: Option<State>,
    /// Commits beside the head that nobody takes over, by key, and why: in commit mode `detect` alone.
    pub(crate) void: Vec<(String, String)>,
}

/// Reads the log from its newest entry down.
///
/// # Errors
/// The store's; what does not hold is no error.
pub(crate) async fn check_log(store: &Store, config: CommitHash, interrupt: &Interrupt) -> Result<LogCheck> {
    // The hint is written after its commit, so whatever an older hint names is in a listing that comes after it.
    let hint = read_hint(store).await?;
    let mut numbers = Vec::new();
    store
        .for_each(&keys::log(), |object| {
            numbers.extend(keys::commit_number(&object.location).filter(|seq| (1..=MAX_SEQ).contains(seq)));
        })
        .await?;
    numbers.sort_unstable();
    let mut chain = Chain { broken: Vec::new(), newest: None, above: None };
    chain.compare_hint(hint, numbers.last().copied().unwrap_or(0));
    if numbers.is_empty() {
        chain.newest = Some(State { commit: Commit::empty(config), hash: config });
    }
    let mut entries = futures::stream::iter(numbers.into_iter().rev())
        .map(|seq| async move { (seq, store.get(&keys::commit(seq), MAX_COMMIT_BYTES).await) })
        .buffered(READS);
    while let Some((seq, stored)) = entries.next().await {
        interrupt.check()?;
        match stored {
            Ok(Some(stored)) => chain.go_down(seq, &stored),
            Ok(None) => chain.lose(seq, "it is missing".into()),
            Err(error) if error.kind() == ErrorKind::Corrupt => chain.lose(seq, error.to_string()),
            Err(error) => return Err(error),
        }
    }
    chain.end(config);
    Ok(LogCheck { broken: chain.broken, newest: chain.newest, void: Vec::new() })
}

struct Chain {
    broken: Vec<(String, String)>,
    newest: Option<State>,
    /// The number of the entry above, and which hash it says that the one before it has, if that can be read.
    above: Option<(u64, Option<CommitHash>)>,
}

impl Chain {
    fn note(&mut self, object: impl ToString, message: impl Into<String>) {
        self.broken.push((object.to_string(), message.into()));
    }

    fn compare_hint(&mut self, hint: HeadHint, top: u64) {
        match hint {
            HeadHint::Damaged => {
                self.note(keys::head(), "it is no hint; nothing needs it, and the next commit writes it anew");
            }
            HeadHint::Names(seq) if seq > top => {
                self.note(keys::commit(seq), format!("it is missing: {} says that it was made", keys::head()));
            }
            HeadHint::Names(_) | HeadHint::Absent => {}
        }
    }

    /// Names what is missing between an entry and the one above it.
    fn pass_gap(&mut self, seq: u64) {
        let Some((above, _)) = self.above.filter(|(above, _)| *above > seq + 1) else { return };
        let message = match above - seq - 2 {
            0 => "it is missing".to_owned(),
            more => format!("it is missing, and so are the {more} after it"),
        };
        self.note(keys::commit(seq + 1), message);
        self.above = None;
    }

    fn lose(&mut self, seq: u64, message: String) {
        self.pass_gap(seq);
        self.note(keys::commit(seq), message);
        self.above = Some((seq, None));
    }

    fn go_down(&mut self, seq: u64, stored: &Bytes) {
        self.pass_gap(seq);
        let link = match decode_link(stored) {
            Ok(link) if link.seq == seq => link,
            Ok(link) => return self.lose(seq, format!("it says that it is number {}", link.seq)),
            Err(error) => return self.lose(seq, with_cause(error)),
        };
        if let Some((above, Some(expected))) = self.above
            && expected != link.hash
        {
            let above = keys::commit(above);
            self.note(keys::commit(seq), format!("{above} does not follow it: one of the two is not what it was"));
            // The one above may come from another repository: what holds further down is believed.
            self.newest = None;
        }
        if self.newest.is_none() {
            match decode_log_entry(stored) {
                Ok(LogEntry::Commit(commit)) => self.newest = Some(State { commit: *commit, hash: link.hash }),
                Ok(LogEntry::Emptied(_)) => {}
                Err(error) => self.note(keys::commit(seq), with_cause(error)),
            }
        }
        self.above = Some((seq, Some(link.prev)));
    }

    fn end(&mut self, config: CommitHash) {
        let Some((lowest, prev)) = self.above else { return };
        if lowest > 1 {
            self.pass_gap(0);
        } else if prev.is_some_and(|prev| prev != config) {
            self.note(keys::config(), "it is not the configuration that the first commit follows");
        }
    }
}

/// The message with the cause below it, which says where.
pub(super) fn with_cause(error: crate::format::FormatError) -> String {
    let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
    format!("it is damaged: {}{cause}", Error::from(error))
}
