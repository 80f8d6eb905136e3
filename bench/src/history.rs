//! Does a restore become slower with the number of snapshots before it? 200 snapshots of `docs`, each with 1 % of the
//! files changed; then the newest is restored, and in turn the only snapshot of a fresh repository of the same tree.
//!
//! The third series is the newest again after the old snapshots were forgotten, `prune` marked packs to be moved out of,
//! the next backups stored again what they held, each up to 256 MiB of content, and another `prune` deleted them.

use std::fs;
use std::process::Command;

use crate::bench::{Bench, named, now};
use crate::compare::compare;
use crate::failure::{Outcome, Tried};
use crate::peers::{self, Peer, Place, Step};
use crate::results::{Key, Medium, Results, Sample, Scenario};
use crate::store::StoreKind;
use crate::trees::{self, Tree};

/// Where its results are kept.
pub const KEY: Key =
    Key { scenario: Scenario::History, medium: Medium::Tmpfs, store: StoreKind::Local, tree: Tree::Docs };
/// The snapshots of the long history.
pub const SNAPSHOTS: u64 = 200;
pub const SERIES: [&str; 3] = ["fresh", "newest", "drained"];

/// Measures.
pub fn run(bench: &Bench) -> Outcome<()> {
    let all = peers::all(&bench.ghostsync);
    let chosen = named(&all, &["ghostsync".to_owned()])?;
    let peer = chosen[0];
    let workplace = bench.workplace(KEY.medium)?;
    let source = workplace.folder.join("source");
    trees::make(KEY.tree, &source, bench.scale, &bench.project, &workplace.folder)?;
    let mut campaign = bench.campaign(KEY, &source, &workplace, &chosen)?;

    let [fresh, newest] = [SERIES[0], SERIES[1]].map(|name| workplace.place(&source, name, None));
    let (fresh, newest) = (fresh?, newest?);
    let backup = |place: &Place| match peer.command(Step::Changed, place) {
        Some(command) => workplace.run(&command),
        None => Ok(()),
    };
    for place in [&fresh, &newest] {
        peer.prepare(place).map_or(Ok(()), |command| workplace.run(&command))?;
    }
    backup(&newest)?;
    for generation in 1..SNAPSHOTS {
        trees::change(KEY.tree, &source, generation)?;
        backup(&newest)?;
    }
    backup(&fresh)?;
    let restore = |series: &str, place: &Place, run: u32| -> Outcome<Option<Sample>> {
        for folder in [&place.target, &place.home(Step::Restore)] {
            let _ = fs::remove_dir_all(folder);
            fs::create_dir_all(folder).on("create the folder", folder)?;
        }
        let sample = workplace.measure(peer, Step::Restore, place, None)?;
        compare(&source, &place.target)?;
        fs::remove_dir_all(&place.target).on("remove", &place.target)?;
        Ok(sample.map(|sample| Sample { series: series.to_owned(), run, ..sample }))
    };
    for run in 1..=bench.runs {
        campaign.samples.extend(restore(SERIES[0], &fresh, run)?);
        campaign.samples.extend(restore(SERIES[1], &newest, run)?);
    }
    for arguments in drain() {
        workplace.run(&ghostsync(peer, &newest, arguments))?;
    }
    for run in 1..=bench.runs {
        campaign.samples.extend(restore(SERIES[0], &fresh, run)?);
        campaign.samples.extend(restore(SERIES[2], &newest, run)?);
    }
    campaign.finished = now();
    Results::keep(&bench.results, &campaign)
}

/// Forget all but the newest snapshot, mark what is to be drained, store it again, delete it.
fn drain() -> Vec<&'static [&'static str]> {
    const FORGET: &[&str] =
        &["forget", "--keep-last", "1", "--protect", "0s", "--prune", "--grace", "0s", "--session-idle", "0s"];
    const BACKUP: &[&str] = &["backup", "--force", "SOURCE"];
    // 650 MB of content, 256 MiB each.
    vec![FORGET, BACKUP, BACKUP, BACKUP, FORGET]
}

/// Another command of ghostsync on the repository of `place`, from the words of its backup command.
fn ghostsync(peer: &dyn Peer, place: &Place, arguments: &[&str]) -> Command {
    let backup = peer.command(Step::Changed, place).unwrap_or_else(|| Command::new("false"));
    let mut command = Command::new(backup.get_program());
    command.env_clear().args(backup.get_args().take_while(|word| *word != "backup"));
    for (name, value) in backup.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    for argument in arguments {
        match *argument {
            "SOURCE" => command.arg(&place.source),
            other => command.arg(other),
        };
    }
    command
}
