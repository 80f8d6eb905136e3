mod ending;

use proptest::prelude::*;

use super::*;

const TIMING: Timing = Timing {
    interval: Duration::from_secs(30),
    quiet: Duration::from_secs(2),
    min_wait: Duration::from_secs(3),
    max_wait: Duration::from_secs(15),
    rescan: Duration::from_secs(600),
    grace: Duration::from_secs(150),
    maintain: None,
};

const SAVED: Event = Event::Passed(Passed::Saved { complete: true });

/// A lifecycle, and a time that the test moves.
struct Life {
    it: Lifecycle,
    now: Duration,
}

impl Life {
    /// Just started, with the begin under way.
    fn starting() -> Self {
        let mut life = Self { it: Lifecycle::new(TIMING, Duration::ZERO), now: Duration::ZERO };
        assert_eq!(life.on(Event::Tick), [Action::Begin]);
        life
    }

    /// A hundred seconds after the start, with nothing that has happened since.
    fn idle() -> Self {
        let mut life = Self::following();
        while let Some(actions) = life.next_within(100 - life.now.as_secs()) {
            assert_eq!(actions, [Action::Look]);
            life.on(Event::Looked(Looked::Still));
        }
        life.now = Duration::from_secs(100);
        life
    }

    /// Ready, with the first pass done.
    fn following() -> Self {
        let mut life = Self::starting();
        assert_eq!(life.on(Event::Began(Began::Ready)), [pass(Cause::Rescan)]);
        assert_eq!(life.on(SAVED), []);
        life
    }

    fn on(&mut self, event: Event) -> Vec<Action> {
        self.it.on(event, self.now)
    }

    fn at(&mut self, seconds: f64, event: Event) -> Vec<Action> {
        self.now = Duration::from_secs_f64(seconds);
        self.on(event)
    }

    /// Sleeps as the shell does, until something is to be done; returns when, in seconds, and what.
    fn next(&mut self) -> (f64, Vec<Action>) {
        for _ in 0..1000 {
            let wake = self.it.wake_at().expect("something is due");
            self.now = self.now.max(wake);
            let actions = self.on(Event::Tick);
            if !actions.is_empty() {
                return (self.now.as_secs_f64(), actions);
            }
        }
        panic!("it wakes up again and again for nothing: {:?}", self.it);
    }
}

impl Life {
    /// What is done within so many seconds, if it says that it wants to be woken.
    fn next_within(&mut self, seconds: u64) -> Option<Vec<Action>> {
        let until = self.now + Duration::from_secs(seconds);
        let wake = self.it.wake_at().filter(|wake| *wake <= until)?;
        self.now = self.now.max(wake);
        Some(self.on(Event::Tick))
    }
}

fn pass(cause: Cause) -> Action {
    Action::Pass(Pass { cause, small_first: false, release: false })
}

fn last(small_first: bool, release: bool) -> Action {
    Action::Pass(Pass { cause: Cause::Final, small_first, release })
}

#[test]
fn what_was_edited_before_the_sidecar_was_started_again_is_found_by_the_first_pass() {
    let mut life = Life::starting();
    assert!(!life.it.is_ready());
    assert_eq!(life.on(Event::Began(Began::Ready)), [pass(Cause::Rescan)]);
    assert!(life.it.is_ready());
}

#[test]
fn a_change_is_saved_when_it_has_been_quiet_for_two_seconds() {
    let mut life = Life::following();
    assert_eq!(life.at(5.0, Event::Changed), []);
    assert_eq!(life.at(5.75, Event::Changed), []);
    assert_eq!(life.it.unsynced_since(), Some(Duration::from_secs(5)));
    assert_eq!(life.next(), (7.75, vec![pass(Cause::Change)]));
    assert_eq!(life.at(9.0, SAVED), []);
    assert_eq!(life.it.unsynced_since(), None);
}

/// Lets an app write every tenth of a second, from one second on, while every pass takes so long; returns how long each
/// pass was waited for after the first change that it saves, and how old the oldest change ever was that was not saved,
/// from the second pass on.
fn written_without_pause(took: &[f64]) -> (Vec<f64>, f64) {
    let mut life = Life::following();
    let (mut waits, mut oldest) = (Vec::new(), 0.0_f64);
    // In tenths of a second, which no rounding moves.
    let mut running: Option<u64> = None;
    let mut first = None;
    let mut tenths = 10_u64;
    while waits.len() < took.len() || running.is_some() {
        life.now = Duration::from_millis(tenths * 100);
        let seconds = life.now.as_secs_f64();
        let unsynced = life.it.unsynced_since().filter(|_| waits.len() > 1);
        oldest = unsynced.map_or(oldest, |since| oldest.max(seconds - since.as_secs_f64()));
        first.get_or_insert(seconds);
        let mut actions = life.on(Event::Changed);
        if running.is_some_and(|until| tenths >= until) {
            running = None;
            actions.extend(life.on(SAVED));
        }
        match actions.as_slice() {
            [] => {}
            [Action::Pass(Pass { cause: Cause::Change, .. })] if waits.len() < took.len() => {
                running = Some(tenths + (took[waits.len()] * 10.0).round() as u64);
                waits.push(((seconds - first.take().expect("changed")) * 10.0).round() / 10.0);
            }
            [Action::Pass(_)] => break,
            other => panic!("{other:?}"),
        }
        tenths += 1;
    }
    (waits, oldest)
}

#[test]
fn a_directory_that_is_never_quiet_is_saved_soon_while_passes_are_quick_and_later_while_they_are_not() {
    // How long each pass takes, and how long it was waited for.
    let table: [(&[f64], &[f64]); 7] = [
        (&[0.1, 0.1, 0.1, 0.1], &[3.0, 3.0, 3.0, 3.0]),
        (&[1.0, 1.0, 1.0, 1.0], &[3.0, 3.0, 3.0, 3.0]),
        (&[1.5, 1.5, 1.5, 1.5], &[3.0, 4.5, 4.5, 4.5]),
        (&[2.0, 0.1, 2.0, 2.0], &[3.0, 6.0, 3.0, 6.0]),
        // One that is slow, because of a large file: the next begins at its end, and the next but one as ever.
        (&[0.1, 60.0, 0.1, 0.1], &[3.0, 3.0, 59.9, 3.0]),
        (&[5.0, 5.0, 5.0, 5.0], &[3.0, 6.0, 12.0, 15.0]),
        (&[10.0, 10.0, 10.0, 10.0, 10.0], &[3.0, 9.9, 12.0, 15.0, 15.0]),
    ];
    for (took, waited) in table {
        assert_eq!(written_without_pause(took).0, waited, "{took:?}");
    }
}

#[test]
fn what_was_written_five_seconds_ago_is_saved_while_passes_are_quick() {
    for seconds in [0.1, 0.5, 1.0, 1.2] {
        let (_, oldest) = written_without_pause(&[seconds; 30]);
        assert!(oldest <= f64::max(3.0, 3.0 * seconds) + seconds + 0.11, "{oldest} with passes of {seconds} s");
        assert!(oldest < 5.0, "{oldest} with passes of {seconds} s");
    }
}

#[test]
fn a_longest_wait_that_is_shorter_than_the_first_holds() {
    let timing = Timing { max_wait: Duration::from_secs(1), ..TIMING };
    assert_eq!(Lifecycle::new(timing, Duration::ZERO).wait, timing.max_wait);
    assert_eq!(Lifecycle::new(timing, Duration::ZERO).wait_after(Duration::from_secs(9)), timing.max_wait);
}

#[test]
fn what_changes_while_a_pass_runs_is_saved_by_the_next() {
    let mut life = Life::following();
    life.at(5.0, Event::Changed);
    assert_eq!(life.next().1, [pass(Cause::Change)]);
    assert_eq!(life.at(7.5, Event::Changed), [], "one at a time");
    assert_eq!(life.at(8.0, SAVED), []);
    assert_eq!(life.it.unsynced_since(), Some(Duration::from_secs_f64(7.5)), "not lost sight of");
    assert_eq!(life.next(), (9.5, vec![pass(Cause::Change)]));
}

#[test]
fn an_idle_directory_costs_one_look_an_interval_and_a_listing_every_ten_minutes() {
    let mut life = Life::following();
    let (mut looks, mut passes) = (0, 0);
    while life.now < Duration::from_secs(3600) {
        match life.next().1.as_slice() {
            [Action::Look] => {
                looks += 1;
                life.on(Event::Looked(Looked::Still));
            }
            [Action::Pass(Pass { cause: Cause::Rescan, .. })] => {
                passes += 1;
                life.on(SAVED);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(passes, 6);
    assert!(looks + 2 * passes <= 3600 / 30, "a pass asks twice: {looks} looks");
}

#[test]
fn without_a_watch_the_directory_is_listed_as_often_as_a_listing_is_cheap() {
    for (took, wait) in [(0.1, 3.0), (0.5, 5.0), (20.0, 30.0)] {
        let mut life = Life::following();
        assert_eq!(life.at(100.0, Event::Unwatched), [pass(Cause::Rescan)], "what was not told");
        assert_eq!(life.at(100.0 + took, SAVED), []);
        assert_eq!(life.next(), (100.0 + took + wait, vec![pass(Cause::Rescan)]), "{took} s");
    }
}

#[test]
fn a_watch_that_lost_something_is_followed_by_a_listing_at_once() {
    let mut life = Life::following();
    assert_eq!(life.at(5.0, Event::Overflowed), [pass(Cause::Rescan)]);
}

#[test]
fn a_store_that_is_down_for_hours_is_tried_every_interval_and_ends_nothing() {
    let mut life = Life::following();
    life.at(5.0, Event::Changed);
    assert_eq!(life.next(), (7.0, vec![pass(Cause::Change)]));
    let mut waits = Vec::new();
    for _ in 0..200 {
        let before = life.now;
        assert_eq!(life.on(Event::Passed(Passed::NotYet)), []);
        assert_eq!(life.next().1, [pass(Cause::Rescan)]);
        waits.push((life.now - before).as_secs());
    }
    assert_eq!(waits[..6], [1, 2, 4, 8, 16, 30]);
    assert!(waits[6..].iter().all(|wait| *wait == 30));
    assert_eq!(life.it.unsynced_since(), Some(Duration::from_secs(5)));
    assert_eq!(life.on(SAVED), []);
    assert_eq!(life.it.unsynced_since(), None);
}

#[test]
fn a_store_that_is_down_at_the_start_is_waited_for() {
    let mut life = Life::starting();
    for wait in [1, 2, 4, 8, 16, 30, 30] {
        let before = life.now;
        assert_eq!(life.on(Event::Began(Began::NotYet)), []);
        assert_eq!(life.next().1, [Action::Begin]);
        assert_eq!((life.now - before).as_secs(), wait);
    }
    assert_eq!(life.on(Event::Began(Began::Ready)), [pass(Cause::Rescan)]);
}

#[test]
fn a_head_that_moved_is_followed_by_a_pass() {
    let mut life = Life::following();
    assert_eq!(life.next().1, [Action::Look]);
    assert_eq!(life.on(Event::Looked(Looked::Moved)), [pass(Cause::Rescan)]);
}

#[test]
fn a_refused_tree_waits_for_a_change_or_a_person() {
    let mut life = Life::following();
    life.at(5.0, Event::Changed);
    life.next();
    assert_eq!(life.on(Event::Passed(Passed::Refused { kept: true })), []);
    assert_eq!(life.next().1, [Action::Look], "it is not made again and again");
    assert_eq!(life.on(Event::Looked(Looked::Moved)), [pass(Cause::Rescan)], "somebody promoted it");
}

#[test]
fn a_fenced_writer_makes_forks_ever_more_rarely_and_looks_no_more() {
    let mut life = Life::following();
    assert_eq!(life.next().1, [Action::Look]);
    life.on(Event::Looked(Looked::Moved));
    life.on(Event::Passed(Passed::Fenced));
    assert!(life.it.is_fenced());
    let mut waits = Vec::new();
    for _ in 0..10 {
        let before = life.now;
        life.on(Event::Changed);
        assert!(matches!(life.next().1.as_slice(), [Action::Pass(Pass { release: false, .. })]));
        waits.push((life.now - before).as_secs());
        life.on(Event::Passed(Passed::Fenced));
    }
    assert_eq!(waits[..7], [15, 30, 60, 120, 240, 480, 600]);
}

#[test]
fn maintenance_is_done_when_nothing_else_is() {
    let timing = Timing { maintain: Some(Duration::from_secs(86_400)), ..TIMING };
    let mut it = Lifecycle::new(timing, Duration::ZERO);
    it.on(Event::Tick, Duration::ZERO);
    it.on(Event::Began(Began::Ready), Duration::ZERO);
    it.on(SAVED, Duration::ZERO);
    let mut life = Life { it, now: Duration::ZERO };
    let mut actions = life.next().1;
    while actions != [Action::Maintain] {
        actions = match actions.as_slice() {
            [] => life.next().1,
            [Action::Look] => life.on(Event::Looked(Looked::Still)),
            _ => life.on(SAVED),
        };
    }
    let began = life.now.as_secs_f64();
    assert!((3600.0..3700.0).contains(&began), "{began}");
    life.on(Event::Changed);
    assert_eq!(life.next_within(100), None, "one job at a time");
    assert_eq!(life.on(Event::Terminate), [Action::Stop]);
    assert_eq!(life.on(Event::Maintained), [last(true, true)]);
}

fn events() -> impl Strategy<Value = Vec<(u16, u8)>> {
    // Most follow each other closely: a job is still running then.
    let pause = prop_oneof![3 => 0_u16..300, 1 => 0_u16..20_000];
    prop::collection::vec((pause, 0_u8..16), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever happens, in whatever order: one job at a time, no action after the end, an end only after SIGTERM and
    /// not much later than its deadline, no change that nobody saves, and a final snapshot that waits for nothing but the
    /// app and what runs.
    #[test]
    fn whatever_happens_every_job_is_alone_and_the_end_comes_when_it_should(events in events()) {
        let mut life = Life { it: Lifecycle::new(TIMING, Duration::ZERO), now: Duration::ZERO };
        let mut job: Option<Action> = None;
        let (mut ended, mut terminated) = (false, None);
        let (mut fenced, mut may_write) = (false, false);
        for (pause, kind) in events {
            // The shell wakes up when it was told to.
            let until = life.now + Duration::from_millis(pause.into());
            let mut happened = Vec::new();
            while let Some(wake) = life.it.wake_at().filter(|wake| *wake <= until && job.is_none()) {
                let before = life.now;
                life.now = life.now.max(wake);
                let actions = life.on(Event::Tick);
                if actions.is_empty() && life.now == before { break }
                if let Some(action) = actions.iter().find(|action| !matches!(action, Action::Stop | Action::End)) {
                    prop_assert!(job.is_none() && !ended);
                    job = Some(*action);
                }
                ended |= actions.contains(&Action::End);
            }
            life.now = until;
            happened.push(match (kind, job) {
                (0, _) => Event::Changed,
                (1, _) => Event::Overflowed,
                (2, _) => Event::Terminating,
                (3, _) => Event::Asked,
                (4, _) if pause % 3 == 0 => Event::Terminate,
                (5, _) => Event::AppMayWrite,
                (6, _) => Event::AppGone,
                (_, None) => Event::Tick,
                (7..=12, Some(Action::Begin)) => Event::Began(Began::Ready),
                (13, Some(Action::Begin)) => Event::Began(Began::Refused),
                (_, Some(Action::Begin)) => Event::Began(Began::NotYet),
                (7..=12, Some(Action::Look)) => Event::Looked(Looked::Still),
                (_, Some(Action::Look)) => Event::Looked(Looked::Moved),
                (7..=9, Some(Action::Pass(_))) => SAVED,
                (10, Some(Action::Pass(_))) => Event::Passed(Passed::Saved { complete: false }),
                (11, Some(Action::Pass(_))) => Event::Passed(Passed::Refused { kept: true }),
                (12, Some(Action::Pass(_))) => Event::Passed(Passed::Fenced),
                (13, Some(Action::Pass(_))) => Event::Passed(Passed::Stopped),
                (_, Some(_)) => Event::Passed(Passed::NotYet),
            });
            for event in happened {
                if matches!(event, Event::Began(_) | Event::Looked(_) | Event::Passed(_)) { job = None }
                if event == Event::Terminate { terminated.get_or_insert(life.now); }
                fenced |= event == Event::Passed(Passed::Fenced);
                may_write = (may_write || event == Event::AppMayWrite) && event != Event::AppGone;
                let actions = life.on(event);
                prop_assert!(!ended || actions.is_empty(), "after the end: {actions:?}");
                for action in actions {
                    match action {
                        Action::Stop => prop_assert!(terminated.is_some()),
                        Action::End => {
                            prop_assert!(terminated.is_some() && !ended);
                            ended = true;
                        }
                        other => {
                            prop_assert!(job.is_none(), "{job:?} runs, and {other:?} too");
                            job = Some(other);
                        }
                    }
                }
                prop_assert!(!fenced || !matches!(job, Some(Action::Look | Action::Maintain)));
            }
            let is_waiting = job.is_none() && !ended;
            prop_assert!(!is_waiting || life.it.wake_at().is_some(), "nobody would wake it: {:?}", life.it);
            if life.it.dirty.is_some() && is_waiting && life.it.is_ready() && !fenced && terminated.is_none() {
                let due = life.it.wake_at().expect("woken");
                prop_assert!(due <= life.now + TIMING.interval.max(TIMING.max_wait));
            }
            if terminated.is_some() && is_waiting && !may_write {
                let due = life.it.wake_at().expect("woken");
                prop_assert!(due <= life.now + FINAL_PAUSE, "the final snapshot waits until {due:?}: {:?}", life.it);
            }
        }
        if terminated.is_some() && !ended {
            // Nothing else happens, not even the end of the job that runs.
            let mut steps = 0;
            while !ended {
                steps += 1;
                prop_assert!(steps < 1000, "it does not end: {:?}", life.it);
                let wake = life.it.wake_at().expect("woken");
                life.now = life.now.max(wake);
                ended = life.on(Event::Tick).contains(&Action::End);
                if !ended && life.it.deadline().is_some_and(|deadline| life.now < deadline) {
                    let stopped = Event::Passed(Passed::NotYet);
                    ended = life.on(stopped).contains(&Action::End);
                }
            }
        }
    }
}
