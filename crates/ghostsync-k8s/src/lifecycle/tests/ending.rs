//! From the first sign of the end to the last action.

use super::*;

#[test]
fn sigterm_makes_the_final_snapshot_small_files_first_and_gives_the_branch_back() {
    let mut life = Life::idle();
    assert_eq!(life.at(100.0, Event::Terminate), [last(true, true)]);
    assert_eq!(life.on(Event::Passed(Passed::Saved { complete: false })), [last(false, true)]);
    assert_eq!(life.on(SAVED), [Action::End]);
    assert_eq!((life.on(Event::Tick), life.it.wake_at()), (vec![], None));
}

#[test]
fn sigterm_that_comes_before_the_begin_has_ended_lets_it_end_and_saves_then() {
    for began in [Began::Ready, Began::Fenced] {
        let mut life = Life::starting();
        assert_eq!(life.on(Event::Terminate), [], "the begin is not stopped");
        assert_eq!(life.on(Event::Began(began)), [last(true, true)], "{began:?}");
        assert_eq!(life.on(SAVED), [Action::End]);
    }
    let mut life = Life::starting();
    life.on(Event::Terminate);
    assert_eq!(life.on(Event::Began(Began::Refused)), [Action::End], "nothing may be saved, now or later");
}

#[test]
fn a_begin_that_fails_at_the_end_is_tried_until_the_deadline_and_no_pass_without_it() {
    let mut life = Life::starting();
    life.on(Event::Began(Began::NotYet));
    // While nothing runs, and then while a begin does.
    assert_eq!(life.on(Event::Terminate), [Action::Begin]);
    for _ in 0..100 {
        assert_eq!(life.on(Event::Began(Began::NotYet)), []);
        assert_eq!(life.next().1, [Action::Begin]);
    }
    assert_eq!(life.next(), (149.0, vec![Action::Stop]));
    assert_eq!(life.on(Event::Began(Began::NotYet)), [Action::End]);

    let mut life = Life::starting();
    life.on(Event::Terminate);
    assert_eq!(life.on(Event::Began(Began::NotYet)), []);
    assert_eq!(life.next(), (0.25, vec![Action::Begin]));
    assert_eq!(life.on(Event::Began(Began::Ready)), [last(true, true)]);
}

#[test]
fn a_receipt_that_does_not_hold_is_looked_at_again_while_nobody_ends_the_process() {
    let mut life = Life::starting();
    assert_eq!(life.on(Event::Began(Began::Refused)), []);
    assert_eq!(life.next(), (1.0, vec![Action::Begin]));
    assert_eq!(life.on(Event::Began(Began::Ready)), [pass(Cause::Rescan)]);
    let mut life = Life::starting();
    life.on(Event::Began(Began::Refused));
    assert_eq!(life.on(Event::Terminate), [Action::Begin], "it may hold by now");
    assert_eq!(life.on(Event::Began(Began::Refused)), [Action::End]);
}

#[test]
fn a_first_step_that_holds_everything_is_the_end() {
    let mut life = Life::idle();
    assert_eq!(life.at(100.0, Event::Terminate), [last(true, true)]);
    assert_eq!(life.on(SAVED), [Action::End]);
}

#[test]
fn sigterm_stops_the_pass_that_runs_and_begins_with_what_is_small() {
    let mut life = Life::idle();
    life.at(105.0, Event::Changed);
    assert_eq!(life.next().1, [pass(Cause::Change)]);
    assert_eq!(life.on(Event::Terminate), [Action::Stop]);
    assert_eq!(life.on(Event::Terminate), [], "a second time is no news");
    assert_eq!(life.on(Event::Passed(Passed::Stopped)), [last(true, true)]);
    // Had it been quicker than the word to stop, what came since would still be saved.
    let mut life = Life::idle();
    life.on(Event::Asked);
    life.on(Event::Terminate);
    assert_eq!(life.on(SAVED), [last(true, true)]);
}

#[test]
fn the_deadline_counts_from_the_beginning_of_the_pods_end() {
    let mut life = Life::idle();
    assert_eq!(life.at(100.0, Event::Terminating), [pass(Cause::Asked)], "an early pass");
    assert_eq!(life.on(SAVED), []);
    assert_eq!(life.at(101.0, Event::Terminating), [pass(Cause::Asked)], "preStop twice");
    assert_eq!(life.on(SAVED), []);
    life.at(110.0, Event::Terminate);
    assert_eq!(life.it.deadline(), Some(Duration::from_secs(249)));
}

#[test]
fn an_app_slower_than_the_grace_period_leaves_the_two_seconds_of_the_kubelet() {
    let mut life = Life::idle();
    life.at(100.0, Event::Terminating);
    life.on(SAVED);
    assert_eq!(life.at(300.0, Event::Terminate), [last(true, true)]);
    assert_eq!(life.next(), (301.5, vec![Action::Stop]));
    assert_eq!(life.on(Event::Passed(Passed::Stopped)), [Action::End]);
}

#[test]
fn a_final_snapshot_is_tried_until_the_deadline_and_no_longer() {
    let mut life = Life::idle();
    assert_eq!(life.at(100.0, Event::Terminate), [last(true, true)]);
    let mut tries = 0;
    loop {
        assert!(life.now < Duration::from_secs(260));
        tries += 1;
        match life.on(Event::Passed(Passed::NotYet)).as_slice() {
            [] => {}
            [Action::End] => break,
            other => panic!("{other:?}"),
        }
        if life.next().1 == [Action::End] {
            break;
        }
    }
    assert!(tries > 100, "{tries}");
    assert_eq!(life.now.as_secs(), 249);
}

#[test]
fn a_job_that_does_not_stop_is_not_waited_for() {
    let mut life = Life::idle();
    life.at(100.0, Event::Terminate);
    assert_eq!(life.next(), (249.0, vec![Action::Stop]));
    let (seconds, actions) = life.next();
    assert_eq!(actions, [Action::End]);
    assert!(seconds < 249.5, "{seconds}");
}

#[test]
fn what_is_refused_or_fenced_at_the_end_is_kept_as_a_whole_and_is_the_end() {
    for passed in [Passed::Refused { kept: true }, Passed::Fenced] {
        let mut life = Life::idle();
        assert_eq!(life.at(100.0, Event::Terminate), [last(true, true)]);
        assert_eq!(life.on(Event::Passed(passed)), [last(false, true)], "{passed:?}: large files were left out");
        assert_eq!(life.on(Event::Passed(passed)), [Action::End], "{passed:?}");
    }
    let mut life = Life::idle();
    life.at(100.0, Event::Terminate);
    assert_eq!(life.on(Event::Passed(Passed::Refused { kept: false })), [Action::End], "nothing is kept anywhere");
}

#[test]
fn a_fork_that_was_begun_before_sigterm_makes_the_final_snapshot_wait_for_nothing() {
    let mut life = Life::idle();
    life.on(Event::Asked);
    life.on(Event::Passed(Passed::Fenced));
    assert_eq!(life.at(110.0, Event::Terminating), [pass(Cause::Asked)], "an early pass");
    life.at(110.1, Event::Changed);
    assert_eq!(life.at(110.2, Event::Terminate), [Action::Stop]);
    assert_eq!(life.on(Event::Passed(Passed::Fenced)), [last(true, true)], "it was quicker than the word to stop");
    assert_eq!(life.on(SAVED), [Action::End]);
}

#[test]
fn while_the_app_may_write_the_branch_is_not_given_back() {
    let mut life = Life::idle();
    life.at(100.0, Event::AppMayWrite);
    life.at(103.0, Event::Changed);
    assert_eq!(life.at(104.0, Event::Terminate), [last(true, false)]);
    life.at(104.5, Event::Changed);
    assert_eq!(life.on(SAVED), []);
    assert_eq!(life.at(105.0, Event::Changed), []);
    assert_eq!(life.next(), (107.0, vec![last(false, true)]), "it has been quiet");
    assert_eq!(life.on(SAVED), [Action::End]);
}

#[test]
fn an_app_that_never_stops_writing_is_saved_up_to_the_deadline() {
    let mut life = Life::idle();
    life.at(100.0, Event::AppMayWrite);
    life.at(103.9, Event::Changed);
    let mut actions = life.at(104.0, Event::Terminate);
    let mut passes = 0;
    while actions != [Action::End] {
        match actions.as_slice() {
            [Action::Pass(_)] => {
                passes += 1;
                actions = life.on(SAVED);
            }
            [] => {
                life.now += Duration::from_millis(500);
                actions = life.on(Event::Changed);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!((40..50).contains(&passes), "{passes}");
    assert_eq!(life.now.as_secs(), 248, "the last one a second before the end");
}

#[test]
fn an_app_that_is_seen_gone_is_waited_for_no_longer() {
    let mut life = Life::idle();
    life.at(100.0, Event::AppMayWrite);
    life.at(103.0, Event::Changed);
    life.at(103.5, Event::AppGone);
    assert_eq!(life.at(104.0, Event::Terminate), [last(true, true)]);
}
