//! Do time and memory grow with the number of entries, and no faster? Tiny files, 10,000 to a million, and as many
//! again as memory has room for.
//!
//! A copy of each tree by `cp` is measured beside: what a file costs the system alone grows as well.

use std::fs;

use crate::bench::{Bench, named, now};
use crate::compare::compare;
use crate::failure::{Outcome, Tried};
use crate::peers::{self, Step};
use crate::results::{Campaign, Key, Medium, Results, Sample, Scenario};
use crate::store::StoreKind;
use crate::trees::{Tree, wide};
use crate::walk::stored_bytes;

/// Where its results are kept.
pub const KEY: Key =
    Key { scenario: Scenario::Curve, medium: Medium::Tmpfs, store: StoreKind::Local, tree: Tree::Wide };
/// The files of the trees. What memory grows by beyond a million is seen at the last.
const FILES: [u64; 7] = [10_000, 30_000, 100_000, 300_000, 600_000, 1_000_000, 1_600_000];

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
    for files in FILES.map(|files| (files as f64 * bench.scale) as u64) {
        fs::remove_dir_all(&source).on("remove", &source)?;
        wide::make(&source, files)?;
        for run in 1..=bench.runs {
            let place = workplace.place(&source, "place", None)?;
            peer.prepare(&place).map_or(Ok(()), |command| workplace.run(&command))?;
            fs::create_dir(&place.target).on("create the folder", &place.target)?;
            for step in [Step::First, Step::Unchanged, Step::Restore] {
                let sample = workplace.measure(peer, step, &place, None)?;
                campaign.samples.extend(sample.map(|sample| Sample { series: files.to_string(), run, ..sample }));
            }
            compare(&source, &place.target)?;
            workplace.clear("place")?;
            let place = workplace.place(&source, "place", None)?;
            let sample = workplace.measure(floor, Step::First, &place, None)?;
            campaign.samples.extend(sample.map(|sample| Sample { series: floor_series(files), run, ..sample }));
            workplace.clear("place")?;
        }
        (campaign.entries, campaign.bytes) = (files + files.div_ceil(1000), stored_bytes(&source)?);
    }
    campaign.finished = now();
    Results::keep(&bench.results, &campaign)
}
