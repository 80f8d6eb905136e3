//! Puts together what a backup tells at its end.

use super::parent::Parent;
use super::store::Stored;
use super::tally::Tallied;
use super::{BackupOutcome, BackupReport, Context};
use crate::clock::Stopwatch;
use crate::format::commit::{Changes, Snapshot};
use crate::guard::Refusal;
use crate::store::RequestCounts;

/// A report in the making.
pub(super) struct Report<'a> {
    context: &'a Context,
    report: BackupReport,
    requests: RequestCounts,
    watch: Stopwatch,
}

impl<'a> Report<'a> {
    pub(super) fn new(context: &'a Context, parent: &Parent, requests: RequestCounts, watch: Stopwatch) -> Self {
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
            uploaded_bytes: 0,
            requests: RequestCounts::default(),
            seconds: 0.0,
        };
        Self { context, report, requests, watch }
    }

    pub(super) fn found(&mut self, tallied: &Tallied) {
        self.report.entries = tallied.findings.entries;
        self.report.bytes = tallied.bytes;
        self.report.changes = tallied.changes;
        self.report.excluded = tallied.findings.excluded.count();
        self.report.sockets = tallied.sockets;
        self.report.problems.clone_from(&tallied.problems);
    }

    pub(super) fn stored(&mut self, stored: &Stored) {
        self.report.uploaded_bytes = stored.uploaded_bytes;
        self.report.tree = Some(stored.tree.root.page);
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

    pub(super) fn quarantined(mut self, snapshot: Snapshot, refusal: Refusal) -> BackupReport {
        self.of(&snapshot);
        self.report.onto = snapshot.onto;
        self.report.branch = snapshot.branch;
        self.report.refusal = Some(refusal);
        self.end(BackupOutcome::Quarantined)
    }

    fn of(&mut self, snapshot: &Snapshot) {
        self.report.snapshot = Some(snapshot.id);
        self.report.tree = Some(snapshot.tree.page);
    }

    fn end(mut self, outcome: BackupOutcome) -> BackupReport {
        self.report.outcome = outcome;
        self.report.requests = self.context.repository.store().requests().since(self.requests);
        self.report.seconds = self.watch.seconds();
        self.report
    }
}
