//! Random histories of a repository with several writers, against a naive model of what must come of each step.
//!
//! `reference.rs` knows the rules of `docs/protocol.md` and no store, no packs and no log: whole directories in a list.
//! `system.rs` does each step with the library's public API on a store in memory, and compares what was told and what
//! is there. A failure prints the shortest history that shows it; `PROPTEST_CASES=n` tries more of them.

mod reference;
mod system;

use std::collections::BTreeMap;

use proptest::strategy::{BoxedStrategy, Strategy, ValueTree};
use proptest::test_runner::{Config, TestRunner};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use reference::{Model, Step, Told, steps};
use system::System;

/// Histories that are tried, at most so many steps long. In commit mode `detect` each commit waits for others.
const CASES: u32 = 24;
const CASES_OF_DETECT: u32 = 2;

/// A repository in commit mode `atomic`, or `detect`.
struct Machine<const DETECT: bool>;

impl<const DETECT: bool> ReferenceStateMachine for Machine<DETECT> {
    type State = Model;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Model> {
        proptest::strategy::Just(Model::new(DETECT)).boxed()
    }

    fn transitions(model: &Model) -> BoxedStrategy<Step> {
        steps(model)
    }

    fn apply(mut model: Model, step: &Step) -> Model {
        model.take(step);
        model
    }
}

impl<const DETECT: bool> StateMachineTest for Machine<DETECT> {
    type SystemUnderTest = System;
    type Reference = Self;

    fn init_test(model: &Model) -> System {
        System::new(model)
    }

    fn apply(mut system: System, model: &Model, step: Step) -> System {
        system.take(&step, model);
        system
    }

    fn teardown(system: System, model: Model) {
        system.end(&model);
    }
}

fn config(cases: u32) -> Config {
    let cases = std::env::var("PROPTEST_CASES").map_or(cases, |text| text.parse().expect("a number"));
    Config { cases, max_shrink_iters: 500, failure_persistence: None, ..Config::default() }
}

prop_state_machine! {
    #![proptest_config(config(CASES))]

    #[test]
    fn whatever_several_writers_do_the_repository_is_what_a_naive_model_says(sequential 1..60 => Machine<false>);
}

prop_state_machine! {
    #![proptest_config(config(CASES_OF_DETECT))]

    #[test]
    fn one_step_after_the_other_commit_mode_detect_does_the_same(sequential 1..20 => Machine<true>);
}

/// The ends that a step can have, as [`end`] tells them.
const ENDS: &[&str] = &[
    "BackUp: Made",
    "BackUp: Unchanged",
    "BackUp: Forked Held",
    "BackUp: Forked NewEpoch",
    "BackUp: Forked NotHeld",
    "BackUp: Forked OtherHead",
    "BackUp: Quarantined",
    "BackUp: Failed Refused",
    "BackUp: Failed Conflict",
    "BackUp, raced: Made",
    "BackUp, raced: Unchanged",
    "BackUp, raced: Forked Held",
    "BackUp, raced: Forked NewEpoch",
    "BackUp, raced: Forked OtherHead",
    "BackUp, raced: Quarantined",
    "BackUp, raced: Failed Refused",
    "Claim, raced: Claimed Some",
    "Forget: Forgotten",
    "Forget, raced: Forgotten",
    "Forget: Failed Invalid",
    "Hold: Failed NotFound",
    "Promote: Promoted Fork",
    "Promote: Promoted Quarantine",
    "Promote: Promoted Main",
    "Promote: Failed Invalid",
    "Promote: Failed NotFound",
    "Release: Failed Conflict",
];

/// What came of the last step, in words.
fn end(step: &Step, model: &Model) -> String {
    let (step, raced) = match step {
        Step::Raced(step, _) if model.told.len() > 1 => (&**step, ", raced"),
        Step::Raced(step, _) => (&**step, ""),
        step => (step, ""),
    };
    let told = match model.told.last().expect("an end") {
        Told::Promoted(made) => {
            let source = model.snapshots[*made].promoted.expect("a source");
            format!("Promoted {:?}", model.snapshots[source].branch)
        }
        told => format!("{told:?}"),
    };
    let words = told.split(|letter: char| !letter.is_alphanumeric());
    let words: Vec<&str> = words.filter(|word| word.starts_with(char::is_uppercase)).collect();
    let step = format!("{step:?}");
    let step = step.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default();
    format!("{step}{raced}: {}", words.join(" "))
}

#[test]
fn histories_come_to_every_end_that_a_step_can_have() {
    let mut runner = TestRunner::deterministic();
    let mut ends: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..300 {
        let history = Machine::<false>::sequential_strategy(1..60).new_tree(&mut runner).expect("a history");
        let (mut model, steps, _) = history.current();
        for step in steps {
            model.take(&step);
            *ends.entry(end(&step, &model)).or_default() += 1;
        }
    }
    let missing: Vec<_> = ENDS.iter().filter(|end| !ends.contains_key(**end)).collect();
    assert!(missing.is_empty(), "{missing:?} of {ends:#?}");
}
