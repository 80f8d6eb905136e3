//! How `sync` stands: what probes, `/status` and `/metrics` tell. The loop writes it, the server reads it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ghostsync_core::guard::Guard;
use ghostsync_core::id::SnapshotId;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::restore::Restored;

/// How long the loop may be silent before it counts as dead: it wakes up every few seconds, whatever the store does.
const SILENCE: Duration = Duration::from_secs(60);

/// Every guard that a sync can be refused by.
const GUARDS: [Guard; 7] = [
    Guard::Receipt,
    Guard::Source,
    Guard::Empty,
    Guard::MaxDelete,
    Guard::MaxChange,
    Guard::Excluded,
    Guard::Unreadable,
];

/// What every request, and every byte, was for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traffic {
    /// By operation and code.
    pub(crate) answers: BTreeMap<(&'static str, &'static str), u64>,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
}

/// How it stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    pub(crate) branch: String,
    pub(crate) owner: String,
    /// The receipt was checked, and the branch was ours; or the store is away, and that is to be borne.
    pub(crate) is_started: bool,
    /// What keeps it from starting, or went wrong last.
    pub(crate) trouble: Option<String>,
    pub(crate) holds: bool,
    pub(crate) is_fenced: bool,
    pub(crate) is_terminating: bool,
    pub(crate) refused_by: Option<Guard>,
    pub(crate) epoch: u64,
    pub(crate) snapshot: Option<SnapshotId>,
    pub(crate) last_success: Option<Timestamp>,
    /// Since when something would be lost, in the time of the loop.
    pub(crate) unsynced_since: Option<Duration>,
    pub(crate) unsynced_bytes: Arc<AtomicU64>,
    pub(crate) last_result: Option<&'static str>,
    pub(crate) passes: BTreeMap<&'static str, u64>,
    pub(crate) pass_seconds: f64,
    pub(crate) is_watched: bool,
    pub(crate) restored: Option<Restored>,
    pub(crate) traffic: Traffic,
    pub(crate) volume_used_ratio: Option<f64>,
}

impl Status {
    /// The oldest change that would be lost, in seconds.
    fn oldest_unsynced_seconds(&self, now: Duration) -> f64 {
        self.unsynced_since.map_or(0.0, |since| now.saturating_sub(since).as_secs_f64())
    }

    /// The document of `/status` and `ctl status`.
    pub(crate) fn document(&self, now: Duration) -> Value {
        json!({
            "branch": self.branch,
            "owner": self.owner,
            "started": self.is_started,
            "holds": self.holds,
            "fenced": self.is_fenced,
            "terminating": self.is_terminating,
            "refused": self.refused_by.map(Guard::name),
            "epoch": self.epoch,
            "snapshot": self.snapshot,
            "last_success": self.last_success,
            "oldest_unsynced_seconds": self.oldest_unsynced_seconds(now),
            "unsynced_bytes": self.unsynced_bytes.load(Ordering::Relaxed),
            "last_result": self.last_result,
            "watched": self.is_watched,
            "trouble": self.trouble,
            "version": env!("CARGO_PKG_VERSION"),
        })
    }

    /// The metrics, as Prometheus reads them.
    pub(crate) fn metrics(&self, now: Duration) -> String {
        let mut page = Page::default();
        let seconds = |time: Timestamp| time.as_millisecond() as f64 / 1000.0;
        page.gauge(
            "oldest_unsynced_seconds",
            "How old the oldest change is that would be lost if the node died now",
            &[("", self.oldest_unsynced_seconds(now))],
        );
        let unsynced_bytes = self.unsynced_bytes.load(Ordering::Relaxed);
        page.gauge(
            "unsynced_bytes",
            "Bytes of changed files that the last pass found and has not stored",
            &[("", unsynced_bytes as f64)],
        );
        let restored = self.restored.as_ref();
        let up = self.last_success.map(|time| (r#"{direction="up"}"#, seconds(time)));
        let down = restored.and_then(|restored| restored.time).map(|time| (r#"{direction="down"}"#, seconds(time)));
        page.gauge(
            "last_success_timestamp_seconds",
            "When the directory was last known to be saved (up), and restored (down)",
            &[up, down].into_iter().flatten().collect::<Vec<_>>(),
        );
        let results = ["ok", "noop", "error", "refused", "fenced"]
            .map(|result| (format!(r#"{{result="{result}"}}"#), self.passes.get(result).copied().unwrap_or(0) as f64));
        page.counter("sync_total", "Passes over the directory, by what came of them", &results);
        page.family("sync_duration_seconds", "summary", "How long they took");
        page.value("sync_duration_seconds_sum", "", self.pass_seconds);
        page.value("sync_duration_seconds_count", "", self.passes.values().sum::<u64>() as f64);
        let restore_seconds = restored.and_then(|restored| restored.seconds).map(|seconds| ("", seconds));
        page.gauge(
            "restore_duration_seconds",
            "How long the restore at the start took",
            &restore_seconds.into_iter().collect::<Vec<_>>(),
        );
        let answers = self.traffic.answers.iter();
        let answers = answers.map(|((op, code), count)| (format!(r#"{{op="{op}",code="{code}"}}"#), *count as f64));
        page.counter(
            "store_requests_total",
            "Requests that the store has answered, by what was asked and what came of it",
            &answers.collect::<Vec<_>>(),
        );
        let bytes = [
            (r#"{direction="up"}"#, self.traffic.sent_bytes as f64),
            (r#"{direction="down"}"#, self.traffic.received_bytes as f64),
        ];
        page.counter("store_bytes_total", "Bytes sent to the store and received from it", &bytes);
        let guards = GUARDS.map(|guard| {
            (format!(r#"{{guard="{}"}}"#, guard.name()), f64::from(u8::from(self.refused_by == Some(guard))))
        });
        page.gauge("guard_refused", "Whether this guard refuses the directory as it is", &guards);
        page.gauge("epoch", "The epoch of the branch that this pod claimed", &[("", self.epoch as f64)]);
        page.gauge("holder", "Whether the branch belongs to this pod", &[("", flag(self.holds))]);
        page.gauge(
            "watched",
            "Whether the system tells what changes; otherwise everything is listed every few seconds",
            &[("", flag(self.is_watched))],
        );
        let unclean = restored.is_some_and(|restored| restored.predecessor_unclean);
        page.gauge(
            "predecessor_unclean",
            "Whether the writer before this pod never gave the branch back",
            &[("", flag(unclean))],
        );
        let used = self.volume_used_ratio.map(|ratio| ("", ratio));
        let used = used.into_iter().collect::<Vec<_>>();
        page.gauge("volume_used_ratio", "How full the volume of the directory is", &used);
        let snapshot = self.snapshot.map(|id| (format!(r#"{{id="{id}"}}"#), 1.0));
        page.gauge(
            "snapshot_info",
            "The snapshot that the directory was last saved as",
            &snapshot.into_iter().collect::<Vec<_>>(),
        );
        let version = format!(r#"{{version="{}"}}"#, env!("CARGO_PKG_VERSION"));
        page.gauge("build_info", "This program", &[(version, 1.0)]);
        page.text
    }
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

/// A page of metrics in the making.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# HELP ghostsync_{name} {help}\n# TYPE ghostsync_{name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &str, value: f64) {
        let _ = writeln!(self.text, "ghostsync_{name}{labels} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, values: &[(impl AsRef<str>, f64)]) {
        self.all(name, "gauge", help, values);
    }

    fn counter(&mut self, name: &str, help: &str, values: &[(impl AsRef<str>, f64)]) {
        self.all(name, "counter", help, values);
    }

    fn all(&mut self, name: &str, kind: &str, help: &str, values: &[(impl AsRef<str>, f64)]) {
        if values.is_empty() {
            return;
        }
        self.family(name, kind, help);
        values.iter().for_each(|(labels, value)| self.value(name, labels.as_ref(), *value));
    }
}

/// When the loop was last seen alive, in milliseconds of its own time.
#[derive(Debug, Default)]
pub(crate) struct Heartbeat(AtomicU64);

impl Heartbeat {
    pub(crate) fn beat(&self, now: Duration) {
        self.0.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn is_alive(&self, now: Duration) -> bool {
        now.saturating_sub(Duration::from_millis(self.0.load(Ordering::Relaxed))) < SILENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_what_prometheus_reads() {
        let status = Status {
            unsynced_since: Some(Duration::from_secs(10)),
            refused_by: Some(Guard::MaxDelete),
            passes: BTreeMap::from([("ok", 3), ("error", 1)]),
            pass_seconds: 1.5,
            snapshot: Some(SnapshotId::from_bytes([1; 32])),
            holds: true,
            traffic: Traffic { answers: BTreeMap::from([(("put", "exists"), 2)]), ..Traffic::default() },
            ..Status::default()
        };
        let page = status.metrics(Duration::from_secs(25));
        for line in [
            "ghostsync_oldest_unsynced_seconds 15",
            "ghostsync_guard_refused{guard=\"max-delete\"} 1",
            "ghostsync_guard_refused{guard=\"receipt\"} 0",
            "ghostsync_sync_total{result=\"ok\"} 3",
            "ghostsync_sync_total{result=\"noop\"} 0",
            "ghostsync_sync_duration_seconds_count 4",
            "ghostsync_holder 1",
            "ghostsync_store_requests_total{op=\"put\",code=\"exists\"} 2",
        ] {
            assert!(page.lines().any(|there| there == line), "{line} in {page}");
        }
        assert!(!page.contains("restore_duration"), "nothing is known about it");
        let name = |line: &str| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
        let mut announced = "none";
        for line in page.lines() {
            match line.strip_prefix("# TYPE ") {
                Some(family) => announced = family.split(' ').next().unwrap_or_default(),
                None if line.starts_with('#') => {}
                None => assert!(name(line).starts_with(announced), "{line} after {announced}"),
            }
        }
    }

    #[test]
    fn a_loop_that_is_silent_for_a_minute_counts_as_dead() {
        let heartbeat = Heartbeat::default();
        heartbeat.beat(Duration::from_secs(100));
        assert!(heartbeat.is_alive(Duration::from_secs(159)));
        assert!(!heartbeat.is_alive(Duration::from_secs(160)));
    }
}
