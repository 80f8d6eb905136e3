//! Do time and memory grow with the number of entries, and no faster? Tiny files, 10,000 to a million, and twice that.
//!
//! A copy of each tree by `cp` is measured beside: what a file costs the system alone grows as well.

use std::fs;
use std::path::Path;

use crate::bench::{Bench, Workplace, named, now};
use crate::compare::compare;
use crate::failure::{Outcome, Tried};
use crate::peers::{self, Peer, Place, Step};
use crate::results::{Campaign, Key, Medium, Results, Sample, Scenario};
use crate::store::StoreKind;
use crate::trees::{Tree, wide};
use crate::walk::stored_bytes;

/// Where its results are kept.
pub const KEY: Key =
    Key { scenario: Scenario::Curve, medium: Medium::Tmpfs, store: StoreKind::Local, tree: Tree::Wide };
/// The files of the trees.
const FILES: [u64; 6] = [10_000, 30_000, 100_000, 300_000, 600_000, 1_000_000];
/// Those of one more, which shows what a further million takes. There are never two copies of it: a tmpfs of half of
/// 24 GiB has inodes for three million files.
const FURTHER: u64 = 2_000_000;

/// What a copy of each tree is made with.
pub const FLOOR: &str = "cp";

/// The series of the copies of a tree of so many files; those of ghostsync are the number alone.
pub fn floor_series(files: u64) -> String {
    format!("{FLOOR} {files}")
}

/// The sizes of the trees, smallest first.
pub fn sizes(campaign: &Campaign) -> Vec<u64> {
    campaign.series().into_iter().filter_map(|series| series.parse().ok()).collect()
}

/// Measures.
pub fn run(bench: &Bench) -> Outcome<()> {
    let all = peers::all(&bench.ghostsync);
    let chosen = named(&all, &["ghostsync".to_owned(), FLOOR.to_owned()])?;
    let (peer, floor) = (chosen[0], chosen[1]);
    let workplace = bench.workplace(KEY.medium)?;
    let source = workplace.folder.join("source");
    fs::create_dir(&source).on("create the folder", &source)?;
    let mut campaign = bench.campaign(KEY, &source, &workplace, &chosen)?;
    let scaled = |files: u64| (files as f64 * bench.scale) as u64;
    let mut keep = |sample: Option<Sample>, series: String, run| {
        campaign.samples.extend(sample.map(|sample| Sample { series, run, ..sample }));
    };
    for files in FILES.map(scaled) {
        empty(&source)?;
        wide::make(&source, files)?;
        for run in 1..=bench.runs {
            let place = begin(peer, &workplace, &source)?;
            for step in [Step::First, Step::Unchanged, Step::Restore] {
                keep(workplace.measure(peer, step, &place, None)?, files.to_string(), run);
            }
            compare(&source, &place.target)?;
            workplace.clear(PLACE)?;
            let place = workplace.place(&source, PLACE, None)?;
            keep(workplace.measure(floor, Step::First, &place, None)?, floor_series(files), run);
            workplace.clear(PLACE)?;
        }
    }
    let further = scaled(FURTHER);
    for run in 1..=bench.runs {
        empty(&source)?;
        wide::make(&source, further)?;
        (campaign.entries, campaign.bytes) = (wide::entries(further), stored_bytes(&source)?);
        let place = begin(peer, &workplace, &source)?;
        for step in [Step::First, Step::Unchanged] {
            keep(workplace.measure(peer, step, &place, None)?, further.to_string(), run);
        }
        empty(&source)?;
        keep(workplace.measure(peer, Step::Restore, &place, None)?, further.to_string(), run);
        wide::check(&place.target, further)?;
        workplace.clear(PLACE)?;
    }
    campaign.finished = now();
    Results::keep(&bench.results, &campaign)
}

/// The folder of everything but the source.
const PLACE: &str = "place";

/// A new place, with a repository.
fn begin(peer: &dyn Peer, workplace: &Workplace, source: &Path) -> Outcome<Place> {
    let place = workplace.place(source, PLACE, None)?;
    peer.prepare(&place).map_or(Ok(()), |command| workplace.run(&command))?;
    fs::create_dir(&place.target).on("create the folder", &place.target)?;
    Ok(place)
}

fn empty(folder: &Path) -> Outcome<()> {
    fs::remove_dir_all(folder).and_then(|()| fs::create_dir(folder)).on("empty", folder)
}
