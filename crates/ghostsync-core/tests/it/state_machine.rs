//! Random histories of a repository with several writers, against a naive model of what must come of each step.
//!
//! `reference.rs` knows the rules of `docs/protocol.md` and no store, no packs and no log: whole directories in a list.
//! `system.rs` does each step with the library's public API on a store in memory, and compares what was told and what
//! is there. A failure prints the shortest history that shows it; `PROPTEST_CASES=n` tries more of them.

mod reference;
mod system;

use proptest::strategy::BoxedStrategy;
use proptest::test_runner::Config;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use reference::{Model, Step, steps};
use system::System;

/// Histories that are tried, at most so many steps long. In commit mode `detect` each commit waits for others.
const CASES: u32 = 32;
const CASES_OF_DETECT: u32 = 2;

/// A repository in commit mode `atomic`, or `detect`.
struct Machine<const DETECT: bool>;

impl<const DETECT: bool> ReferenceStateMachine for Machine<DETECT> {
    type State = Model;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Model> {
        use proptest::strategy::{Just, Strategy};
        Just(Model::new(DETECT)).boxed()
    }

    fn transitions(_: &Model) -> BoxedStrategy<Step> {
        steps(DETECT)
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
    fn whatever_several_writers_do_the_repository_is_what_a_naive_model_says(sequential 1..40 => Machine<false>);
}

prop_state_machine! {
    #![proptest_config(config(CASES_OF_DETECT))]

    #[test]
    fn one_step_after_the_other_commit_mode_detect_does_the_same_but_prune(sequential 1..20 => Machine<true>);
}
