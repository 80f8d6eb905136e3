//! The scenario of the tables: every step of every peer on one tree.
//!
//! Within a run all peers do the first backup, then all of them the next step, beginning with another one in each run: a
//! machine that becomes slower meets all alike. Only the restores of a peer come together, so that one restored tree is
//! there at a time; of `wide` a peer does all its steps alone. Each run begins with new repositories. The source keeps
//! what was changed in earlier runs, in other files each time, so that every run sees the same amount of change.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::bench::{Bench, Workplace, named, now};
use crate::changes;
use crate::compare::{Lost, compare};
use crate::failure::{Failure, Outcome, Tried};
use crate::peers::{self, LOCAL, Peer, Place, Step};
use crate::results::{Key, Results, Sample};
use crate::store::{Store, StoreKind};
use crate::trees::{self, Tree};

/// Measures; `names` are the peers, none of them: the usual ones.
pub fn run(bench: &Bench, key: Key, names: &[String]) -> Outcome<()> {
    let all = peers::all(&bench.ghostsync);
    let usual: Vec<String> = peers::usual(key.tree).iter().map(|name| (*name).to_owned()).collect();
    let mut chosen = named(&all, if names.is_empty() { &usual } else { names })?;
    if key.store != StoreKind::Local {
        chosen.retain(|peer| peer.knows_buckets());
    }
    if names.is_empty() {
        chosen.retain(|peer| match peers::version_of(*peer) {
            Ok(_) => true,
            Err(failure) => {
                eprintln!("bench: {} is left out: {failure}", peer.name());
                false
            }
        });
    }
    if key.store != StoreKind::Local && chosen.iter().any(|peer| peer.name() == "ghostsync") {
        chosen.extend(named(&all, &[LOCAL.to_owned()])?);
    }
    if chosen.is_empty() {
        return Err(Failure::new("none of these peers is installed, or can keep a repository there"));
    }
    let workplace = bench.workplace(key.medium)?;
    let source = workplace.folder.join("source");
    eprintln!("bench: making the tree {}", key.tree.name());
    trees::make(key.tree, &source, bench.scale, &bench.project, &workplace.folder)?;
    let mut campaign = bench.campaign(key, &source, &workplace, &chosen)?;
    let group_size = if key.tree == Tree::Wide { 1 } else { chosen.len() };
    let mut generation = 0;
    for run in 1..=bench.runs {
        let beginning = (run as usize - 1) % chosen.len();
        chosen.rotate_left(beginning);
        for group in chosen.chunks(group_size) {
            generation += 1;
            let server = workplace.folder.join("server");
            let store = Store::start(key.store, &bench.project, &server)?;
            let round = Round { key, workplace: &workplace, source: &source, store: store.as_ref(), generation };
            let samples = round.measure(group, &mut campaign.lost)?;
            campaign.samples.extend(samples.into_iter().map(|sample| Sample { run, ..sample }));
            drop(store);
            if server.exists() {
                fs::remove_dir_all(&server).on("remove", &server)?;
            }
        }
        chosen.rotate_right(beginning);
        campaign.finished = now();
        Results::keep(&bench.results, &campaign)?;
    }
    Ok(())
}

/// One run of a group of peers, from new repositories to the end.
struct Round<'a> {
    key: Key,
    workplace: &'a Workplace,
    source: &'a Path,
    store: Option<&'a Store>,
    /// Which files are changed and damaged.
    generation: u64,
}

impl Round<'_> {
    fn measure(&self, group: &[&dyn Peer], lost: &mut BTreeMap<String, Lost>) -> Outcome<Vec<Sample>> {
        let mut samples = Vec::new();
        let mut places = Vec::new();
        for peer in group {
            let bucket = self.store.filter(|_| peer.knows_buckets()).map(|store| &store.bucket);
            let place = self.workplace.place(self.source, peer.name(), bucket)?;
            if let Some(prepare) = peer.prepare(&place) {
                self.workplace.run(&prepare)?;
            }
            places.push((*peer, place));
        }
        for step in [Step::First, Step::Unchanged, Step::Changed] {
            if step == Step::Changed {
                trees::change(self.key.tree, self.source, self.generation)?;
            }
            for (peer, place) in &places {
                samples.extend(self.workplace.measure(*peer, step, place, self.store)?);
            }
        }
        for (peer, place) in &places {
            self.restores(*peer, place, &mut samples, lost)?;
            self.workplace.clear(peer.name())?;
        }
        Ok(samples)
    }

    /// The three restores of one peer, each compared with the source.
    fn restores(
        &self,
        peer: &dyn Peer,
        place: &Place,
        samples: &mut Vec<Sample>,
        lost: &mut BTreeMap<String, Lost>,
    ) -> Outcome<()> {
        fs::create_dir(&place.target).on("create the folder", &place.target)?;
        for step in [Step::Restore, Step::Intact, Step::Damaged] {
            if step == Step::Damaged && peer.command(step, place).is_some() {
                changes::damage(&place.target, self.generation)?;
            }
            let Some(sample) = self.workplace.measure(peer, step, place, self.store)? else { continue };
            samples.push(sample);
            let compared = compare(&place.source, &place.target);
            let what = || format!("{}, {} of {}", peer.name(), step.title(), self.key.tree.name());
            lost.insert(peer.name().to_owned(), compared.tried(what)?);
        }
        Ok(())
    }
}
