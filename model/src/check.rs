//! Runs a model to its end, or to the first invariant that breaks.

use std::fmt::Debug;
use std::hash::Hash;
use std::time::{Duration, Instant};

use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// What a run found.
pub struct Outcome {
    pub generated: usize,
    pub unique: usize,
    pub depth: usize,
    pub seconds: f64,
    /// Every state within the bounds was looked at.
    pub is_exhausted: bool,
    pub counterexample: Option<Counterexample>,
    /// Situations that a run should reach somewhere, or it proves little.
    pub seen: Vec<&'static str>,
    pub unseen: Vec<&'static str>,
}

/// An invariant that broke, and the steps that led there.
pub struct Counterexample {
    pub invariant: &'static str,
    pub steps: Vec<String>,
}

/// Any model of this crate.
pub trait Checkable {
    /// Explores breadth first. With one thread a counterexample is one of the shortest.
    fn check(&self, threads: usize, limit: Duration) -> Outcome;
}

impl<M> Checkable for M
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    fn check(&self, threads: usize, limit: Duration) -> Outcome {
        let began = Instant::now();
        let checker = self.clone().checker().threads(threads).timeout(limit);
        let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let took = began.elapsed();
        let (mut counterexample, mut seen, mut unseen) = (None, Vec::new(), Vec::new());
        for property in checker.model().properties() {
            let found = checker.discovery(property.name);
            match property.expectation {
                Expectation::Sometimes if found.is_some() => seen.push(property.name),
                Expectation::Sometimes => unseen.push(property.name),
                _ => {
                    let steps = found.map(|path| path.into_actions().iter().map(|a| format!("{a:?}")).collect());
                    counterexample =
                        counterexample.or(steps.map(|steps| Counterexample { invariant: property.name, steps }));
                }
            }
        }
        Outcome {
            generated: checker.state_count(),
            unique: checker.unique_state_count(),
            depth: checker.max_depth(),
            seconds: took.as_secs_f64(),
            is_exhausted: counterexample.is_none() && took < limit,
            counterexample,
            seen,
            unseen,
        }
    }
}
