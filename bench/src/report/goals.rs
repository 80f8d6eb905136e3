//! The goals that ghostsync was built for, beside what was measured.

use super::quoted;
use super::sections::{added, over_bound, peak};
use crate::curve::{FLOOR, floor_series, sizes};
use crate::history::SERIES;
use crate::line::ROUND_TRIP;
use crate::peers::{LOCAL, Step};
use crate::results::{Campaign, Key, Medium, Results, Scenario};
use crate::store::StoreKind;
use crate::trees::Tree;

const MEBIBYTE: f64 = 1_048_576.0;
const BACKUP_TOOLS: [&str; 3] = ["restic", "rustic", "borg"];
const FOUR: [&str; 4] = ["restic", "rustic", "borg", "rclone"];

/// Which side of the limit is the good one.
enum Limit {
    AtLeast(f64),
    AtMost(f64),
}
use Limit::{AtLeast, AtMost};

/// A line for each goal that can be judged by what was measured.
pub fn goals(results: &Results) -> String {
    let mut lines = Vec::new();
    let mut goal = |what: String, measured: Option<f64>, limit: Limit| {
        let Some(measured) = measured else { return };
        let (met, words) = match limit {
            AtLeast(limit) => (measured >= limit, format!("at least {limit}")),
            AtMost(limit) => (measured <= limit, format!("at most {limit}")),
        };
        lines.push(format!("{} {what}: {measured:.2} ({words})\n", if met { "met " } else { "MISS" }));
    };
    for tree in [Tree::Docs, Tree::Media, Tree::Db, Tree::Wide] {
        let Some(campaign) = quoted(results, tree) else { continue };
        let name = tree.name();
        let (peers, first, restored): (&[&str], _, _) = match tree {
            Tree::Docs => (&FOUR, 4.0, 2.3),
            Tree::Media => (&FOUR, 2.0, 2.0),
            // rclone stores the database as it is.
            _ => (&BACKUP_TOOLS, 1.5, 2.0),
        };
        if tree != Tree::Wide {
            goal(format!("{name} first backup, × the fastest"), ahead(campaign, Step::First, peers), AtLeast(first));
            goal(format!("{name} restore, × the fastest"), ahead(campaign, Step::Restore, peers), AtLeast(restored));
        }
        let highest = Step::ALL.iter().filter_map(|step| peak(campaign, "ghostsync", *step)).reduce(f64::max);
        let limit = if tree == Tree::Wide { 256.0 } else { 128.0 };
        goal(format!("{name} peak memory, MiB"), highest.map(|bytes| bytes / MEBIBYTE), AtMost(limit));
    }
    if let Some(docs) = quoted(results, Tree::Docs) {
        goal("docs unchanged, × the fastest".into(), ahead(docs, Step::Unchanged, &FOUR), AtLeast(5.0));
        goal("docs unchanged, × rsync".into(), ahead(docs, Step::Unchanged, &["rsync"]), AtLeast(1.0));
        goal("docs 1 % changed, × the fastest".into(), ahead(docs, Step::Changed, &FOUR), AtLeast(4.0));
        goal("docs first backup, of tar + zstd".into(), behind(docs, Step::First, "tar+zstd"), AtMost(1.1));
        goal("docs unchanged, of find".into(), behind(docs, Step::Unchanged, "find"), AtMost(1.7));
        goal("docs restore, of zstd + tar".into(), behind(docs, Step::Restore, "tar+zstd"), AtMost(1.0));
        let intact = ratio(docs.seconds("ghostsync", Step::Intact), docs.seconds("ghostsync", Step::Unchanged));
        goal("docs restore over intact, of unchanged".into(), intact, AtMost(2.0));
        goal("docs stored, MiB".into(), stored(docs, "ghostsync").map(|bytes| bytes / MEBIBYTE), AtMost(65.0));
    }
    if let Some(db) = quoted(results, Tree::Db) {
        goal("db stored, of rustic".into(), ratio(stored(db, "ghostsync"), stored(db, "rustic")), AtMost(1.08));
        goal(
            "db added by 0.2 % of the rows, MiB".into(),
            added(db, "ghostsync").map(|bytes| bytes / MEBIBYTE),
            AtMost(25.0),
        );
    }
    let find = |scenario, store, tree| results.find(Key { scenario, medium: Medium::Tmpfs, store, tree });
    if let Some(curve) = find(Scenario::Curve, StoreKind::Local, Tree::Wide) {
        goal("memory for a further million entries, MiB".into(), growth(curve), AtMost(30.0));
        let floor = straightness(curve, floor_series, Step::First);
        for step in [Step::First, Step::Unchanged, Step::Restore] {
            let what = format!("curve, {}: each entry of the largest tree, of one at a tenth of it", step.title());
            let straightness = straightness(curve, |files| files.to_string(), step);
            // What the system takes for each new file grows as well.
            let (what, straightness) = if step == Step::Restore {
                (format!("{what}, beside {FLOOR}"), ratio(straightness, floor))
            } else {
                (what, straightness)
            };
            goal(what, straightness, AtMost(1.2));
        }
    }
    for store in [StoreKind::Garage, StoreKind::Ceph] {
        let Some(far) = find(Scenario::Steps, store, Tree::Docs) else { continue };
        goal(
            format!("docs over {store:?}, first backup, of the bound"),
            over_bound(far, "ghostsync", Step::First),
            AtMost(1.3),
        );
        goal(
            format!("docs over {store:?}, restore, of the bound"),
            over_bound(far, "ghostsync", Step::Restore),
            AtMost(1.3),
        );
        let near = far.seconds(LOCAL, Step::Unchanged);
        let trips = far
            .seconds("ghostsync", Step::Unchanged)
            .zip(near)
            .map(|(far, near)| (far - near) / ROUND_TRIP.as_secs_f64());
        goal(format!("docs over {store:?}, unchanged, round trips beyond the walk"), trips, AtMost(3.0));
    }
    if let Some(history) = find(Scenario::History, StoreKind::Local, Tree::Docs) {
        let [fresh, newest, drained] = SERIES.map(|series| history.seconds(series, Step::Restore));
        let best = ratio(newest, fresh).zip(ratio(drained, fresh)).map(|(newest, drained)| newest.min(drained));
        goal("the newest of 200 snapshots, as it is or after draining, of a fresh one".into(), best, AtMost(1.5));
    }
    lines.concat()
}

/// How many times as long as ghostsync the fastest of `peers` took.
fn ahead(campaign: &Campaign, step: Step, peers: &[&str]) -> Option<f64> {
    let fastest = peers.iter().filter_map(|peer| campaign.seconds(peer, step)).reduce(f64::min);
    ratio(fastest, campaign.seconds("ghostsync", step))
}

/// How many times as long as `floor` ghostsync took.
fn behind(campaign: &Campaign, step: Step, floor: &str) -> Option<f64> {
    ratio(campaign.seconds("ghostsync", step), campaign.seconds(floor, step))
}

fn stored(campaign: &Campaign, peer: &str) -> Option<f64> {
    campaign.median(peer, Step::First, |sample| sample.stored_bytes.map(|bytes| bytes as f64))
}

fn ratio(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    Some(one? / other?)
}

/// The largest growth of peak memory between the two largest trees, for a million entries.
fn growth(curve: &Campaign) -> Option<f64> {
    let sizes = sizes(curve);
    let [.., smaller, larger] = sizes.as_slice() else { return None };
    let peak = |files: &u64, step| peak(curve, &files.to_string(), step);
    let grown = |step| Some((peak(larger, step)? - peak(smaller, step)?) / MEBIBYTE / (larger - smaller) as f64 * 1e6);
    [Step::First, Step::Unchanged, Step::Restore].into_iter().filter_map(grown).reduce(f64::max)
}

/// The time for each entry of the largest tree of which there is a copy beside, and that of a tree of a tenth of its size.
fn straightness(curve: &Campaign, series: impl Fn(u64) -> String, step: Step) -> Option<f64> {
    let each = |files: u64| Some(curve.seconds(&series(files), step)? / files as f64);
    let sizes = sizes(curve);
    let largest = *sizes.iter().rfind(|files| curve.seconds(&floor_series(**files), Step::First).is_some())?;
    let tenth = *sizes.iter().find(|files| **files * 10 >= largest)?;
    ratio(each(largest), each(tenth))
}
