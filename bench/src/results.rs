//! What was measured, as it is kept: the report can be made again from it, without measuring.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::compare::Lost;
use crate::failure::{Outcome, Tried};
use crate::line::Traffic;
use crate::machine::Machine;
use crate::measure::Taken;
use crate::peers::Step;
use crate::store::StoreKind;
use crate::trees::Tree;

/// Where the trees and the local repositories lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Medium {
    /// In memory
    Tmpfs,
    /// On a disk, in the page cache as far as it was read before
    Disk,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scenario {
    /// Every step of every peer
    Steps,
    /// A restore after 200 snapshots
    History,
    /// Trees of 10,000 to two million files
    Curve,
}

/// Which campaign it is; a newer one takes the place of an older one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    pub scenario: Scenario,
    pub medium: Medium,
    pub store: StoreKind,
    pub tree: Tree,
}

/// One measured command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// The peer; of a scenario with ghostsync alone, which repository or tree it was.
    pub series: String,
    pub step: Step,
    pub run: u32,
    pub taken: Taken,
    /// In the repository afterwards, where it is a local one.
    pub stored_bytes: Option<u64>,
    /// As the peer counted, or as they passed the line.
    pub requests: Option<u64>,
    pub traffic: Option<Traffic>,
}

/// All runs of one key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Campaign {
    pub key: Key,
    pub scale: f64,
    pub finished: String,
    pub machine: Machine,
    /// Runnable processes just before, on average of a minute: 0 on a quiet machine.
    pub load_before: f64,
    pub entries: u64,
    pub bytes: u64,
    /// Of each peer.
    pub versions: BTreeMap<String, String>,
    /// What a peer's restore did not bring back.
    pub lost: BTreeMap<String, Lost>,
    pub samples: Vec<Sample>,
}

impl Campaign {
    /// The median over all runs of a figure, if there is any.
    pub fn median(&self, series: &str, step: Step, figure: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        let wanted = self.samples.iter().filter(|sample| sample.series == series && sample.step == step);
        median(wanted.filter_map(figure).collect())
    }

    /// The median of its seconds.
    pub fn seconds(&self, series: &str, step: Step) -> Option<f64> {
        self.median(series, step, |sample| Some(sample.taken.seconds))
    }

    /// How many runs there were.
    pub fn runs(&self) -> u32 {
        self.samples.iter().map(|sample| sample.run).max().unwrap_or(0)
    }

    /// The series, in the order in which they were first measured.
    pub fn series(&self) -> Vec<&str> {
        let mut all: Vec<&str> = Vec::new();
        for sample in &self.samples {
            if !all.contains(&sample.series.as_str()) {
                all.push(&sample.series);
            }
        }
        all
    }
}

/// The middle one, or the mean of the two in the middle.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// Everything that is known.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    pub campaigns: Vec<Campaign>,
}

impl Results {
    /// Reads `path`; nothing is known if it does not exist.
    pub fn load(path: &Path) -> Outcome<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(path).on("read", path)?;
        serde_json::from_str(&text).on("parse", path)
    }

    /// Puts `campaign` in its place, and writes everything to `path`.
    pub fn keep(path: &Path, campaign: &Campaign) -> Outcome<()> {
        let mut results = Self::load(path)?;
        results.campaigns.retain(|known| known.key != campaign.key);
        results.campaigns.push(campaign.clone());
        results.campaigns.sort_by_key(|known| known.key);
        // A line for each sample, so that a difference of two versions can be read.
        let mut text = serde_json::to_string(&results).tried(|| "encode the results".into())?;
        text = text.replace("{\"series\"", "\n{\"series\"").replace("{\"key\"", "\n{\"key\"");
        text.push('\n');
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).on("create the folder", folder)?;
        fs::write(path, text).on("write", path)
    }

    /// The campaign of this key.
    pub fn find(&self, key: Key) -> Option<&Campaign> {
        self.campaigns.iter().find(|campaign| campaign.key == key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_does_not_see_outliers() {
        assert_eq!(median(vec![3.0, 100.0, 1.0]), Some(3.0));
        assert_eq!(median(vec![4.0, 100.0, 1.0, 2.0]), Some(3.0));
        assert_eq!(median(vec![]), None);
    }
}
