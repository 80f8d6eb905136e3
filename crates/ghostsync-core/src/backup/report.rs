//! Puts together what a backup tells at its end.

use super::aside::Aside;
use super::parent::Parent;
use super::tally::Tallied;
use super::{BackupOutcome, BackupReport, Context};
use crate::clock::Stopwatch;
use crate::format::commit::{Changes, Snapshot};
use crate::guard::Refusal;
use crate::store::{RequestCounts, Store};

/// How things stood before the backup began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    requests: RequestCounts,
    sent_bytes: u64,
    watch: Stopwatch,
}

impl Before {
    pub(super) fn now(store: &Store) -> Self {
        Self { requests: store.requests(), sent_bytes: store.sent_bytes(), watch: Stopwatch::start() }
    }
}

/// A report in the making.
pub(super) struct Report<'a> {
    context: &'a Context,
    report: BackupReport,
    before: Before,
}

impl<'a> Report<'a> {
    pub(super) fn new(context: &'a Context, parent: &Parent, before: Before) -> Self {
        let report = BackupReport {
            outcome: BackupOutcome::Done,
            snapshot: None,
            tree: None,
            branch: context.options.branch.clone(),
            onto: None,
            parent: parent.id(),
            entries: 0,
            bytes: 0,
            changes: Changes::default(),
            excluded: 0,
            sockets: 0,
            problems: Vec::new(),
            refusal: None,
            overtaken: parent.overtaken(),
            uploaded_bytes: 0,
            requests: RequestCounts::default(),
            seconds: 0.0,
        };
        Self { context, report, before }
    }

    pub(super) fn found(&mut self, tallied: &Tallied) {
        self.report.entries = tallied.findings.entries;
        self.report.bytes = tallied.bytes;
        self.report.changes = tallied.changes;
        self.report.excluded = tallied.findings.excluded.count();
        self.report.sockets = tallied.sockets;
        self.report.problems.clone_from(&tallied.problems);
    }

    pub(super) fn planned(mut self, refusal: Option<Box<Refusal>>) -> BackupReport {
        self.report.refusal = refusal.map(|refusal| *refusal);
        self.end(BackupOutcome::Planned)
    }

    pub(super) fn unchanged(mut self, head: &Snapshot) -> BackupReport {
        self.of(head);
        self.end(BackupOutcome::Unchanged)
    }

    pub(super) fn done(mut self, snapshot: &Snapshot, changes: Changes) -> BackupReport {
        self.of(snapshot);
        self.report.changes = changes;
        self.report.parent = snapshot.parent;
        self.end(BackupOutcome::Done)
    }

    pub(super) fn aside(mut self, snapshot: Snapshot, aside: Aside) -> BackupReport {
        self.of(&snapshot);
        self.report.onto = snapshot.onto;
        self.report.branch = snapshot.branch;
        match aside {
            Aside::Fork(_, overtaken) => {
                self.report.overtaken = Some(overtaken);
                self.end(BackupOutcome::Forked)
            }
            Aside::Quarantine(refusal) => {
                self.report.refusal = Some(*refusal);
                self.end(BackupOutcome::Quarantined)
            }
        }
    }

    fn of(&mut self, snapshot: &Snapshot) {
        self.report.snapshot = Some(snapshot.id);
        self.report.tree = Some(snapshot.tree.page);
    }

    fn end(mut self, outcome: BackupOutcome) -> BackupReport {
        self.report.outcome = outcome;
        let store = self.context.repository.store();
        self.report.requests = store.requests().since(self.before.requests);
        self.report.uploaded_bytes = store.sent_bytes().saturating_sub(self.before.sent_bytes);
        self.report.seconds = self.before.watch.seconds();
        self.report
    }
}
